"""The papers' literal form of an index stage: four columns in sequence, full-resolution maps, separate pooling.

Slow and large on purpose: the shipped form is timed, and tested, against it. Names are those of the released code.
Nothing here is of the shipped form but the contract that networks call it by.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.networks import Network
from indexnet.resampling import Downsampled, ResamplingStage, split_columns
from indexnet.resampling.indexnet import INDEXED, MODELWISE, IndexNet

PAIRS = ("sigmoid+softmax/sigmoid", "sigmoid/sigmoid", "softmax/softmax", "softmax+sigmoid/sigmoid")


class LiteralStage(nn.Module):
    """One stage of index networks; ``family`` and the switches as in ``indexnet.resampling``."""

    def __init__(
        self,
        channels: int,
        family: str,
        nonlinear: bool,
        context: bool,
        expansion: int = 2,
        normalization: str = PAIRS[0],
        skip: str = "indexed",
    ) -> None:
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
    def _column(
        inputs: int,
        outputs: int,
        hidden: int,
        kernel: int,
        padding: int,
        groups: int,
        nonlinear: bool,
        bare: bool = False,
    ) -> nn.Module:
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

    def halve(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled map (N, C, h, w), skip (N, C, H, W), and the decoder's index map (N, C or 1, 2h, 2w)."""
        height, width = x.shape[-2:]
        odd = height % 2 or width % 2
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate") if odd else x
        encoder, decoder = self.index_maps(padded)
        weighted = encoder * padded
        pooled = 4 * F.avg_pool2d(weighted, 2, 2)
        skip = weighted if self.skip == "indexed" else padded
        return pooled, skip[..., :height, :width], decoder

    def forward(
        self, x: Tensor, to_decoder: Callable[[Tensor], Tensor] = lambda features: features
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled map, skip, and the upsampled decoder map ``to_decoder(pooled)``."""
        pooled, skip, decoder = self.halve(x)
        return pooled, skip, double(to_decoder(pooled), decoder, (x.shape[-2], x.shape[-1]))


def double(x: Tensor, decoder: Tensor, size: tuple[int, int]) -> Tensor:
    """The decoder map (N, C, h, w), enlarged by its nearest values and weighted by its index map, (N, C, *size)."""
    enlarged = F.interpolate(x, size=decoder.shape[2:], mode="nearest")
    return (decoder * enlarged)[..., : size[0], : size[1]]


class LiteralIndexNet(ResamplingStage):
    """The literal form of a shipped stage, with its weights, as networks call it."""

    info = IndexNet.info

    def __init__(self, stage: IndexNet) -> None:
        super().__init__(stage.channels, stage.decoder_channels)
        if stage.family == MODELWISE or stage.pooling != INDEXED or stage.pairs:
            raise ValueError("the literal form in a network has indexed pooling, equal widths, and weights of its own")
        self.literal = LiteralStage(
            stage.channels,
            stage.family,
            stage.nonlinear,
            stage.context,
            stage.expansion,
            stage.normalization,
            stage.skip,
        )
        state = stage.index_network.state_dict()
        self.literal.load_state_dict(split_columns(state, stage.family))
        self.literal.to(state["first.weight"])

    def down(self, x: Tensor) -> Downsampled:
        return Downsampled(*self.literal.halve(x), (x.shape[-2], x.shape[-1]))

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        return double(x, self.checked_guide(guide, x), size)


def literal_network(network: Network) -> Network:
    """Return a copy of a network with index networks in which every stage has the literal form, with equal weights."""
    network = copy.deepcopy(network)
    stages = network.resampling.stages
    for index, stage in enumerate(stages):
        assert isinstance(stage, IndexNet)
        stages[index] = LiteralIndexNet(stage)
    return network
