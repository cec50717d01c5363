"""Losses that are more than a line, as plain functions of tensors; the others stand in their tasks."""

from indexnet.losses.matting import matting_loss

__all__ = ["matting_loss"]
