"""FreqFusion: low-pass kernels for the decoder map, high-pass ones for the skip, and resampling where they disagree."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.constants import constant
from indexnet.resampling.assembly import assemble, pad_around, reassemble, sample
from indexnet.resampling.base import Kept, OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half, pad_to_even
from indexnet.resampling.pooling import ANY_POOLING, POOLED, GuidedStage

_WINDOWS = {3: (0.08, 1.0, 0.08), 5: (0.08, 0.54, 1.0, 0.54, 0.08)}


@register_resampling
class FreqFusion(GuidedStage):
    """Frequency-aware fusion: the decoder map is smoothed where classes agree, the skip sharpened at their borders.

    The guide is the encoder map, (N, C, 2h, 2w). A decoder that fuses skips gets a sharpened one.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; a multiple of ``groups`` where it is resampled.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        compressed: width m that both maps are compressed to; a multiple of 8 with ``resample_norm``.
        resample: whether the result is sampled anew at learned places (offset generator).
        resample_norm: whether what predicts the places is group-normalised.
        hamming: whether kernels are weighted with a Hamming window.
        sharpen_skip: whether the skip gets its high frequencies twice.
        groups: of channels, each with places of its own.
        init: ``intended``: kernels and places start near a smooth x2; ``released``: as the released constructor leaves
            them, with places that start nearly a pixel away.

    Raises:
        UserError: an unknown value, or a width that does not fit.
    """

    info = OperatorInfo(
        name="freqfusion",
        title="FreqFusion",
        paper="L. Chen et al., Frequency-Aware Feature Fusion for Dense Image Prediction, TPAMI 2024",
        equation=(
            "up(d)[p] = sum over the 5 x 5 neighbours q of p/2 of softmax_q(A x + A d)[p, q] d[q], resampled at "
            "learned places; skip = 2x - 3 x 3 low-pass of x"
        ),
        learned=True,
        guided=True,
        downsampling=ANY_POOLING,
        parameters=("m(C + D) + 308m + 34, with resample + 180g(m + 8) + 20g, with its norm + 4m; g groups" + POOLED),
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        compressed: int = 64,
        resample: bool = True,
        resample_norm: bool = True,
        hamming: bool = True,
        sharpen_skip: bool = True,
        groups: int = 4,
        init: str = "intended",
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_positive("compressed", compressed)
        self.check_positive("groups", groups)
        self.check_choice("init", init, ("intended", "released"))
        for option, value in (
            ("resample", resample), ("resample_norm", resample_norm), ("hamming", hamming),
            ("sharpen_skip", sharpen_skip),
        ):  # fmt: skip
            self.check_choice(option, value, (True, False))
        self.compressed, self.hamming, self.sharpen_skip = compressed, hamming, sharpen_skip
        self.compress_encoder = nn.Conv2d(channels, compressed, 1)
        self.compress_decoder = nn.Conv2d(self.decoder_channels, compressed, 1)
        self.low_pass = nn.Conv2d(compressed, 25, 3, padding=1)
        self.high_pass = nn.Conv2d(compressed, 9, 3, padding=1)
        self.sampler: _Sampler | None = None
        if resample:
            self.check_divides("groups", groups)
            if resample_norm and compressed % 8:
                self.refuse(f"compressed={compressed} must be a multiple of 8 where resample_norm is true")
            self.sampler = _Sampler(compressed, groups, resample_norm)
        self._initialise(init)

    def _initialise(self, init: str) -> None:
        near_zero = [self.low_pass, self.high_pass]
        zero: list[nn.Module] = []
        if self.sampler is not None and init == "intended":
            near_zero += [self.sampler.offset, self.sampler.offset_encoder]
            zero += [self.sampler.scope, self.sampler.scope_encoder]
        for layer in self.own_convolutions():
            if layer in zero:
                nn.init.zeros_(layer.weight)
            elif layer in near_zero:
                nn.init.normal_(layer.weight, std=1e-3)
            else:
                nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def _kernels(self, logits: Tensor, k: int) -> Tensor:
        kernels = torch.softmax(logits, 1, dtype=full_precision(logits.dtype))
        if self.hamming:
            row = constant(_WINDOWS[k], kernels)
            kernels = kernels * torch.outer(row, row).reshape(-1, 1, 1)
            kernels = kernels / kernels.sum(1, keepdim=True)
        return kernels.to(logits.dtype)

    def _low_pass(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the 5 x 5 kernels, the high-pass logits of the guide, and both maps compressed."""
        encoder, decoder = self.compress_encoder(guide), self.compress_decoder(x)
        high = self.high_pass(encoder)
        encoder = 2 * encoder - assemble(encoder, self._kernels(high, 3), 3)
        low = self.low_pass(encoder)
        # the logits of the low resolution are themselves assembled, not interpolated
        low = low + reassemble(self.low_pass(decoder), self._kernels(low, 5), 5)
        return self._kernels(low, 5).to(x.dtype), high, encoder, decoder

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        kernels, _, encoder, decoder = self._low_pass(x, guide)
        return self._finish(reassemble(x, kernels, 5), encoder, decoder, size)

    def _finish(self, up: Tensor, encoder: Tensor, decoder: Tensor, size: tuple[int, int]) -> Tensor:
        return crop_to(up if self.sampler is None else self.sampler(up, encoder, decoder), size)

    def up_and_skip(self, x: Tensor, down: Kept) -> tuple[Tensor, Tensor]:
        """Double a decoder map and sharpen its skip, see :meth:`ResamplingStage.up_and_skip`."""
        if not self.sharpen_skip:
            return super().up_and_skip(x, down)
        kernels, high, encoder, decoder = self._low_pass(x, self.checked_guide(down.guide, x))
        high = high + reassemble(self.high_pass(decoder), kernels.to(high.dtype), 5)
        even = pad_to_even(down.skip)
        skip = 2 * even - assemble(even, self._kernels(high, 3).to(even.dtype), 3)
        return self._finish(reassemble(x, kernels, 5), encoder, decoder, down.size), crop_to(skip, down.size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the convolutions, as in a decoder that fuses the skip."""
        weights = 4 * self.compress_encoder.weight.numel() + self.compress_decoder.weight.numel()
        weights += 5 * self.low_pass.weight.numel()
        weights += (5 if self.sharpen_skip else 4) * self.high_pass.weight.numel()
        if self.sampler is not None:
            weights += self.sampler.offset.weight.numel() + self.sampler.scope.weight.numel()
            weights += 4 * (self.sampler.offset_encoder.weight.numel() + self.sampler.scope_encoder.weight.numel())
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def assembly_macs(self, height: int, width: int) -> int:
        taps = 100 * (self.decoder_channels + 25) + 36 * self.compressed
        taps += 36 * self.channels + 900 if self.sharpen_skip else 0
        return taps * half(height) * half(width)


class _Sampler(nn.Module):
    """Samples a doubled map anew, at places that both compressed maps and their local similarities predict."""

    def __init__(self, width: int, groups: int, norm: bool) -> None:
        super().__init__()
        self.groups = groups
        self.offset, self.scope = (nn.Conv2d(width + 8, 8 * groups, 3, padding=1) for _ in range(2))
        self.offset_encoder, self.scope_encoder = (nn.Conv2d(width + 8, 2 * groups, 3, padding=1) for _ in range(2))
        self.norm_encoder, self.norm_decoder = (
            nn.GroupNorm(width // 8, width) if norm else nn.Identity() for _ in range(2)
        )

    def forward(self, up: Tensor, encoder: Tensor, decoder: Tensor) -> Tensor:
        low, high = (
            torch.cat([each, _neighbour_similarity(each)], 1)
            for each in (self.norm_decoder(decoder), self.norm_encoder(encoder))
        )
        moved = F.pixel_shuffle(self.offset(low), 2) + self.offset_encoder(high)
        moved = moved * torch.sigmoid(F.pixel_shuffle(self.scope(low), 2) + self.scope_encoder(high))
        # offsets are in pixels of the low resolution, columns first
        columns, rows = (2 * moved.to(full_precision(up.dtype))).unflatten(1, (2, self.groups)).unbind(1)
        height, width = up.shape[-2:]
        rows = torch.arange(height, device=up.device)[:, None] + rows
        return sample(up, rows, torch.arange(width, device=up.device) + columns)


def _neighbour_similarity(x: Tensor) -> Tensor:
    """Return the cosine similarities of each value to its 8 neighbours two pixels away, (N, 8, H, W); 0 outside."""
    height, width = x.shape[-2:]
    unit = F.normalize(x.to(full_precision(x.dtype)), dim=1, eps=1e-8)
    around = pad_around(unit, 2, "zeros")
    offsets = [(i, j) for i in (0, 2, 4) for j in (0, 2, 4) if (i, j) != (2, 2)]
    return torch.stack([(unit * around[..., i : i + height, j : j + width]).sum(1) for i, j in offsets], 1).to(x.dtype)
