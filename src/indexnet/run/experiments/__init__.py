"""Experiments: what a table is, and the files that say so."""
