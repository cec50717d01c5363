"""Numbers that become tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor) -> Tensor:
    """Return numbers as a tensor of another's dtype and device.

    As ``like.new_tensor``, which waits until a GPU has done all that it was given before.

    Args:
        values: a number, or lists of them.
        like: any tensor.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
