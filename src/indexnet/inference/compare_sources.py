"""What ``indexnet compare`` shows: a person's images, or the test images of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
from indexnet.data import Dataset
from indexnet.inference.image_files import Item, find_items, with_truths
from indexnet.inference.image_sources import test_places
from indexnet.inference.loading import check_channels
from indexnet.inference.methods import Method
from indexnet.inference.photographs import read_photo
from indexnet.inference.truth import check_takes_truth, with_truth

Samples = list[dict[str, Any]]
"""What each method is given of one image."""


class Photographs:
    """A person's images with trimaps, and what they are to become where that is known.

    Args:
        methods: of one task.
        images: a folder, or one file.
        trimaps: likewise, where the task takes them.
        truth: likewise.

    Raises:
        UserError: nothing can be done at all, or the task takes no truth.
    """

    def __init__(self, methods: Sequence[Method], images: Path, trimaps: Path | None, truth: Path | None) -> None:
        task = methods[0].task
        self.methods = methods
        self.items = find_items(images, trimaps, task.name, task.guide is not None)
        if truth is not None:
            check_takes_truth(task)
            self.items = with_truths(self.items, images, truth)

    def read(self, item: Item) -> tuple[Samples, str | None]:
        """Return what each method is given, where colour and gray may meet; and a remark for the person."""
        photo = read_photo(item)
        samples = [m.task.image_sample(photo.image, photo.trimap, photo.name) for m in self.methods]
        if item.truth is not None:
            pairs = zip(self.methods, samples, strict=True)
            samples = [with_truth(method.task, sample, item.truth) for method, sample in pairs]
        snapped = f"{item.trimap}: {photo.snapped} pixels were neither 0, 128 nor 255 and were snapped."
        return samples, snapped if photo.snapped else None


class DataImages:
    """The first images of the test splits of a data set, which bring their truth along where it is published.

    Args:
        methods: of one task.
        tests: the splits by name.
        counts: how many images of each.
    """

    def __init__(self, methods: Sequence[Method], tests: Mapping[str, Dataset], counts: Mapping[str, int]) -> None:
        self.methods = methods
        self._places = test_places(tests, counts)
        self.items = list(self._places)

    def read(self, item: Item) -> tuple[Samples, str | None]:
        """Return what each method is given, prepared as a test prepares it; there are no remarks."""
        dataset, index = self._places[item]
        sample = dict(dataset.sample(index, np.random.default_rng(0)))
        samples = []
        for method in self.methods:
            check_channels(method.task, sample)
            batch = method.task.prepare(default_collate([sample]))
            samples.append({key: value[0] for key, value in batch.items()})
        return samples, None


def check_words(words: Sequence[str], images: Path | None, **given: Path | int | None) -> None:
    """Refuse options that contradict each other.

    Args:
        words: ``data=NAME`` and the like.
        images: ``--images``.
        **given: other options by name: of ``trimaps`` and ``truth`` those that are for images, of ``limit`` for data.

    Raises:
        UserError: they do.
    """
    if (images is None) == (not words):
        both = "not both" if words else "and --output DIR"
        raise UserError(f"give --images DIR, or data=NAME for the test images of a data set, {both}.")
    for option, value in given.items():
        if value is not None and (option == "limit") == (images is not None):
            other = "data=NAME; leave it out" if option == "limit" else "--images; a data set has its own"
            raise UserError(f"--{option} is for {other}.")
