"""Options that more than one command takes."""

from __future__ import annotations

from typing import Annotated

import typer

# Beyond 1024 threads torch itself fails.
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, metavar="N", help="CPU threads; default: torch's choice.")
]
