"""``indexnet data prepare``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from data_support import COUNTS, prepare, write_composition1k, write_matting_folder
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.locks import exclusive
from indexnet.data import create_data
from indexnet.data.io.images import read_alpha, read_image, write_png
from indexnet.data.matting.estimate import estimate_foreground
from indexnet.data.matting.manifest import Manifest


def entries(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"manifest.jsonl"}


def times(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in files_of(folder)}


def test_which_files_are_written(shipped, capsys):
    root, output = shipped
    assert prepare(root, output) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"composition1k, test: 6 composites in {output}/Test_set; 18 files (")
    folder = output / "Test_set"
    assert files_of(folder) == {
        f"{part}/{stem}.png"
        for part, stems in (("merged", "012"), ("trimaps", "012"), ("fg", ""), ("alpha", ""))
        for stem in ([f"{name}_{k}" for name in "xy" for k in stems] or ["x", "y"])
    } | {"test_fg_names.txt", "test_bg_names.txt"}


def test_every_file_has_its_checksum_and_a_second_command_does_nothing(shipped, capsys):
    root, output = shipped
    assert prepare(root, output) == 0
    folder = output / "Test_set"
    listed = entries(folder)[1:]
    assert {entry["file"] for entry in listed} == files_of(folder)
    for entry in listed:
        content = (folder / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    before = times(folder)
    capsys.readouterr()
    assert prepare(root, output) == 0
    assert capsys.readouterr().out == f"composition1k, test: nothing to do, all 18 files are in {folder}.\n"
    assert times(folder) == before
    assert prepare(root, output, "--verify") == 0
    assert "all 18 files" in capsys.readouterr().out


def test_training_composites(shipped):
    root, output = shipped
    assert prepare(root, output, "training") == 0
    merged = output / "Training_set/merged"
    assert sorted(path.name for path in merged.iterdir()) == [f"{name}_{k}.png" for name in "abc" for k in (0, 1)]
    # c is the first of its list and takes the first two backgrounds of theirs; the second is large enough, and cut
    alpha = read_alpha(root / "Combined_Dataset/Training_set/Adobe-licensed images/alpha/c.png")
    behind = read_image(root / "train2014/COCO_train2014_000000000003.jpg")
    clear = alpha == 0
    assert clear.any()
    assert np.array_equal(read_image(merged / "c_1.png")[clear], behind[: alpha.shape[0], : alpha.shape[1]][clear])


def test_trimaps_are_made_where_none_are_shipped(tmp_path):
    write_composition1k(tmp_path / "in", trimaps=False)
    assert prepare(tmp_path / "in", tmp_path / "out") == 0
    live = create_data("composition1k", root=str(tmp_path / "in"), per_foreground=2, test_per_foreground=3).test()
    for i in range(len(live)):
        path = tmp_path / f"out/Test_set/trimaps/{live.name(i)}.png"
        trimap = live.sample(i, np.random.default_rng())["trimap"][0] * 255
        assert np.array_equal(read_image(path)[..., 0], trimap.round().numpy())


def test_a_command_that_was_killed_goes_on(shipped, capsys):
    root, output = shipped
    assert prepare(root, output) == 0
    folder, manifest = output / "Test_set", output / "Test_set/manifest.jsonl"
    whole = {name: (folder / name).read_bytes() for name in files_of(folder)}
    lines = manifest.read_text().splitlines(keepends=True)
    written = [json.loads(line)["file"] for line in lines[1:]]
    manifest.write_text("".join(lines[:8]) + lines[8][:30])  # the last line is half-written ...
    for name in written[8:]:
        (folder / name).unlink()  # ... its file is whole, those after it are not there
    torn = written[7]
    part = folder / "merged/.x_2.png.abcd1234.part"
    part.write_bytes(b"half")
    foreign = folder / "merged/.notes.part"
    foreign.write_bytes(b"a person's")
    before = times(folder)
    capsys.readouterr()
    assert prepare(root, output) == 0
    assert "11 files (" in capsys.readouterr().out
    after = times(folder)
    assert all(after[name] == before[name] for name in written[:8])
    assert not part.exists()
    assert foreign.exists()
    foreign.unlink()
    assert {name: (folder / name).read_bytes() for name in files_of(folder)} == whole
    assert torn in {entry["file"] for entry in entries(folder)[1:]}
    assert prepare(root, output, "--verify") == 0


def test_generated_trimaps_of_a_killed_command_are_made_all_the_same(tmp_path):
    write_composition1k(tmp_path / "in", trimaps=False)
    root = tmp_path / "in"
    command = ["data", "prepare", "composition1k", f"root={root}", *COUNTS, "--jobs", "1"]  # into ROOT itself
    assert main(command) == 0
    folder = root / "Combined_Dataset/Test_set"
    manifest = folder / "manifest.jsonl"
    assert len(entries(folder)) == 13
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:5]))
    gone = [json.loads(line)["file"] for line in lines[5:]]
    for name in gone:
        (folder / name).unlink()
    assert main(command) == 0
    assert all((folder / name).is_file() for name in gone)


def test_damaged_files_are_written_again_if_their_size_tells_and_found_by_verify(shipped, capsys):
    root, output = shipped
    prepare(root, output)
    folder = output / "Test_set"
    first, second = folder / "merged/x_0.png", folder / "merged/x_1.png"
    good = first.read_bytes()
    first.write_bytes(good[:50])
    content = bytearray(second.read_bytes())
    content[60] ^= 1
    second.write_bytes(content)
    (folder / "merged/y_0.png").unlink()
    capsys.readouterr()
    assert prepare(root, output, "--verify") == 2
    out = capsys.readouterr().out
    assert f"{first} has changed" in out
    assert f"{second} has changed" in out
    assert f"{folder}/merged/y_0.png is missing" in out
    assert "3 of 18 files are not as written" in out
    assert prepare(root, output) == 0
    assert first.read_bytes() == good
    assert prepare(root, output, "--verify") == 2
    second.unlink()
    assert prepare(root, output) == 0
    assert prepare(root, output, "--verify") == 0


def test_a_damaged_background_leaves_out_one_composite(shipped, capsys):
    root, output = shipped
    path = root / "VOCdevkit/VOC2012/JPEGImages/2008_000003.jpg"  # the second
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert prepare(root, output) == 3
    out = capsys.readouterr().out
    assert f"{path} cannot be read as an image" in out
    assert "1 of 18 files are missing" in out
    assert not (output / "Test_set/merged/y_1.png").exists()
    path.write_bytes(good)
    assert prepare(root, output) == 2  # its size has changed: no folder mixes two lists of backgrounds
    assert "was prepared with other values of backgrounds" in capsys.readouterr().err
    shutil.rmtree(output)
    assert prepare(root, output) == 0


def test_folders_of_other_files_are_refused(shipped, capsys):
    root, output = shipped
    own = output / "Test_set/merged/x_0.png"
    write_png(own, np.zeros((4, 4, 3), np.uint8))
    before = own.read_bytes()
    assert prepare(root, output) == 2
    assert f"{own} exists and was not written by this command" in capsys.readouterr().err
    assert files_of(output) == {"Test_set/merged/x_0.png"}
    assert own.read_bytes() == before
    own.unlink()
    assert prepare(root, output) == 0
    assert prepare(root, output, "test_per_foreground=2") == 2
    assert "other values of backgrounds, per_foreground" in capsys.readouterr().err


def test_a_persons_file_among_prepared_ones_is_left_alone(shipped, capsys):
    root, output = shipped
    folder = output / "Test_set"
    (folder / "alpha").mkdir(parents=True)
    source = root / "Combined_Dataset/Test_set/Adobe-licensed images/alpha"
    shutil.copy(source / "x.png", folder / "alpha/x.png")  # the same as the copy would be
    write_png(folder / "alpha/y.png", np.zeros((4, 4), np.uint8))
    before = times(folder)
    assert prepare(root, output) == 3
    out = capsys.readouterr().out
    assert f"{folder}/alpha/y.png exists with other content" in out
    assert {name: times(folder)[name] for name in before} == before
    listed = {entry["file"] for entry in entries(folder)[1:]}
    assert "alpha/x.png" in listed
    assert "alpha/y.png" not in listed


def test_room_is_looked_at_before_anything_is_written(shipped, capsys, monkeypatch):
    root, output = shipped
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(1, 1, 3000))
    assert prepare(root, output) == 2
    assert "are needed in" in (said := capsys.readouterr().err)
    assert "3.0 kB are free" in said
    assert files_of(output / "Test_set") == set()


def test_the_estimate_of_room_is_close(shipped, capsys, monkeypatch):
    root, output = shipped
    prepare(root, output)
    total = sum(entry["bytes"] for entry in entries(output / "Test_set")[1:])
    for free, code in ((total, 2), (1.3 * total, 0)):
        shutil.rmtree(output)
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, free=free: namedtuple("u", "total used free")(1, 1, free)
        )
        assert prepare(root, output) == code


def test_one_command_at_a_time(shipped, capsys):
    root, output = shipped
    with exclusive(output / "Test_set/manifest.jsonl", ""):
        assert prepare(root, output) == 2
    assert "another command is preparing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["test_per_foreground=4"], "2 foregrounds with 4 composites each need 8 backgrounds, but there are 6"),
        (["test", "training"], "one of test, training, foregrounds is prepared at a time; got test training"),
        (["all"], "'all' is not understood; data prepare takes OPTION=VALUE"),
        (["--verify"], "has not been prepared"),
        (["--full"], "--full belongs to `indexnet data check`"),
        (["output=3"], "output must be a folder; got 3"),
        (["rule=x"], "has no option 'rule'"),
    ],
)
def test_mistakes_are_one_sentence(shipped, words, sentence, capsys):
    assert prepare(*shipped, *words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert not shipped[1].exists()


def test_mistakes_of_other_kinds(shipped, capsys):
    root, output = shipped
    assert prepare(root, output, jobs="0") == 2
    assert "--jobs must be a positive whole number; got 0" in capsys.readouterr().err
    none = "has no composites to prepare; these have: aim500, composition1k, distinctions646, simd."
    for command, sentence in (
        ("prepare camvid root=x", f"data set 'camvid' {none}"),
        ("prepare matting_folder root=x", f"data set 'matting_folder' {none}"),
        ("prepare camvid foregrounds root=x output=y", "has no estimated foregrounds to prepare"),
        ("prepare matting_folder foregrounds root=x", "output=DIR"),
        ("check composition1k --verify", "--verify belongs to `indexnet data prepare`"),
    ):
        assert main(["data", *command.split()]) == 2
        assert sentence in capsys.readouterr().err
    background = root / "VOCdevkit/VOC2012/JPEGImages/2008_000003.jpg"
    background.unlink()
    assert prepare(root, output) == 2
    assert "2008_000003.jpg" in capsys.readouterr().err


def test_estimated_foregrounds(tmp_path, capsys):
    pytest.importorskip("pymatting")
    root, output = tmp_path / "in", tmp_path / "colours"
    write_matting_folder(root, foregrounds=3)
    command = ["data", "prepare", "matting_folder", "foregrounds", f"root={root}", f"output={output}", "--jobs", "1"]
    assert main(command) == 0
    assert "matting_folder, foregrounds: 3 foregrounds in" in capsys.readouterr().out
    assert files_of(output) == {f"thing {k}.png" for k in range(3)}
    for k in range(3):
        photograph, alpha = read_image(root / f"fg/thing {k}.png"), read_alpha(root / f"alpha/thing {k}.png")
        found = read_image(output / f"thing {k}.png")
        assert np.array_equal(found, estimate_foreground(photograph, alpha))
        assert not np.array_equal(found, photograph)
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    options = ["per_foreground=1", "test_per_foreground=1", f"foregrounds={output}"]
    assert main(["data", "check", "matting_folder", f"root={root}", *options]) == 0


@pytest.mark.long
def test_killed_at_any_moment_and_in_several_processes(tmp_path):
    """Kill the command, and with it its processes, then go on; the outcome is that of one process left in peace."""
    root = tmp_path / "in"
    write_composition1k(root)
    g = np.random.default_rng(0)
    for path in root.glob("VOCdevkit/VOC2012/JPEGImages/*.jpg"):
        Image.fromarray(g.integers(0, 256, (600, 800, 3), dtype=np.uint8)).save(path)
    for path in root.glob("Combined_Dataset/Test_set/*/*/*.png"):
        Image.open(path).resize((1000, 700), Image.Resampling.NEAREST).save(path)
    assert prepare(root, tmp_path / "calm") == 0
    folder = tmp_path / "out/Test_set"
    command = [sys.executable, "-m", "indexnet", "data", "prepare", "composition1k", f"root={root}"]
    command += [f"output={tmp_path / 'out'}", *COUNTS, "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (folder / "merged").is_dir() or not any((folder / "merged").glob("*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    while session_is_alive(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(files_of(folder)) < 18 + 2
    assert prepare(root, tmp_path / "out") == 0
    for name in (names := files_of(folder)):
        assert (folder / name).read_bytes() == (tmp_path / "calm/Test_set" / name).read_bytes()
    assert names == files_of(tmp_path / "calm/Test_set")
    assert prepare(root, tmp_path / "out", "--verify") == 0


def session_is_alive(leader):
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_damaged_line_of_a_manifest_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("[" * 20_000 + "\n")
    with pytest.raises(UserError, match=r"line 1 of .*manifest\.jsonl is damaged"):
        Manifest(tmp_path)
