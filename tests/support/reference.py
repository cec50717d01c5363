"""Literal forms of an operator and of the papers' count of multiply-adds, slow on purpose."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def literal_reassembly(x: Tensor, kernels: Tensor, k: int, groups: int, scale: int) -> Tensor:
    """CARAFE's reassembly, one output value and one tap at a time."""
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, scale * h, scale * w)
    for i, channel, row, column in product(range(n), range(c), range(scale * h), range(scale * w)):
        group = channel // (c // groups)
        for tap in range(k * k):
            y = row // scale + tap // k - k // 2
            z = column // scale + tap % k - k // 2
            if 0 <= y < h and 0 <= z < w:
                out[i, channel, row, column] += kernels[i, group * k * k + tap, row, column] * x[i, channel, y, z]
    return out


class _Counter(TorchFunctionMode):
    total = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        out = function(*arguments, **(options or {}))
        if function in (F.conv2d, torch.conv2d, F.conv_transpose2d, torch.conv_transpose2d, F.linear):
            weight = arguments[1]
            positions = out.shape[2] * out.shape[3] if weight.ndim == 4 else out[0, ..., 0].numel()
            self.total += weight.numel() * positions if weight.requires_grad else 0
        return out


def literal_macs(network: nn.Module, x: Tensor) -> int:
    """The papers' count of multiply-adds: learned weights times output positions, for each convolution that runs."""
    with _Counter() as counter:
        network(x)
    return counter.total
