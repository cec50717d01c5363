"""The absence of an operator."""

from __future__ import annotations

from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.resampling.base import NONE, Downsampled, OperatorInfo, ResamplingStage, register_resampling


@register_resampling
class NoResampling(ResamplingStage):
    """What a network that halves nothing has in the place of an operator: a resampling without stages.

    Raises:
        UserError: a network that does halve asks for a stage.
    """

    info = OperatorInfo(
        name=NONE,
        title="None",
        paper="",
        equation="",
        learned=False,
        guided=False,
        equal_widths=False,
        downsampling="nothing",
        parameters="0",
    )

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        raise UserError(
            "resampling='none' is for networks that halve nothing, such as dncnn; this one needs an operator, such "
            "as max_unpool or indexnet."
        )

    def down(self, x: Tensor) -> Downsampled:
        raise NotImplementedError

    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        raise NotImplementedError
