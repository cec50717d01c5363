"""Matting inference by the released protocol: one image and its trimap to one alpha."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexnet.errors import UserError
from indexnet.networks.base import Network
from indexnet.ops import UNKNOWN

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ALIGNMENT = 32  # of the released protocol, also at output stride 16


def normalise(image: Tensor) -> Tensor:
    """Normalise RGB images (N, 3, H, W), float in [0, 1], by ImageNet's mean and deviation."""
    mean = image.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = image.new_tensor(IMAGENET_STD)[:, None, None]
    return (image - mean) / std


def prepare_input(image: Tensor, trimap: Tensor) -> Tensor:
    """Normalise an RGB image by ImageNet's mean and deviation and append the trimap as it is.

    Args:
        image: (N, 3, H, W), float in [0, 1].
        trimap: (N, 1, H, W), float in [0, 1]: 0, 128/255 or 1.

    Returns:
        (N, 4, H, W), same dtype as ``image``.
    """
    return torch.cat([normalise(image), trimap.to(image.dtype)], dim=1)


def _check(network: nn.Module, image: NDArray[np.uint8], trimap: NDArray[np.uint8]) -> None:
    if getattr(network, "in_channels", 4) != 4:
        raise UserError("matting inference needs a network of 4 input channels (RGB and trimap).")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"the image must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}.")
    if trimap.dtype != np.uint8 or trimap.ndim != 2:
        raise UserError(f"the trimap must be uint8 of shape (H, W), got {trimap.dtype} of shape {trimap.shape}.")
    if image.shape[:2] != trimap.shape:
        raise UserError(
            f"the image is {image.shape[1]}x{image.shape[0]} and its trimap {trimap.shape[1]}x{trimap.shape[0]} "
            f"pixels; they must have the same size."
        )


def aligned_input(
    image: NDArray[np.uint8], trimap: NDArray[np.uint8], multiple: int = _ALIGNMENT
) -> NDArray[np.float32]:
    """Normalise an image and its trimap at full size, then resize them to multiples of ``multiple``, rounding up.

    RGB is resized bicubically after normalisation, the trimap by nearest neighbours.

    Args:
        image: (H, W, 3), uint8.
        trimap: (H, W), uint8 in {0, 128, 255}.
        multiple: what height and width become multiples of.

    Returns:
        (H', W', 4), float32.
    """
    import cv2

    height, width = trimap.shape
    size = (math.ceil(width / multiple) * multiple, math.ceil(height / multiple) * multiple)
    # the same float32 operations as prepare_input
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    rgb: NDArray[Any] = (image.astype(np.float32) / np.float32(255) - mean) / std
    fourth: NDArray[Any] = trimap.astype(np.float32) / np.float32(255)
    if size != (width, height):
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
        fourth = cv2.resize(fourth, size, interpolation=cv2.INTER_NEAREST)
    return np.concatenate([rgb, fourth[..., None]], axis=2, dtype=np.float32)


@torch.no_grad()
def infer_alpha(
    network: Network,
    image: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    device: torch.device | str | None = None,
    memory: int | Literal["auto"] | None = None,
) -> NDArray[np.float32]:
    """Predict alpha by the protocol of the released matting code.

    Normalise, resize to multiples of 32, run the network in evaluation mode, resize back bicubically, clip, and take
    the trimap's word where it is not 128.

    Args:
        network: a matting network of 4 input channels; its mode is restored afterwards.
        image: (H, W, 3), uint8, RGB.
        trimap: (H, W), uint8 in {0, 128, 255}; exactly 128 is unknown.
        device: where to run (the network is moved there); default where the network is.
        memory: bytes that the prediction may take; ``"auto"``: what the device has free; None: whatever it takes.

    Returns:
        (H, W), float32 in [0, 255], before rounding (see :func:`to_uint8`).

    Raises:
        UserError: shapes, dtypes or the network's input channels do not fit.
    """
    import cv2

    _check(network, image, trimap)
    unknown = trimap == UNKNOWN
    if not unknown.any():
        return trimap.astype(np.float32)
    parameter = next(network.parameters())
    if device is not None:
        network.to(device)
    multiple = math.lcm(_ALIGNMENT, getattr(network, "size_multiple", 1))
    array = aligned_input(image, trimap, multiple)
    x = torch.from_numpy(array.transpose(2, 0, 1)[None].copy())
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        output = network(x.to(device=parameter.device if device is None else device, dtype=parameter.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode
    alpha = output[0, 0].float().cpu().numpy()
    height, width = trimap.shape
    if alpha.shape != (height, width):
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = np.clip(alpha, 0.0, 1.0) * 255.0
    return np.where(unknown, alpha, trimap).astype(np.float32)


def to_uint8(alpha: NDArray[np.float32], rounding: Literal["truncate", "nearest"] = "truncate") -> NDArray[np.uint8]:
    """Quantise alpha in [0, 255] to uint8.

    Args:
        alpha: float in [0, 255], any shape.
        rounding: ``truncate`` (the released code, and so the printed numbers) or ``nearest``.

    Raises:
        UserError: another rounding.
    """
    if rounding not in ("truncate", "nearest"):
        raise UserError(f"rounding of alpha is 'truncate' or 'nearest', got {rounding!r}.")
    clipped = np.clip(alpha, 0.0, 255.0)
    return (clipped if rounding == "truncate" else np.rint(clipped)).astype(np.uint8)
