"""Training pipelines of matting: what becomes of a foreground, its matte and a background, by name."""
