"""``p3m10k``: 10,421 portraits with mattes, faces blurred, and two sets to test on."""

from __future__ import annotations

from indexnet.data.base import DataInfo, Dataset, register_data
from indexnet.data.portraits import Portrait, PortraitData, paired

_TESTS = {"p500p": ("P3M-500-P", "blurred_image"), "p500np": ("P3M-500-NP", "original_image")}


@register_data
class P3M10k(PortraitData):
    """9,421 portraits with blurred faces to train on, 500 such to test on, and 500 without faces that are blurred.

    The two test splits are called ``p500p`` and ``p500np``, and so are their metrics: ``p500p/sad``. Their trimaps are
    files.
    """

    info = DataInfo(
        name="p3m10k",
        title="P3M-10k",
        tasks=("portrait", "matting"),
        source="Li et al., Privacy-preserving portrait matting, ACM MM 2021; MIT release agreement",
        layout="ROOT/train/{blurred_image,mask}, ROOT/validation/P3M-500-P/{blurred_image,mask,trimap}, "
        "ROOT/validation/P3M-500-NP/{original_image,mask,trimap}",
    )

    def portraits(self, split: str) -> list[Portrait]:
        if split == "train":
            return paired(self.root / "train/blurred_image", self.root / "train/mask")
        folder, images = _TESTS[split]
        place = self.root / "validation" / folder
        return paired(place / images, place / "mask", place / "trimap")

    def tests(self) -> dict[str, Dataset]:
        return {name: self._made_of("test", self.portraits(name)) for name in _TESTS}

    def test(self) -> Dataset:
        return next(iter(self.tests().values()))
