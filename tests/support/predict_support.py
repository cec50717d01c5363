"""How tests call `indexnet predict`."""

from __future__ import annotations

from indexnet.cli import main


def predict(checkpoint, folder, *more, trimaps=True):
    words = ["predict", str(checkpoint), "--images", str(folder / "images"), "--output", str(folder / "out")]
    words += ["--trimaps", str(folder / "trimaps")] if trimaps else []
    return main([*words, "--device", "cpu", *more])


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
