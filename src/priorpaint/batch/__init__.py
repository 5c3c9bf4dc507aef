"""Many independent items, one store: what is finished is never computed again, and one failure stops nothing else."""

from __future__ import annotations

from .processes import Processes
from .runner import Event, Inline, Item, Outcome, run_all
from .store import Store, content_key

__all__ = ["Event", "Inline", "Item", "Outcome", "Processes", "Store", "content_key", "run_all"]
