"""JBU: joint bilateral upsampling with a learned range kernel, one stage of FeatUp."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import assemble, pad_around
from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half
from indexnet.resampling.pooling import ANY_POOLING, POOLED, GuidedStage, conv_weights


@register_resampling
class Jbu(GuidedStage):
    """Bicubic interpolation, then a joint bilateral filter over the encoder map, with a learned correction.

    The guide is the encoder map, (N, C, 2h, 2w); FeatUp's is the image. Kernels do not sum to 1: the correction is
    added after they are normalised.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, default C; any.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        radius: of the window at the high resolution: 2 radius + 1 pixels in each direction.
        embedding: width in which guide values are compared.

    Raises:
        UserError: unknown pooling, or values that are not positive integers.
    """

    info = OperatorInfo(
        name="jbu",
        title="Joint bilateral upsampling (FeatUp)",
        paper="S. Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution, ICLR 2024",
        equation=(
            "up(d)[p] = sum over the 7 x 7 neighbours q of p of (range[p, q] spatial[p - q] + correction) bicubic(d)[q]"
        ),
        learned=True,
        guided=True,
        downsampling=ANY_POOLING,
        parameters=f"81C + 5990 at the default options{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        radius: int = 3,
        embedding: int = 32,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_positive("radius", radius)
        self.check_positive("embedding", embedding)
        self.size, self.embedding = 2 * radius + 1, embedding
        taps = self.size**2
        self.embed = _perceptron(channels, embedding)
        self.correct = _perceptron(taps + channels, taps)
        self.temperature = nn.Parameter(torch.zeros(()))  # of its logarithm
        self.sigma = nn.Parameter(torch.ones(()))

    def kernels(self, guide: Tensor) -> Tensor:
        """Predict kernels, (N, size*size, 2h, 2w), of a guide (N, C, 2h, 2w)."""
        height, width = guide.shape[-2:]
        key = self.embed(guide)
        key = key.to(full_precision(key.dtype))
        around = pad_around(key, self.size // 2, "reflect")
        products = torch.stack(
            [
                (key * around[..., i : i + height, j : j + width]).sum(1)
                for i in range(self.size) for j in range(self.size)
            ],
            1,
        )  # fmt: skip
        places = torch.linspace(-1, 1, self.size, dtype=key.dtype, device=key.device)
        spatial = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * self.sigma.to(key.dtype) ** 2)).reshape(-1, 1, 1)
        temperature = torch.exp(self.temperature.to(key.dtype)).clamp(1e-4, 1e4)
        kernels = torch.softmax(temperature * products, 1) * spatial
        kernels = kernels / kernels.sum(1, keepdim=True).clamp(1e-7)
        correction: Tensor = self.correct(torch.cat([kernels.to(guide.dtype), guide], 1))
        return kernels + 0.1 * correction

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        smooth = F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False)
        return crop_to(assemble(smooth, self.kernels(guide).to(x.dtype), self.size, padding="reflect"), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions, all at the high resolution."""
        weights = 4 * conv_weights(self.embed, self.correct)
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        taps = 4 * self.size**2 * (self.embedding + self.decoder_channels)
        return taps * half(height) * half(width)


def _perceptron(channels: int, outputs: int) -> nn.Sequential:
    layers = (nn.Conv2d(channels, outputs, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(outputs, outputs, 1))
    return nn.Sequential(*layers)
