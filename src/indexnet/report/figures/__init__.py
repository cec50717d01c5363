"""Figures of pages and files of their own: SVG without any library."""
