"""Coupled downsampling and upsampling operators for dense prediction.

Everything up to :mod:`indexnet.networks` is plain PyTorch; Lightning enters in :mod:`indexnet.tasks`, Hydra in
:mod:`indexnet.run.config` and in the plugins beside this package, ``hydra_plugins``. Importing this package imports
neither torch nor anything heavy. ``docs/architecture.md`` has the rooms, and what each may know.
"""

import os as _os

from indexnet import _torchvision

_torchvision.install()  # first: timm, torchmetrics and Lightning import torchvision
_os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no network look-up at import

__version__ = "0.1.0"
