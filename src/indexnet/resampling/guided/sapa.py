"""SAPA: kernels are similarities between an encoder value and the decoder values around it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.assembly import reassemble, sample, similarity
from indexnet.resampling.base import OperatorInfo, register_resampling
from indexnet.resampling.functional import crop_to, full_precision, half, in_format, is_channels_last
from indexnet.resampling.pooling import ANY_POOLING, POOLED, GuidedStage


class _Sapa(GuidedStage):
    """What all share: the guide is the encoder map, (N, C, 2h, 2w), and ``k_up`` the window of a softmax.

    Neighbours outside the map have similarity 0, keep their share of the softmax and count as zero.
    """

    def __init__(self, channels: int, decoder_channels: int | None, *, pooling: str, k_up: int) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_positive("k_up", k_up, odd=True)
        self.k_up = k_up

    def embed(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries (N, d, 2h, 2w) of the guide and keys (N, d, h, w) of the decoder map."""
        raise NotImplementedError

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        queries, keys = self.embed(x, guide)
        logits = similarity(queries, keys, self.k_up)
        kernels = torch.softmax(logits, 1, dtype=full_precision(logits.dtype)).to(x.dtype)
        return crop_to(reassemble(x, kernels, self.k_up), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the projections, as 1x1 convolutions; similarities and assembly are free by the rule."""
        weights = sum(factor * layer.weight.numel() for layer, factor in self._projections())
        return super().paper_macs(height, width) + weights * half(height) * half(width)

    def _projections(self) -> list[tuple[nn.Linear | nn.Conv2d, int]]:
        """The learned projections and how often each is used in a 2x2 cell."""
        return []

    def assembly_macs(self, height: int, width: int) -> int:
        """Of similarities and of the assembly."""
        return 8 * self.k_up**2 * self.decoder_channels * half(height) * half(width)


@register_resampling
class SapaI(_Sapa):
    """Pooling, then assembly with similarities of the maps themselves; no weights.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width, must equal C.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        k_up: size of the neighbourhood, odd.
        normalize: whether both maps are layer-normalised over channels, without weights, before they are compared;
            which form the paper's row has is not said.

    Raises:
        UserError: the widths differ, unknown pooling, or an even window.
    """

    info = OperatorInfo(
        name="sapa_i",
        title="SAPA-I",
        paper="H. Lu et al., SAPA: Similarity-Aware Point Affiliation for Feature Upsampling, NeurIPS 2022",
        equation="up(d)[p] = sum over the k_up x k_up neighbours q of p/2 of softmax_q(<x[p], d[q]>) d[q]",
        guided=True,
        equal_widths=True,
        downsampling=ANY_POOLING,
        parameters=f"0{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        k_up: int = 5,
        normalize: bool = False,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling, k_up=k_up)
        self.check_choice("normalize", normalize, (True, False))
        self.normalize = normalize
        self.require_equal_widths("give it the encoder's width, or choose 'sapa_b', which projects both.")

    def embed(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        if not self.normalize:
            return guide, x
        widths = (self.channels,)
        queries, keys = (F.layer_norm(each.movedim(1, -1), widths).movedim(3, 1) for each in (guide, x))
        return queries, keys


@register_resampling
class SapaB(_Sapa):
    """Pooling, then assembly with similarities of layer-normalised, projected maps.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; any.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        k_up: size of the neighbourhood, odd.
        embedding: width d of the projections; the papers' tables have 32, the released code's default is 64.

    Raises:
        UserError: unknown pooling, an even window, or values that are not positive integers.
    """

    info = dataclasses.replace(
        SapaI.info,
        name="sapa_b",
        title="SAPA-B",
        equation="as sapa_i with Linear(LayerNorm(x)) and Linear(LayerNorm(d)) compared",
        learned=True,
        equal_widths=False,
        parameters=f"34(C + D) + 64 at the default options{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        k_up: int = 5,
        embedding: int = 32,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling, k_up=k_up)
        self.check_positive("embedding", embedding)
        self.embedding = embedding
        self.norm_encoder = nn.LayerNorm(channels)
        self.norm_decoder = nn.LayerNorm(self.decoder_channels)
        self.query = _linear(channels, embedding)
        self.key = _linear(self.decoder_channels, embedding)

    def _normalised(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Return both maps normalised, channels last."""
        return self.norm_decoder(x.movedim(1, -1)), self.norm_encoder(guide.movedim(1, -1))

    def embed(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        decoder, encoder = self._normalised(x, guide)
        return self.query(encoder).movedim(3, 1), self.key(decoder).movedim(3, 1)

    def _projections(self) -> list[tuple[nn.Linear | nn.Conv2d, int]]:
        return [(self.query, 4), (self.key, 1)]

    def assembly_macs(self, height: int, width: int) -> int:
        taps = 4 * self.k_up**2 * (self.embedding + self.decoder_channels)
        return taps * half(height) * half(width)


@register_resampling
class SapaG(SapaB):
    """SAPA-B with queries that a gate mixes from the encoder map and the decoder map.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; any.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        k_up: size of the neighbourhood, odd.
        embedding: width d of the projections.

    Raises:
        UserError: unknown pooling, an even window, or values that are not positive integers.
    """

    info = dataclasses.replace(
        SapaB.info,
        name="sapa_g",
        title="SAPA-G",
        equation="as sapa_b with queries g Linear(LayerNorm(x)) + (1 - g) Linear(d), g = sigmoid(Linear(LayerNorm(d)))",
        parameters=f"34C + 67D + 97 at the default options{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        k_up: int = 5,
        embedding: int = 32,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling, k_up=k_up, embedding=embedding)
        self.gate = _linear(self.decoder_channels, 1)
        self.query_decoder = _linear(self.decoder_channels, embedding)

    def embed(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        decoder, encoder = self._normalised(x, guide)
        # what is repeated over a cell is projected before it is repeated
        gate, mixed = (
            F.interpolate(each.movedim(3, 1), scale_factor=2.0, mode="nearest")
            for each in (torch.sigmoid(self.gate(decoder)), self.query_decoder(x.movedim(1, -1)))
        )
        queries = gate * self.query(encoder).movedim(3, 1) + (1 - gate) * mixed
        return queries, self.key(decoder).movedim(3, 1)

    def _projections(self) -> list[tuple[nn.Linear | nn.Conv2d, int]]:
        return [*super()._projections(), (self.gate, 1), (self.query_decoder, 1)]


@register_resampling
class SapaD(_Sapa):
    """Assembly of samples at learned places, weighted with their similarity to the encoder value.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width D, default C; a multiple of ``groups``.
        pooling: see :class:`indexnet.resampling.pooling.PooledStage`.
        points: samples of each output value.
        groups: of channels, each with places and weights of its own.
        embedding: width of the compared projections of each group.
        low_resolution: whether the four values of a cell share their places.

    Raises:
        UserError: unknown pooling, groups that do not divide the width, or values that are not positive integers.
    """

    info = dataclasses.replace(
        SapaI.info,
        name="sapa_d",
        title="SAPA-D",
        paper="H. Lu et al., On Point Affiliation in Feature Upsampling, 2023",
        equation=(
            "up(d)[p] = sum over places q of softmax_q(<conv1x1(x)[p], conv1x1(d)[q]>) d[q], q = p/2 + conv1x1(d)[p]"
        ),
        learned=True,
        equal_widths=False,
        parameters=f"128C + 416D + 544 at the default options{POOLED}",
    )

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = "max",
        points: int = 9,
        groups: int = 4,
        embedding: int = 32,
        low_resolution: bool = False,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling, k_up=1)
        for option, value in (("points", points), ("groups", groups), ("embedding", embedding)):
            self.check_positive(option, value)
        self.check_choice("low_resolution", low_resolution, (True, False))
        self.check_divides("groups", groups)
        self.points, self.groups, self.embedding, self.low_resolution = points, groups, embedding, low_resolution
        self.query = nn.Conv2d(channels, groups * embedding, 1)
        self.key = nn.Conv2d(self.decoder_channels, groups * embedding, 1)
        self.offset = nn.Conv2d(self.decoder_channels, (2 if low_resolution else 8) * groups * points, 1)
        for layer in (self.query, self.key, self.offset):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x)
        n, _, h, w = x.shape
        g, p = self.groups, self.points
        offset = self.offset(x)
        offset = F.interpolate(offset, scale_factor=2.0) if self.low_resolution else F.pixel_shuffle(offset, 2)
        offset = offset.reshape(n, g, p, 2, 2 * h, 2 * w).to(full_precision(x.dtype))
        rows = torch.arange(2 * h, device=x.device).div(2, rounding_mode="floor")[:, None] + offset[:, :, :, 1]
        columns = torch.arange(2 * w, device=x.device).div(2, rounding_mode="floor") + offset[:, :, :, 0]
        queries, keys = self.query(guide), self.key(x)
        places = [(rows[:, :, tap], columns[:, :, tap]) for tap in range(p)]
        logits = torch.stack(
            [
                (queries * sample(keys, *place, padding="zeros")).unflatten(1, (g, -1)).sum(2, dtype=rows.dtype)
                for place in places
            ],
            2,
        )
        weights = torch.softmax(logits, 2).to(x.dtype)
        out = sum(
            weights[:, :, tap, None] * sample(x, *place, padding="zeros").unflatten(1, (g, -1))
            for tap, place in enumerate(places)
        )
        assert isinstance(out, Tensor)
        return crop_to(in_format(out.flatten(1, 2), is_channels_last(x)), size)

    def _projections(self) -> list[tuple[nn.Linear | nn.Conv2d, int]]:
        return [(self.query, 4), (self.key, 1), (self.offset, 1)]

    def assembly_macs(self, height: int, width: int) -> int:
        taps = 4 * self.points * (self.groups * self.embedding + self.decoder_channels)
        return taps * half(height) * half(width)


def _linear(channels: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(channels, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
