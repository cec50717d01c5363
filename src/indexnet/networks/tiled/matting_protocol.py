"""Matting inference by the released protocol: one image and its trimap to one alpha."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.core.machine import available_memory, release_memory
from indexnet.networks.base import Network
from indexnet.networks.imagenet import IMAGENET_MEAN, IMAGENET_STD, normalise
from indexnet.networks.layers import evaluating
from indexnet.networks.tiled.memory import forward_bytes, is_out_of_memory, room
from indexnet.networks.tiled.tiling import MARGIN, needs_whole_image, run_tiled, smallest_tile

Alignment = Literal["resize", "reflect"]
"""How an image gets sides that a network takes: resized, as released; or padded by reflection at bottom and right."""
ALIGNMENTS: tuple[Alignment, ...] = ("resize", "reflect")

_ALIGNMENT = 32  # of the released protocol, also at output stride 16
_ARRAYS = 24  # bytes per pixel of the arrays around the network
_AT_MOST = 16384  # bytes per pixel that no network here comes near


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


def side_multiple(network: nn.Module, alignment: Alignment = "resize") -> int:
    """Return what the sides of a network's input are multiples of: 32 at least where images are resized."""
    own: int = getattr(network, "size_multiple", 1)
    if alignment == "resize":
        return math.lcm(_ALIGNMENT, own)
    stages = getattr(getattr(network, "resampling", None), "stages", ())
    return math.lcm(own, 2 ** len(stages))


def aligned_input(
    image: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    multiple: int = _ALIGNMENT,
    scale: float = 1.0,
    alignment: Alignment = "resize",
) -> NDArray[np.float32]:
    """Normalise an image and its trimap at full size, then bring them to multiples of ``multiple``, rounding up.

    Another ``scale`` resizes them first, as the released code's demo of deep image matting does (by 0.5).

    RGB is resized bicubically after normalisation, the trimap by nearest neighbours; one channel after another, for the
    sake of large images. With ``reflect`` both are padded at bottom and right instead.

    Args:
        image: (H, W, 3), uint8.
        trimap: (H, W), uint8 in {0, 128, 255}.
        multiple: what height and width become multiples of.
        scale: of height and width before that; > 0.
        alignment: ``resize`` or ``reflect``.

    Returns:
        (4, H', W'), float32.
    """
    import cv2

    whole, (height, width) = trimap.shape, _scaled(trimap.shape, scale)
    size = (math.ceil(width / multiple) * multiple, math.ceil(height / multiple) * multiple)
    planes = np.empty((4, size[1], size[0]), np.float32)
    for channel, plane in enumerate(planes):
        values = (trimap if channel == 3 else image[..., channel]).astype(np.float32)
        values /= np.float32(255)
        if channel < 3:  # the same float32 operations as prepare_input
            values -= np.float32(IMAGENET_MEAN[channel])
            values /= np.float32(IMAGENET_STD[channel])
        method = cv2.INTER_CUBIC if channel < 3 else cv2.INTER_NEAREST
        if whole != (height, width):
            values = np.asarray(cv2.resize(values, (width, height), interpolation=method), np.float32)
        if alignment == "reflect":
            plane[...] = np.pad(values, ((0, size[1] - height), (0, size[0] - width)), mode="reflect")
        else:
            plane[...] = values if size == (width, height) else cv2.resize(values, size, interpolation=method)
    return planes


def _scaled(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Return height and width of an image at another scale, one pixel at least."""
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


@torch.no_grad()
def infer_alpha(
    network: Network,
    image: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    device: torch.device | str | None = None,
    memory: int | Literal["auto"] | None = None,
    tiled: Callable[[], None] | None = None,
    scale: float = 1.0,
    alignment: Alignment = "resize",
) -> NDArray[np.float32]:
    """Predict alpha by the protocol of the released matting code.

    Normalise, resize to multiples of 32, run the network in evaluation mode, resize back bicubically, clip, and take
    the trimap's word where it is not 128. Or, in the place of both resizings: pad bottom and right by reflection to
    multiples of the network's ``size_multiple``, and cut that off again, as A2U and GCA do.

    With a budget, an image that would take more is run in overlapping tiles (:mod:`indexnet.networks.tiled.tiling`);
    where the device has even less memory than it said, the tiles are halved until they fit.

    Args:
        network: a matting network of 4 input channels; its mode is restored afterwards.
        image: (H, W, 3), uint8, RGB.
        trimap: (H, W), uint8 in {0, 128, 255}; exactly 128 is unknown.
        device: where to run (the network is moved there); default where the network is.
        memory: bytes that this process may hold (on a GPU: there; else of the machine's memory), with what it holds
            already, in so far as the network decides it; ``"auto"``: what the device has free, less a fifth;
            None: whatever it takes. What the allocator keeps of freed memory is given back before it is counted.
        tiled: called once where the image runs in tiles.
        scale: of the image (bicubic) and the trimap (nearest) before all that; alpha comes back at full size.
        alignment: ``resize`` or ``reflect``.

    Returns:
        (H, W), float32 in [0, 255], before rounding (see :func:`to_uint8`); NaN where the network gives no number.

    Raises:
        UserError: shapes, dtypes or the network's input channels do not fit, or not even the smallest tile fits the
            budget.
    """
    import cv2

    _check(network, image, trimap)
    unknown = trimap == UNKNOWN
    if not unknown.any():
        return trimap.astype(np.float32)
    parameter = next(network.parameters())
    if device is not None:
        network.to(device)
    multiple = side_multiple(network, alignment)
    x = torch.from_numpy(aligned_input(image, trimap, multiple, scale, alignment)[None])
    inner, wanted = _scaled(trimap.shape, scale), unknown
    if alignment == "reflect":
        if inner != unknown.shape:
            wanted = cv2.resize(unknown.astype(np.uint8), inner[::-1], interpolation=cv2.INTER_NEAREST) > 0
        wanted = np.pad(wanted, ((0, x.shape[2] - inner[0]), (0, x.shape[3] - inner[1])))
    where = parameter.device if device is None else torch.device(device)
    with evaluating(network):
        alpha = _run(network, x, wanted, where, multiple, memory, tiled)
    del x
    height, width = trimap.shape
    if alignment == "reflect":
        alpha = alpha[: inner[0], : inner[1]]
    if alpha.shape != (height, width):
        alpha = np.asarray(cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    broken = ~np.isfinite(alpha)
    alpha = np.clip(alpha, 0.0, 1.0) * 255.0
    if broken.any():  # clipping makes infinity a number
        alpha[broken] = np.nan
    del broken
    return np.where(unknown, alpha, trimap).astype(np.float32)


def _run(
    network: Network,
    x: Tensor,
    unknown: NDArray[np.bool_],
    device: torch.device,
    multiple: int,
    memory: int | Literal["auto"] | None,
    tiled: Callable[[], None] | None,
) -> NDArray[np.float32]:
    """Run the network on (1, 4, H, W), whole or in tiles; (H, W), right at least where ``unknown`` needs it."""
    size = (x.shape[2], x.shape[3])
    pixels, free = math.prod(size), math.inf
    if memory is not None:
        free = room(device, memory)
        if device.type == "cpu" and (_AT_MOST + _ARRAYS) * pixels >= free:
            release_memory()  # else every image would find less room than the one before
            free = room(device, memory)
    budget = free - _ARRAYS * pixels
    # most images are far from any limit: no need to look closer
    fits = _AT_MOST * pixels < budget or forward_bytes(network, pixels) <= budget
    if not fits and needs_whole_image(network):
        if memory != "auto":
            raise UserError(
                f"this network looks at the whole image in its encoder's blocks, so {_amount(memory)} of memory "  # type: ignore[arg-type]
                "cannot be kept by tiles; give --memory none, a smaller image, or another encoder."
            )
        if device.type == "cpu" and (taken := forward_bytes(network, pixels)) > (left := available_memory()):
            raise UserError(_too_large(size, f" (about {_amount(taken)} by estimate, {_amount(left)} are free)"))
        fits = True
    if fits:
        try:
            dtype = next(network.parameters()).dtype
            return network(x.to(device=device, dtype=dtype))[0, 0].float().cpu().numpy()  # type: ignore[no-any-return]
        except Exception as error:
            if memory != "auto" or not is_out_of_memory(error):
                raise
            if needs_whole_image(network):
                raise UserError(_too_large(size)) from error
    assert memory is not None
    margin = math.ceil(getattr(network, "tile_margin", MARGIN) / multiple) * multiple
    smallest = smallest_tile(size, multiple, margin)
    wanted = _aligned_mask(unknown, size)
    fixed = forward_bytes(network, 0)
    largest = pixels // 2 if fits else int((budget - fixed) / (forward_bytes(network, 2**20) - fixed) * 2**20)
    if largest < smallest and memory != "auto":
        needed = memory - budget + forward_bytes(network, smallest)
        raise UserError(
            f"{_amount(memory)} of memory are too little for this image of {unknown.shape[1]}x{unknown.shape[0]} "
            f"pixels, even in the smallest tiles; give at least {math.ceil(needed / 1e8) / 10:.1f} GB, of which "
            f"{_amount(memory - free)} are what the program itself holds{' there' if device.type == 'cuda' else ''}, "
            "or auto."
        )
    if tiled is not None:
        tiled()
    while True:
        largest = max(largest, smallest)
        try:
            return run_tiled(network, x, wanted, largest, multiple, margin)
        except Exception as error:
            if largest == smallest or not is_out_of_memory(error):
                raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        largest //= 2


def _too_large(size: tuple[int, int], amounts: str = "") -> str:
    return (
        f"this image, {size[1]}x{size[0]} pixels for the network, needs more memory than there is{amounts}, and the "
        "network takes whole images only; give a smaller image or another device"
        f"{', or --memory none to try all the same' if amounts else ''}."
    )


def _amount(size: float) -> str:
    """Write a number of bytes as a person would give it."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _aligned_mask(unknown: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of the resized image the bicubic resizing back reads for the unknown, and some more."""
    import cv2

    mask = unknown.astype(np.uint8)
    if mask.shape != size:
        if shrinks := int(mask.shape[0] / size[0]):  # no pixel may fall between those that are kept
            mask = np.asarray(cv2.dilate(mask, np.ones((2 * shrinks + 1,) * 2, np.uint8)), np.uint8)
        mask = np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(cv2.dilate(mask, np.ones((7, 7), np.uint8)), bool)


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
