"""Losses; plain functions of tensors."""

from indexnet.losses.matting import matting_loss

__all__ = ["matting_loss"]
