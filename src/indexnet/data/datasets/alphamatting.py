"""``alphamatting``: the training set of alphamatting.com, photographs with ground-truth mattes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.core.registry import unknown_name
from indexnet.data.base import Data, DataInfo, Dataset, NoSplitError, check_choice, register_data
from indexnet.data.io.images import list_images
from indexnet.data.matting.photographs import MattingFiles, Triple

_INPUT, _ALPHA, _TRIMAP = "input_training_lowres", "gt_training_lowres", "trimap_training_lowres"


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
        tasks=("matting",),
        source="Rhemann et al., A perceptually motivated online benchmark for image matting, CVPR 2009; for research",
        layout=f"ROOT/{_INPUT}/GT01.png ..., ROOT/{_ALPHA}/GT01.png ..., ROOT/{_TRIMAP}/Trimap1|Trimap2/GT01.png ...",
    )

    def __init__(
        self, root: str, task: str = "matting", trimap: str = "Trimap1", names: str | Sequence[str] | None = None
    ) -> None:
        super().__init__(task)
        check_choice("data.trimap", trimap, ("Trimap1", "Trimap2"))
        self.root, self.trimap, self.names = Path(root), trimap, check_names(names)

    def train(self) -> Dataset:
        """Refuse.

        Raises:
            NoSplitError: always; the data set is for testing.
        """
        raise NoSplitError(
            "data set 'alphamatting' is for testing only (few photographs, no foreground colours); train on "
            "another, for example data=scenes."
        )

    def test(self) -> MattingFiles:
        """Return the photographs.

        Raises:
            UserError: files are missing, or a name has none.
        """
        files = chosen(photographs(self.root, _INPUT, self.info), self.names)
        alphas, trimaps = self.root / _ALPHA, self.root / _TRIMAP / self.trimap
        triples = [Triple(file.stem, file.stem, file, alphas / file.name, trimaps / file.name) for file in files]
        return MattingFiles("test", self.name, triples, variant=self.trimap)


def photographs(root: Path, folder: str, info: DataInfo) -> list[Path]:
    """List the photographs of a data set of alphamatting.com.

    Raises:
        UserError: there are none.
    """
    try:
        return list_images(root / folder)
    except UserError as error:
        what = str(error).partition(";")[0]
        raise UserError(
            f"{what}; data.root={root} is to be the ROOT of {info.layout} (`indexnet data check {info.name} root=DIR` "
            "tells what is missing)."
        ) from error


def check_names(names: Any) -> tuple[str, ...] | None:
    """Return the option ``data.names``: names of photographs, each once, or None. One may stand alone.

    Raises:
        UserError: it is something else.
    """
    if names is None:
        return None
    listed = [names] if isinstance(names, str) else list(names) if isinstance(names, Sequence) else []
    if not listed or not all(name and isinstance(name, str) for name in listed) or len(set(listed)) < len(listed):
        raise UserError(
            "data.names must be a list of different names, such as 'data.names=[GT17,GT18]' (in quotes), one name, or "
            f"null; got {names!r}."
        )
    return tuple(listed)


def chosen(files: Sequence[Path], names: Sequence[str] | None) -> list[Path]:
    """Return the files of these names, in the files' order; all of them for None.

    Raises:
        UserError: a name has no file.
    """
    stems = {file.stem for file in files}
    for name in names or ():
        if name not in stems:
            raise unknown_name("photograph in data.names", name, stems)
    return [file for file in files if names is None or file.stem in names]
