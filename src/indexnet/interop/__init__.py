"""Checkpoints of other programs: the released matting code's become networks of this package."""

from indexnet.interop.released import NOTICE, convert, from_released, recognise_released

__all__ = ["NOTICE", "convert", "from_released", "recognise_released"]
