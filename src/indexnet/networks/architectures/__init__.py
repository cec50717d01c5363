"""Whole networks, one file each, found by name."""
