"""The released A2U matting code (dongdong93/a2u_matting), both of its configurations.

Names are those of the release: ``layer0`` .. ``layer3_2`` (encoder), ``bilinear`` (A2U), ``dconv_pp`` (ASPP),
``shortN``, ``decoder_layerN``, ``pred``. Its norms are in-place ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.networks.encoders.resnet34_11 import NAME, plain_norms
from indexnet.networks.released.base import ReleasedSource, SourceInfo, register_source, weight_of, without_family

NOTICE = (
    "Converted from a checkpoint of the released A2U matting code, which was trained on Adobe's image matting data. "
    "Its authors say that by the licence of those data such weights may only be used and passed on for non-commercial "
    "purposes; what is derived from them, this file and any training that starts from it, stays under that condition."
)

_OWN = re.compile(r"(bilinear\d|short\d|layer[23]_[12])\.")
_BLOCK = {"conv1": "first.0", "bn1": "first.1", "conv2": "second.0", "bn2": "second.1"}
_SHORTCUT = {"conv": "shortcut.0", "bn": "shortcut.1"}
_A2U = {
    "bconv_U.1": "first.conv", "bconv_V.1": "second.conv", "bconv_UP.1": "weight.conv",
    "bconv_DP.1": "weight_down.conv", "bnu.0": "norms.0", "bnv.0": "norms.1",
}  # fmt: skip
_SEPARABLE = {"0": "0", "1": "1", "2": "3", "3": "4"}  # activations stand between ours
_PLACES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"layer0", "encoder.units.0"),
    (r"layer1\.block(\d)", lambda m: f"encoder.units.2.{int(m[1]) - 1}"),
    (r"layer([23])_1(?!\.bilinear)", lambda m: f"encoder.units.{int(m[1]) + 1}.0"),
    (r"layer([23])_2\.block(\d)", lambda m: f"encoder.units.{int(m[1]) + 1}.{m[2]}"),
    (r"bilinear([01])", r"resampling.stages.\1"),
    (r"layer([23])_1\.bilinear", r"resampling.stages.\1"),
    (r"dconv_pp\.aspp(\d)\.atrous_conv\.([0-3])", lambda m: f"context.branches.{int(m[1]) - 1}.{_SEPARABLE[m[2]]}"),
    (r"dconv_pp\.global_avg_pool\.(\d)", lambda m: f"context.pooled.{int(m[1]) - 1}"),
    (r"dconv_pp\.bottleneck_conv", "context.project"),
    (r"decoder_layer(\d)\.dconv(1?)", lambda m: f"decoder.{int(m[1]) - 1}.{m[2] or 0}"),
    (r"short(\d)", r"skips.\1"),
    (r"pred", "head"),
)  # fmt: skip
_PARTS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(?:convs|layer1|layer2|dep_sep_conv)\.((?:conv|bn)[12])", lambda m: _BLOCK[m[1]]),
    (r"proj_(conv|bn)", lambda m: _SHORTCUT[m[1]]),
    (r"(" + "|".join(map(re.escape, _A2U)) + r")", lambda m: _A2U[m[1]]),
)


@register_source
class A2UMattingCode(ReleasedSource):
    """A2U with paired downsampling, of filters for all channels (``adobe``) or for each (``adobe_unshare``)."""

    info: ClassVar[SourceInfo] = SourceInfo("a2u_matting", "the released A2U matting code", NOTICE)

    def claims(self, names: Sequence[str]) -> bool:
        return any(_OWN.match(name) for name in names)

    def recognise(self, state: Mapping[str, Tensor], source: str, family: str | None = None) -> dict[str, Any]:
        """Return the spec; ``k_en``, which no weight tells, is 6 as in both released configurations."""
        without_family(family, source, "its kernels are A2U's")
        first, head = weight_of(state, "layer0.0.weight", source), weight_of(state, "pred.1.weight", source)
        logits = weight_of(state, "bilinear0.bconv_UP.1.weight", source).shape[0]
        filters = weight_of(state, "bilinear0.bconv_U.1.weight", source).shape[0]
        k_up = math.isqrt(logits // 4)
        if 4 * k_up**2 != logits or k_up % 2 == 0:
            raise UserError(
                f"{source} has A2U kernels of {logits} logits at a position, but 4, 36 or 100 (k_up of 1, 3 or 5) were "
                "expected; such a network cannot be converted."
            )
        return {
            "name": "a2u_matting",
            "encoder": {"name": NAME, "pretrained": False, "freeze_bn": False},
            "resampling": {
                "name": "a2u", "pooling": "paired", "dynamics": "dynamic", "channel": "cs" if filters == 1 else "cw",
                "position": "shared", "k_up": k_up, "k_en": 6, "normalization": "sigmoid+softmax",
                "activation": "leaky_relu",
            },
            "context": "aspp" if any(name.startswith("dconv_pp.") for name in state) else "none",
            "in_channels": first.shape[1],
            "out_channels": head.shape[0],
        }  # fmt: skip

    def rename(self, state: Mapping[str, Tensor], spec: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        """Return the tensors by our names; weights of in-place norms w become abs(w) + 1e-5, group norms stay."""
        renamed = {_renamed(key): value for key, value in state.items()}
        kernels = {key: value for key, value in renamed.items() if key.startswith("resampling.")}
        return plain_norms(renamed) | kernels

    def task(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return matting with images padded to a multiple of 16, as the code tests."""
        return {"name": "matting", "alignment": "reflect"}


def _renamed(key: str) -> str:
    for rules, start in ((_PLACES, "^"), (_PARTS, r"(?<=\.)")):
        for pattern, name in rules:
            key, found = re.subn(rf"{start}{pattern}(?=\.)", name, key, count=1)
            if found:
                break
    return key
