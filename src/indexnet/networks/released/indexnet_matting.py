"""The released index-network matting code (poppinace/indexnet_matting), names of ``hlmobilenetv2``.

Two networks are known: the one with index networks, of any family, and the baseline with max unpooling (B11). Names are
those of the release, ``layerN`` (encoder), ``indexN`` (index networks), ``dconv_pp`` (ASPP), ``decoder_layerN``,
``pred``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.networks.released.base import ReleasedSource, SourceInfo, register_source, weight_of, without_family
from indexnet.resampling.columns import fuse_columns
from indexnet.resampling.indexnet import FAMILIES

NOTICE = (
    "Converted from a checkpoint of the released index-network matting code. Its authors give those weights for "
    "non-commercial research only, and what is derived from them, this file and any training that starts from it, "
    "stays under that condition; ask the authors before any other use."
)

_INDEXED_LAYERS = (0, 2, 3, 4, 6)
_RENAMED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"layer(\d)", r"encoder.units.\1"),
    (r"dconv_pp\.aspp(\d)\.atrous_conv", lambda match: f"context.branches.{int(match[1]) - 1}"),
    (r"dconv_pp\.global_avg_pool\.(\d)", lambda match: f"context.pooled.{int(match[1]) - 1}"),
    (r"dconv_pp\.bottleneck_conv", "context.project"),
    (r"decoder_layer(\d)\.dconv", r"decoder.\1"),
    (r"pred", "head"),
)


@register_source
class IndexNetMatting(ReleasedSource):
    """Index networks and the baseline with max unpooling, over the released MobileNetV2."""

    info: ClassVar[SourceInfo] = SourceInfo("indexnet_matting", "the released index-network matting code", NOTICE)

    def claims(self, names: Sequence[str]) -> bool:
        others = any(name.startswith(("short", "bilinear", "layer2_", "layer3_")) for name in names)  # of A2U matting
        return not others and any(name.startswith(("layer0.", "dconv_pp.", "decoder_layer")) for name in names)

    def recognise(self, state: Mapping[str, Tensor], source: str, family: str | None = None) -> dict[str, Any]:
        _check_names(state, source)
        return _recognise(state, family, source)

    def rename(self, state: Mapping[str, Tensor], spec: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        return _rename(state, spec, source)


def _check_names(state: Mapping[str, Tensor], source: str) -> None:
    first = state.get("layer0.0.weight")
    if first is None or first.ndim != 4 or "layer7.0.conv.0.weight" not in state or "pred.1.weight" not in state:
        raise UserError(
            f"{source} looks like a checkpoint of the released index-network matting code, but has no entries "
            f"'layer0.0.weight', 'layer7...' and 'pred...' (its first name is {next(iter(state), 'none')!r})."
        )
    if "dconv_pp.bottleneck_conv.0.weight" not in state:
        raise UserError(f"{source} is a matting network without ASPP ('dconv_pp.aspp...'), which cannot be converted.")


def _recognise(state: Mapping[str, Tensor], family: str | None, source: str) -> dict[str, Any]:
    if family is not None and family not in FAMILIES:
        raise UserError(f"family is one of {', '.join(FAMILIES)}, got {family!r}.")
    first, last = weight_of(state, "layer0.0.weight", source), weight_of(state, "layer7.0.conv.6.weight", source)
    head = weight_of(state, "pred.1.weight", source)
    resampling: dict[str, Any] = {"name": "max_unpool"}
    output_stride = 32
    stages = [layer for layer in _INDEXED_LAYERS if any(key.startswith(f"index{layer}.") for key in state)]
    if stages:
        output_stride = 32 if 6 in stages else 16
        resampling = {"name": "indexnet", **_index_options(state, stages, family, source)}
    else:
        without_family(family, source, "it unpools with max-pooling indices")
    width = round(last.shape[0] / 320, 2)
    return {
        "name": "matting_unet",
        "encoder": {"name": "mobilenetv2_released", "width": width, "pretrained": False, "freeze_bn": False},
        "resampling": resampling,
        "fusion": "concat",
        "context": "aspp",
        "output_stride": output_stride,
        "decoder_kernel": head.shape[-1],
        "in_channels": first.shape[1],
        "out_channels": head.shape[0],
    }


def _index_options(state: Mapping[str, Tensor], stages: list[int], family: str | None, source: str) -> dict[str, Any]:
    layer = _INDEXED_LAYERS[0]
    if stages[0] != layer:
        raise UserError(f"{source} has index networks, but no entries 'index{layer}...'; the file is damaged.")
    channels = weight_of(state, f"layer{layer}.0.weight", source).shape[0]
    kinds = [kind for kind in ("indexnet", "indexnet.0", "indexnet1.0") if f"index{layer}.{kind}.weight" in state]
    if len(kinds) != 1:
        raise UserError(f"{source} has entries 'index{layer}...' that are not those of an index network.")
    weight = weight_of(state, f"index{layer}.{kinds[0]}.weight", source)
    nonlinear = kinds == ["indexnet.0"] or f"index{layer}.indexnet1.3.weight" in state
    hidden, inputs, size = weight.shape[0], weight.shape[1], weight.shape[-1]
    expansion = 2
    if kinds != ["indexnet1.0"]:
        found = "hin"
    elif inputs == channels:
        found, expansion = "m2o", hidden // channels
    elif hidden % channels == 0:
        found, expansion = "o2o_unshared", hidden // channels
    else:
        found, expansion = "o2o_modelwise" if _stages_equal(state, stages) else "o2o_shared", hidden
    if family not in (None, found):
        if found != "o2o_modelwise" or family != "o2o_shared":  # equal weights may have been trained apart: as said
            raise UserError(f"{source} holds index networks of the family {found}, not {family}; leave family out.")
        found = family
    expansion = expansion if nonlinear else 2
    return {"family": found, "nonlinear": nonlinear, "context": size == 4, "expansion": expansion}


def _stages_equal(state: Mapping[str, Tensor], stages: list[int]) -> bool:
    first, *others = ({k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"index{n}.")} for n in stages)
    return all(
        other.keys() == first.keys() and all(torch.equal(value, first[key]) for key, value in other.items())
        for other in others
    )


def _rename(state: Mapping[str, Tensor], options: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    indexed: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"index(\d)\.(.+)", key):
            indexed.setdefault(int(match[1]), {})[match[2]] = value
            continue
        for pattern, replacement in _RENAMED:
            key = re.sub(rf"^{pattern}(?=\.)", replacement, key)
        renamed[key] = value
    modelwise = options["resampling"].get("family") == "o2o_modelwise"
    for stage, layer in enumerate(sorted(indexed)):
        prefix = "resampling.network." if modelwise else f"resampling.stages.{stage}.network."
        try:
            fused = fuse_columns(indexed[layer])
        except UserError as error:
            raise UserError(f"{source}, entries 'index{layer}...': {error}") from error
        except (RuntimeError, IndexError) as error:
            raise UserError(
                f"{source} has entries 'index{layer}...' of shapes that do not fit each other; the file is damaged."
            ) from error
        renamed.update({prefix + key: value for key, value in fused.items()})
    return renamed
