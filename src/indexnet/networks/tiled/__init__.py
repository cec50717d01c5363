"""Prediction of images larger than memory: tiles, budgets, and matting's protocol of alignment."""
