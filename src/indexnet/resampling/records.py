"""What the stages of a resampling hand over, and the facts about an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Downsampled(NamedTuple):
    """What :meth:`ResamplingStage.down` returns.

    Attributes:
        features: the halved map, (N, C, ceil(H/2), ceil(W/2)).
        skip: what a decoder may fuse at full resolution, (N, C, H, W).
        guide: what the same stage's ``up`` needs: None, a tensor, or integer indices. Opaque to networks.
        size: (H, W) of the input, the target size of ``up``.
    """

    features: Tensor
    skip: Tensor
    guide: Tensor | None
    size: tuple[int, int]


class Kept(Protocol):
    """What of a :class:`Downsampled` waits for the decoder; ``features`` may be gone."""

    @property
    def skip(self) -> Tensor: ...

    @property
    def guide(self) -> Tensor | None: ...

    @property
    def size(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class OperatorInfo:
    """Facts about one operator.

    Attributes:
        name: registry name.
        title: a person's name for it.
        paper: where it was published.
        equation: what it computes, in one line of plain text.
        downsampling: what halves the map (options separated by ``|``).
        parameters: parameter count per stage as a formula in the encoder width C and decoder width D.
        learned: whether it has weights as its options are by default; ``parameters`` says which others have.
        guided: whether ``up`` uses what ``down`` saw.
        equal_widths: whether the decoder width must equal the encoder width at each stage.
    """

    name: str
    title: str
    paper: str
    equation: str
    downsampling: str
    parameters: str = "0"
    learned: bool = False
    guided: bool = False
    equal_widths: bool = False
