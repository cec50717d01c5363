"""``distinctions646``: 596 foregrounds to train on and 50 to test on, composed by the rule of Composition-1k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, register_data
from indexnet.data.matting.composite_data import CompositeData, CompositeOptions
from indexnet.data.matting.foregrounds import Foreground, pair_foregrounds


@register_data
class Distinctions646(CompositeData):
    """596 foregrounds over 100 photographs of COCO each to train on, 50 over 20 of PASCAL VOC each to test on.

    No list of backgrounds and no trimaps were published: photographs are taken by name, and test trimaps are made as
    GCA makes them, opaque and clear pixels eroded by ellipses of 1..29 pixels, drawn from the composite's name.
    """

    info = DataInfo(
        name="distinctions646",
        title="Distinctions-646",
        tasks=("matting", "portrait"),
        source="Qiao et al., Attention-guided hierarchical structure aggregation for image matting, CVPR 2020; from "
        "its authors, for research; COCO and PASCAL VOC beneath",
        layout="ROOT/Train/FG/NAME.jpg, ROOT/Train/GT/NAME.png, and the same under ROOT/Test; ROOT/train2014/*.jpg, "
        "ROOT/VOCdevkit/VOC2012/JPEGImages/*.jpg",
    )
    folders: ClassVar[dict[str, str]] = {"train": "Train", "test": "Test"}
    parts: ClassVar[tuple[str, str]] = ("FG", "GT")
    rule: ClassVar[str] = "eroded"

    @dataclass(frozen=True)
    class Options(CompositeOptions):
        """Options.

        Attributes:
            colours: folder of the foregrounds' colours below ROOT; ``{split}`` stands for Train or Test.
            mattes: the same for their mattes.
        """

        colours: str = "{split}/FG"
        mattes: str = "{split}/GT"

    options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.patterns = self.options.colours, self.options.mattes
        for key, folder in zip(("colours", "mattes"), self.patterns, strict=True):
            if not isinstance(folder, str) or "{split}" not in folder:
                raise UserError(f"data.{key} must be a folder below ROOT with '{{split}}' in it; got {folder!r}.")

    def foregrounds(self, split: str) -> list[Foreground]:
        colours, mattes = (self.root / folder.replace("{split}", self.folders[split]) for folder in self.patterns)
        return pair_foregrounds(colours, mattes)
