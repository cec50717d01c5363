"""``train400``: the gray photographs on which DnCNN and its successors are trained and tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexnet.data.base import Data, DataInfo, Dataset, check_count, check_size, register_data
from indexnet.data.denoising import CleanImages, CleanPatches, check_scales
from indexnet.data.io.cache import Cache, check_cache

_TRAIN, _TESTS = "Train400", {"bsd68": "BSD68", "set12": "Set12"}


@register_data
class Train400(Data):
    """400 gray photographs of 180x180 to train on, BSD68 and Set12 to test on.

    With the default options one epoch has 238400 patches of 40x40, the protocol of DnCNN. The tests are two splits,
    ``bsd68`` and ``set12``.

    Args:
        root: folder with ``Train400``, ``BSD68`` and ``Set12``.
        task: ``"denoising"`` or ``"reconstruction"``; both get the clean patch.
        size: side of a training patch in pixels.
        stride: from one training patch to the next, in pixels.
        scales: at which the training photographs are cut into patches; each in (0, 1].
        cache: whether the photographs are decoded once and kept: ``"auto"`` (where memory allows), True or False.

    Raises:
        UserError: an option's value is impossible.
    """

    info = DataInfo(
        name="train400",
        title="Train400, tested on BSD68 and Set12",
        tasks=("denoising", "reconstruction"),
        source="Zhang et al., Beyond a Gaussian denoiser (DnCNN), TIP 2017; photographs from BSDS, for research",
        layout="ROOT/Train400/test_001.png ..., ROOT/BSD68/test001.png ..., ROOT/Set12/01.png ...",
    )
    channels = 1

    def __init__(
        self,
        root: str,
        task: str = "denoising",
        size: int = 40,
        stride: int = 10,
        scales: Sequence[float] = (0.7, 0.8, 0.9, 1.0),
        cache: Cache = "auto",
    ) -> None:
        super().__init__(task)
        self.root, self.size = Path(root), check_size("data.size", size)
        self.stride, self.scales = check_count("data.stride", stride), check_scales(scales)
        self.cache = check_cache(cache)

    def train(self) -> CleanPatches:
        return CleanPatches(self.name, "train", self.root / _TRAIN, self.size, self.stride, self.scales, self.cache)

    def test(self) -> Dataset:
        return self.tests()["bsd68"]

    def tests(self) -> dict[str, Dataset]:
        """Return ``bsd68`` and ``set12``."""
        return {name: CleanImages(self.name, "test", self.root / folder, self.cache) for name, folder in _TESTS.items()}
