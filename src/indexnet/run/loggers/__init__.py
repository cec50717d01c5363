"""Loggers of a run: CSV and TensorBoard, and W&B where asked for."""
