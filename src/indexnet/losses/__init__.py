"""Losses; plain functions of tensors."""

from indexnet.losses.image import image_loss
from indexnet.losses.matting import matting_loss, unknown_mask

__all__ = ["image_loss", "matting_loss", "unknown_mask"]
