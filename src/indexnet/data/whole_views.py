"""Whole photographs with labels as training samples, and batches of different sizes: how UperNet is trained.

Source: the public code of Zhou et al. for ADE20K ("CSAIL"), at the version that Y. Dai's thesis names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import default_collate

from indexnet.core.conventions import IGNORE, IMAGENET_MEAN, VIEW_LONGEST, VIEW_MULTIPLE, VIEW_SIDES
from indexnet.data.base import Sample, UInt8

PADDING_LABELS = {"ignore": IGNORE, "class0": 0}
"""What padded pixels are labelled: nothing, or the first class as in the public code (whose zeros are "wall")."""

_MEAN = torch.tensor(IMAGENET_MEAN)  # which normalisation makes 0


def whole_view(image: UInt8, label: UInt8, size: int, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
    """Mirror a photograph with its labels with probability 1/2, and bring it to a random short side.

    The short side is one of five around ``size``, 2/3 to 4/3 of it, the long one at most 20/9 of it; colours are
    averaged where they shrink, labels are those of the nearest pixels.

    Args:
        image: (H, W, 3) RGB.
        label: (H, W).
        size: the middle one of the short sides.
        rng: source of what is random.

    Returns:
        uint8 (h, w, 3) and (h, w).
    """
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    side = VIEW_SIDES[int(rng.integers(len(VIEW_SIDES)))] * size
    scale = min(side / min(label.shape), VIEW_LONGEST * size / max(label.shape))
    height, width = (max(1, int(length * scale + 1e-9)) for length in label.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    seen = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=how)
    kinds = cv2.resize(np.ascontiguousarray(label), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(seen, np.uint8), np.asarray(kinds, np.uint8)


def padded_batch(samples: Sequence[Sample], padding: int) -> dict[str, Any]:
    """Make a batch of samples of different sizes.

    All lie in the upper left of the largest height and width, rounded up to a multiple of 32; the rest has ImageNet's
    mean colour.

    Args:
        samples: ``image`` (3, h, w) in [0, 1], ``label`` (h, w), and ``name``.
        padding: the label of the rest.
    """
    sizes = torch.tensor([sample["image"].shape[1:] for sample in samples])  # type: ignore[union-attr]
    height, width = (
        (sizes.amax(0) + VIEW_MULTIPLE - 1).div(VIEW_MULTIPLE, rounding_mode="floor").mul(VIEW_MULTIPLE).tolist()
    )
    padded = []
    for sample, (rows, columns) in zip(samples, sizes.tolist(), strict=True):
        image = _MEAN[:, None, None].repeat(1, height, width)
        image[:, :rows, :columns] = sample["image"]  # type: ignore[assignment]
        label = F.pad(sample["label"], (0, width - columns, 0, height - rows), value=padding)  # type: ignore[arg-type]
        padded.append({**sample, "image": image, "label": label})
    return default_collate(padded)  # type: ignore[no-any-return]
