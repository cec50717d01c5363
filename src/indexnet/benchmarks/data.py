"""Training samples of every kind of data set, from small files that are written for it.

Each is measured against the decoding of one photograph by the same processor, which makes a ratio that does not depend
on the machine; matting pipelines against the published order of their operations, too. Time is that of the processor,
of one core: a loader's workers make samples independently of each other.
"""

from __future__ import annotations

import gzip
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from rich import box
from rich.table import Table

from indexnet.benchmarks.base import TIME, BenchOptions, Figure, Progress
from indexnet.benchmarks.literal_data import hairy_matte, photograph, published_dim, whole_gca, write_matting_files
from indexnet.core.turns import medians
from indexnet.data import create_data
from indexnet.data.base import Dataset, Sample
from indexnet.data.io.images import read_image, write_png
from indexnet.data.matting.foregrounds import pair_foregrounds
from indexnet.data.matting.pipelines.base import Scene
from indexnet.data.matting.pipelines.gca import Gca
from indexnet.data.matting.train_composites import TrainingComposites

PART = "data"
YARDSTICK = "a JPEG of 640x480 decoded"
PUBLISHED = "the published order"
TARGETS = {"dim": 1 / 6, "dim, from files": 1 / 2, "gca": 1 / 2, "a2u": 1 / 2}
"""The largest share of the published order's time that is meant to be, by case."""

_EACH = 2  # backgrounds of a foreground
_SAMPLES = 4  # of a form in each turn


class Rate(NamedTuple):
    """How fast one core makes samples.

    Attributes:
        case: what samples.
        seconds: of one.
        per_second: how many a core makes.
        cores: that feed a given number a second; None: none was given.
    """

    case: str
    seconds: float
    per_second: float
    cores: int | None


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure training samples of all kinds; ``quick``: of small files.

    Raises:
        RuntimeError: a pipeline gives another sample than the published order of its operations.
    """
    size, large = ((480, 640), 96) if options.quick else ((1280, 1920), 320)
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        root = Path(folder)
        progress("writing files")
        write_matting_files(root / "matting", 2, _EACH, size)
        picture = root / "matting/bg/000.jpg"
        splits = matting_splits(root / "matting", large) | other_splits(root, options.quick)
        literals = literal_forms(root / "matting", splits)
        progress("comparing with the published order")
        for case, literal in literals.items():
            for number in range(2 * _EACH):
                _check_equal(case, splits[case].sample(number, _rng(number)), literal(number, _rng(number)))
        progress(f"{len(splits)} kinds of samples in turns")
        forms: dict[str, Callable[[int], object]] = {
            YARDSTICK: lambda turn: [read_image(picture) for _ in range(_SAMPLES)]
        }
        forms |= {case: _samples(split.sample, len(split)) for case, split in splits.items()}
        forms |= {f"{case}, literal": _samples(literal, 2 * _EACH) for case, literal in literals.items()}
        found = {name: value / _SAMPLES for name, value in medians(forms, options.turns, time.process_time).items()}

    def figure(case: str, reference: str, seconds: float, target: float | None = None) -> Figure:
        return Figure(
            PART, case, "sample", reference, TIME, found[case], seconds, options.threads, options.turns, target
        )

    targets = {} if options.quick else TARGETS
    against = [figure(case, PUBLISHED, found[f"{case}, literal"], targets.get(case)) for case in literals]
    return [figure(case, YARDSTICK, found[YARDSTICK]) for case in splits] + against


def rates(figures: Sequence[Figure], feed: float | None = None) -> list[Rate]:
    """Return what cores make, of figures of this part.

    Args:
        figures: of :func:`figures`; others are left out.
        feed: samples a second that a training takes.
    """
    seconds = {figure.case: figure.value for figure in figures if (figure.part, figure.reference) == (PART, YARDSTICK)}
    return [
        Rate(case, value, 1 / value, None if feed is None else math.ceil(feed * value))
        for case, value in seconds.items()
    ]


def rate_table(lines: Sequence[Rate], title: str) -> Table:
    """Lay out how fast a core makes samples, for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    shown.add_column("samples")
    heads = ["ms of a core", "a second"] + (["cores"] if any(line.cores is not None for line in lines) else [])
    for heading in heads:
        shown.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        cells = [f"{1e3 * line.seconds:.2f}", f"{line.per_second:.0f}"]
        shown.add_row(line.case, *cells, *([] if line.cores is None else [str(line.cores)]))
    return shown


def matting_splits(root: Path, side: int) -> dict[str, Dataset]:
    """Return a split of each matting pipeline with decoded foregrounds, and ``dim`` without."""
    foregrounds, backgrounds = pair_foregrounds(root / "fg", root / "alpha"), sorted((root / "bg").iterdir())

    def split(pipeline: str, cache: bool) -> Dataset:
        size = side * 8 // 5 if pipeline in ("gca", "a2u") else side
        made = TrainingComposites("train", "bench", foregrounds, backgrounds, _EACH, pipeline, size, cache=cache)
        made.prepare()
        return made

    cached = {pipeline: split(pipeline, True) for pipeline in ("dim", "mmediting", "gca", "a2u")}
    return {"dim": cached.pop("dim"), "dim, from files": split("dim", False), **cached}


def other_splits(root: Path, quick: bool) -> dict[str, Dataset]:
    """Write data sets of the other tasks in the layouts of real ones; return the splits to train on."""
    rng = np.random.default_rng(1)
    size, side = ((120, 160), 64) if quick else ((480, 640), 320)

    def labels(count: int, shape: tuple[int, int]) -> np.ndarray:
        coarse = rng.integers(0, count, (shape[0] // 40, shape[1] // 40), dtype=np.uint8)
        return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)

    def camvid(to: Path) -> None:
        shape = (size[0] * 3 // 4, size[1] * 3 // 4)
        for name in ("train", "val", "test"):
            write_png(to / f"{name}/0.png", photograph(rng, *shape))
            write_png(to / f"{name}annot/0.png", labels(12, shape))
            (to / f"{name}.txt").write_text(f"{name}/0.png {name}annot/0.png\n")

    def nyuv2(to: Path) -> None:
        for number, name in enumerate(("train", "test")):
            write_png(to / f"nyu_images/{number}.png", photograph(rng, *size))
            write_png(to / f"nyu_labels40/{number}.png", labels(39, size))
            write_png(to / f"nyu_depths/{number}.png", labels(200, size) + np.uint8(20))
            (to / f"{name}.txt").write_text(f"{number}\n")

    def train400(to: Path) -> None:
        for name in ("Train400", "BSD68", "Set12"):
            write_png(to / f"{name}/0.png", photograph(rng, 180, 180)[..., 0])

    def portraits(to: Path) -> None:
        for number in range(12):
            write_png(to / f"images/{number}.png", photograph(rng, size[1], size[0]))
            write_png(to / f"mattes/{number}.png", hairy_matte(rng, size[1], size[0]))

    def fashion(to: Path) -> None:
        content = np.stack([photograph(rng, 80, 80)[:28, :28, 0] for _ in range(16)])
        for name in ("train", "t10k"):
            header = b"\x00\x00\x08\x03" + np.array(content.shape, ">u4").tobytes()
            (to / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + content.tobytes()))

    made: dict[str, Dataset] = {}
    layouts: list[tuple[str, str, Callable[[Path], None], dict[str, int]]] = [
        ("camvid", "segmentation", camvid, {"size": side}),
        ("nyuv2", "segmentation", nyuv2, {"size": side}),
        ("nyuv2", "depth", nyuv2, {"size": 64 if quick else 224}),
        ("train400", "denoising", train400, {}),
        ("portrait_folder", "portrait", portraits, {"size": side}),
        ("fashion_mnist", "reconstruction", fashion, {}),
    ]
    for name, task, write, given in layouts:
        to = root / name
        if not to.exists():
            to.mkdir()
            write(to)
        made[f"{name}, {task}"] = create_data(name, task=task, root=str(to), **given).train()
    for task in ("matting", "denoising", "segmentation", "depth"):
        made[f"scenes, {task}"] = create_data("scenes", task=task, size=side).train()
    for split in made.values():
        split.prepare()
    return made


def literal_forms(
    root: Path, splits: dict[str, Dataset]
) -> dict[str, Callable[[int, np.random.Generator], dict[str, torch.Tensor]]]:
    """Return the published order of the pipelines that have one here, by case."""
    dim, gca = splits["dim"], {name: splits[name] for name in ("gca", "a2u")}
    assert isinstance(dim, TrainingComposites)

    def published(index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return published_dim(root, index, _EACH, dim.size, rng).tensors()

    def whole(split: Dataset) -> Callable[[int, np.random.Generator], dict[str, torch.Tensor]]:
        assert isinstance(split, TrainingComposites)
        pipeline = split.made_by
        assert isinstance(pipeline, Gca)

        def made(index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
            at = index if split.paired else int(rng.integers(len(split.backgrounds)))
            objects = [item[:2] for item in (split.store[k] for k in range(len(split.foregrounds)))]
            background = read_image(split.backgrounds[at])
            scene = Scene(objects[index // _EACH], background, objects.__getitem__, len(objects))
            return whole_gca(pipeline, scene, rng).tensors()

        return made

    return {"dim": published, "dim, from files": published, **{name: whole(split) for name, split in gca.items()}}


def _samples(make: Callable[[int, np.random.Generator], object], count: int) -> Callable[[int], object]:
    def form(turn: int) -> None:
        for number in range(turn * _SAMPLES, (turn + 1) * _SAMPLES):
            make(number % count, _rng(number))

    return form


def _rng(number: int) -> np.random.Generator:
    return np.random.default_rng((7, number))


def _check_equal(case: str, found: Sample, wanted: dict[str, torch.Tensor]) -> None:
    """Refuse a sample that is another one; a background's pixel may be rounded to the other side."""
    for key, expected in wanted.items():
        value = found[key]
        assert isinstance(value, torch.Tensor)
        away = (value - expected).abs()
        if float(away.max()) > 1.01 / 255 or float((away > 0).float().mean()) > 1e-3:
            raise RuntimeError(f"{case} gives another {key} than {PUBLISHED}: they differ by up to {away.max():.3g}.")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenCV use one thread for a while, as loaders' workers do."""
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(0)
        yield
    finally:
        cv2.setNumThreads(before)
