"""What data sets of foregrounds over photographs share: their options, their splits, what can be prepared."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from indexnet.core.errors import UserError
from indexnet.data.base import Dataset, NoSplitError, check_choice, check_count
from indexnet.data.files import FileData, FileOptions
from indexnet.data.io.file_lists import check_places, find_images, standard_places
from indexnet.data.io.images import image_names
from indexnet.data.io.names import FileFinder, is_file
from indexnet.data.matting.augmentation.policy import check_augment
from indexnet.data.matting.compositing import Pair, digest_foregrounds, made_of, pair_backgrounds
from indexnet.data.matting.foregrounds import Foreground, check_foregrounds
from indexnet.data.matting.manifest import Manifest
from indexnet.data.matting.outputs import Batch, composites_batch
from indexnet.data.matting.photographs import MattingFiles, Triple
from indexnet.data.matting.pipelines.base import CROP_AROUND, create_pipeline, list_pipelines
from indexnet.data.matting.test_composites import FixedComposites
from indexnet.data.matting.train_composites import DAMAGED, TrainingComposites
from indexnet.data.matting.unlabelled import Unlabelled, create_unlabelled, refuse_tests


@dataclass(frozen=True)
class CompositeOptions(FileOptions):
    """Options of a data set of composites; each data set adds its own, and may have other defaults.

    Attributes:
        pipeline: the training pipeline: ``"dim"``, ``"mmediting"``, ``"gca"`` or ``"a2u"``.
        crop_around: what lies in the middle of a training crop of ``dim``: a pixel that is ``"unknown"`` in the trimap,
            or one that is ``"mixed"``, of an alpha between 0 and 1.
        per_foreground: training composites of each foreground.
        test_per_foreground: test composites of each foreground.
        backgrounds: folders of the photographs behind training composites, or files that list them; None: COCO's
            ``train2014`` in or beside ROOT.
        test_backgrounds: the same for test composites; None: PASCAL VOC, ``VOCdevkit/VOC*/JPEGImages`` or
            ``VOC*/JPEGImages`` in or beside ROOT.
        foreground: ``"colours"``: the files are the foregrounds' colours; ``"estimated"``: they are photographs, and
            the colours are estimated from them and the mattes.
        foregrounds: folder of colours that were estimated before, ``NAME.png``; they replace the data set's.
        cache: whether decoded foregrounds are kept; it may also be a folder for them.
        augment: how the colours of training composites are changed: ``"none"``, ``"da"``, ``"da+alpha"``, ``"af"``,
            ``"afb"``, ``"af+afb"`` or ``"af+afb+ac"``.
        unlabelled: folder of photographs, ``fg/NAME.jpg``, with trimaps, ``trimap/NAME.png``, and without alpha, which
            are trained on with pseudo labels; None: there is none.
        unlabelled_share: of the training samples that are of these.
        damaged: what a training file that cannot be read does: ``"refuse"`` ends the run, ``"skip"`` takes another.
    """

    task: str = "matting"
    pipeline: str = "dim"
    crop_around: str = CROP_AROUND[0]
    per_foreground: int = 100
    test_per_foreground: int = 20
    backgrounds: str | Sequence[str] | None = None
    test_backgrounds: str | Sequence[str] | None = None
    foreground: str = "colours"
    foregrounds: str | None = None
    augment: str = "none"
    unlabelled: str | None = None
    unlabelled_share: float = 0.25
    damaged: str = "refuse"


class CompositeData(FileData):
    """A data set of foregrounds that are composed over photographs.

    Training composites are made on the fly by a pipeline. Tests take the composites that lie in the split's folder,
    ``merged/NAME_0.png`` ..., where all of them are there and, if ``indexnet data prepare`` has written them, these
    options would write the same; otherwise they are made on the fly.

    Subclasses say which options they add, and where foregrounds, backgrounds and trimaps lie.
    """

    Options: ClassVar[type[CompositeOptions]] = CompositeOptions
    options: CompositeOptions
    smallest = 16
    in_folder = True
    folders: ClassVar[dict[str, str]] = {"train": "Training_set", "test": "Test_set"}
    """Where a split's composites lie once they are prepared."""
    parts: ClassVar[tuple[str, str]] = ("fg", "alpha")
    """What those folders call colours and mattes."""
    rule: ClassVar[str] = "dilated"
    """How test trimaps are made where none come with the data set, see ``generate_trimap``."""
    paired: ClassVar[bool] = True
    """Whether each composite has a background of its own, or draws one; such composites cannot be prepared."""
    place_options: ClassVar[dict[str, str]] = {"train": "data.backgrounds", "test": "data.test_backgrounds"}
    """Which option says where a split's backgrounds are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        given, self.finder = self.options, FileFinder()
        check_choice("data.pipeline", given.pipeline, list_pipelines())
        create_pipeline(given.pipeline, 320, given.crop_around)  # whether the two go together
        check_choice("data.damaged", given.damaged, DAMAGED)
        check_augment(given.augment)
        as_they_are = self.Options.foreground  # its default: files are taken as they are
        check_choice("data.foreground", given.foreground or as_they_are, (as_they_are, "estimated"))
        self.per_foreground = check_count("data.per_foreground", given.per_foreground)
        self.test_per_foreground = check_count("data.test_per_foreground", given.test_per_foreground)
        self.places = {
            "train": check_places("data.backgrounds", given.backgrounds),
            "test": check_places("data.test_backgrounds", given.test_backgrounds),
        }

    @abstractmethod
    def foregrounds(self, split: str) -> list[Foreground]:
        """Return a split's foregrounds as the data set has them, in the order of the rule.

        Raises:
            UserError: files are missing.
        """

    def backgrounds(self, split: str) -> list[Path]:
        """Return the photographs behind a split's composites, in the order of the rule.

        Raises:
            UserError: they are missing.
        """
        return find_images(self.find_places(split), self.place_options[split])

    def find_places(self, split: str) -> tuple[Path, ...]:
        """Return where the option says that backgrounds lie, or where they lie if nothing is said.

        Raises:
            UserError: in none of the usual places.
        """
        return self.places[split] or standard_places(self.root, split, self.name)

    def trimap(self, pair_name: str, foreground: Foreground) -> Path | None:
        """Return the trimap that comes with a test composite or its foreground; None where one is to be made."""
        folder = self.folder("test") / "trimaps"
        places = (folder / f"{name}.png" for name in (pair_name, foreground.name, foreground.alpha.stem))
        return next((found for place in places if (found := self.finder.find(place))), None)

    def folder(self, split: str) -> Path:
        """Return the folder of a split."""
        return self.root / self.folders[split]

    def count(self, split: str) -> int:
        """Return the number of composites of each foreground."""
        return self.per_foreground if split == "train" else self.test_per_foreground

    def chosen_foregrounds(self, split: str) -> list[Foreground]:
        """Return a split's foregrounds with the colours that the options ask for."""
        found = self.foregrounds(split)
        if self.options.foregrounds is None:
            estimated = self.options.foreground == "estimated"
            return [replace(item, estimate=True) for item in found] if estimated else found
        folder = Path(self.options.foregrounds)
        names = set(image_names(folder))
        for item in found:
            if f"{item.name}.png" not in names:
                raise UserError(
                    f"{folder / item.name}.png is missing; data.foregrounds needs the colours of every "
                    f"foreground: indexnet data prepare {self.name} foregrounds output={folder}."
                )
        return [replace(item, colour=folder / f"{item.name}.png") for item in found]

    def pairs(self, split: str, foregrounds: Sequence[Foreground]) -> list[Pair]:
        """Return which foreground is composed over which background.

        Raises:
            UserError: there are too few backgrounds.
        """
        option = "per_foreground" if split == "train" else "test_per_foreground"
        return pair_backgrounds(foregrounds, self.backgrounds(split), self.count(split), option)

    def _split(self, split: str) -> Dataset:
        if split != "train":
            return self.fixed(split)
        return TrainingComposites(
            split="train",
            title=self.name,
            foregrounds=self.chosen_foregrounds("train"),
            backgrounds=self.backgrounds("train"),
            per_foreground=self.per_foreground,
            pipeline=self.options.pipeline,
            size=self.size,
            cache=self.cache,
            damaged=self.options.damaged,
            paired=self.paired,
            crop_around=self.options.crop_around,
            augment=self.options.augment,
            unlabelled=self._unlabelled(),
        )

    def _unlabelled(self) -> Unlabelled | None:
        given = self.options
        if given.unlabelled is None:
            return None
        found = create_unlabelled(Path(given.unlabelled), given.unlabelled_share, self.size)
        with contextlib.suppress(NoSplitError):
            refuse_tests(found.photographs, self.test())
        return found

    def fixed(self, split: str) -> Dataset:
        """Return a split whose composites never change, from files where all of them are there.

        Raises:
            UserError: files are missing, or backgrounds are too few.
        """
        folder, count = self.folder(split), self.count(split)
        files, manifest = self._files(split, count), Manifest(folder)
        if files and manifest.made_of is None:
            return files  # from elsewhere
        chosen = self.chosen_foregrounds(split)
        try:
            pairs = self.pairs(split, chosen)
        except UserError as error:
            if not files or self.places.get(split):
                raise
            check_foregrounds(self.name, chosen)
            if manifest.fits({"per_foreground": count, "foregrounds": digest_foregrounds(chosen)}):
                return files  # there is nothing else to test on
            raise UserError(
                f"the composites in {folder} were prepared with other options, and for those of these {error}"
            ) from error
        trimaps = [self._given_trimap(pair, manifest) for pair in pairs]
        composed = FixedComposites(split, self.name, pairs, trimaps, self.rule, self.cache)
        if files and all(map(is_file, composed.backgrounds)) and manifest.fits(made_of(pairs, count)):
            same = manifest.as_written(path for triple in files.triples for path in (triple.image, triple.trimap))
            return replace(files, composition=composed.fingerprint() if same else "")
        return composed

    def _files(self, split: str, count: int) -> MattingFiles | None:
        """Return the composites that lie in a split's folder, None where not all of them do."""
        merged = self.folder(split) / "merged"
        there = set(image_names(merged)) if os.path.isdir(merged) else set()
        names = [(f"{item.name}_{k}", item) for item in self.foregrounds(split) for k in range(count)]
        if not there or not names or not all(f"{name}.png" in there for name, _ in names):
            return None
        triples = [
            Triple(name, item.name, merged / f"{name}.png", item.alpha, self.trimap(name, item)) for name, item in names
        ]
        return MattingFiles(split, self.name, triples, self.rule)

    def _given_trimap(self, pair: Pair, manifest: Manifest) -> Path | None:
        """Return a composite's trimap; None where one is to be made, or was made when the folder was prepared."""
        path = self.trimap(pair.name, pair.foreground)
        ours = manifest.fits({"trimaps": self.rule})
        if path and ours and path.parent == manifest.folder / "trimaps" and f"trimaps/{path.name}" in manifest.files:
            return None
        return path

    def lists(self, split: str, output: Path) -> dict[Path, Path]:
        """Return the lists of names that go along to another folder of the data set: source and destination."""
        return {}

    def batch(self, split: str, output: Path | None = None) -> Batch:
        """Return what ``indexnet data prepare`` writes for a split.

        Args:
            split: ``"train"`` or ``"test"``.
            output: folder to write to; None: where the data set finds it later.

        Raises:
            NoSplitError: backgrounds are drawn, and a folder that changes has no fixed composites.
            UserError: files are missing, or backgrounds are too few.
        """
        if not self.paired:
            raise NoSplitError(f"data={self.name} composes on the fly what its folders hold: nothing to write.")
        pairs = self.pairs(split, self.chosen_foregrounds(split))
        folder = (output or self.root) / self.folders[split]
        given = [self.trimap(pair.name, pair.foreground) for pair in pairs] if split == "test" else []
        copies: dict[Path, Path] = {}
        if output is not None:
            for item in self.foregrounds(split):
                for path, place in zip((item.colour, item.alpha), self.parts, strict=True):
                    copies[path] = folder / place / f"{item.name}{path.suffix}"
            copies |= {path: folder / "trimaps" / path.name for path in given if path} | self.lists(split, output)
        # those of an earlier command that was stopped lie in its own folder
        make = split == "test" and not any(path and path.parent != folder / "trimaps" for path in given)
        return composites_batch(pairs, self.count(split), folder, copies, self.rule if make else None)
