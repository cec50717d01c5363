"""The data set of procedural scenes: splits, samples, targets."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from indexnet.core.errors import UserError
from indexnet.data.base import (
    Data,
    DataInfo,
    Dataset,
    Sample,
    check_count,
    check_seed,
    check_size,
    digest,
    planes,
    register_data,
)
from indexnet.data.io import skimage_photographs
from indexnet.data.io.images import file_sizes, list_images
from indexnet.data.io.names import name_bytes
from indexnet.data.io.trimaps import trimap_from_alpha
from indexnet.data.matting.augmentation.policy import augment, check_augment
from indexnet.data.matting.pipelines.base import Targets
from indexnet.data.scenes.compose import Rendering, Scene, draw_scene
from indexnet.data.scenes.objects import CLASSES, View, square_view

TASKS = ("matting", "portrait", "denoising", "segmentation", "depth", "reconstruction")

_STREAMS = {"train": 0, "validation": 1, "test": 2}
_VERSION = 1  # part of every fingerprint; raised when the same seed gives other scenes
_ATTEMPTS = 20
_OPACITIES = np.divide(np.arange(256), np.float32(255), dtype=np.float32)
_WINDOWS = (0.5, 0.75, 1.0)  # sides of training windows: crops of 320, 480 and 640 from 640 pixels


@lru_cache(maxsize=8)
def _backgrounds(folder: Path, training: bool) -> tuple[Path, ...]:
    """The images of a person's folder that serve one side: about a tenth of them, chosen by name, is for testing."""
    files = sorted(list_images(folder), key=lambda path: (zlib.crc32(name_bytes(path.name)), path.name))
    if len(files) < 2:
        raise UserError(f"{folder} holds one image; data.backgrounds needs two at least, one of them for testing.")
    held = max(1, len(files) // 10)
    return tuple(sorted(files[held:] if training else files[:held]))


@dataclass
class SceneSamples(Dataset):
    """One split of scenes.

    A scene depends on (seed, split, index) alone. A training sample looks at it through a window that the caller's
    generator draws: with a side of 1/2, 3/4 or all of the scene, centred (as far as the scene allows) on a point where
    some object's alpha changes, mirrored or not. That is the released code's crop of 320, 480 or 640 pixels round an
    unknown pixel; as scenes are drawings, only what is seen is rendered, at full sharpness. Other splits look at the
    whole scene, always the same way.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        task: which targets the samples carry.
        size: side of the samples in pixels.
        count: number of scenes.
        seed: of the scenes.
        backgrounds: a folder of photographs for the backgrounds, or None for scikit-image's.
        augment: how the colours of training samples for matting are changed,
            :data:`~indexnet.data.matting.augmentation.policy.AUGMENTATIONS`.
    """

    split: str
    task: str
    size: int
    count: int
    seed: int
    backgrounds: Path | None = None
    augment: str = "none"
    sources: tuple[str | Path, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        training = self.split != "test"
        self._photographs = "train" if training else "test"
        if self.backgrounds is None:
            self.sources = skimage_photographs.names(self._photographs)
        else:
            self.sources = _backgrounds(self.backgrounds, training)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        self._check_index(index)
        return f"scene-{self.split}-{index:06d}"

    def scene(self, index: int, attempt: int = 0) -> Scene:
        """Draw the scene of an index."""
        rng = np.random.default_rng((self.seed, _STREAMS[self.split], index, attempt))
        return draw_scene(rng, self._photographs, self.sources, always_room=self.task == "depth")

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return ``name`` and the task's targets, see :mod:`indexnet.data.base`.

        For matting and portraits, the trimap's unknown region is never empty. Its dilation is drawn from 1..19 pixels,
        as in the released code, times size / 320 and rounded to at least 1: by ``rng`` in training, by (seed, index)
        otherwise.
        """
        name = self.name(index)
        if self.split != "train":
            rng = np.random.default_rng((self.seed, 3 + _STREAMS[self.split], index))
        rendering = self._rendering(index, rng)
        weight = np.asarray(cv2.LUT(rendering.alpha, _OPACITIES), np.float32)
        image = np.empty_like(rendering.fg)
        for plane, fg, bg in zip(image, rendering.fg, rendering.bg, strict=True):
            np.subtract(fg, bg, out=plane)
            plane *= weight
            plane += bg
        sample: Sample = {"name": name, "image": torch.from_numpy(image)}
        if self.task in ("matting", "portrait"):
            distance = max(1, round(int(rng.integers(1, 20)) * self.size / 320))
            sample["alpha"] = torch.from_numpy(weight)[None]
            sample["trimap"] = planes(trimap_from_alpha(rendering.alpha, distance))
            if self.task == "matting":
                sample["fg"], sample["bg"] = torch.from_numpy(rendering.fg), torch.from_numpy(rendering.bg)
                if self.augment != "none" and self.split == "train":
                    sample |= self._augmented(sample, rng)
        elif self.task == "segmentation":
            sample["label"] = torch.from_numpy(rendering.label).long()
        elif self.task == "depth":
            sample["depth"] = torch.from_numpy(rendering.depth)[None]
        return sample

    def for_validation(self) -> SceneSamples:
        return replace(self, augment="none")

    def _augmented(self, sample: Sample, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Return what the augmentation changes of a sample, and what it adds."""
        arrays: dict[str, Any] = {
            key: np.moveaxis(np.asarray(sample[key]), 0, 2) * np.float32(255) for key in Targets._fields
        }
        arrays |= {key: arrays[key][..., 0] for key in ("alpha", "trimap")}
        changed = augment(self.augment, Targets(**arrays), rng)
        kept = [key for key, array in changed.targets._asdict().items() if array is arrays[key]]
        return {key: value for key, value in changed.tensors(self.augment).items() if key not in kept}

    def _rendering(self, index: int, rng: np.random.Generator) -> Rendering:
        """Render a view with some mixed pixels; a scene that shows none is drawn anew (rare)."""
        for attempt in range(_ATTEMPTS):
            scene = self.scene(index, attempt)
            rendering = scene.render(self._view(scene, rng), geometry=self.task in ("segmentation", "depth"))
            mixed = np.count_nonzero(rendering.alpha - np.uint8(1) < 254)
            if mixed >= max(4, self.size * self.size // 2000):
                return rendering
        raise RuntimeError(f"scene {index} of seed {self.seed} shows no object in {_ATTEMPTS} attempts")

    def _view(self, scene: Scene, rng: np.random.Generator) -> View:
        if self.split != "train":
            return square_view(self.size)
        side = _WINDOWS[rng.integers(len(_WINDOWS))]
        anchors = scene.anchors()
        centre = anchors[rng.integers(len(anchors))] if len(anchors) else np.array([0.5, 0.5])
        left, top = np.clip(centre - side / 2, 0, 1 - side)
        return square_view(self.size, float(left), float(top), side, mirrored=bool(rng.random() < 0.5))

    def fingerprint(self) -> str:
        """SHA-256 over the parameters and the backgrounds' names and byte sizes."""
        if self.backgrounds is None:
            sizes = skimage_photographs.sizes(skimage_photographs.names(self._photographs))
        else:
            sizes = file_sizes([Path(path) for path in self.sources])
        room = self.task == "depth"
        more = [] if self.augment == "none" else [self.augment]
        return digest("scenes", _VERSION, self.split, self.size, self.count, self.seed, room, sizes, *more)


@register_data
class Scenes(Data):
    """Procedural objects before skimage_photographs, with exact targets for every task.

    Hair-like strands, transparent and perforated things, nets, plants, smoke, solid bodies; one to four of them,
    overlapping, some out of focus or moving; before a photograph, a pattern, or in a room with a floor (always so for
    depth, where size and place then tell the distance). Transparency does not refract. ``image`` is exactly
    ``alpha * fg + (1 - alpha) * bg``; ``alpha`` has 256 levels. ``label`` and ``depth`` belong to the nearest object
    whose silhouette covers at least half of the pixel, transparent or not.

    Train and test differ in seeds, patterns and skimage_photographs.

    Args:
        task: ``"matting"``, ``"portrait"`` (all objects together are the portrait), ``"denoising"``,
            ``"segmentation"``, ``"depth"`` or ``"reconstruction"``.
        size: side of the samples in pixels.
        train_count: number of training scenes; every epoch looks at them anew.
        test_count: number of test scenes.
        validation_count: number of validation scenes (training skimage_photographs, other seeds); 0 for no such split.
        seed: of the scenes; independent of the training's seed.
        backgrounds: a folder of photographs to stand before instead of scikit-image's; a tenth of its files, chosen by
            name, serves testing only.
        augment: for matting, how the colours of training samples are changed, as in
            :class:`~indexnet.data.matting.composite_data.CompositeOptions`.

    Raises:
        UserError: an option's value is impossible, or the folder holds too few images.
    """

    validation_remedy = "give data.validation_count=100"
    info = DataInfo(
        name="scenes",
        title="Procedural scenes",
        tasks=TASKS,
        source="drawn by this package over the photographs shipped inside the scikit-image package",
    )
    classes = CLASSES

    def __init__(
        self,
        task: str = "matting",
        size: int = 320,
        train_count: int = 10000,
        test_count: int = 100,
        validation_count: int = 0,
        seed: int = 0,
        backgrounds: str | None = None,
        augment: str = "none",
    ) -> None:
        super().__init__(task)
        self.size = check_size("data.size", size, smallest=16)
        self.train_count = check_count("data.train_count", train_count)
        self.test_count = check_count("data.test_count", test_count)
        self.validation_count = check_count("data.validation_count", validation_count) if validation_count else 0
        self.seed = check_seed("data.seed", seed)
        self.backgrounds = None if backgrounds is None else Path(backgrounds)
        self.augment = check_augment(augment)
        if augment != "none" and task != "matting":
            raise UserError(
                f"data.augment={augment} changes foregrounds and backgrounds of task=matting; leave it out."
            )

    def _split(self, split: str, count: int) -> SceneSamples:
        augment = self.augment if split == "train" else "none"
        return SceneSamples(split, self.task, self.size, count, self.seed, self.backgrounds, augment)

    def train(self) -> SceneSamples:
        return self._split("train", self.train_count)

    def validation(self) -> SceneSamples | None:
        return self._split("validation", self.validation_count) if self.validation_count else None

    def test(self) -> SceneSamples:
        return self._split("test", self.test_count)
