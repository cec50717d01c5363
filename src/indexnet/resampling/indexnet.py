"""Index networks: index maps predicted from the encoder map, which pool it and later upsample the decoder map.

Source: H. Lu, Y. Dai, C. Shen, S. Xu, "Index Networks", TPAMI 2020 (first in ICCV 2019).
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.resampling.base import Downsampled, OperatorInfo, register_resampling
from indexnet.resampling.functional import (
    NORMALIZATIONS,
    crop_to,
    half,
    indexed_pool,
    indexed_pool_with_skip,
    indexed_upsample,
    is_channels_last,
    normalise_indices,
    pad_to_even,
    unpack_cells,
)
from indexnet.resampling.fused.hidden import grouped_product, hidden_layer, may_recompute
from indexnet.resampling.fused.tail import in_one_pass, pool_by_logits, upsample_by_indices
from indexnet.resampling.pooling import ANY_POOLING, POOLED, POOLINGS, GuidedStage

FAMILIES = ("hin", "o2o_modelwise", "o2o_shared", "o2o_unshared", "m2o")
MODELWISE = "o2o_modelwise"
_SHARED = (MODELWISE, "o2o_shared")
INDEXED = "indexed"


class IndexNetwork(nn.Module):
    """Predicts the packed index logits of an encoder map, all four positions of a cell by one convolution per layer.

    Linear: one convolution with stride 2. Nonlinear: convolution, batch normalisation, ReLU6, 1x1 convolution. Kernel
    2x2, with context 4x4 and padding 1. No biases. Weights start from N(0, 2 / (kernel area * output channels of one
    column)), groups ignored, as in the released code.

    Args:
        channels: width C of the encoder map; ignored by the shared families.
        family: ``hin``, ``o2o_modelwise``, ``o2o_shared``, ``o2o_unshared`` or ``m2o``.
        nonlinear: whether there is a hidden layer.
        context: whether the kernel reaches one pixel beyond the cell.
        expansion: hidden width over C; 2 for ``hin`` whatever is given.
    """

    def __init__(
        self, channels: int, family: str = "m2o", nonlinear: bool = True, context: bool = True, expansion: int = 2
    ) -> None:
        super().__init__()
        self.family, self.nonlinear, self.shared = family, nonlinear, family in _SHARED
        self.kernel, self.padding = (4, 1) if context else (2, 0)
        width = 1 if self.shared else channels
        columns, outputs, expansion = (1, 4, 2) if family == "hin" else (4, 4 * width, expansion)
        hidden = columns * expansion * width if nonlinear else outputs
        first_groups = width if family.startswith("o2o") else 1
        # One group per column and, where columns see one channel alone, per channel.
        second_groups = columns * first_groups
        self.first = nn.Conv2d(
            width, hidden, self.kernel, stride=2, padding=self.padding, groups=first_groups, bias=False
        )
        nn.init.normal_(self.first.weight, std=math.sqrt(2 / (self.kernel**2 * hidden / columns)))
        if nonlinear:
            self.norm = nn.BatchNorm2d(hidden)
            self.second = nn.Conv2d(hidden, outputs, 1, groups=second_groups, bias=False)
            nn.init.normal_(self.second.weight, std=math.sqrt(2 / (outputs / columns)))

    def forward(self, x: Tensor, channels: int | None = None) -> Tensor:
        """Return packed logits, (N, C or 1, 4, h, w), of an encoder map (N, C, 2h, 2w); exporters need C given."""
        n, c, height, width = x.shape
        c = c if channels is None else channels
        h, w = height // 2, width // 2
        # Channels that share weights are groups with equal weights, not images of one channel.
        copies = c if self.shared else 1
        weight = self.first.weight.repeat(copies, 1, 1, 1) if self.shared else self.first.weight
        # Logits lie column by column where a later layer's groups are the columns, and in channels-last, so that
        # channels, which are next to each other in the map, are so in them.
        by_column = self.family == "m2o" and (self.nonlinear or is_channels_last(x))
        if by_column and not self.nonlinear:
            weight = weight.unflatten(0, (c, 4)).transpose(0, 1).flatten(0, 1)
        out = F.conv2d(x, weight, stride=2, padding=self.padding, groups=self.first.groups * copies)
        if self.nonlinear:
            groups = self.second.groups
            second = self.second.weight.reshape(groups, -1, self.second.weight.shape[1])
            out = out.reshape(n * copies, -1, h, w)  # only the statistics of shared weights run over channels too
            if may_recompute(out, self.norm):
                out = hidden_layer(out, self.norm, second)
            else:
                out = grouped_product(F.relu6(self.norm(out), inplace=True), second)
        if by_column:
            return out.reshape(n, 4, c, h, w).transpose(1, 2)
        return out.reshape(n, -1, 4, h, w)

    def weights(self) -> int:
        """Return the number of convolution weights, each used once per 2x2 cell (and channel, where shared)."""
        return sum(p.numel() for p in self.parameters() if p.ndim == 4)


@register_resampling
class IndexNet(GuidedStage):
    """Index networks: learned indices that guide pooling and upsampling.

    The guide is the decoder index map, packed at low resolution: (N, C or 1, 4, ceil(H/2), ceil(W/2)); C/2 where pairs
    of channels are averaged. Index maps are in single precision where maps or logits are in half, as under autocast.

    Args:
        channels: encoder width C.
        decoder_channels: decoder width; must equal C, or with ``reduction`` be half of it, unless ``family`` is
            ``hin``, which takes any.
        pooling: ``indexed``, with the encoder's index map; or one of :class:`indexnet.resampling.pooling.PooledStage`,
            which leaves the indices to upsampling and the skip as it is.
        family: which channels an index looks at. ``hin``: all channels give one map for all (holistic). ``m2o``: all
            channels give one map per channel. One channel gives its own map, by weights that are shared by all stages
            (``o2o_modelwise``), by the channels of one stage (``o2o_shared``), or by none (``o2o_unshared``).
        nonlinear: whether the index network has a hidden layer.
        context: whether its kernel is 4x4 (padding 1) instead of 2x2.
        expansion: hidden width over C, 1 or 2. 2 reproduces the printed parameter counts, 1 is the released depthwise
            code. ``hin`` is always 2; linear networks have no hidden layer.
        normalization: encoder/decoder pair, one of :data:`indexnet.ops.NORMALIZATIONS`. The decoder half of the fourth
            pair is unreadable in the source and assumed to be sigmoid.
        skip: what a decoder fuses where indices pool: the map weighted with them (``indexed``) or itself (``raw``).
        reduction: what becomes of index maps where the decoder has half the encoder's width: their ``mean`` over
            neighbouring pairs of channels, without weights. None: what the network declares (FastDepth: ``mean``), else
            nothing, and widths must be equal. The paper does not say how the two meet; this is this project's choice.

    Raises:
        UserError: an option has an unknown value, or widths differ where there is an index per channel.
    """

    up_has_weights = False

    info = OperatorInfo(
        name="indexnet",
        title="Index network",
        paper="H. Lu, Y. Dai, C. Shen, S. Xu, Index Networks, TPAMI 2020",
        equation="down(x)[i, j] = sum over cell (i, j) of softmax(sigmoid(f(x))) x; up(d) = sigmoid(f(x)) nearest(d)",
        learned=True,
        guided=True,
        equal_widths=True,
        downsampling=f"indexed pooling | {ANY_POOLING}",
        parameters=(
            "linear / nonlinear / nonlinear + context: hin 16C / 8C^2+12C / 32C^2+12C; o2o shared (a stage) and "
            "modelwise (a model) 16 / 56 / 152; o2o unshared 16C / 56C / 152C; m2o 16C^2 / 40C^2+16C / 136C^2+16C"
            + POOLED
        ),
    )
    poolings = (INDEXED, *POOLINGS)

    def __init__(
        self,
        channels: int,
        decoder_channels: int | None = None,
        *,
        pooling: str = INDEXED,
        family: str = "m2o",
        nonlinear: bool = True,
        context: bool = True,
        expansion: int = 2,
        normalization: str = NORMALIZATIONS[0],
        skip: str = "indexed",
        reduction: str | None = None,
    ) -> None:
        super().__init__(channels, decoder_channels, pooling=pooling)
        self.check_choice("reduction", reduction, (None, "mean"))
        self.check_choice("family", family, FAMILIES)
        self.check_choice("nonlinear", nonlinear, (True, False))
        self.check_choice("context", context, (True, False))
        self.check_choice("expansion", expansion, (1, 2))
        self.check_choice("normalization", normalization, NORMALIZATIONS)
        self.check_choice("skip", skip, ("indexed", "raw"))
        self.family, self.nonlinear, self.context, self.expansion = family, nonlinear, context, expansion
        self.normalization, self.skip = normalization, skip
        self.pairs = family != "hin" and reduction == "mean" and channels == 2 * self.decoder_channels
        if family != "hin" and not self.pairs:
            self.require_equal_widths(
                "give it the encoder's width (or half of it and reduction='mean'), or choose family='hin', whose one "
                "map serves any width."
            )
        if family != MODELWISE:
            self.network = self._create_network()

    def create_shared(self) -> dict[str, nn.Module]:
        return {"network": self._create_network()} if self.family == MODELWISE else {}

    def _create_network(self) -> IndexNetwork:
        return IndexNetwork(self.channels, self.family, self.nonlinear, self.context, self.expansion)

    @property
    def index_network(self) -> IndexNetwork:
        """The network that predicts this stage's logits."""
        network = self.shared["network"] if self.family == MODELWISE else self.network
        assert isinstance(network, IndexNetwork)
        return network

    def down(self, x: Tensor) -> Downsampled:
        if self.pooling != INDEXED:
            return super().down(x)
        size = (x.shape[-2], x.shape[-1])
        even = pad_to_even(x)
        logits = self.index_network(even, self.channels)
        if self.skip == "indexed" and self.normalization == NORMALIZATIONS[0] and in_one_pass(even, logits):
            features, weighted, decoder = pool_by_logits(even, logits)
            return Downsampled(features, crop_to(weighted, size), self._reduced(decoder), size)
        encoder, decoder = self._normalised(logits)
        if self.skip == "raw":
            return Downsampled(indexed_pool(even, encoder), x, decoder, size)
        features, weighted = indexed_pool_with_skip(even, encoder)
        return Downsampled(features, crop_to(weighted, size), decoder, size)

    def create_guide(self, x: Tensor) -> Tensor:
        return self._normalised(self.index_network(x, self.channels))[1]

    def _normalised(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder and the decoder index map, both packed, of logits; in half precision there are none."""
        encoder, decoder = normalise_indices(logits, self.normalization)
        return encoder, self._reduced(decoder)

    def _reduced(self, decoder: Tensor) -> Tensor:
        return decoder.unflatten(1, (-1, 2)).mean(2) if self.pairs else decoder

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        guide = self.checked_guide(guide, x, 1)
        return crop_to(upsample_by_indices(x, guide) if in_one_pass(x, guide) else indexed_upsample(x, guide), size)

    def paper_macs(self, height: int, width: int) -> int:
        """Convolution weights times low-resolution positions; a shared network counts for one channel."""
        return super().paper_macs(height, width) + self.index_network.weights() * half(height) * half(width)

    def true_macs(self, height: int, width: int) -> int:
        """As :meth:`paper_macs`, with a shared network counted for each channel."""
        copies = self.channels if self.index_network.shared else 1
        own = self.index_network.weights() * half(height) * half(width)
        return super().paper_macs(height, width) + copies * own

    def index_maps(self, guide: Tensor | None) -> Tensor | None:
        """Return the decoder index map at full resolution, (N, C, C/2 or 1, 2h, 2w) in (0, 1)."""
        return None if guide is None else unpack_cells(guide)


IndexNetStage = IndexNet
"""An older public name of the class."""
