"""The encoder of A2U matting: the first eleven residual blocks of ResNet-34, with leaky ReLU.

Source: Y. Dai, H. Lu, C. Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021, section 4.2;
thesis of Y. Dai (Adelaide, 2022), chapter 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from indexnet.networks.encoders.encoder import Encoder, Level, load_pretrained
from indexnet.networks.encoders.timm_chain import pretrained_state
from indexnet.networks.layers import ResidualBlock, conv_bn, initialize_xavier
from indexnet.resampling.base import ResamplingStage

NAME = "resnet34"
TIMM_NAME = "resnet34.tv_in1k"
"""Whose ImageNet weights are taken: torchvision's, as timm keeps them."""
WIDTHS = (64, 64, 64, 128, 256)
"""Of the stem, of what is halved after it, and of the three groups of blocks."""
_BLOCKS = (3, 4, 4)  # the third group has 6 in ResNet-34, and the fourth is left out

IN_PLACE_EPSILON = 1e-5
"""In-place normalisation scales by the weight's absolute value and this."""
_Rule = tuple[str, str | Callable[[re.Match[str]], str]]
_TIMM: tuple[_Rule, ...] = (
    (r"conv1\.(\w+)", r"units.0.0.\1"),
    (r"bn1\.(\w+)", r"units.0.1.\1"),
    (r"layer([123])\.(\d)\.(conv|bn)([12])\.(\w+)",
     lambda m: f"units.{int(m[1]) + 1}.{m[2]}.{_half(m[4])}.{_part(m[3])}.{m[5]}"),
    (r"layer([123])\.(\d)\.downsample\.([01])\.(\w+)",
     lambda m: f"units.{int(m[1]) + 1}.{m[2]}.shortcut.{m[3]}.{m[4]}"),
)  # fmt: skip
_MAPILLARY: tuple[_Rule, ...] = (
    (r"mod1\.(conv|bn)1\.(\w+)", lambda m: f"units.0.{_part(m[1])}.{m[2]}"),
    (r"mod([234])\.block(\d)\.convs\.(conv|bn)([12])\.(\w+)",
     lambda m: f"units.{m[1]}.{int(m[2]) - 1}.{_half(m[4])}.{_part(m[3])}.{m[5]}"),
    (r"mod([234])\.block(\d)\.proj_(conv|bn)\.(\w+)",
     lambda m: f"units.{m[1]}.{int(m[2]) - 1}.shortcut.{_part(m[3])}.{m[4]}"),
)  # fmt: skip


class ResNet34Eleven(Encoder):
    """A 7x7 convolution, then 3, 4 and 4 residual blocks of 64, 128 and 256 channels, at 1/4, 1/8 and 1/16.

    With ``downsampling="stride"`` the network is ResNet-34's: strides of the first convolution and of two blocks, and
    3x3 max pooling. With ``"stage"`` these run at stride 1, pooling is left out, and stages halve: the first
    convolution's map twice, without a layer between, and in the first block of the second and of the third group what
    its first convolution gives; the shortcuts of these blocks keep their stride.

    What is left for a decoder are four levels: the image, and the maps at 1/2, 1/4 and 1/8 before the next halving.

    Args:
        in_channels: channels of the image.
        downsampling: who halves.
        pretrained: False: random weights (Xavier); True: torchvision's ImageNet weights through timm; a path: a state
            dict by timm's names or by those of mapillary's ResNet-34 with in-place normalisation, see
            :func:`plain_norms`. Input channels beyond the weights' own start at zero.
        freeze_bn: see :class:`Encoder`.

    Raises:
        UserError: weights that cannot be reached or do not fit.
    """

    def __init__(
        self,
        in_channels: int = 4,
        downsampling: Literal["stage", "stride"] = "stage",
        *,
        pretrained: bool | str | Path = False,
        freeze_bn: bool = False,
    ) -> None:
        strided = downsampling == "stride"
        stride = 2 if strided else 1
        groups = []
        before = WIDTHS[0]
        for number, (width, blocks) in enumerate(zip(WIDTHS[2:], _BLOCKS, strict=True)):
            first = ResidualBlock(before, width, 1 if number == 0 else 2, 1 if number == 0 else stride)
            groups.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(blocks - 1))))
            before = width
        stem = conv_bn(in_channels, WIDTHS[0], 7, stride, activation=nn.LeakyReLU)
        pool = nn.MaxPool2d(3, 2, padding=1) if strided else nn.Identity()
        super().__init__(
            NAME,
            [stem, pool, *groups],
            WIDTHS,
            (True, True, False, True, True),
            in_channels=in_channels,
            downsampling=downsampling,
            output_stride=16,
            freeze_bn=freeze_bn,
        )
        initialize_xavier(self)
        load_pretrained(self, NAME, pretrained, TIMM_NAME, partial(pretrained_state, TIMM_NAME, NAME), own_names)

    def forward(self, x: Tensor, stages: Sequence[nn.Module] | nn.ModuleList = ()) -> tuple[Tensor, list[Level]]:
        """Run the blocks; with ``downsampling="stage"`` the four stages halve, else they are not called.

        Args:
            x: images, (N, in_channels, H, W).
            stages: four, from full resolution down.

        Returns:
            (N, 256, ceil(H/16), ceil(W/16)), and the levels of a decoder from full resolution down.
        """
        levels: list[Level] = []

        def halved(y: Tensor, skip: Tensor) -> Tensor:
            """Halve a map unless its layer strode, and keep what goes with that."""
            index, guide = len(levels), None
            if self.downsampling == "stage":
                stage = stages[index]
                assert isinstance(stage, ResamplingStage)
                y, _, guide, _ = stage.down(y)
            levels.append(Level(skip, guide, (skip.shape[2], skip.shape[3]), index))
            return y

        stem, pool, group, *narrower = self.units
        x = halved(stem(x), x)
        x = group(halved(pool(x), x))
        for blocks in narrower:
            assert isinstance(blocks, nn.Sequential)
            block, *others = blocks
            assert isinstance(block, ResidualBlock)
            x = block.join(halved(block.first(x), x), x)
            for other in others:
                x = other(x)
        return x, levels


def own_names(given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename a state dict of timm's ResNet-34 or of mapillary's with in-place normalisation; others stay as they are.

    Args:
        given: names to tensors.
        source: where they come from; not used.
    """
    in_place = any(key.startswith("mod1.") for key in given)
    renamed = {_renamed(key, _MAPILLARY if in_place else _TIMM): value for key, value in given.items()}
    return plain_norms(renamed) if in_place else renamed


def plain_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of in-place normalisation, which scales by abs(w) + 1e-5, into those of batch normalisation.

    Args:
        state: names to tensors; the weights of norms are those of one dimension.
    """
    return {
        key: value.abs() + IN_PLACE_EPSILON if key.endswith(".weight") and value.ndim == 1 else value
        for key, value in state.items()
    }


def _renamed(key: str, rules: Sequence[_Rule]) -> str:
    for pattern, name in rules:
        if match := re.fullmatch(pattern, key):
            return match.expand(name) if isinstance(name, str) else name(match)
    return key


def _half(number: str) -> str:
    return "first" if number == "1" else "second"


def _part(kind: str) -> str:
    return "0" if kind == "conv" else "1"
