"""Data sets that read what ``indexnet data prepare`` has written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_support import (
    COUNTS,
    assert_same_samples,
    make,
    names,
    prepare,
    write_aim500,
    write_backgrounds,
    write_composition1k,
    write_foreground,
)
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io.images import write_png
from indexnet.data.matting.outputs import composites_batch


def c1k(root, **options):
    return make("composition1k", root, write=False, **options)


@pytest.mark.parametrize("trimaps", [True, False])
def test_prepared_composites_are_read_only_with_the_options_that_made_them(trimaps, tmp_path):
    root = tmp_path / "in"
    write_composition1k(root, trimaps)
    live = c1k(root).test()
    assert main(["data", "prepare", "composition1k", f"root={root}", *COUNTS, "--jobs", "1"]) == 0
    read = c1k(root).test()
    assert type(read).__name__ == "MattingFiles"
    assert read.fingerprint() == live.fingerprint()  # they are the same
    assert_same_samples(read, live)
    write_backgrounds(tmp_path / "other", [f"o{k}.jpg" for k in range(6)], seed=300)
    for item in c1k(root).foregrounds("test"):
        write_png(tmp_path / f"colours/{item.name}.png", np.zeros((40, 36, 3), np.uint8))
    pytest.importorskip("pymatting")
    prints = {live.fingerprint()}
    for options in (
        {"test_backgrounds": str(tmp_path / "other"), "root": str(root / "Combined_Dataset")},
        {"foreground": "estimated"},
        {"foregrounds": str(tmp_path / "colours")},
        {"test_per_foreground": 2},
    ):
        if "root" in options:  # without the list of backgrounds, which names others
            (root / "Combined_Dataset/Test_set/test_bg_names.txt").rename(tmp_path / "list")
        split = c1k(**{"root": root} | options).test()
        assert type(split).__name__ == "FixedComposites", options
        prints.add(split.fingerprint())
        if "root" in options:
            (tmp_path / "list").rename(root / "Combined_Dataset/Test_set/test_bg_names.txt")
    assert len(prints) == 5
    with (root / "Combined_Dataset/Test_set/merged/x_1.png").open("ab") as file:
        file.write(b"more")
    assert c1k(root).test().fingerprint() != live.fingerprint()
    shutil.rmtree(root / "VOCdevkit")
    assert type(c1k(root).test()).__name__ == "MattingFiles"
    with pytest.raises(UserError, match=r"were prepared with other options, and for those of these .* are missing"):
        c1k(root, test_per_foreground=2).test()
    with pytest.raises(UserError, match=r"nowhere does not exist; name a folder .* in data\.test_backgrounds"):
        c1k(root, test_backgrounds=str(tmp_path / "nowhere")).test()


def test_another_folder_has_the_lists_too(shipped):
    root, output = shipped
    assert prepare(root, output) == 0
    assert prepare(root, output, "training") == 0
    for folder in ("train2014", "VOCdevkit"):
        shutil.copytree(root / folder, output / folder)
    live, read = c1k(root), c1k(output)
    assert names(live.train()) == names(read.train())
    assert [p.name for p in live.train().backgrounds] == [p.name for p in read.train().backgrounds]
    assert type(read.test()).__name__ == "MattingFiles"
    assert live.test().fingerprint() == read.test().fingerprint()
    assert_same_samples(live.test(), read.test())


def test_the_lists_of_the_released_code_go_along(tmp_path):
    root, output = tmp_path / "in", tmp_path / "out"
    for k, name in enumerate("ba"):
        write_foreground(root / f"Training_set/fg/{name}.png", root / f"Training_set/alpha/{name}.png", k)
    write_backgrounds(root / "train2014", [f"{k}.jpg" for k in range(4)])
    parts = [(f"{name}_{k}", name, 3 - 2 * i - k) for i, name in enumerate("ba") for k in range(2)]
    lines = [f"m/{pair}.png\talpha/{name}.png\tfg/{name}.png\tb/{bg}.jpg" for pair, name, bg in parts]
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("\n".join(lines))
    assert prepare(root, output, "training") == 0
    train = c1k(output, backgrounds=str(root / "train2014")).train()
    assert [train.name(i) for i in range(4)] == ["b_0", "b_1", "a_0", "a_1"]
    assert [path.name for path in train.backgrounds] == ["3.jpg", "2.jpg", "1.jpg", "0.jpg"]


def test_aim500_never_tests_on_what_it_trains_with(tmp_path, capsys):
    root, output = tmp_path / "in", tmp_path / "out"
    write_aim500(root)
    words = {"per_foreground": 2, "test_per_foreground": 3, "test_count": 2, "composites": True}

    def prepared(where, what, seed):
        options = [f"{key}={str(value).lower()}" for key, value in words.items()]
        command = ["data", "prepare", "aim500", what, f"root={root}", f"output={where}", f"seed={seed}"]
        return main([*command, *options, "--jobs", "1"])

    def parts(where, **options):
        data = create_data("aim500", root=str(where), backgrounds=str(root / "train2014"), **words | options)
        train, test = data.train(), data.test()
        assert not {item.name for item in train.foregrounds} & {test.group(i) for i in range(len(test))}
        assert not {path.name for path in train.backgrounds} & {path.name for path in getattr(test, "backgrounds", ())}
        return test

    assert prepared(root, "test", 0) == 0
    assert type(parts(root)).__name__ == "MattingFiles"
    held = {parts(root).group(i) for i in range(6)}
    (tmp_path / "held.txt").write_text("\n".join(sorted(held)))
    again = parts(root, test_names=str(tmp_path / "held.txt"), seed=3)  # the same photographs over others
    assert {again.group(i) for i in range(6)} == held
    assert type(again).__name__ == "FixedComposites"
    assert type(parts(root, foreground="estimated")).__name__ == "FixedComposites"
    for seed in range(1, 5):  # those in ROOT/validation are seed 0's
        parts(root, seed=seed)
    assert prepared(output, "test", 0) == 0
    assert prepared(output, "training", 0) == 0
    assert type(parts(output)).__name__ == "MattingFiles"
    assert type(parts(output, seed=3)).__name__ == "FixedComposites"
    shutil.rmtree(output / "train")
    other = next(s for s in range(1, 9) if {i.name for i in parts_of(root, s, words)} != held)
    assert prepared(output, "training", other) == 0
    with pytest.raises(UserError, match=r"serves the other split as well, see .*: prepare both with one data\.seed"):
        parts(output)


def parts_of(root, seed, words):
    return create_data("aim500", root=str(root), seed=seed, **words).foregrounds("test")


def test_foregrounds_of_one_file_name_are_both_written(tmp_path):
    for k, pattern in enumerate(("fur", "net")):
        write_foreground(tmp_path / f"in/{pattern}/fg/a.png", tmp_path / f"in/{pattern}/alpha/a.png", k)
    write_foreground(tmp_path / "in/net/fg/t.png", tmp_path / "in/net/alpha/t.png", 3)
    write_backgrounds(tmp_path / "in/train2014", ["0.jpg", "1.jpg"])
    (tmp_path / "in/SIMD_composition_test_filelist.txt").write_text("net:t.png:0.jpg\n")
    command = ["data", "prepare", "simd", "training", f"root={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    assert main([*command, "per_foreground=1", "--jobs", "1"]) == 0
    for pattern in ("fur", "net"):
        for part in ("fg", "alpha"):
            copied = tmp_path / f"out/Training_set/{part}/{pattern}_a.png"
            assert copied.read_bytes() == (tmp_path / f"in/{pattern}/{part}/a.png").read_bytes()


def test_two_sources_of_one_file_are_refused(tmp_path):
    write_composition1k(tmp_path)
    data, folder = c1k(tmp_path), tmp_path / "out"
    foregrounds = data.foregrounds("test")
    copies = {item.colour: folder / "fg/x.png" for item in foregrounds}
    with pytest.raises(UserError, match=r"2 files would be written to .*fg/x\.png"):
        composites_batch(data.pairs("test", foregrounds), 3, folder, copies, None)


def test_aim500_lists_what_each_composite_is_made_of(tmp_path, capsys):
    """The port's ``data.txt``, from the folder of the split; what a person has of that name is not touched."""
    write_aim500(tmp_path)
    words = ["data", "prepare", "aim500", "test", f"root={tmp_path}", "composites=true", "test_count=2"]
    words += ["per_foreground=1", "test_per_foreground=2", "--jobs", "1"]
    assert main([*words, f"output={tmp_path / 'out'}"]) == 0
    folder = tmp_path / "out" / "validation"
    lines = [line.split("\t") for line in (folder / "data.txt").read_text().splitlines()]
    assert len(lines) == 4
    for listed in lines:
        assert len(listed) == 4
        assert [Path(name).parent.name for name in listed] == ["merged", "mask", "original", "train2014"]
        assert all((folder / name).is_file() for name in listed)
    assert len({listed[3] for listed in lines}) == 4
    assert main([*words, f"output={tmp_path / 'out'}", "--verify"]) == 0
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "data.txt").write_text("mine")
    assert main(words) == 2
    assert "data.txt exists and was not written by this command" in capsys.readouterr().err
