"""``distinctions646``: 596 foregrounds to train on and 50 to test on, composed by the rule of Composition-1k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, register_data
from indexnet.data.io.cache import Cache
from indexnet.data.matting.file_lists import find_images, standard_places
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds
from indexnet.data.matting.test_composites import ComposedData


@register_data
class Distinctions646(ComposedData):
    """596 foregrounds over 100 photographs of COCO each to train on, 50 over 20 of PASCAL VOC each to test on.

    No list of backgrounds and no trimaps were published: photographs are taken by name, and test trimaps are made as
    GCA makes them, opaque and clear pixels eroded by ellipses of 1..29 pixels, drawn from the composite's name.

    Args:
        root: folder of the data set.
        task: ``"matting"``.
        size: side of a training sample in pixels.
        pipeline: the training pipeline: ``"dim"``, ``"mmediting"`` or ``"gca"``.
        per_foreground: training composites of each foreground.
        test_per_foreground: test composites of each foreground.
        colours: folder of the foregrounds' colours below ROOT; ``{split}`` stands for Train or Test.
        mattes: the same for their mattes.
        backgrounds: folders of COCO's train2014, or files that list photographs; None: ``train2014`` in or beside ROOT.
        test_backgrounds: the same for PASCAL VOC; None: ``VOCdevkit/VOC*/JPEGImages`` in or beside ROOT.
        foreground: ``"colours"``, or ``"estimated"`` where the files are photographs.
        foregrounds: folder of colours that were estimated before, ``NAME.png``.
        cache: whether decoded foregrounds are kept: ``"auto"`` (where memory allows), True, False, or a folder for
            them.
        damaged: what a training file that cannot be read does: ``"refuse"`` ends the run, ``"skip"`` takes another.

    Raises:
        UserError: an option's value is impossible.
    """

    info = DataInfo(
        name="distinctions646",
        title="Distinctions-646",
        tasks=("matting",),
        source="Qiao et al., Attention-guided hierarchical structure aggregation for image matting, CVPR 2020; from "
        "its authors, for research; COCO and PASCAL VOC beneath",
        layout="ROOT/Train/FG/NAME.jpg, ROOT/Train/GT/NAME.png, and the same under ROOT/Test; ROOT/train2014/*.jpg, "
        "ROOT/VOCdevkit/VOC2012/JPEGImages/*.jpg",
    )
    folders: ClassVar[dict[str, str]] = {"train": "Train", "test": "Test"}
    parts: ClassVar[tuple[str, str]] = ("FG", "GT")
    rule: ClassVar[str] = "eroded"

    def __init__(
        self,
        root: str,
        task: str = "matting",
        size: int = 320,
        pipeline: str = "dim",
        per_foreground: int = 100,
        test_per_foreground: int = 20,
        colours: str = "{split}/FG",
        mattes: str = "{split}/GT",
        backgrounds: str | Sequence[str] | None = None,
        test_backgrounds: str | Sequence[str] | None = None,
        foreground: str = "colours",
        foregrounds: str | None = None,
        cache: Cache = "auto",
        damaged: str = "refuse",
    ) -> None:
        super().__init__(
            root=root,
            task=task,
            size=size,
            pipeline=pipeline,
            per_foreground=per_foreground,
            test_per_foreground=test_per_foreground,
            backgrounds=backgrounds,
            test_backgrounds=test_backgrounds,
            foreground=foreground,
            foregrounds=foregrounds,
            cache=cache,
            damaged=damaged,
        )
        for key, folder in (("colours", colours), ("mattes", mattes)):
            if not isinstance(folder, str) or "{split}" not in folder:
                raise UserError(f"data.{key} must be a folder below ROOT with '{{split}}' in it; got {folder!r}.")
        self.patterns = colours, mattes

    def objects(self, split: str) -> list[Foreground]:
        """Return the split's foregrounds, by name."""
        colours, mattes = (self.root / folder.replace("{split}", self.folders[split]) for folder in self.patterns)
        return pair_foregrounds(colours, mattes)

    def backgrounds(self, split: str) -> list[Path]:
        """Return the split's photographs, by name."""
        places = self.places[split] or standard_places(self.root, split, self.name)
        return find_images(places, self.place_options[split])
