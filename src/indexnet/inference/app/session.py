"""What the web page of ``indexnet app`` does, without the page: files and strokes in, pictures and files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import ImageColor
from torch.utils.data import default_collate

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.data.base import Float32, UInt8
from indexnet.data.io.images import read_image, write_png
from indexnet.data.io.skimage_photographs import shrunk
from indexnet.data.matting.cutouts import Blur, cut_out, foreground_colours, on_background
from indexnet.inference.image_files import Item
from indexnet.inference.loading import is_classical, predict_with_index_maps
from indexnet.inference.photographs import read_photo
from indexnet.networks.checkpoint import resampling_title
from indexnet.tasks import Task
from indexnet.tasks.cut_outs import quantise_alpha
from indexnet.tasks.predictor import Photo, not_finite
from indexnet.tasks.visualization import index_map_picture

Start = Literal["background", "unknown", "mask", "trimap"]
"""What pixels are that nobody painted: of one kind, or as a file says."""

# colours as far from each other as from their mixtures at the rims of strokes
BRUSHES = {"foreground": ("#16b450", 255), "unknown": ("#3264f0", UNKNOWN), "background": ("#e63232", 0)}
"""Colour of each brush, and the trimap's value that it stands for."""

CANVAS_SIDE = 704
"""Longer side of the picture that is painted on, in pixels."""

_MAP_SIDE = 640  # longer side of the photograph of which index maps are made


@dataclass
class Cut:
    """A photograph whose object was cut out.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        alpha: float32 (H, W) in [0, 1].
        colours: of the foreground, uint8 (H, W, 3).
        folder: where its files are.
        stem: what their names begin with.
        files: ``trimap``, ``alpha``, ``alpha16``, ``cutout``: what was written.
        maps: of every stage a picture of the index map, uint8 (h, w, 3); empty where there are none.
        remarks: what the person should know, in sentences.
    """

    image: UInt8
    alpha: Float32
    colours: UInt8
    folder: Path
    stem: str
    files: dict[str, Path] = field(default_factory=dict)
    maps: list[UInt8 | None] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def canvas(photo: str | Path) -> UInt8:
    """Return a photograph at the size at which it is painted on: at most 704 pixels at the longer side.

    Raises:
        UserError: it cannot be read; the sentence names the file without its folder, as all here do.
    """
    try:
        return shrunk(read_image(photo, srgb=True), CANVAS_SIDE)
    except UserError as error:
        raise UserError(_without_folders(str(error), [photo])) from error


def paint(trimap: UInt8, strokes: UInt8) -> UInt8:
    """Put strokes over a trimap.

    Args:
        trimap: uint8 (H, W) in {0, 128, 255}.
        strokes: uint8 (h, w, 4), RGBA, of any size: a pixel that is at least half opaque counts as the brush in
            :data:`BRUSHES` whose colour is nearest.

    Returns:
        uint8 (H, W) in {0, 128, 255}.

    Raises:
        UserError: the strokes have another shape than the trimap, so that they belong to another picture.
    """
    (height, width), (h, w) = trimap.shape, strokes.shape[:2]
    if abs(h * width - w * height) > 2 * max(height, width, h, w):
        raise UserError(f"the strokes ({w}x{h}) do not fit the photograph ({width}x{height}); drop it again.")
    values = np.array([value for _, value in BRUSHES.values()], np.uint8)
    colours = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour, _ in BRUSHES.values()], np.int32)
    distances = ((strokes[:, :, None, :3].astype(np.int32) - colours) ** 2).sum(axis=3)
    painted = np.where(strokes[..., 3] >= 128, values[distances.argmin(axis=2)], 1).astype(np.uint8)
    if painted.shape != trimap.shape:
        painted = np.asarray(cv2.resize(painted, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.where(painted == 1, trimap, painted)


def read_alone(photo: str | Path | None) -> Photo:
    """Read a photograph of which a network makes the trimap itself.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if photo is None:
        raise UserError("there is no photograph yet; drop one first.")
    try:
        found = read_photo(Item(Path(photo)))
    except UserError as error:
        raise UserError(_without_folders(str(error), [photo])) from error
    found.remarks = [_without_folders(remark, [photo]) for remark in found.remarks]
    return found


def read_guided(
    photo: str | Path | None,
    start: Start,
    guide: str | Path | None = None,
    band: int | None = None,
    strokes: UInt8 | None = None,
) -> Photo:
    """Read a photograph, and make its trimap of a file, of strokes, or of strokes that mend a file.

    Args:
        photo: its file.
        start: what is true where nothing was painted.
        guide: the file of the mask or the trimap that ``start`` names.
        band: width of the unknown band around a mask's edge, in pixels; None: relative to the mask.
        strokes: as :func:`paint` takes them.

    Raises:
        UserError: something is missing, cannot be read, or does not fit.
    """
    painted = strokes is not None and bool((strokes[..., 3] >= 128).any())
    if photo is None:
        raise UserError("there is no photograph yet; drop one first.")
    if start in ("mask", "trimap") and guide is None:
        raise UserError(f"there is no {start} yet; drop one, or paint instead.")
    if start in ("background", "unknown") and not painted:
        raise UserError("nothing is marked yet; paint on the photograph, or give a mask or a trimap.")
    file = None if guide is None else Path(guide)
    item = Item(Path(photo), trimap=file if start == "trimap" else None, mask=file if start == "mask" else None)
    try:
        found = read_photo(item, band)
    except UserError as error:
        raise UserError(_without_folders(str(error), [photo, guide])) from error
    found.remarks = [_without_folders(remark, [photo, guide]) for remark in found.remarks]
    trimap = found.trimap
    if trimap is None:
        trimap = np.full(found.image.shape[:2], 0 if start == "background" else UNKNOWN, np.uint8)
    if painted:
        assert strokes is not None
        trimap = paint(trimap, strokes)
    found.trimap = trimap
    unknown = trimap == UNKNOWN
    if not unknown.any():
        remedy = "paint some of its edge as unknown" if start == "background" else "mark the object's edge as unknown"
        found.remarks.append(f"The trimap has no unknown pixels, so it is the result as it is; {remedy}.")
    elif unknown.all():
        found.remarks.append("Every pixel is unknown; mark some foreground and some background for better results.")
    return found


class Session:
    """A trained network, or a classical method, at work for the page.

    Args:
        task: on its device, in eval mode.
        meta: the checkpoint's entry.

    Attributes:
        title: of the operator, or the method.
        cuts_out: whether it cuts objects out, with :meth:`cut` and :meth:`compose`; else there is :meth:`run`.
        guided: whether it needs a trimap for that.
        stages: how many stages have index maps to look at; 0 where the operator has none.
    """

    def __init__(self, task: Task, meta: Mapping[str, Any]) -> None:
        self.task = task
        self.predictor = task.create_predictor({})
        self.cuts_out = self.predictor.cuts_out
        self.guided = task.guide is not None
        self.title = resampling_title(meta)
        self.stages = 0
        if self.cuts_out and not is_classical(meta):
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            maps = self._maps(noise, np.full((64, 64), UNKNOWN, np.uint8))  # also: does the network run at all?
            self.stages = len(maps) if any(found is not None for found in maps) else 0

    def cut(self, photo: Photo, folder: Path, stem: str) -> Cut:
        """Predict alpha and write it (8 and 16 bit), the cut-out and the trimap as PNGs.

        Args:
            photo: with its trimap, where the method needs one.
            folder: where to; files of the same names are replaced.
            stem: what the files' names begin with.

        Raises:
            UserError: the method cannot solve it, or pymatting is not installed.
        """
        levels = self.predictor.alpha(photo)
        files = {"alpha": quantise_alpha(levels, 8), "alpha16": quantise_alpha(levels, 16)}
        if photo.trimap is not None:
            files["trimap"] = photo.trimap
        alpha = levels / np.float32(255)
        colours = foreground_colours(photo.image, alpha)
        files["cutout"] = cut_out(photo.image, alpha, colours)
        result = Cut(photo.image, alpha, colours, folder, stem, remarks=list(photo.remarks))
        for name, pixels in files.items():
            result.files[name] = folder / f"{stem}_{name}.png"
            write_png(result.files[name], pixels, overwrite=True)
        if self.stages and (photo.trimap is None or not self.guided or (photo.trimap == UNKNOWN).any()):
            result.maps = self._maps(photo.image, photo.trimap)
        return result

    def compose(self, cut: Cut, colour: str | None, picture: str | Path | None, blur: bool = False) -> Path:
        """Put what was cut out before its own background, blurred; else before a picture; else before a colour.

        Returns:
            The PNG that was written.

        Raises:
            UserError: the picture cannot be read, or the colour is none.
        """
        try:
            if blur:
                behind: UInt8 | Blur = Blur()
            else:
                behind = read_image(picture, srgb=True) if picture else _read_colour(colour)
        except UserError as error:
            raise UserError(_without_folders(str(error), [picture])) from error
        path = cut.folder / f"{cut.stem}_composite.png"
        write_png(path, on_background(cut.image, cut.alpha, behind, cut.colours), overwrite=True)
        return path

    def run(self, photo: str | Path | None, folder: Path) -> tuple[UInt8, Path]:
        """Run a task other than matting.

        Returns:
            What to look at, uint8 RGB (H, W, 3), and the PNG with the result that ``indexnet predict`` would write.

        Raises:
            UserError: the photograph is missing or cannot be read, or what the network gives is not finite.
        """
        if photo is None:
            raise UserError("there is no photograph yet; drop one first.")
        path = Path(photo)
        try:
            read = read_photo(Item(path))
            batch = default_collate([self.task.image_sample(read.image, name=path.name)])
        except UserError as error:
            raise UserError(_without_folders(str(error), [photo])) from error
        prediction, (finite,) = self.task.predict_finite(batch)
        if not finite:
            raise not_finite(path.name)
        result = folder / f"{path.stem}_{self.task.name}.png"
        write_png(result, self.task.outputs(prediction, batch)[""], overwrite=True)
        return self.task.draw(prediction, batch), result

    def _maps(self, image: UInt8, trimap: UInt8 | None) -> list[UInt8 | None]:
        """Draw the index map of every stage, made of the photograph at 640 pixels: a map is as large as the input."""
        small = shrunk(image, _MAP_SIDE)
        if trimap is None or not self.guided:
            _, maps = predict_with_index_maps(self.task, self.task.image_sample(small))
            return [None if found is None else index_map_picture(found, size=_MAP_SIDE) for found in maps]
        size = (small.shape[1], small.shape[0])
        known = np.asarray(cv2.resize(trimap, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        if not (known == UNKNOWN).any():  # a band too thin for the smaller picture
            known = np.full_like(known, UNKNOWN)
        _, maps = predict_with_index_maps(self.task, self.task.image_sample(small, known))
        return [None if found is None else index_map_picture(found, size=_MAP_SIDE) for found in maps]


def _read_colour(text: str | None) -> UInt8:
    """Read what a browser's colour field may say, ``rgba(12.5, 40, 3, 1)`` or ``#rrggbb``; never a file's name.

    Returns:
        uint8 (3,), RGB.

    Raises:
        UserError: it is no colour.
    """
    text = (text or "")[:100]
    try:
        if text.startswith("rgb") and text.endswith(")"):
            numbers = [float(word) for word in text[text.index("(") + 1 : -1].split(",")[:3]]
            return np.array([min(255, max(0, round(number))) for number in numbers], np.uint8).reshape(3)
        return np.array(ImageColor.getrgb(text)[:3], np.uint8)
    except (ValueError, OverflowError) as error:  # an infinite number
        raise UserError(f"the background {text!r} is no colour; give one such as #3060ff.") from error


def _without_folders(text: str, paths: Sequence[str | Path | None]) -> str:
    """Name files as the person did: where they lie while the page runs means nothing to anyone."""
    for path in paths:
        if path is not None:
            text = text.replace(str(path), Path(path).name)
    return text
