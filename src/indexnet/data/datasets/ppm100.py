"""``ppm100``: 100 portraits with mattes, for testing."""

from __future__ import annotations

from indexnet.data.base import DataInfo, Dataset, NoSplitError, register_data
from indexnet.data.portraits import Portrait, PortraitData, paired


@register_data
class PPM100(PortraitData):
    """Photographic Portrait Matting: 100 portraits of various sizes and kinds, for testing."""

    info = DataInfo(
        name="ppm100",
        title="PPM-100",
        tasks=("portrait", "matting"),
        source="Ke et al., MODNet, AAAI 2022 (ZHKKKe/PPM); images from Flickr under Creative Commons licences",
        layout="ROOT/image/NAME.jpg, ROOT/matte/NAME.jpg",
    )

    def portraits(self, split: str) -> list[Portrait]:
        return paired(self.root / "image", self.root / "matte")

    def train(self) -> Dataset:
        raise NoSplitError("data set 'ppm100' is for testing only; train on another, such as data=portrait_folder.")
