"""Make ``import torchvision`` work beside a CPU build of torch.

torchvision registers fake kernels for its compiled operators at import. Where those operators cannot load (a CPU
build of torch beside the registry's torchvision, which is built for CUDA), that raises ``RuntimeError: operator
torchvision::nms does not exist``, and timm, torchmetrics and Lightning fail with it (pytorch/vision#9085). No operator
of torchvision is used here, so this one error is swallowed. On a healthy installation nothing changes.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_TARGET = "torchvision._meta_registrations"


class _TolerantLoader(importlib.abc.Loader):
    """The loader of one module, with torchvision's missing-operator error swallowed."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TolerantLoader(spec.loader)
        return spec


def install() -> None:
    """Put the tolerant finder in front, once."""
    if _TARGET not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
