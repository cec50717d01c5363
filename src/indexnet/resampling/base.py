"""The contract: coupled x2 downsampling and upsampling, one stage per encoder resolution.

A *stage* serves one resolution of an encoder-decoder network: :meth:`ResamplingStage.down` halves an encoder map,
:meth:`ResamplingStage.up` doubles the decoder map of the same resolution, and a *guide* is whatever the first must
hand to the second (nothing, max-pooling indices, an index map). An operator is one stage class; a
:class:`Resampling` holds the stages of one network and what they share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import Registry, did_you_mean
from indexnet.resampling.records import Downsampled as Downsampled
from indexnet.resampling.records import Kept as Kept
from indexnet.resampling.records import OperatorInfo as OperatorInfo

NONE = "none"
"""The name of the absence of an operator, see :mod:`indexnet.resampling.none`."""


class ResamplingStage(nn.Module, ABC):
    """One coupled x2 downsampling / upsampling pair for encoder maps of ``channels`` channels.

    An operator is a subclass with ``info`` and ``@register_resampling``. Keyword arguments after ``decoder_channels``
    are its options; their names, types and defaults are its configuration schema.

    Args:
        channels: channels of the encoder map that ``down`` halves.
        decoder_channels: channels of the decoder map that ``up`` doubles; default ``channels``.

    Attributes:
        info: facts about the operator.
        strided: whether the encoder halves by itself, so that the network calls :meth:`pass_through` instead of
            :meth:`down`.
        shared: what all stages of a network share, from :meth:`create_shared`; no part of the stage's state.
        takes_maxima: whether features are chosen by comparing values, so that rounding may choose others.
        up_has_weights: whether ``up`` has weights of its own, so that every place of a decoder gets a stage; else all
            weights make the guide (or pool), and one stage serves all places of its resolution.
    """

    info: ClassVar[OperatorInfo]
    strided: bool = False
    takes_maxima: ClassVar[bool] = False
    up_has_weights: ClassVar[bool] = True

    def __init__(self, channels: int, decoder_channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.decoder_channels = channels if decoder_channels is None else decoder_channels
        self.shared: Mapping[str, nn.Module] = {}

    def create_shared(self) -> dict[str, nn.Module]:
        """Build what all stages of a network share, by the names that it has in the state of the :class:`Resampling`.

        Asked of the first stage once.
        """
        return {}

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

    def up_and_skip(self, x: Tensor, down: Kept) -> tuple[Tensor, Tensor]:
        """Double a decoder map, and give the skip that belongs to it: what a decoder that fuses skips calls.

        Args:
            x: (N, C', h, w).
            down: what ``down`` or ``pass_through`` returned, or what was kept of it.

        Returns:
            What ``up`` gives, (N, C', *size), and the map to fuse, (N, C, *size): ``down.skip`` unless the operator
            makes one of both.
        """
        return self.up(x, down.guide, down.size), down.skip

    def paper_macs(self, height: int, width: int) -> int:
        """Multiply-adds of this pair for a (height, width) encoder map, by the papers' counting rule.

        The rule: convolutions only, without bias, and without the batch axis, so that what is shared by all channels
        counts once. Zero for operators without convolutions.
        """
        return 0

    def true_macs(self, height: int, width: int) -> int:
        """Multiply-adds that the convolutions really cost for one image; differs where channels share weights."""
        return self.paper_macs(height, width)

    def assembly_macs(self, height: int, width: int) -> int:
        """Multiply-adds of comparing and assembling neighbours, which the papers' rule leaves out; often none."""
        return 0

    def repeated_macs(self, height: int, width: int, channels: int) -> int:
        """Multiply-adds of assembly that one more ``up`` with the same guide takes, of a map of ``channels``."""
        return 0

    def drop_pooling(self) -> None:
        """Remove the weights of ``down``, which is not called: at a second place, or where the encoder halves."""

    def index_maps(self, guide: Tensor | None) -> Tensor | None:
        """Return the decoder index map to look at, (N, C or 1, 2h, 2w) in [0, 1]; None where there is none."""
        return None

    def prepare_export(self) -> None:
        """Change to operations that exporters know and that give the same; nothing by default."""

    def require_equal_widths(self, remedy: str) -> None:
        """Refuse a decoder width that differs from the encoder's.

        Raises:
            WidthError: they differ; the message names both.
        """
        if self.channels != self.decoder_channels:
            raise WidthError(
                f"the encoder map has {self.channels} channels but the decoder map {self.decoder_channels}, and the "
                f"two must be equal; {remedy}"
            )

    def checked_guide(self, guide: Tensor | None, x: Tensor, scale: int = 2) -> Tensor:
        """Return a guide, refusing one that was not made for a decoder map.

        Args:
            guide: what ``up`` got, (N, ..., scale*h, scale*w).
            x: the decoder map, (N, D, h, w).
            scale: size of the guide over that of the map.

        Raises:
            UserError: there is none, or its size is another; the message names both.
        """
        if guide is None:
            self.refuse("up needs a guide; give it the one that down or pass_through returned")
        height, width = scale * x.shape[-2], scale * x.shape[-1]
        if guide.shape[-2] != height or guide.shape[-1] != width:
            self.refuse(
                f"the guide is {guide.shape[-2]}x{guide.shape[-1]}, but a decoder map of {x.shape[-2]}x{x.shape[-1]} "
                f"needs one of {height}x{width}; give the guide that down or pass_through returned for this map"
            )
        return guide

    def refuse(self, reason: str) -> NoReturn:
        """Refuse options that do not go together.

        Raises:
            UserError: always; names the operator and the reason.
        """
        raise UserError(f"resampling {self.info.name!r}: {reason}.")

    def check_divides(self, option: str, value: int) -> None:
        """Refuse a decoder width that is no multiple of what an option asks for.

        Raises:
            WidthError: it is none; the message names both.
        """
        if self.decoder_channels % value:
            raise WidthError(
                f"the decoder map has {self.decoder_channels} channels, which {option}={value} does not divide; give "
                f"another value, or another decoder width."
            )

    def check_choice(self, option: str, value: Any, choices: Sequence[Any]) -> None:
        """Refuse a value of an option that is not one of ``choices``, naming the nearest one.

        Raises:
            UserError: the value is none of them.
        """
        # True == 1, so membership alone would take a bool for a number and the reverse.
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return
        said = f"{option}={shown(value)} is not one of {', '.join(map(repr, choices))}.{did_you_mean(value, choices)}"
        raise UserError(f"resampling {self.info.name!r}: {said}")

    def check_positive(self, option: str, value: Any, *, odd: bool = False) -> None:
        """Refuse a value of an option that is not a positive (odd) integer.

        Raises:
            UserError: it is something else.
        """
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (odd and value % 2 == 0):
            kind = "a positive odd integer" if odd else "a positive integer"
            raise UserError(f"resampling {self.info.name!r}: {option} must be {kind}, got {shown(value)}.")


class WidthError(UserError):
    """A stage cannot serve a decoder map of this width."""


class Resampling(nn.Module):
    """The stages of one network and what they share.

    A decoder may double several maps to one resolution, each at a *place* of its own. Places of one resolution have one
    guide, and weights of their own where ``up`` has any.

    Args:
        operator: the class of the stages.
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives, same order; default ``channels``. A list of widths for a stage:
            one a place, none where nothing is doubled.
        **options: of the operator.

    Attributes:
        info: facts about the operator.
        options: those given.
        stages: one :class:`ResamplingStage` per width; it serves the first place.
        places: decoder widths of each stage's places.
        further: the stages of the second place and those after it, a list per width; empty where one serves them all.

    Raises:
        UserError: an option has a value that it cannot have, or the operator cannot serve the widths.
    """

    def __init__(
        self,
        operator: type[ResamplingStage],
        channels: Sequence[int],
        decoder_channels: Sequence[int | Sequence[int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.info, self.options = operator.info, options
        self.channels = self._widths("channels", channels)
        self.places = self._places(decoder_channels)
        if len(self.channels) != len(self.places):
            raise UserError(
                f"resampling {self.info.name!r}: channels has {len(self.channels)} stages but decoder_channels has "
                f"{len(self.places)}; give one decoder width per stage."
            )
        self.decoder_channels = tuple(
            places[0] if places else width for places, width in zip(self.places, self.channels, strict=True)
        )
        if self.channels and self.info.name == NONE:
            raise UserError(
                "resampling='none' is for networks that halve nothing, such as dncnn; this one needs an operator, such "
                "as max_unpool or indexnet."
            )
        self.stages, self.further = nn.ModuleList(), nn.ModuleList()
        shared: dict[str, nn.Module] = {}

        def create(index: int, width: int) -> ResamplingStage:
            try:
                stage = operator(self.channels[index], width, **options)
            except WidthError as error:
                raise UserError(f"resampling {self.info.name!r}, stage {index}: {error}") from error
            if not self.stages:
                shared.update(stage.create_shared())
            stage.shared = shared
            return stage

        for index, width in enumerate(self.decoder_channels):
            self.stages.append(create(index, width))
        for index, places in enumerate(self.places):
            own = nn.ModuleList()
            for width in places[1:]:
                if operator.up_has_weights:
                    stage = create(index, width)
                    stage.drop_pooling()
                    own.append(stage)
                elif width != places[0]:
                    with torch.device("meta"):  # whether the one stage can serve this width too
                        create(index, width)
            self.further.append(own)
        for name, module in shared.items():
            self.add_module(name, module)

    def at_places(self, index: int, down: Kept) -> list[tuple[ResamplingStage, Kept]]:
        """Return for each place of a stage what doubles a map there, and what it needs for that.

        Where one stage serves all places its guide is made once, else each makes its own.

        Args:
            index: of the stage.
            down: what its ``down`` or ``pass_through`` returned, or what was kept of it.
        """
        first, *own = self.stages_at(index)
        if not own:
            return [(first, down)] * len(self.places[index])
        # nobody asks a place for a halved map, so any will do
        return [(first, down), *((stage, stage.pass_through(down.skip, down.skip)) for stage in own)]

    def stages_at(self, index: int) -> list[ResamplingStage]:
        """Return what serves the places of a stage: itself, and the further ones."""
        return [self.stages[index], *self.further[index]]  # type: ignore[list-item, misc]

    def _places(self, decoder_channels: Sequence[int | Sequence[int]] | None) -> tuple[tuple[int, ...], ...]:
        if decoder_channels is None:
            return tuple((width,) for width in self.channels)
        if isinstance(decoder_channels, Sequence) and any(isinstance(each, list | tuple) for each in decoder_channels):
            lists = (each if isinstance(each, list | tuple) else (each,) for each in decoder_channels)
            return tuple(self._widths("decoder_channels", each) if each else () for each in lists)
        return tuple((width,) for width in self._widths("decoder_channels", decoder_channels))  # type: ignore[arg-type]

    def _widths(self, option: str, values: Sequence[int]) -> tuple[int, ...]:
        # bool is an int to Python, and never a width to a person.
        if isinstance(values, Sequence) and (values or self.info.name == NONE):
            widths = tuple(values)
            if all(isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in widths):
                return widths
        raise UserError(
            f"resampling {self.info.name!r}: {option} must be a list of positive integers, one a stage, got "
            f"{shown(values)}."
        )


OPERATORS: Registry[ResamplingStage] = Registry(
    "resampling", "indexnet.resampling", "indexnet.resampling.guided", skip=("channels", "decoder_channels")
)
register_resampling = OPERATORS.register
get_resampling = OPERATORS.get


def create_resampling(
    name: str, channels: Sequence[int], decoder_channels: Sequence[int | Sequence[int]] | None = None, **options: Any
) -> Resampling:
    """Build the stages of one network.

    Args:
        name: registry name, see :func:`list_resampling`.
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives, same order; default ``channels``. A list of widths for a stage:
            one for each place where the decoder doubles a map to its resolution, see :class:`Resampling`.
        **options: the operator's own options.

    Raises:
        UserError: unknown name or option, or widths that the operator cannot serve.
    """
    return Resampling(OPERATORS.checked(name, options), channels, decoder_channels, **options)


def list_resampling() -> list[OperatorInfo]:
    """Facts of every registered operator, by name; ``none``, the absence of one, is left out."""
    return [operator.info for name, operator in OPERATORS.classes().items() if name != NONE]
