"""Defaults that the command line tells before it reads any library."""

CROPS = 2048
"""Crops of 64x64 pixels that a prior learns of a picture, where nothing else is asked for."""
