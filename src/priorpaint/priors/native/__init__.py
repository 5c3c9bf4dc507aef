"""priorpaint's own networks and their file format."""
