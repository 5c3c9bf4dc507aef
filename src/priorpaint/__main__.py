"""``python -m priorpaint`` is ``priorpaint``."""

from priorpaint.cli import main

main()
