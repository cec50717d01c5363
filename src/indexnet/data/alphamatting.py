"""``alphamatting``: the training set of alphamatting.com, photographs with ground-truth mattes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from indexnet.data.base import (
    Data,
    DataInfo,
    Dataset,
    NoSplitError,
    Sample,
    check_choice,
    digest,
    planes,
    register_data,
)
from indexnet.data.images import list_images, read_alpha, read_image, read_trimap
from indexnet.errors import UserError

_INPUT, _ALPHA, _TRIMAP = "input_training_lowres", "gt_training_lowres", "trimap_training_lowres"


@dataclass
class AlphaMattingPhotographs(Dataset):
    """The photographs of one folder, with alpha and one set of trimaps; sizes differ from sample to sample.

    Args:
        split: ``"test"``.
        root: the folder that holds the three folders of the original archives.
        trimap: ``"Trimap1"`` or ``"Trimap2"``.
    """

    split: str
    root: Path
    trimap: str
    files: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.files = [path.name for path in list_images(self.root / _INPUT)]
        for name in self.files:
            for path in self._paths(name)[1:]:
                if not path.is_file():
                    raise UserError(f"{path} is missing: every image of {_INPUT} needs one of the same name.")

    def _paths(self, file: str) -> tuple[Path, Path, Path]:
        return self.root / _INPUT / file, self.root / _ALPHA / file, self.root / _TRIMAP / self.trimap / file

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Return the photograph's file name without its ending."""
        self._check_index(index)
        return Path(self.files[index]).stem

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, H, W), ``alpha`` and ``trimap`` (1, H, W) and ``name``.

        Raises:
            UserError: a file cannot be read, the three differ in size, or the trimap has other values than 0, 128, 255.
        """
        name = self.name(index)
        image_path, alpha_path, trimap_path = self._paths(self.files[index])
        image, alpha = read_image(image_path), read_alpha(alpha_path)
        trimap, _ = read_trimap(trimap_path, strict=True)
        for path, array in ((alpha_path, alpha), (trimap_path, trimap)):
            if array.shape != image.shape[:2]:
                raise UserError(
                    f"{path} is {array.shape[1]}x{array.shape[0]} pixels but {image_path} is "
                    f"{image.shape[1]}x{image.shape[0]}; they must be of one size."
                )
        return {"image": planes(image), "alpha": torch.from_numpy(alpha)[None], "trimap": planes(trimap), "name": name}

    def fingerprint(self) -> str:
        """SHA-256 over the trimap set and all files' names and byte sizes."""
        sizes = [[name, *(path.stat().st_size for path in self._paths(name))] for name in self.files]
        return digest("alphamatting", self.split, self.trimap, sizes)


@register_data
class AlphaMatting(Data):
    """The 27 photographs of alphamatting.com that come with ground truth, low resolution; for testing only.

    The photographs have no foreground and background colours, so that there is no composition loss to train with, and
    there are too few of them.

    Args:
        root: folder with ``input_training_lowres``, ``gt_training_lowres`` and ``trimap_training_lowres``.
        task: ``"matting"``.
        trimap: ``"Trimap1"`` (small unknown region) or ``"Trimap2"`` (large).

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

    def __init__(self, root: str, task: str = "matting", trimap: str = "Trimap1") -> None:
        super().__init__(task)
        check_choice("data.trimap", trimap, ("Trimap1", "Trimap2"))
        self.root, self.trimap = Path(root), trimap

    def train(self) -> Dataset:
        """Refuse.

        Raises:
            NoSplitError: always; the data set is for testing.
        """
        raise NoSplitError(
            "data set 'alphamatting' is for testing only (few photographs, no foreground colours); train on "
            "another, for example data=scenes."
        )

    def test(self) -> AlphaMattingPhotographs:
        """Return the photographs."""
        return AlphaMattingPhotographs("test", self.root, self.trimap)
