"""MMEditing's (MMagic's) IndexNet: the released network with modules of other names.

``backbone.encoder.layers.N`` is the release's ``layerN``, ``index_layers`` its ``indexN`` (numbered through),
``dconv`` its ``dconv_pp``, ``backbone.decoder.decoder_layers`` its ``decoder_layerN``, deepest first. Convolution and
normalisation of one module are ``conv`` and ``bn``, a separable one has ``depthwise_conv`` and ``pointwise_conv``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.networks.released.base import ReleasedSource, SourceInfo, register_source
from indexnet.networks.released.indexnet_matting import IndexNetMatting

NOTICE = (
    "Converted from a checkpoint of MMEditing (MMagic). Its code has the Apache licence; its weights were trained on "
    "the Adobe image matting data set, whose agreement allows non-commercial use only."
)

_LAYERS = (0, 2, 3, 4, 6)  # that index networks follow
_DEEPEST = 6

_Replacement = str | Callable[[re.Match[str]], str]
_PARTS = {"conv": 0, "bn": 1}


def _unit(match: re.Match[str]) -> str:
    """Number the parts of an inverted residual: expansion (left out where the ratio is 1), depthwise, pointwise."""
    layer, block, place, kind, part = match.groups()
    start = 0 if kind is None else {"depthwise_conv": 0, "pointwise_conv": 3}[kind] + (3 if place else 0)
    return f"layer{layer}.{block}.conv.{start + _PARTS[part]}"


def _separable(match: re.Match[str]) -> str:
    branch, kind, part = match.groups()
    start = 3 if kind == "pointwise_conv" else 0
    return f"dconv_pp.aspp{int(branch) + 1}.atrous_conv.{start + _PARTS[part]}"


def _column(match: re.Match[str]) -> str:
    """Return the place in a column (four of depthwise index networks, one of holistic ones) of its convolutions."""
    stage, column, convolution, part = match.groups()
    name = "indexnet" if column is None else f"indexnet{int(column) + 1}"
    if convolution is None:  # a linear one; the release's holistic one is no sequence
        return f"index{_LAYERS[int(stage)]}.{name}" + ("" if column is None else ".0")
    return f"index{_LAYERS[int(stage)]}.{name}.{3 if convolution == '1' else _PARTS[part]}"


_ENCODER, _DECODER = r"backbone\.encoder\.", r"backbone\.decoder\."
_KIND, _PART = r"(depthwise_conv|pointwise_conv)", r"(conv|bn)"
_RENAMED: tuple[tuple[str, _Replacement], ...] = (
    (rf"{_ENCODER}layers\.0\.{_PART}", lambda m: f"layer0.{_PARTS[m[1]]}"),
    (rf"{_ENCODER}layers\.(\d)\.(\d)\.conv(?:\.(\d))?(?:\.{_KIND})?\.{_PART}", _unit),
    (rf"{_ENCODER}index_layers\.([0-4])\.index_block(?:s\.([0-3]))?(?:\.([01]))?\.{_PART}", _column),
    (rf"{_ENCODER}dconv\.convs\.([0-3])(?:\.{_KIND})?\.{_PART}", _separable),
    (rf"{_ENCODER}dconv\.convs\.4\.1\.{_PART}", lambda m: f"dconv_pp.global_avg_pool.{_PARTS[m[1]] + 1}"),
    (rf"{_ENCODER}dconv\.project\.0\.{_PART}", lambda m: f"dconv_pp.bottleneck_conv.{_PARTS[m[1]]}"),
    (
        rf"{_DECODER}decoder_layers\.([0-6])\.conv\.{_PART}",
        lambda m: f"decoder_layer{_DEEPEST - int(m[1])}.dconv.{_PARTS[m[2]]}",
    ),
    (rf"{_DECODER}pred\.0\.{_PART}", lambda m: f"pred.0.{_PARTS[m[1]]}"),
    (rf"{_DECODER}pred\.1", "pred.1"),
)


@register_source
class MmeditingIndexNet(ReleasedSource):
    """MMEditing's ``IndexNet``, of any index mode."""

    info: ClassVar[SourceInfo] = SourceInfo("mmediting", "MMEditing's matting networks", NOTICE)

    def claims(self, names: Sequence[str]) -> bool:
        return any(name.startswith(("backbone.encoder.", "backbone.decoder.")) for name in names)

    def recognise(self, state: Mapping[str, Tensor], source: str, family: str | None = None) -> dict[str, Any]:
        if not any(name.startswith("backbone.encoder.index_layers.") for name in state):
            raise UserError(
                f"{source} is a matting network of MMEditing, but not its IndexNet: it has no entries "
                "'backbone.encoder.index_layers...', and no other network of it is converted."
            )
        return IndexNetMatting().recognise(_official(state), source, family)

    def rename(self, state: Mapping[str, Tensor], spec: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        return IndexNetMatting().rename(_official(state), spec, source)


def _official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by the names of the released index-network code; unknown ones keep theirs."""
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in _RENAMED:
            name, count = re.subn(rf"^{pattern}(?=\.)", replacement, key)
            if count:
                break
        renamed[name] = value
    return renamed
