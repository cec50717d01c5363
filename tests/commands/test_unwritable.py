"""Places that cannot be written to: a sentence before the work, or where it is told too late, after it."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from indexnet.cli import main
from predict_support import files_of, predict
from rights_support import without_rights


def commands(matting, folder, out):
    """Return every command that writes results of a checkpoint, with its output at ``out``."""
    given = ["--images", folder / "images", "--trimaps", folder / "trimaps", "--device", "cpu"]
    words = {
        "predict": ["predict", matting, *given, "--output", out],
        "compare": ["compare", matting, matting, *given, "--output", out],
        "evaluate": ["evaluate", matting, "--limit", "1", "--output", out],
        "robustness": ["robustness", matting, "--limit", "1", "--ranges", "1-2", "--output", out],
        "export": ["export", matting, "--format", "torch_export", "--output", out / "network.pt2"],
        "bench": ["bench", "latency", matting, "--sizes", "64", "--repeats", "1", "--json", out / "times.json"],
        "convert": ["convert", matting, out / "network.ckpt"],
        "plan": ["plan", "tpami/table5_denoising", "--json", out / "plan.json"],
    }
    return {name: [str(word) for word in each] for name, each in words.items()}


@pytest.mark.parametrize("name", ["predict", "compare", "evaluate", "robustness", "export", "bench", "convert", "plan"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(matting, folder, mistake, name):
    (folder / "file").write_text("in the way")
    mistake(main(commands(matting, folder, folder / "file" / "out")[name]), "cannot be written (Not a directory)")
    before = files_of(folder)
    folder.chmod(0o555)
    place = folder / "new" / "out"
    code = without_rights(main, commands(matting, folder, place)[name])
    mistake(code, f"cannot be written ({folder} is not writable); give another")
    assert files_of(folder) == before


def test_a_place_that_becomes_read_only_is_told_in_a_sentence(matting, folder, capsys, monkeypatch):
    def readonly(handle):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", readonly)
    out = folder / "out"
    for name in ("predict", "evaluate"):
        assert main([*commands(matting, folder, out)[name], *(["--gallery", "0"] if name == "evaluate" else [])]) == 2
        said = capsys.readouterr().err
        assert "cannot be written (Read-only file system); give another place" in said
        assert "Traceback" not in said
    assert files_of(out) == []


def test_what_a_killed_prediction_left_is_removed_by_the_next(matting, folder):
    left = [folder / "out" / f".{name}.png.1a2b3c4_.part" for name in ("a", "elsewhere")]
    own = [folder / "out" / name for name in ("film.part", ".b.png.part")]
    held = folder / "out" / ".b.png.00000000.part"
    held.parent.mkdir()
    for path in (*left, *own, held):
        path.write_bytes(b"half")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # by a command that still writes
        assert predict(matting, folder) == 0
    assert files_of(folder / "out") == sorted(["a.png", "b.png", *(path.name for path in (*own, held))])
