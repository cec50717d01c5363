"""Foreground colours from a photograph and its matte."""

from __future__ import annotations

import numpy as np

from indexnet.data.base import Float32, UInt8
from indexnet.errors import UserError


def estimate_foreground(image: UInt8, alpha: Float32) -> UInt8:
    """Estimate the colours of what a matte cuts out, by multi-level optimisation (Germer et al., ICPR 2020).

    Colours exist at every pixel, also where alpha is 0, so that nothing of the old background bleeds into a composite.

    Args:
        image: (H, W, 3), uint8, RGB.
        alpha: (H, W), float32 in [0, 1].

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: pymatting is not installed.
    """
    try:
        from pymatting import estimate_foreground_ml
    except ImportError as error:
        raise UserError(
            "foreground colours are estimated by pymatting, which is not installed; "
            "install it with: pip install 'indexnet[matting]'."
        ) from error
    estimated = estimate_foreground_ml(image.astype(np.float64) / 255, alpha.astype(np.float64))
    return np.asarray(np.rint(np.clip(estimated, 0, 1) * 255), np.uint8)
