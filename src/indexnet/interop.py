"""Checkpoints of other programs: the released matting code's become networks of this package."""

from indexnet.networks.released_checkpoints import NOTICE, convert, from_released, recognise_released

__all__ = ["NOTICE", "convert", "from_released", "recognise_released"]
