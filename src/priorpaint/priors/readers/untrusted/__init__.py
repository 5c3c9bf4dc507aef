"""Restricted reading of files from strangers: nothing in them is run. It knows no checkpoint format."""
