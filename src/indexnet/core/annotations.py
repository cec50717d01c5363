"""Whether plain data fit a type annotation, and the annotation in words: for the schema and for signatures."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, did_you_mean


@dataclass(frozen=True)
class Rule:
    """A condition beside a type, ``Annotated[int, Rule("a positive integer", lambda value: value > 0)]``.

    Attributes:
        words: what is expected, type included.
        test: whether a value of that type is allowed.
    """

    words: str
    test: Callable[[Any], bool]


Positive = Annotated[int, Rule("a positive integer", lambda value: value > 0)]

_WORDS: dict[Any, str] = {int: "an integer", float: "a number", str: "a text", Path: "a path"}
_LISTS = (list, tuple, Sequence)


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value as YAML has it is one of an annotation's; classes of other kinds take no plain value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if origin is Annotated:
        return fits(value, arguments[0]) and all(each.test(value) for each in arguments[1:] if isinstance(each, Rule))
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if annotation in (str, Path):
        return isinstance(value, str)
    if (origin or annotation) in _LISTS:
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and arguments[1:] != (...,):
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return not arguments or all(fits(each, arguments[0]) for each in value)
    return (origin or annotation) in (dict, Mapping) and isinstance(value, Mapping)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def in_words(annotation: Any) -> str:
    """Return what an annotation takes: ``auto or a positive integer``, ``a list of numbers``."""
    words = list(dict.fromkeys(_words(annotation)))
    if get_origin(annotation) is Literal and len(words) > 3:
        return f"one of {', '.join(words)}"
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "something else"


def _words(annotation: Any) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = [each.words for each in arguments[1:] if isinstance(each, Rule)]
        yield from rules or _words(arguments[0])
    elif origin in (Union, types.UnionType):
        for each in sorted(arguments, key=lambda each: each is type(None)):  # null last
            yield from _words(each)
    elif origin is Literal:
        yield from map(str, arguments)
    elif annotation is bool:
        yield from ("true", "false")
    elif annotation is type(None):
        yield "null"
    elif (origin or annotation) in _LISTS:
        kinds = dict.fromkeys(word for each in arguments if each is not ... for word in _words(each))
        nouns = [re.split(r"(?= (?:of|from) )", kind.partition(" ")[2], maxsplit=1) for kind in kinds if " " in kind]
        many = " or ".join("".join((f"{noun}s", *rest)) for noun, *rest in nouns)
        yield f"a list of {many}" if many else "a list"
    elif (origin or annotation) in (dict, Mapping):
        yield "a mapping"
    elif annotation in _WORDS:
        yield _WORDS[annotation]


def option_types(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable's arguments, or of a class's constructor, by name; those it has.

    Empty where an annotation names what only a type checker imports: such a signature is not checked.
    """
    options = getattr(target, "Options", None)  # a dataclass that stands for the constructor's keyword arguments
    try:
        function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        hints = typing.get_type_hints(function, include_extras=True)
        if dataclasses.is_dataclass(options):
            hints = typing.get_type_hints(options, include_extras=True)
    except NameError:
        return {}
    hints.pop("return", None)
    return hints


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Check one value against its type.

    Raises:
        UserError: it has another.
    """
    if not fits(value, annotation):
        hint = did_you_mean(value, get_args(annotation))
        raise UserError(f"{key}={shown(value)} must be {in_words(annotation)}.{hint}")


def check_part(
    group: str,
    node: Mapping[str, Any],
    target: Callable[..., Any],
    skip: Sequence[str] = (),
    own: Mapping[str, Any] | None = None,
) -> None:
    """Check that a part takes the options that plain data give it, each with a value of its type.

    Args:
        group: of the part, for messages: the options are called ``group.key``.
        node: its ``name`` and its options.
        target: what is called with the options.
        skip: arguments of it that are no options.
        own: types of options that are checked by these in the place of the signature's.

    Raises:
        UserError: an option is unknown, or a value has another type.
    """
    options = {key: value for key, value in node.items() if key != "name"}
    check_options(f"{group} {node['name']!r}", target, options, skip)
    wanted = option_types(target) | dict(own or {})
    for key, value in options.items():
        if key in wanted:
            check_value(f"{group}.{key}", value, wanted[key])
