"""The papers' literal form of an index stage: four columns in sequence, full-resolution maps, separate pooling.

Slow and large on purpose; the shipped form is checked, and timed, against it. Names are those of the released code.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

PAIRS = ("sigmoid+softmax/sigmoid", "sigmoid/sigmoid", "softmax/softmax", "softmax+sigmoid/sigmoid")


class LiteralStage(nn.Module):
    """One stage of index networks; ``family`` and the switches as in ``indexnet.resampling``."""

    def __init__(self, channels, family, nonlinear, context, expansion=2, normalization=PAIRS[0], skip="indexed"):
        super().__init__()
        self.family, self.normalization, self.skip = family, normalization, skip
        self.shared = family in ("o2o_modelwise", "o2o_shared")
        kernel, padding = (4, 1) if context else (2, 0)
        width = 1 if self.shared else channels
        groups = width if family.startswith("o2o") else 1
        if family == "hin":
            self.indexnet = self._column(channels, 4, 2 * channels, kernel, padding, 1, nonlinear, bare=True)
        else:
            for column in (1, 2, 3, 4):
                network = self._column(width, width, expansion * width, kernel, padding, groups, nonlinear)
                setattr(self, f"indexnet{column}", network)

    @staticmethod
    def _column(inputs, outputs, hidden, kernel, padding, groups, nonlinear, bare=False):
        if not nonlinear:
            layer = nn.Conv2d(inputs, outputs, kernel, 2, padding, groups=groups, bias=False)
            return layer if bare else nn.Sequential(layer)
        return nn.Sequential(
            nn.Conv2d(inputs, hidden, kernel, 2, padding, groups=groups, bias=False),
            nn.BatchNorm2d(hidden, eps=1e-5, momentum=0.1),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, outputs, 1, groups=groups, bias=False),
        )

    def _maps(self, logits: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Encoder and decoder maps of logits whose four positions lie along ``dim``."""
        encoder, decoder = self.normalization.split("/")
        results = []
        for functions in (encoder, decoder):
            out = logits
            for function in functions.split("+"):
                out = torch.sigmoid(out) if function == "sigmoid" else F.softmax(out, dim=dim)
            results.append(out)
        return results[0], results[1]

    def index_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder and decoder index maps at full resolution, (N, C or 1, H, W)."""
        n, c, height, width = x.shape
        if self.family == "hin":
            encoder, decoder = self._maps(self.indexnet(x), 1)
            return F.pixel_shuffle(encoder, 2), F.pixel_shuffle(decoder, 2)
        if self.shared:
            x = x.reshape(n * c, 1, height, width)
        columns = [getattr(self, f"indexnet{column}")(x).unsqueeze(2) for column in (1, 2, 3, 4)]
        encoder, decoder = self._maps(torch.cat(columns, 2), 2)
        shape = (encoder.shape[0], 4 * encoder.shape[1], *encoder.shape[-2:])
        encoder, decoder = (F.pixel_shuffle(m.reshape(shape), 2) for m in (encoder, decoder))
        return encoder.reshape(n, c, height, width), decoder.reshape(n, c, height, width)

    def forward(self, x: Tensor, to_decoder=lambda features: features) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled map, skip, and the upsampled decoder map ``to_decoder(pooled)``."""
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        encoder, decoder = self.index_maps(padded)
        weighted = encoder * padded
        pooled = 4 * F.avg_pool2d(weighted, 2, 2)
        enlarged = F.interpolate(to_decoder(pooled), size=padded.shape[2:], mode="nearest")
        upsampled = decoder * enlarged
        skip = weighted if self.skip == "indexed" else padded
        return pooled, skip[..., :height, :width], upsampled[..., :height, :width]


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
