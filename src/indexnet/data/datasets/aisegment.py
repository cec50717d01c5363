"""``aisegment``: 34,427 half-body portraits with mattes."""

from __future__ import annotations

from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.data.base import DataInfo, register_data
from indexnet.data.io.file_lists import hold_out
from indexnet.data.io.images import any_images
from indexnet.data.portraits import Portrait, PortraitData, joined


@register_data
class AISegment(PortraitData):
    """Half-body portraits of 600x800 pixels, cut out into the fourth channel of a PNG.

    No split was published: about a tenth, chosen by a hash of the names, is for testing.
    """

    info = DataInfo(
        name="aisegment",
        title="AISegment.com Matting Human",
        tasks=("portrait", "matting"),
        source="aisegmentcn/matting_human_datasets (2019); terms of use as stated there",
        layout="ROOT/clip_img/*/*/NAME.jpg and ROOT/matting/*/*/NAME.png, whatever the folders between are called",
    )

    def portraits(self, split: str) -> list[Portrait]:
        images, mattes = (_below(self.root / folder) for folder in ("clip_img", "matting"))
        found = joined(images, mattes, self.root / "matting")
        kept, held = hold_out([each.image for each in found], str(self.root / "clip_img"))
        chosen = set(held if split == "test" else kept)
        return [each for each in found if each.image in chosen]


def _below(folder: Path) -> list[Path]:
    """Return the images of a folder and of those in it; what else lies there is left out."""
    places = sorted({path.parent for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")})
    found = [place / name for place in places for name in any_images(place)]
    if not found:
        raise UserError(f"{folder} does not exist or holds no images; data=aisegment needs it.")
    return found
