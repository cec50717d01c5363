"""What a source of released checkpoints is, and which one a state dict is from.

A source is one file of this room (or of a plugin) with one class: it says by the names of a state dict whether that is
one of its own, which network of this package it belongs to, and what its tensors are called there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.registry import Registry


@dataclass(frozen=True)
class SourceInfo:
    """Facts about a source.

    Args:
        name: it is registered under.
        title: what its checkpoints are called in messages, such as ``the released index-network matting code``.
        notice: what whoever uses converted weights must know, such as their licence; kept in every converted file and
            every run that starts from it. Empty: nothing.
    """

    name: str
    title: str
    notice: str = ""


class ReleasedSource(ABC):
    """Checkpoints of one released code."""

    info: ClassVar[SourceInfo]

    @abstractmethod
    def claims(self, names: Sequence[str]) -> bool:
        """Say whether a state dict is one of this source's, also a damaged one.

        Args:
            names: of its tensors, without ``module.``. No two sources may claim the same names.
        """

    @abstractmethod
    def recognise(self, state: Mapping[str, Tensor], source: str, family: str | None = None) -> dict[str, Any]:
        """Return the spec of the network: its ``name`` and options.

        Args:
            state: cleaned: names without ``module.``, no counters of synchronised normalisation.
            source: where it comes from, for messages.
            family: of index networks, where a person names it; see :func:`without_family`.

        Raises:
            UserError: something that the options are read from is missing or contradicts itself or ``family``.
        """

    @abstractmethod
    def rename(self, state: Mapping[str, Tensor], spec: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        """Return the tensors by the names of this package; unknown ones keep theirs, and are complained of later.

        Args:
            state: as for :meth:`recognise`.
            spec: what :meth:`recognise` returned.
            source: where it comes from, for messages.

        Raises:
            UserError: tensors that become one do not fit each other.
        """

    def task(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task, ``name`` and options, that the network was trained for."""
        return {"name": "matting"}


SOURCES: Registry[ReleasedSource] = Registry("source of released checkpoints", "indexnet.networks.released")
"""All sources, by name."""

Class = TypeVar("Class", bound=type[ReleasedSource])


def register_source(cls: Class) -> Class:
    """Class decorator: make a source known."""
    return SOURCES.register(cls)


def source_of(names: Iterable[Any]) -> ReleasedSource | None:
    """Return the source that claims these names of tensors, or None.

    Args:
        names: keys of a state dict; all of them may start with ``module.``.
    """
    keys = [key for key in names if isinstance(key, str)]
    if keys and all(key.startswith("module.") for key in keys):
        keys = [key.removeprefix("module.") for key in keys]
    return next((source for source in (cls() for cls in SOURCES.classes().values()) if source.claims(keys)), None)


def weight_of(state: Mapping[str, Tensor], key: str, source: str) -> Tensor:
    """Return the weight of a convolution, (out, in, h, w), that options are read from.

    Raises:
        UserError: it is missing or is no such weight.
    """
    weight = state.get(key)
    if weight is None or weight.ndim != 4 or 0 in weight.shape:
        fault = "is missing" if weight is None else f"has the shape {tuple(weight.shape)}"
        raise UserError(
            f"{source} looks like a released matting network, but its entry {key!r} {fault}; the file is damaged."
        )
    return weight


def without_family(family: str | None, source: str, why: str) -> None:
    """Refuse a family for a network that has no index networks.

    Args:
        family: as a person gave it.
        source: of the weights, for the message.
        why: what the network has instead, for the message.

    Raises:
        UserError: one was given.
    """
    if family is not None:
        raise UserError(f"{source} has no index networks ({why}); leave family out.")
