"""``train400``: the gray photographs on which DnCNN and its successors are trained and tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexnet.data.base import DataInfo, Dataset, register_data
from indexnet.data.denoising import CleanData, CleanOptions

_TRAIN, _TESTS = "Train400", {"bsd68": "BSD68", "set12": "Set12"}


@register_data
class Train400(CleanData):
    """400 gray photographs of 180x180 to train on, BSD68 and Set12 to test on.

    With the default options one epoch has 238400 patches of 40x40, the protocol of DnCNN. The tests are two splits,
    ``bsd68`` and ``set12``.
    """

    info = DataInfo(
        name="train400",
        title="Train400, tested on BSD68 and Set12",
        tasks=("denoising", "reconstruction"),
        source="Zhang et al., Beyond a Gaussian denoiser (DnCNN), TIP 2017; photographs from BSDS, for research",
        layout="ROOT/Train400/test_001.png ..., ROOT/BSD68/test001.png ..., ROOT/Set12/01.png ...",
    )

    @dataclass(frozen=True)
    class Options(CleanOptions):
        """Options, with the protocol's defaults."""

        scales: Sequence[float] = (0.7, 0.8, 0.9, 1.0)

    def train_folder(self) -> Path:
        return self.root / _TRAIN

    def tests(self) -> dict[str, Dataset]:
        """Return ``bsd68`` and ``set12``."""
        return {name: self._whole("test", self.root / folder) for name, folder in _TESTS.items()}
