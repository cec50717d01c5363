"""The released Deep Matting of the index-network repository (poppinace/indexnet_matting), names of ``hlvggnet``.

``convSU`` and ``bnSU`` are unit U of stage S of VGG16, ``conv6`` and ``dconv6`` the 7x7 and the 1x1 convolution at the
bottom, ``dconvS`` the decoder's convolution after doubling S, ``alpha_pred`` the last one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from indexnet.networks.released.base import ReleasedSource, SourceInfo, register_source, weight_of, without_family
from indexnet.networks.released.indexnet_matting import NOTICE

_UNITS = (2, 2, 3, 3, 3)  # of the stages of VGG16
_OWN = re.compile(r"(conv[1-5][1-3]|bn[1-5][1-3]|conv6|dconv[1-6]|alpha_pred)\.")


@register_source
class ReleasedDeepMatting(ReleasedSource):
    """Deep image matting without refinement, with max unpooling: ``deep_matting`` over ``vgg16_bn``."""

    info: ClassVar[SourceInfo] = SourceInfo("deep_matting", "Deep Matting of the released index-network code", NOTICE)

    def claims(self, names: Sequence[str]) -> bool:
        return bool(names) and sum(_OWN.match(name) is not None for name in names) > len(names) / 2

    def recognise(self, state: Mapping[str, Tensor], source: str, family: str | None = None) -> dict[str, Any]:
        without_family(family, source, "it unpools with max-pooling indices")
        first, bottom = weight_of(state, "conv11.weight", source), weight_of(state, "conv6.weight", source)
        return {
            "name": "deep_matting",
            "encoder": {"name": "vgg16_bn", "pretrained": False, "freeze_bn": False},
            "resampling": {"name": "max_unpool"},
            "in_channels": first.shape[1],
            "out_channels": weight_of(state, "alpha_pred.weight", source).shape[0],
            "hidden": bottom.shape[0],
        }

    def rename(self, state: Mapping[str, Tensor], spec: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        names = {"conv6": "bottom.0", "dconv6": "bottom.2", "alpha_pred": "head"}
        place = 0  # in timm's sequence: convolution, norm and ReLU of every unit, then the pooling
        for stage, units in enumerate(_UNITS):
            for unit in range(units):
                names[f"conv{stage + 1}{unit + 1}"] = f"encoder.units.{stage}.features_{place}"
                names[f"bn{stage + 1}{unit + 1}"] = f"encoder.units.{stage}.features_{place + 1}"
                place += 3
            place += 1
            names[f"dconv{stage + 1}"] = f"decoder.{stage}.0"
        split = {key: key.partition(".") for key in state}
        return {f"{names.get(module, module)}.{rest}": state[key] for key, (module, _, rest) in split.items()}
