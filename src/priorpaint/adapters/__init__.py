"""Where people meet priorpaint from other libraries: one module each, imported by whoever uses that library."""
