"""``portrait2k``: 2,000 portraits with mattes, the data of portrait matting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, register_data
from indexnet.data.io.images import list_images
from indexnet.data.io.names import pair, sample_name
from indexnet.data.portraits import Portrait, PortraitData, PortraitOptions

_ENDING = "_matte"


@register_data
class Portrait2k(PortraitData):
    """Portraits of 600x800 pixels: 1,700 to train on and 300 to test on, with mattes of three equal channels.

    There are no trimaps; those of published numbers left 13.55 % of the pixels unknown, and ``trimap_width=auto`` takes
    the ellipse that comes nearest to that on the test photographs.
    """

    info = DataInfo(
        name="portrait2k",
        title="Portrait-2k",
        tasks=("portrait", "matting"),
        source="Shen et al., Deep automatic portrait matting, ECCV 2016; for research, on request from the authors",
        layout="ROOT/training/NAME.png and NAME_matte.png; ROOT/testing the same",
    )

    @dataclass(frozen=True)
    class Options(PortraitOptions):
        """Options."""

        trimap_width: int | str = "auto"

    options: Options
    folders: ClassVar[dict[str, str]] = {"train": "training", "test": "testing"}

    def portraits(self, split: str) -> list[Portrait]:
        folder = self.root / self.folders[split]
        files = list_images(folder)
        mattes = [path for path in files if path.stem.endswith(_ENDING)]
        images = [path for path in files if not path.stem.endswith(_ENDING)]
        found = []
        for image, matte in pair(images, mattes, _ENDING):
            if image is None or matte is None:
                lone = image or matte
                assert lone is not None
                partner = f"{lone.stem}{_ENDING}.png" if image else f"{lone.stem.removesuffix(_ENDING)}.png"
                raise UserError(f"{lone} has no partner; put {partner} beside it, or take it away.")
            found.append(Portrait(sample_name(image), image, matte))
        return found
