"""Quick imports for the console command: large packages without what they only might use, and no collection of garbage.

Lightning imports all of torchmetrics, and that imports scipy.signal (to patch one of its names) and torchvision (for
one metric); timm imports wandb for the log of a training script: seconds of each start of the console command, which
uses none of them. While such a package is imported, stand-ins take their places; what it has taken from one becomes the
real thing when it is used. Afterwards those modules are imported as ever. The collector of garbage rests meanwhile: it
finds nothing there.
"""

import gc
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_LARGE: dict[str, tuple[str, ...]] = {
    "torch": (),
    "pytorch_lightning": (),
    "torchmetrics": ("scipy.signal", "torchvision", "torchvision.models"),
    "timm": ("wandb",),
}
"""What takes long to import, and which modules stand-ins replace meanwhile."""


class _Attribute:
    """Something in a module that is not imported before this is used."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by whoever inspects, not by whoever uses
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._real()(*arguments, **options)


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Attribute(self.__name__, name)


class _Loader(importlib.abc.Loader):
    """The loader of a large package, with the collector of garbage at rest and stand-ins in place.

    A version of the package that cannot work with them is imported without.
    """

    def __init__(self, loader: importlib.abc.Loader, postponed: Sequence[str]) -> None:
        self._loader, self._postponed = loader, postponed

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        collects = gc.isenabled()
        gc.disable()
        try:
            self._exec(module)
        finally:
            if collects:
                gc.freeze()  # what has been imported stays
                gc.enable()

    def _exec(self, module: ModuleType) -> None:
        if self._postponed:
            importlib.import_module("torch")  # first: it is to see no stand-in
        stand_ins = {name: _StandIn(name) for name in self._postponed if name not in sys.modules}
        sys.modules.update(stand_ins)
        works = False
        try:
            self._loader.exec_module(module)
            works = True
        except Exception:
            if not stand_ins:
                raise
        finally:
            for name, stand_in in stand_ins.items():
                if sys.modules.get(name) is stand_in:
                    del sys.modules[name]
        if not works:
            self._loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _LARGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _LARGE[fullname])
        return spec


def install() -> None:
    """Put the finder in front, once. For processes of the console command; a library leaves imports alone."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
