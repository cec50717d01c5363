"""The absence of an operator."""

from __future__ import annotations

from indexnet.resampling.base import NONE, OperatorInfo, ResamplingStage, register_resampling


@register_resampling
class NoResampling(ResamplingStage):
    """What a network that halves nothing has in the place of an operator: a resampling without stages."""

    info = OperatorInfo(name=NONE, title="None", paper="", equation="", downsampling="nothing")
