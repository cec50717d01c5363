"""What data sets of depth share: frames and their files, seen the way that FastDepth is trained and tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.data.base import Float32, Sample, UInt8, check_choice, digest, planes
from indexnet.data.files import FileData, FileOptions, Listed
from indexnet.data.io.cache import Arrays, Cache, Store
from indexnet.data.io.images import image_size, read_image, read_values
from indexnet.data.transforms import Affine, affine, colour_jitter, lighting_noise, warp, warp_nearest

if TYPE_CHECKING:
    import h5py

SEEN = 228 / 250
"""Share of a frame's height and width that a network sees: of a frame scaled to 250x333, the middle 228x304."""

CROPS = ("none", "eigen")
EVALUATIONS = ("network", "full")
PIPELINES = (None, "hu")
_EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)  # top, bottom, left, right of Eigen's crop, as shares of a frame
_ZOOM, _ANGLE, _JITTER = (1.0, 1.5), 5.0, 0.4
_HU_SEEN, _LIGHTING = 228 / 240, 0.1
_FAR = 20.0  # metres; indoor sensors reach 10, so a farther depth is in another unit
_FAR_OUTDOORS = 1000.0  # metres
_LINES = 240  # about the height of the frames that are kept
_SMALLEST = 16
_H5_SIZE = (480, 640)  # of the frames in HDF5 files, which are not opened to estimate their memory

Depth = npt.NDArray[Any]

#: Metres of each level of an 8-bit depth map: the middle of the level; 0 is unknown.
_LEVELS = np.where(np.arange(256), (np.arange(256) + 0.5) / 25.5, 0).astype(np.float32)


class Frame(NamedTuple):
    """A frame: its name, an HDF5 file, or a photograph and its depth map; and where it was taken, if that is known."""

    name: str
    files: tuple[Path, ...]
    scene: str | None = None


def read_depth(path: Path) -> Depth:
    """Read the numbers of a depth map.

    Returns:
        uint8 or uint16 (H, W), as the file has them.

    Raises:
        UserError: it cannot be read as an image, is a JPEG, or is not a gray one of 8 or 16 bits.
    """
    mode, values = read_values(path, exact=True)
    if mode == "L":
        return values
    if mode.startswith("I") and values.size and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16)
    raise UserError(f"{path} is no depth map ({mode}); a gray PNG of 8 or 16 bits was expected.")


def read_h5(path: Path) -> tuple[UInt8, Float32]:
    """Read a frame from an HDF5 file.

    Returns:
        Its ``rgb`` as uint8 (H, W, 3) and its ``depth`` as float32 (H, W), metres.

    Raises:
        UserError: it is damaged, or ``rgb`` (3, H, W) uint8 or ``depth`` (H, W) of floating point is not in it.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:  # read-only folders on network disks cannot be locked
            for key in ("rgb", "depth"):
                if not isinstance(file.get(key), h5py.Dataset):
                    there = ", ".join(sorted(file)) or "nothing"
                    raise UserError(f"{path} has no {key!r}; there is: {there}. A frame has 'rgb' and 'depth'.")
            rgb, depth = file["rgb"], file["depth"]
            if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.dtype != np.uint8:
                raise UserError(f"{path}: 'rgb' is {_kind(rgb)}; (3, height, width) uint8 was expected.")
            if depth.ndim != 2 or depth.dtype.kind != "f":
                raise UserError(f"{path}: 'depth' is {_kind(depth)}; (height, width) float32, metres, was expected.")
            return np.ascontiguousarray(rgb[()].transpose(1, 2, 0)), depth[()].astype(np.float32)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as HDF5 ({reason}); fetch it again.") from error


def _kind(dataset: h5py.Dataset) -> str:
    return f"{tuple(dataset.shape)} {dataset.dtype}"


def to_metres(depth: Depth, scale: float | None = None) -> Float32:
    """Turn depth as files have it into metres; 0 or not finite where it is unknown.

    Args:
        depth: (H, W): 8-bit levels, which are (level + 0.5) / 25.5 metres, but for 0, unknown; 16-bit millimetres; or
            floating point, metres.
        scale: so many of the files' units are a metre, whatever their type.
    """
    if scale is not None:
        return depth.astype(np.float32) / np.float32(scale)
    if depth.dtype == np.uint8:
        return np.asarray(_LEVELS[depth])
    return depth.astype(np.float32) / np.float32(1000) if depth.dtype == np.uint16 else np.asarray(depth, np.float32)


@dataclass
class DepthFrames(Listed):
    """One split of frames with depth.

    Frames of full size (480x640) are halved once, colours by averaging, depth by leaving out; smaller ones stay.

    Training samples follow FastDepth: the frame is turned by U(-5, 5) degrees, enlarged by s of U(1, 1.5) while its
    depth is divided by s, cut to the middle 91.2 % of height and width (228x304 of 250x333), mirrored with probability
    1/2, scaled to ``size`` x ``size``, and its brightness, contrast and saturation are changed by up to 40 %. All of
    the geometry is one warp, bilinear for colours, nearest for depth; what lies outside the frame has no depth. The
    samples of other splits are the same without chance.

    With the pipeline ``hu`` they follow Hu et al. (WACV 2019): the frame at a short side of ``size`` / 0.95 (240 for
    228) is mirrored with probability 1/2, turned by U(-5, 5) degrees and cut to the middle, ``size`` high and 4/3 of
    that wide; it gets lighting noise along ImageNet's principal colours and the same changes of colour. Their rotation
    is a spline of second order, which makes up depth between pixels; here nothing is made up.

    No file stays open from one sample to the next, so that processes of any kind can share a split.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        title: name of the data set.
        frames: the files, in order.
        size: side of the samples in pixels.
        crop: ``"none"``; or ``"eigen"``: no depth outside Eigen's crop (rows 45..471, columns 41..601 of 480x640), but
            in training.
        evaluation: ``"network"``: splits other than training show what training shows; ``"full"``: they show the whole
            frame at the same scale, ``size`` / 0.912 pixels a side.
        cache: see :class:`~indexnet.data.io.cache.Store`.
        folder: in fingerprints, files are named from here; None: by their names alone.
        depth_scale: so many units of the files are a metre; None: see :func:`to_metres`.
        pipeline: None, FastDepth's; or ``"hu"``.

    Attributes:
        store: the frames, halved.
    """

    split: str
    title: str
    frames: list[Frame] = field(repr=False)
    size: int
    crop: str
    evaluation: str
    cache: Cache
    folder: Path | None = None
    depth_scale: float | None = None
    pipeline: str | None = None
    one_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.names = [frame.name for frame in self.frames]
        self.scenes = [frame.name if frame.scene is None else frame.scene for frame in self.frames]
        self.store = Store(len(self), self._load, self._bytes, self.cache, "frames")

    def _load(self, index: int) -> Arrays:
        files = self.frames[index].files
        image, depth = read_h5(*files) if len(files) == 1 else (read_image(files[0]), read_depth(files[1]))
        if image.shape[:2] != depth.shape:
            (h, w), shape = image.shape[:2], "x".join(map(str, depth.shape[::-1]))
            raise UserError(
                f"{files[-1]}: the image is {w}x{h} pixels but its depth is {shape}; they must be of one size."
            )
        if min(depth.shape) < _SMALLEST:
            raise UserError(f"{files[-1]}: a frame of {depth.shape[1]}x{depth.shape[0]} pixels is too small.")
        return halved(image, depth)

    def _bytes(self, index: int) -> int:
        first, *others = self.frames[index].files
        (height, width), nbytes = (image_size(first), 4) if others else (_H5_SIZE, 7)  # of a decoded pixel
        return height * width * nbytes // _factor(height) ** 2

    def fingerprint(self) -> str:
        view = [self.split, self.size] if self.split == "train" else [self.split, self.size, self.crop, self.evaluation]
        view += [] if self.depth_scale is None else [self.depth_scale]
        view += [] if self.pipeline is None else [self.pipeline]
        files = [path for frame in self.frames for path in frame.files]
        names = [str(path.relative_to(self.folder)) if self.folder else path.name for path in files]
        return digest(self.title, view, [[name, path.stat().st_size] for name, path in zip(names, files, strict=True)])

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``image`` (3, S, S) in [0, 1], ``depth`` (1, S, S) in metres, 0 where there is none, and ``name``.

        With the pipeline ``hu`` they are S high and 4/3 S wide.

        Raises:
            UserError: a file cannot be read, or image and depth differ in size.
        """
        name, train = self.name(index), self.split == "train"
        image, depth = self.store[index]
        hu = self.pipeline == "hu"
        view = hu_view if hu else fastdepth_view
        matrix, size, zoom = view(
            depth.shape, self.size, self.evaluation == "full" and not train, rng if train else None
        )
        image = warp(image, matrix, size)
        metres = self.metres(warp_nearest(depth, matrix, size, fill=0))
        valid = np.isfinite(metres) & (metres > 0)
        metres = np.asarray(np.where(valid, metres, np.float32(0)) / np.float32(zoom), np.float32)
        if train:
            image = colour_jitter(lighting_noise(image, _LIGHTING, rng) if hu else image, _JITTER, rng)
        elif self.crop == "eigen":
            metres *= eigen_crop(size[0], 1.0 if self.evaluation == "full" else SEEN)
        return {"image": planes(image), "depth": torch.from_numpy(metres)[None], "name": name}

    def verify(self, index: int) -> None:
        """Check a frame's files: readable, of one size, with depth, in metres."""
        self._check_index(index)
        _, depth = self.store.load(index)
        check_metres(str(self.frames[index].files[-1]), self.metres(depth), self.depth_scale is not None)

    def metres(self, depth: Depth) -> Float32:
        """Turn depth (H, W) as the files have it into metres; 0 or not finite where it is unknown."""
        return to_metres(depth, self.depth_scale)

    def image_files(self, index: int) -> tuple[Path, ...]:
        self._check_index(index)
        files = self.frames[index].files
        return files if len(files) > 1 else ()

    @property
    def unit(self) -> str:
        """How the numbers of the files became metres, in words."""
        if self.depth_scale is not None:
            return f"{self.depth_scale:g} units of the files a metre"
        return (
            "16 bits read as millimetres, 8 bits as NYU's levels, floating point as metres; data.depth_scale=N for N "
            "units a metre"
        )


@dataclass(frozen=True)
class DepthOptions(FileOptions):
    """Options of a data set of frames with depth.

    Attributes:
        crop: tests: ``"none"``, or ``"eigen"``: only Eigen's crop counts.
        evaluation: tests: ``"network"``, what training shows of a frame; or ``"full"``, all of it.
        depth_scale: so many units of the files are a metre, as 1000 for millimetres; None: see ``info.layout``.
        pipeline: what is seen of a frame: None, as FastDepth; ``"hu"``, as Hu et al., 304x228 for ``size`` 228.
    """

    task: str = "depth"
    size: int = 224
    crop: str = "none"
    evaluation: str = "network"
    depth_scale: float | None = None
    pipeline: str | None = None


class DepthData(FileData):
    """A data set of frames with depth; samples are as in :class:`DepthFrames`."""

    Options: ClassVar[type[DepthOptions]] = DepthOptions
    options: DepthOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        given = self.options
        check_choice("data.crop", given.crop, CROPS)
        check_choice("data.evaluation", given.evaluation, EVALUATIONS)
        self.depth_scale = check_depth_scale(given.depth_scale)
        if self.task == "depth":
            check_choice("data.pipeline", given.pipeline, PIPELINES)
        if given.pipeline == "hu" and given.crop != "none":
            raise UserError(
                f"data.crop={given.crop} is no part of data.pipeline=hu, which counts all it shows; leave it out."
            )

    def _frames(self, split: str, frames: list[Frame], folder: Path | None = None) -> DepthFrames:
        view = self.size, self.options.crop, self.options.evaluation
        return DepthFrames(split, self.name, frames, *view, self.cache, folder, self.depth_scale, self.options.pipeline)


def fastdepth_view(
    shape: tuple[int, int], size: int, whole: bool, rng: np.random.Generator | None
) -> tuple[Affine, tuple[int, int], float]:
    """Choose what a sample shows of a frame in FastDepth's protocol.

    Args:
        shape: (height, width) of the frame.
        size: side of a sample in pixels.
        whole: show the whole frame at the scale of the middle.
        rng: source of what is random; None: nothing is.

    Returns:
        The transform, (height, width) of the sample, and by how much depth is divided.
    """
    zoom, angle, mirrored, side, seen = 1.0, 0.0, False, size, SEEN
    if rng is not None:
        zoom, angle = float(rng.uniform(*_ZOOM)), float(rng.uniform(-_ANGLE, _ANGLE))
        mirrored = bool(rng.random() < 0.5)
    elif whole:
        side, seen = round(size / SEEN), 1.0
    height, width = shape
    zooms = (zoom * side / (seen * height), zoom * side / (seen * width))
    return affine((side, side), (height / 2, width / 2), zooms, angle, mirrored), (side, side), zoom


def hu_view(
    shape: tuple[int, int], size: int, whole: bool, rng: np.random.Generator | None
) -> tuple[Affine, tuple[int, int], float]:
    """Choose what a sample shows of a frame in the protocol of Hu et al.; as :func:`fastdepth_view`."""
    mirrored = rng is not None and bool(rng.random() < 0.5)
    angle = 0.0 if rng is None else float(rng.uniform(-_ANGLE, _ANGLE))
    height = round(size / _HU_SEEN) if whole else size
    view = height, round(height * 4 / 3)
    return affine(view, (shape[0] / 2, shape[1] / 2), size / _HU_SEEN / min(shape), angle, mirrored), view, 1.0


def halved(image: UInt8, depth: Depth) -> tuple[UInt8, Depth]:
    """Reduce a frame by the whole factor that brings it nearest to 240 lines; smaller ones stay as they are.

    Args:
        image: (H, W, 3); averaged.
        depth: (H, W); one value of each block, next to its middle.
    """
    factor = _factor(depth.shape[0])
    if factor < 2:
        return image, depth
    rows, columns = (length // factor for length in depth.shape)
    image = image[: rows * factor, : columns * factor]
    smaller = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    first = factor // 2
    return smaller, np.ascontiguousarray(depth[first::factor, first::factor][:rows, :columns])


def _factor(height: int) -> int:
    return max(1, round(height / _LINES))


def eigen_crop(size: int, seen: float) -> npt.NDArray[np.bool_]:
    """Return which pixels of a square view of a frame's middle lie in Eigen's crop; bool (size, size).

    Args:
        size: side of the view in pixels.
        seen: share of the frame's height and width that it shows.
    """
    at = 0.5 + ((np.arange(size) + 0.5) / size - 0.5) * seen  # pixel centres, as shares of the frame
    top, bottom, left, right = _EIGEN
    return np.logical_and.outer((at >= top) & (at < bottom), (at >= left) & (at < right))


def check_depth_scale(scale: Any) -> float | None:
    """Return the option ``data.depth_scale``.

    Raises:
        UserError: it is no positive number.
    """
    if scale is not None and not (fits(scale, float) and scale > 0):
        raise UserError(
            "data.depth_scale must be the number of units in a metre, as 1000 for millimetres, 100 for centimetres, "
            f"256 for KITTI or 5000 for TUM; got {scale!r}."
        )
    return scale if scale is None else float(scale)


def check_metres(where: str, depth: Float32, scaled: bool = False) -> None:
    """Refuse depth (H, W) that is nowhere known, or that cannot be metres.

    Args:
        where: the file, for messages.
        depth: in metres; 0 or not finite where it is unknown.
        scaled: whether a person has said what the unit is.

    Raises:
        UserError: it is one of these.
    """
    finite = depth[np.isfinite(depth)]
    negative, farthest = np.count_nonzero(finite < 0), finite.max(initial=0)
    if negative:
        raise UserError(f"{where}: the depth is negative at {negative} pixels; unknown depth is written as 0.")
    if farthest <= 0:
        raise UserError(f"{where}: no pixel has a depth; repair the frame or remove it.")
    if farthest > (_FAR_OUTDOORS if scaled else _FAR):
        raise UserError(
            f"{where}: depth goes up to {farthest:g}, which cannot be metres{'' if scaled else ' in a room'}; give "
            "data.depth_scale, the number of units in a metre."
        )
