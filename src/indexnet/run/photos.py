"""What ``predict`` and the web page write."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32, UInt8
from indexnet.errors import UserError
from indexnet.networks.inference import to_uint8
from indexnet.tasks.matting import MattingTask


def finite_alpha(task: MattingTask, image: UInt8, trimap: UInt8, name: str) -> Float32:
    """Predict the alpha of a photograph, see :meth:`indexnet.tasks.matting.MattingTask.predict_alpha`.

    Raises:
        UserError: also where the network gives no numbers.
    """
    alpha = task.predict_alpha(image, trimap, name)
    if not np.isfinite(alpha).all():
        raise UserError(f"{name}: the network's output is not finite; its training diverged: use another one.")
    return alpha


def quantise_alpha(alpha: Float32, depth: Literal[8, 16]) -> UInt8 | npt.NDArray[np.uint16]:
    """Bring alpha in [0, 255] to what a PNG holds.

    Args:
        alpha: (H, W), as :meth:`indexnet.tasks.matting.MattingTask.predict_alpha` returns it.
        depth: 8: cut to whole levels, as the paper measures it; 16: rounded, 65535 is opaque.

    Returns:
        uint8 or uint16 (H, W).
    """
    return to_uint8(alpha) if depth == 8 else np.rint(np.clip(alpha, 0, 255) * np.float32(257)).astype(np.uint16)
