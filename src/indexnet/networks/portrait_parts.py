"""Parts of portrait matting: decoders to a trimap's three classes and to alpha, soft trimaps, feature modulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from indexnet.core.conventions import TRIMAP_CLASSES
from indexnet.networks.encoders.encoder import Encoder
from indexnet.networks.layers import (
    ASPP,
    ASPP_RATES,
    Head,
    check_batch,
    conv_bn,
    initialize_weights,
    pyramid_means,
    resize_to,
)
from indexnet.resampling.base import Downsampled, ResamplingStage

Prior = Literal["soft1", "soft3", "hard"]
Fusion = Literal["add", "multiply", "concat"]
Stage = Callable[[int], ResamplingStage]

_CLASSES = len(TRIMAP_CLASSES)
_WIDTH = 256
_LOW_WIDTH = 48  # of the encoder map that the decoder of DeepLabv3+ meets again


def trimap_prior(logits: Tensor, prior: Prior) -> Tensor:
    """Make a soft trimap of scores for foreground, background and unknown.

    Args:
        logits: (N, 3, H, W).
        prior: ``soft1``: P(foreground) + P(unknown) / 2 by the softmax; ``soft3``: the three probabilities; ``hard``:
            1, 0 or 1/2 by the largest score, without a gradient.

    Returns:
        (N, 1 or 3, H, W) in [0, 1].
    """
    if prior == "soft3":
        return logits.softmax(1)
    if prior == "hard":
        largest = logits.argmax(1, keepdim=True)
        return (largest == 0).to(logits.dtype) + (largest == 2).to(logits.dtype) / 2
    probabilities = logits.softmax(1)
    return probabilities[:, :1] + probabilities[:, 2:] / 2


class DeepLabDecoder(nn.Module):
    """Trimap scores at a quarter of the resolution: ASPP, and one encoder map met again (Chen et al., ECCV 2018).

    Args:
        deep_channels: channels of the encoder's last map.
        low_channels: channels of its map at a quarter of the resolution.
    """

    def __init__(self, deep_channels: int, low_channels: int) -> None:
        super().__init__()
        self.context = ASPP(deep_channels, _WIDTH, ASPP_RATES[16], activation=nn.ReLU, separable=False)
        self.low = conv_bn(low_channels, _LOW_WIDTH, activation=nn.ReLU)
        self.decoder = nn.Sequential(
            *conv_bn(_WIDTH + _LOW_WIDTH, _WIDTH, 3, activation=nn.ReLU),
            nn.Dropout(0.5),
            *conv_bn(_WIDTH, _WIDTH, 3, activation=nn.ReLU),
            nn.Dropout(0.1),
        )
        self.classify = nn.Conv2d(_WIDTH, _CLASSES, 1)

    def forward(self, deep: Tensor, low: Tensor) -> Tensor:
        """Return scores (N, 3, h, w) at the size of ``low``."""
        low = self.low(low)
        return self.classify(self.decoder(torch.cat([resize_to(self.context(deep), low), low], 1)))  # type: ignore[no-any-return]


class PyramidDecoder(nn.Module):
    """Trimap scores by pyramid pooling of the encoder's last map (PSPNet: Zhao et al., CVPR 2017).

    Args:
        deep_channels: channels of the encoder's last map.
    """

    def __init__(self, deep_channels: int) -> None:
        super().__init__()
        self.means = pyramid_means()
        self.levels = nn.ModuleList(conv_bn(deep_channels, _WIDTH, activation=nn.ReLU) for _ in self.means)
        self.project = conv_bn(deep_channels + _WIDTH * len(self.means), _WIDTH, 3, activation=nn.ReLU)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Conv2d(_WIDTH, _CLASSES, 1)

    def forward(self, deep: Tensor, low: Tensor) -> Tensor:
        """Return scores (N, 3, h, w) at the size of ``low``, which serves nothing else.

        Raises:
            UserError: one image in training mode.
        """
        check_batch(self, deep)
        pooled = [resize_to(level(means(deep)), deep) for level, means in zip(self.levels, self.means, strict=True)]
        return resize_to(self.classify(self.dropout(self.project(torch.cat([deep, *pooled], 1)))), low)


class FeatureModulation(nn.Module):
    """Weights of channels for two tasks, from the mean of a map (thesis of Y. Dai, chapter 6).

    Mean over the map, 1x1 to an eighth of the channels, ReLU, 1x1 to twice the channels, softmax over the pair of
    numbers that each channel then has.

    Args:
        channels: of the map.
        ratio: channels over those between the two convolutions.
    """

    def __init__(self, channels: int, ratio: int = 8) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 2 * channels, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of both tasks, (N, C, 1, 1) each, of a map (N, C, H, W); their sum is 1."""
        both = self.weigh(x.mean((2, 3), keepdim=True)).unflatten(1, (2, x.shape[1])).softmax(1)
        return both[:, 0], both[:, 1]


class Maps(NamedTuple):
    """What a decoder gets from the shared encoder: the last map, the first at its size, and what was halved."""

    deep: Tensor
    first_deep: Tensor
    low: Tensor
    halved: list[Downsampled]


class ConcatDecoder(nn.Module):
    """The decoder of the index-network papers without ASPP, which meets the encoder at 1/16, 1/8 and 1/4 (B3, B4).

    Args:
        encoder: the shared one.
        halved: its units that are halved.
        prior_channels: of the soft trimap that is fused with the encoder's last map; 0: none.
    """

    def __init__(self, encoder: Encoder, halved: list[int], prior_channels: int) -> None:
        super().__init__()
        widths, stages = encoder.widths, encoder.stage_channels
        first = widths[halved[-1] + 1]
        self.prior: nn.Module | None = None
        if prior_channels:
            self.prior = nn.Sequential(conv_bn(prior_channels, 64, 5, 2), conv_bn(64, 64, 5, 2), conv_bn(64, 64, 5))
        self.context = conv_bn(widths[-1] + (64 if prior_channels else 0), widths[-2])
        between = widths[halved[0] + 1]
        # numbered as the layers of matting_unet, from which those of equal shape may start
        pairs = [
            (stages[0], stages[0]),
            (between, stages[0]),
            (stages[1], between),
            (2 * stages[2], stages[1]),
            (2 * stages[3], stages[2]),
            (2 * first, stages[3]),
            (widths[-2], first),
        ]
        self.decoder = nn.ModuleList(conv_bn(wide, narrow, 5) for wide, narrow in pairs)
        self.head = Head(stages[0], 1, 3)
        initialize_weights(self)

    def forward(self, maps: Maps, prior: Tensor | None, stage: Stage) -> Tensor:
        """Return alpha (N, 1, H, W), given the soft trimap at 1/4 where there is one."""
        deep = maps.deep
        if self.prior is not None:
            deep = torch.cat([deep, resize_to(self.prior(prior), deep)], 1)
        y = self.decoder[6](self.context(deep))
        y = self.decoder[5](torch.cat([y, maps.first_deep], 1))
        for place in (3, 2):
            y, skip = stage(place).up_and_skip(y, maps.halved[place])
            y = self.decoder[place + 1](torch.cat([y, skip], 1))
        y = _up(stage, 1, y, maps)
        y = _up(stage, 0, self.decoder[1](self.decoder[2](y)), maps)
        return self.head(self.decoder[0](y))  # type: ignore[no-any-return]


class AttentionDecoder(nn.Module):
    """A decoder that the soft trimap guides: three encoder maps, summed at 1/4, meet it there (B5).

    Args:
        encoder: the shared one.
        halved: its units that are halved.
        prior_channels: of the soft trimap.
        fusion: how it is fused.
        deep_width: channels at which stages double inside the fusion; 0: they do not.
    """

    def __init__(
        self, encoder: Encoder, halved: list[int], prior_channels: int, fusion: Fusion, deep_width: int
    ) -> None:
        super().__init__()
        widths, stages = encoder.widths, encoder.stage_channels
        fused = stages[2]
        self.fusion, self.by_stages, self.wide = fusion, deep_width > 0, deep_width == stages[3] != fused
        self.deep = conv_bn(widths[-1], deep_width or fused)
        self.middle = conv_bn(stages[3], fused)
        self.fuse = conv_bn(fused, fused, 3)
        between = widths[halved[0] + 1]
        pairs = [
            (stages[0], stages[0]),
            (between, stages[0]),
            (stages[1], between),
            (fused + (prior_channels if fusion == "concat" else 0), stages[1]),
        ]
        self.decoder = nn.ModuleList(conv_bn(wide, narrow, 5) for wide, narrow in pairs)
        self.head = Head(stages[0], 1, 3)
        initialize_weights(self)

    def forward(self, maps: Maps, prior: Tensor, stage: Stage) -> Tensor:
        """Return alpha (N, 1, H, W), given the soft trimap at 1/4."""
        y = self.deep(maps.deep)
        if self.by_stages:
            y, skip = stage(3).up_and_skip(y, maps.halved[3])
            # an operator that needs equal widths doubles at those of the encoder, before both are made narrow
            y = self.middle(y + skip) if self.wide else y + self.middle(skip)
            y, skip = stage(2).up_and_skip(y, maps.halved[2])
            y = y + skip
        else:
            for skip in (self.middle(maps.halved[3].skip), maps.halved[2].skip):
                y = resize_to(y, skip) + skip
        y = self.fuse(y)
        if self.fusion == "add":
            y = y + prior
        elif self.fusion == "multiply":
            y = y * prior
        else:
            y = torch.cat([y, prior], 1)
        y = _up(stage, 1, self.decoder[3](y), maps)
        y = _up(stage, 0, self.decoder[1](self.decoder[2](y)), maps)
        return self.head(self.decoder[0](y))  # type: ignore[no-any-return]


def _up(stage: Stage, place: int, x: Tensor, maps: Maps) -> Tensor:
    down = maps.halved[place]
    return stage(place).up(x, down.guide, down.size)
