"""Network architectures of published checkpoints, rebuilt with torch alone."""
