"""What measures and teaches, not what paints: certification, exact test worlds, theory, and their weights."""
