"""Many independent items, one store: what is finished is never computed again, and one failure stops nothing else."""

from __future__ import annotations

from .runner import Event, Item, Outcome, run_all
from .store import Store, content_key

__all__ = ["Event", "Item", "Outcome", "Store", "content_key", "run_all"]
