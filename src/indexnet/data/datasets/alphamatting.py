"""``alphamatting`` and ``alphamatting_test``: the two sets of photographs of alphamatting.com."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.data.base import Data, DataInfo, Dataset, NoSplitError, check_choice, register_data
from indexnet.data.io.names import FileFinder, list_named, sample_name
from indexnet.data.matting.photographs import MattingFiles, Triple

_INPUT, _ALPHA, _TRIMAP = "input_training_lowres", "gt_training_lowres", "trimap_training_lowres"
_TEST_INPUT, _TEST_TRIMAP = "input_lowres", "trimap_lowres"
_SOURCE = "Rhemann et al., A perceptually motivated online benchmark for image matting, CVPR 2009; for research"


@register_data
class AlphaMatting(Data):
    """The 27 photographs of alphamatting.com that come with ground truth, low resolution; for testing only.

    The photographs have no foreground and background colours, so that there is no composition loss to train with, and
    there are too few of them.

    Args:
        root: folder with ``input_training_lowres``, ``gt_training_lowres`` and ``trimap_training_lowres``.
        task: ``"matting"``.
        trimap: ``"Trimap1"`` (small unknown region) or ``"Trimap2"`` (large).
        names: photographs to test on, such as ``["GT17", "GT18"]`` or ``"GT17"``; None: all of them.

    Raises:
        UserError: an option's value is impossible.
    """

    info = DataInfo(
        name="alphamatting",
        title="alphamatting.com, training set with ground truth",
        tasks=("matting", "portrait"),
        source=_SOURCE,
        layout=f"ROOT/{_INPUT}/GT01.png ..., ROOT/{_ALPHA}/GT01.png ..., ROOT/{_TRIMAP}/Trimap1|Trimap2/GT01.png ...",
    )

    def __init__(
        self, root: str, task: str = "matting", trimap: str = "Trimap1", names: str | Sequence[str] | None = None
    ) -> None:
        super().__init__(task)
        check_choice("data.trimap", trimap, ("Trimap1", "Trimap2"))
        self.root, self.trimap, self.names = Path(root), trimap, _check_names(names)

    def train(self) -> Dataset:
        raise NoSplitError(
            "data set 'alphamatting' is for testing only (few photographs, no foreground colours); train on "
            "another, for example data=scenes."
        )

    def test(self) -> MattingFiles:
        files = _list_photographs(self.root, _INPUT, self.info)
        stems = {file.stem for file in files}
        for name in self.names or ():
            if name not in stems:
                raise unknown_name("photograph in data.names", name, stems)
        alphas, trimaps, finder = self.root / _ALPHA, self.root / _TRIMAP / self.trimap, FileFinder()
        triples = [
            _triple(file, finder, alphas / file.name, trimaps / file.name)
            for file in files
            if self.names is None or file.stem in self.names
        ]
        return MattingFiles("test", self.name, triples, variant=self.trimap)


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
        source=_SOURCE,
        layout=f"ROOT/{_TEST_INPUT}/doll.png ..., ROOT/{_TEST_TRIMAP}/Trimap1|Trimap2|Trimap3/doll.png ...",
    )

    def __init__(self, root: str, task: str = "matting") -> None:
        super().__init__(task)
        self.root = Path(root)

    def train(self) -> Dataset:
        raise NoSplitError(
            "data set 'alphamatting_test' has no mattes to train with; train on another, for example data=scenes."
        )

    def test(self) -> Dataset:
        return self.tests()["Trimap1"]

    def tests(self) -> dict[str, Dataset]:
        """Return the photographs with each set of trimaps: ``Trimap1``, ``Trimap2``, ``Trimap3``."""
        files = _list_photographs(self.root, _TEST_INPUT, self.info)
        splits: dict[str, Dataset] = {}
        finder = FileFinder()
        for trimaps in ("Trimap1", "Trimap2", "Trimap3"):
            folder = self.root / _TEST_TRIMAP / trimaps
            triples = [_triple(file, finder, None, folder / file.name) for file in files]
            splits[trimaps] = MattingFiles("test", self.name, triples, variant=trimaps)
        return splits


def _triple(image: Path, finder: FileFinder, alpha: Path | None, trimap: Path) -> Triple:
    """Return a photograph with the files at these places, or of their names and other endings."""
    name = sample_name(image)
    alpha = alpha and (finder.find_image(alpha) or alpha)
    return Triple(name, name, image, alpha, finder.find_image(trimap) or trimap)


def _list_photographs(root: Path, folder: str, info: DataInfo) -> list[Path]:
    """List the photographs of one of the sets.

    Raises:
        UserError: there are none.
    """
    try:
        return list_named(root / folder)
    except UserError as error:
        what = str(error).partition(";")[0]
        raise UserError(
            f"{what}; data.root={root} is to be the ROOT of {info.layout} (`indexnet data check {info.name} root=DIR` "
            "tells what is missing)."
        ) from error


def _check_names(names: Any) -> tuple[str, ...] | None:
    """Return the option ``data.names``: names of photographs, each once, or None. One may stand alone.

    Raises:
        UserError: it is something else.
    """
    if names is None:
        return None
    listed = [names] if isinstance(names, str) else names
    if not fits(listed, list[str]) or not listed or not all(listed) or len(set(listed)) < len(listed):
        raise UserError(
            "data.names must be a list of different names, such as 'data.names=[GT17,GT18]' (in quotes), one name, or "
            f"null; got {names!r}."
        )
    return tuple(listed)
