"""Checkpoints of other programs: what was released elsewhere becomes a network of this package."""

from indexnet.networks.released.convert import convert, from_released, recognise_released
from indexnet.networks.released.indexnet_matting import NOTICE

__all__ = ["NOTICE", "convert", "from_released", "recognise_released"]
