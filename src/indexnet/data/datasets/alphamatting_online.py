"""``alphamatting_test``: the benchmark of alphamatting.com, photographs whose mattes are secret."""

from __future__ import annotations

from pathlib import Path

from indexnet.data.base import Data, DataInfo, Dataset, NoSplitError, register_data
from indexnet.data.datasets.alphamatting import photographs
from indexnet.data.matting.photographs import MattingFiles, Triple

_INPUT, _TRIMAP = "input_lowres", "trimap_lowres"
_SETS = ("Trimap1", "Trimap2", "Trimap3")


@register_data
class AlphaMattingTest(Data):
    """The 8 photographs of the benchmark with three sets of trimaps each: small, large, and drawn by users.

    There is nothing to measure with: samples have no ``alpha``. A submission is one 8-bit PNG a photograph and set.

    Args:
        root: folder with ``input_lowres`` and ``trimap_lowres``.
        task: ``"matting"``.
    """

    info = DataInfo(
        name="alphamatting_test",
        title="alphamatting.com, benchmark without ground truth",
        tasks=("matting",),
        source="Rhemann et al., A perceptually motivated online benchmark for image matting, CVPR 2009; for research",
        layout=f"ROOT/{_INPUT}/doll.png ..., ROOT/{_TRIMAP}/Trimap1|Trimap2|Trimap3/doll.png ...",
    )

    def __init__(self, root: str, task: str = "matting") -> None:
        super().__init__(task)
        self.root = Path(root)

    def train(self) -> Dataset:
        """Refuse.

        Raises:
            NoSplitError: always; nobody has the mattes.
        """
        raise NoSplitError(
            "data set 'alphamatting_test' has no mattes to train with; train on another, for example data=scenes."
        )

    def test(self) -> MattingFiles:
        """Return the photographs with the first set of trimaps."""
        return self._with("Trimap1")

    def tests(self) -> dict[str, Dataset]:
        """Return the photographs with each set: ``Trimap1``, ``Trimap2``, ``Trimap3``."""
        return {name: self._with(name) for name in _SETS}

    def _with(self, trimaps: str) -> MattingFiles:
        folder = self.root / _TRIMAP / trimaps
        files = photographs(self.root, _INPUT, self.info)
        triples = [Triple(file.stem, file.stem, file, None, folder / file.name) for file in files]
        return MattingFiles("test", self.name, triples, variant=trimaps)
