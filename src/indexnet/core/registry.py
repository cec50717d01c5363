"""Names that people type: one registry for every kind of thing, and modules of a person's own that add to it.

A registry finds what there is the first time that it is asked: it imports the modules of its packages, then the
*plugins*, modules from outside this package, see :func:`load_plugins`. Importing a package alone registers nothing more
than the modules that it imports itself.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from indexnet.core.errors import UserError, shown

ENTRY_POINTS = "indexnet.plugins"
"""The entry-point group of installed packages that are plugins."""
VARIABLE = "INDEXNET_PLUGINS"
"""The environment variable that names plugins, separated by commas."""

Entry = TypeVar("Entry")
Class = TypeVar("Class", bound=type[Any])

_registries: dict[str, Registry[Any]] = {}
_plugins: set[str] = set()


class Registry(Generic[Entry]):
    """Classes of one kind, by name.

    Args:
        kind: what an entry is, for messages and :func:`registered`.
        packages: whose modules hold the entries.
        skip: arguments of their constructors that are no options.
        name_of: gives the name of a class; default its ``info.name``.
    """

    def __init__(
        self,
        kind: str,
        *packages: str,
        skip: Iterable[str] = (),
        name_of: Callable[[type[Any]], str] = lambda cls: str(cls.info.name),
    ) -> None:
        self.kind, self.skip, self.name_of = kind, tuple(skip), name_of
        self._packages = packages
        self._classes: dict[str, type[Entry]] = {}
        self._found = False
        _registries[kind] = self

    def register(self, cls: Class) -> Class:
        """Class decorator: make a class known under its name. Running a definition again replaces it.

        Raises:
            UserError: another class has that name.
        """
        name = self.name_of(cls)
        known = self._classes.get(name)
        places = [f"{each.__module__}.{each.__qualname__}" for each in (known, cls) if each is not None]
        if len(set(places)) > 1:
            raise UserError(
                f"{self.kind} {name!r} is registered twice, by {' and '.join(places)}; give one of them another name."
            )
        self._classes[name] = cls
        return cls

    def classes(self) -> dict[str, type[Entry]]:
        """Return every class by name, in order of the names.

        Raises:
            UserError: a plugin cannot be imported.
        """
        if not self._found:
            self._found = True  # first: a module may ask while it is imported
            try:
                for package in map(importlib.import_module, self._packages):
                    for module in sorted(each.name for each in pkgutil.iter_modules(package.__path__)):
                        if not module.startswith("_"):
                            importlib.import_module(f"{package.__name__}.{module}")
                load_plugins()
            except BaseException:
                self._found = False
                raise
        return dict(sorted(self._classes.items()))

    def get(self, name: str) -> type[Entry]:
        """Return the class registered as ``name``.

        Raises:
            UserError: the name is unknown; the message names the nearest.
        """
        known = self.classes()
        if name not in known:
            raise unknown_name(self.kind, name, known, VARIABLE)
        return known[name]

    def checked(self, name: str, options: Mapping[str, Any]) -> type[Entry]:
        """Return the class registered as ``name``, which takes these options.

        Raises:
            UserError: the name is unknown, an option is, or one is missing.
        """
        cls = self.get(name)
        what = f"{self.kind} {name!r}"
        check_options(what, cls, options, self.skip)
        for parameter in inspect.signature(cls).parameters.values():
            needed = parameter.default is parameter.empty and parameter.kind in _NAMED
            if needed and parameter.name not in (*options, *self.skip):
                raise UserError(f"{what} needs the option {parameter.name!r}.")
        return cls

    def create(self, name: str, *arguments: Any, **options: Any) -> Entry:
        """Build what is registered as ``name``.

        Args:
            name: its name.
            *arguments: those in ``skip``.
            **options: the class's own options.

        Raises:
            UserError: as :meth:`checked`.
        """
        return self.checked(name, options)(*arguments, **options)


def registered(kind: str) -> list[type[Any]]:
    """Return the classes of a kind that this process has met so far; imports nothing."""
    registry = _registries.get(kind)
    return [] if registry is None else [cls for _, cls in sorted(registry._classes.items())]


def load_plugins(names: Any = (), source: str = "the key plugins") -> frozenset[str]:
    """Import plugins: those of the entry-point group, of the variable, and those given, each once.

    Args:
        names: further modules, as the key ``plugins`` of a configuration names them; None: none.
        source: where ``names`` stand, for messages.

    Returns:
        All that this process has imported.

    Raises:
        UserError: one cannot be imported, or registers a name that is taken.
    """
    given = () if names is None else names
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise UserError(f"{source} must be a list of modules, such as plugins=[my_operators]; got {names!r}.")
    found = {point.module: f"the entry point {point.name!r}" for point in _entry_points()}
    found |= dict.fromkeys(listed_plugins(), f"the variable {VARIABLE}")
    found |= dict.fromkeys(given, source)
    for name, where in found.items():
        if name not in _plugins:
            _plugins.add(name)  # first: it may ask for what is registered
            try:
                _import_plugin(name, where)
            except BaseException:
                _plugins.discard(name)
                raise
    return frozenset(_plugins)


def listed_plugins() -> list[str]:
    """Return the plugins that the variable names."""
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


@functools.cache  # every installed package is looked at
def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _import_plugin(name: str, source: str) -> None:
    try:
        importlib.import_module(name)
    except UserError as error:
        raise UserError(f"plugin {name!r} of {source}: {error}") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"plugin {name!r} of {source} is not found; put the folder that holds it on PYTHONPATH."
            ) from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
        reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        raise UserError(
            f"plugin {name!r} of {source} cannot be imported: {type(error).__name__}: {reason} ({file}, line {line})."
        ) from error


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name nearest to ``name``, or None where nothing is near.

    Args:
        name: as it was typed.
        known: names that there are.
        cutoff: how much of the two must agree, 0 to 1; of a name that begins another, nothing more is asked.
    """
    names = list(known)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    begun = [
        each for each in names if len(min(name, each, key=len)) > 2 and (each.startswith(name) or name.startswith(each))
    ]
    return next(iter((*matches, *begun)), None)


def unknown_name(kind: str, name: str, known: Iterable[str], *variables: str) -> UserError:
    """Build the error for an unknown name.

    Args:
        kind: what the name is of.
        name: as it was typed.
        known: names that there are.
        *variables: of the environment, through which names of a person's own are found.
    """
    names = sorted(known)
    said = [f"{key}={os.environ[key]}" if os.environ.get(key) else f"{key} (not set)" for key in variables]
    own = f" Your own are found through {' and '.join(said)}." if said else ""
    return UserError(f"unknown {kind} {shown(name)}.{did_you_mean(name, names)} Known: {', '.join(names)}.{own}")


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """Return the end of a complaint, `` Did you mean 'hin'?``; empty where no text of ``known`` is near."""
    if not isinstance(name, str):
        return ""
    guess = nearest(name, [each for each in known if isinstance(each, str)])
    return f" Did you mean {guess!r}?" if guess else ""


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def option_names(target: Callable[..., Any], skip: Iterable[str] = ()) -> list[str]:
    """Return the names of a callable's keyword arguments, but those in ``skip``."""
    skipped = {"self", *skip}
    return [p.name for p in inspect.signature(target).parameters.values() if p.kind in _NAMED and p.name not in skipped]


def check_options(what: str, target: Callable[..., Any], options: Mapping[str, Any], skip: Iterable[str] = ()) -> None:
    """Refuse options that ``target`` does not take, naming the nearest one that it does.

    Raises:
        UserError: an option is unknown.
    """
    known = option_names(target, skip)
    for key in options:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise UserError(f"{what} has no option {key!r}.{did_you_mean(key, known)} Its options: {listed}.")
