"""The contract: coupled x2 downsampling and upsampling, one stage per encoder resolution.

A *stage* serves one resolution of an encoder-decoder network: :meth:`ResamplingStage.down` halves an encoder map,
:meth:`ResamplingStage.up` doubles the decoder map of the same resolution, and a *guide* is whatever the first must
hand to the second (nothing, max-pooling indices, an index map). A *resampling* owns the stages of one network and
what they share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from indexnet.core.errors import UserError


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


class ResamplingStage(nn.Module, ABC):
    """One coupled x2 downsampling / upsampling pair for encoder maps of ``channels`` channels.

    Args:
        channels: channels of the encoder map that ``down`` halves.
        decoder_channels: channels of the decoder map that ``up`` doubles; default ``channels``.

    Attributes:
        strided: whether the encoder halves by itself, so that the network calls :meth:`pass_through` instead of
            :meth:`down`.
        takes_maxima: whether features are chosen by comparing values, so that rounding may choose others.
    """

    strided: bool = False
    takes_maxima: ClassVar[bool] = False

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.decoder_channels = channels if decoder_channels is None else decoder_channels

    @abstractmethod
    def down(self, x: Tensor) -> Downsampled:
        """Halve an encoder map (N, C, H, W), floating point, any H, W >= 2; odd sizes round up."""

    def pass_through(self, x: Tensor, before: Tensor) -> Downsampled:
        """Take over a map that the encoder halved itself.

        Args:
            x: the halved map, (N, C, ceil(H/2), ceil(W/2)).
            before: what the encoder's strided layers made it from, (N, any, H, W): the skip, and the size of ``up``.
        """
        return Downsampled(x, before, None, (before.shape[-2], before.shape[-1]))

    @abstractmethod
    def up(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Double a decoder map (N, C', h, w) to (N, C', *size), with the guide and size that ``down`` returned."""

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of this pair for a (height, width) encoder map, by the papers' counting rule.

        The rule: convolutions only, without bias, and without the batch axis, so that what is shared by all channels
        counts once. Zero for operators without convolutions.
        """
        return 0

    def true_macs(self, height: int, width: int) -> int:
        """Multiply-adds that the convolutions really cost for one image; differs where channels share weights."""
        return self.paper_macs(height, width)

    def index_maps(self, guide: Tensor | None) -> Tensor | None:
        """Return the decoder index map to look at, (N, C or 1, 2h, 2w) in [0, 1]; None where there is none."""
        return None

    def prepare_export(self) -> None:
        """Change to operations that exporters know and that give the same; nothing by default."""


@dataclass(frozen=True)
class OperatorInfo:
    """Facts about one operator.

    Attributes:
        name: registry name.
        title: a person's name for it.
        paper: where it was published.
        equation: what it computes, in one line of plain text.
        learned: whether any variant of it has weights.
        guided: whether ``up`` uses what ``down`` saw.
        equal_widths: whether the decoder width must equal the encoder width at each stage.
        downsampling: what halves the map (options separated by ``|``).
        parameters: parameter count per stage as a formula in the encoder width C and decoder width D.
    """

    name: str
    title: str
    paper: str
    equation: str
    learned: bool
    guided: bool
    equal_widths: bool
    downsampling: str
    parameters: str


class Resampling(nn.Module):
    """The stages of one network and what they share.

    Subclasses set ``info`` and implement :meth:`create_stage`; keyword arguments after ``decoder_channels`` are the
    operator's options, and their names, types and defaults are its configuration schema.

    Args:
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives, same order; default ``channels``.
    """

    info: ClassVar[OperatorInfo]

    def __init__(self, channels: Sequence[int], decoder_channels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.channels = self._widths("channels", channels)
        self.decoder_channels = (
            self.channels if decoder_channels is None else self._widths("decoder_channels", decoder_channels)
        )
        if len(self.channels) != len(self.decoder_channels):
            raise UserError(
                f"resampling {self.info.name!r}: channels has {len(self.channels)} stages but decoder_channels has "
                f"{len(self.decoder_channels)}; give one decoder width per stage."
            )
        self.stages = nn.ModuleList()

    def _widths(self, option: str, values: Sequence[int]) -> tuple[int, ...]:
        # bool is an int to Python, and never a width to a person.
        if isinstance(values, Sequence) and values:
            widths = tuple(values)
            if all(isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in widths):
                return widths
        raise UserError(
            f"resampling {self.info.name!r}: {option} must be a list of positive integers, one a stage, got {values!r}."
        )

    def _build_stages(self) -> None:
        """Fill ``stages``; called at the end of a subclass's ``__init__``."""
        for index, (channels, decoder_channels) in enumerate(zip(self.channels, self.decoder_channels, strict=True)):
            self.stages.append(self.create_stage(index, channels, decoder_channels))

    def create_stage(self, index: int, channels: int, decoder_channels: int) -> ResamplingStage:
        """Build stage ``index``."""
        raise NotImplementedError(type(self).__name__)


_REGISTRY: dict[str, type[Resampling]] = {}
_R = TypeVar("_R", bound=type[Resampling])


def register_resampling(cls: _R) -> _R:
    """Class decorator: make a :class:`Resampling` known under ``cls.info.name``."""
    name = cls.info.name
    if name in _REGISTRY:
        raise RuntimeError(f"resampling {name!r} is registered twice")
    _REGISTRY[name] = cls
    return cls


NONE = "none"


@register_resampling
class NoResampling(Resampling):
    """No stages and no weights: what a network that halves nothing has in the place of an operator.

    Args:
        channels: must be empty.
        decoder_channels: must be empty or None.

    Raises:
        UserError: a network that does halve asks for it.
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

    def __init__(self, channels: Sequence[int] = (), decoder_channels: Sequence[int] | None = None) -> None:
        if channels or decoder_channels:
            raise UserError(
                "resampling='none' is for networks that halve nothing, such as dncnn; this one needs an operator, such "
                "as max_unpool or indexnet."
            )
        nn.Module.__init__(self)  # the base class refuses an empty list of widths
        self.channels = self.decoder_channels = ()
        self.stages = nn.ModuleList()


def get_resampling(name: str) -> type[Resampling]:
    """Return the class registered as ``name``.

    Raises:
        UserError: the name is unknown; the message lists the nearest.
    """
    from indexnet.core.registry import unknown_name

    if name not in _REGISTRY:
        raise unknown_name("resampling", name, _REGISTRY)
    return _REGISTRY[name]


def create_resampling(
    name: str, channels: Sequence[int], decoder_channels: Sequence[int] | None = None, **options: Any
) -> Resampling:
    """Build the stages of one network.

    Args:
        name: registry name, see :func:`list_resampling`.
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives, same order; default ``channels``.
        **options: the operator's own options.

    Raises:
        UserError: unknown name or option, or widths that the operator cannot serve.
    """
    from indexnet.core.registry import check_options

    cls = get_resampling(name)
    check_options(f"resampling {name!r}", cls, options, skip=("channels", "decoder_channels"))
    return cls(channels, decoder_channels, **options)


def list_resampling() -> list[OperatorInfo]:
    """Facts of every registered operator, by name; ``none``, the absence of one, is left out."""
    return [_REGISTRY[name].info for name in sorted(_REGISTRY) if name != NONE]


_HALVING = ("down", "pass_through")


@contextmanager
def watch_stages(resampling: Resampling) -> Iterator[list[list[Downsampled]]]:
    """Collect what every stage's ``down`` or ``pass_through`` returns while the block runs.

    For cost counts and pictures of index maps.

    Yields:
        One list per stage, with an entry for each forward pass inside the block; all are what the last one gave, so
        that no more than one map of a stage is held.
    """
    seen: list[list[Downsampled]] = [[] for _ in resampling.stages]

    def watched(method: Callable[..., Downsampled], results: list[Downsampled]) -> Callable[..., Downsampled]:
        def call(*args: Tensor, **kwargs: Tensor) -> Downsampled:
            result = method(*args, **kwargs)
            results[:] = [result] * (len(results) + 1)
            return result

        return call

    stages = [stage for stage in resampling.stages if isinstance(stage, ResamplingStage)]
    try:
        for stage, results in zip(stages, seen, strict=True):
            for name in _HALVING:
                setattr(stage, name, watched(getattr(stage, name), results))
        yield seen
    finally:
        for stage in stages:
            for name in _HALVING:
                vars(stage).pop(name, None)


def require_equal_widths(operator: str, index: int, channels: int, decoder_channels: int, remedy: str) -> None:
    """Refuse a stage whose decoder width differs from its encoder width.

    Raises:
        UserError: the widths differ; the message names the stage and both.
    """
    if channels != decoder_channels:
        raise UserError(
            f"resampling {operator!r}, stage {index}: the encoder map has {channels} channels but the decoder map "
            f"{decoder_channels}, and an index per channel needs equal widths; {remedy}"
        )
