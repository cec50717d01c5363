"""The foregrounds and photographs of the results' matting table, from data sets that can be had.

Makes DATA/matting, for `data=matting_folder`, and DATA/matting_colours, the estimated colours of the foregrounds (extra
``matting``). The objects of alphamatting.com are divided, GT01 to GT16 to train on and GT17 to GT21 to test on, and so
are the photographs behind them, by the lists of NYU Depth V2 and of CamVid.

    python benchmarks/matting_folder.py                # from DATA/alphamatting, DATA/nyu_depth_v2_half and DATA/CamVid
    python benchmarks/matting_folder.py --data DATA
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from indexnet.cli import main as indexnet
from indexnet.core.errors import UserError

TESTED = {"GT17", "GT18", "GT19", "GT20", "GT21"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    data: Path = parser.parse_args(arguments).data
    try:
        make(data)
    except UserError as error:
        print(f"matting_folder: {error}", file=sys.stderr)
        return 2
    colours = f"output={data / 'matting_colours'}"
    return indexnet(["data", "prepare", "matting_folder", "foregrounds", f"root={data / 'matting'}", colours])


def make(data: Path) -> None:
    """Copy what DATA/matting consists of; all of it or nothing.

    Raises:
        UserError: it is there already, or a data set is not.
    """
    made = data / "matting"
    if made.exists():
        raise UserError(
            f"{made}: it is there already; delete it to make it anew, or go on with "
            f"`indexnet data prepare matting_folder foregrounds root={made} output={data / 'matting_colours'}`."
        )
    files = [pair for split in ("train", "test") for pair in _files(data, split)]
    for source, _ in files:
        _check(source)
    with tempfile.TemporaryDirectory(dir=data) as folder:
        for source, place in files:
            copy = Path(folder, "matting", place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        Path(folder, "matting").rename(made)


def _files(data: Path, split: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a split, each with its place in the folder."""
    objects = data / "alphamatting"
    for number in range(1, 22):
        name = f"GT{number:02}"
        if (name in TESTED) == (split == "test"):
            yield objects / "input_training_lowres" / f"{name}.png", f"{split}/fg/{name}.png"
            yield objects / "gt_training_lowres" / f"{name}.png", f"{split}/alpha/{name}.png"
    rooms, streets = data / "nyu_depth_v2_half", data / "CamVid"
    for number in _lines(rooms / f"{split}.txt"):
        yield rooms / "nyu_images" / f"{number}.jpg", f"{split}/bg/nyu_{number}.jpg"
    for line in _lines(streets / f"{split}.txt"):
        name = Path(line.split()[0]).name
        yield streets / split / name, f"{split}/bg/camvid_{name}"


def _check(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; put the data set there that docs/data.md describes.")


def _lines(path: Path) -> list[str]:
    _check(path)
    return path.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    sys.exit(main())
