"""indexnet.run.run_sets: every state that a run folder can be in."""

from __future__ import annotations

import re

import numpy as np
import pytest

from indexnet.core.errors import UserError
from indexnet.run.record import DataRecord, Samples
from indexnet.run.run_sets import choose, find_run_sets, read_curve, read_per_image, read_pictures, read_run
from report_fabricated import falling_loss, record, write_run


def test_finds_sets_best_first(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "a", seed, record({"psnr": 30.0}))
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}, finished="2026-12-01T00:00:00"), setting="mnist-paper")
    write_run(tmp_path, "b", 0, record({"psnr": 30.0}, finished="2026-12-02T00:00:00"), setting="fashion_mnist-paper")
    write_run(tmp_path, "a", 0, record({"psnr": 1.0}), name="made_up_too")
    sets = find_run_sets(tmp_path, "made_up")
    assert [each.name for each in sets] == ["photos-small", "fashion_mnist-paper", "mnist-paper"]
    assert (sets[0].data, sets[0].budget, sets[0].done) == ("photos", "small", 2)
    assert [run.seed for run in sets[0].runs] == [0, 1]
    assert find_run_sets(tmp_path / "nowhere", "made_up") == []


def test_nested_experiment_names(tmp_path):
    write_run(tmp_path, "b11", 3, record({"sad": 50.0}), name="tpami/table3", setting="scenes-small")
    (found,) = find_run_sets(tmp_path, "tpami/table3")
    assert found.runs[0].row == "b11"
    assert found.runs[0].seed == 3
    assert find_run_sets(tmp_path, "tpami") == []


def test_choose(tmp_path):
    write_run(tmp_path, "a", 0, record({"psnr": 30.0}))
    sets = find_run_sets(tmp_path, "made_up")
    assert choose(sets, None, "runs/made_up") is sets[0]
    assert choose(sets, "photos-small", "runs/made_up") is sets[0]
    assert choose([], None, "runs/made_up") is None
    with pytest.raises(UserError, match=r"'photo-small'.*runs/made_up.*Did you mean 'photos-small'"):
        choose(sets, "photo-small", "runs/made_up")
    with pytest.raises(UserError, match="no runs at all"):
        choose([], "photos-small", "runs/made_up")


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (record({"psnr": 30.0}), "done", "^$"),
        (record(status="running", metrics={}), "running", "no result yet"),
        (record(status="failed", error="RuntimeError: out of\n memory"), "failed", "^RuntimeError: out of memory$"),
        (record(status="failed"), "failed", r"console\.log"),
        (record(status="diverged"), "diverged", r"console\.log"),
        (record(schema=2), "unreadable", "schema 2.*update indexnet"),
        (record(status="splendid"), "unreadable", "no known status"),
        ({"hello": 1}, "unreadable", "no known status"),
        (None, "new", "not started"),
    ],
)
def test_states_of_a_run(tmp_path, content, status, reason):
    run = read_run(write_run(tmp_path, "a", 0, content))
    assert run.status == status
    assert re.search(reason, run.reason)
    assert bool(run.metrics) == (status == "done")


def test_what_somebody_has_edited_into_another_type_is_dropped(tmp_path):
    edited = record(steps="many", parameters=True, batch=[4], data={"name": 1, "test": {"count": "4", "splits": {}}})
    found = read_run(write_run(tmp_path, "a", 0, edited)).record
    assert (found.steps, found.parameters, found.batch) == (None, None, {})
    assert found.data == DataRecord(test=Samples(splits={}))
    assert found.paper_gflops == 0.05


def test_progress_of_an_unfinished_run(tmp_path):
    folder = write_run(tmp_path, "a", 0, record(status="running"))
    (folder / "progress.json").write_text('{"step": 57, "steps": 200, "loss": 0.1, "eta_s": 3}')
    assert read_run(folder).reason == "running or interrupted at step 57 of 200"


def test_a_torn_record_is_unreadable_not_fatal(tmp_path):
    folder = write_run(tmp_path, "a", 0, None)
    (folder / "record.json").write_text('{"status": "do')
    assert read_run(folder).status == "unreadable"
    (folder / "record.json").write_bytes(b"\xff\xfe\x00")
    assert read_run(folder).status == "unreadable"


def test_metrics_that_are_no_numbers_are_left_out(tmp_path):
    folder = write_run(tmp_path, "a", 0, record({"psnr": 30.0, "ssim": None, "mae": float("nan"), "rmse": "0.1"}))
    run = read_run(folder)
    assert run.metrics == {"psnr": 30.0}
    assert run.record.number("parameters") == 100_000
    assert run.record.number("device") is None
    assert run.record.data.test.fingerprint == "bb"


def test_per_image_keeps_repeated_names_and_drops_empty_cells(tmp_path):
    folder = write_run(tmp_path, "a", 0, record())
    (folder / "per_image.csv").write_text("name,psnr,mae\nx,30,0.1\nx,31,\ny,nan,0.3\n")
    assert read_per_image(read_run(folder)) == {"psnr": {"x": 30.0, "x#2": 31.0}, "mae": {"x": 0.1, "y": 0.3}}


def test_per_image_of_several_splits_keeps_them_apart(tmp_path):
    splits = {"bsd68": {"psnr": [30.0, 31.0]}, "set12": {"psnr": [32.0]}}
    assert read_per_image(read_run(write_run(tmp_path, "a", 0, record(), splits=splits))) == {
        "bsd68/psnr": {"bsd68/image 0": 30.0, "bsd68/image 1": 31.0},
        "set12/psnr": {"set12/image 0": 32.0},
    }


def test_entries_of_a_legend_are_texts_and_colours(tmp_path):
    folder = write_run(tmp_path, "a", 0, record(), pictures=[("cat", "legend", None, np.zeros((4, 4, 3), np.uint8))])
    listing = folder / "pictures" / "pictures.json"
    entries = '[["wall", "#4477aa"], ["bad", "red;}"], ["floor", "#ee667"], "x", ["ok", "#EE6677", 1]]'
    listing.write_text(listing.read_text().replace("}]", f', "entries": {entries}}}]'))
    (picture,) = read_pictures(read_run(folder))
    assert picture.entries == (("wall", "#4477aa"),)


def test_curve_skips_other_columns_and_keeps_the_last_of_a_step(tmp_path):
    folder = write_run(tmp_path, "a", 0, record(), curve=[(0, 1.0), (2, 0.5), (2, 0.4)])
    assert read_curve(read_run(folder)) == [(0, 1.0), (2, 0.4)]
    assert read_curve(read_run(folder), "test/psnr") == [(200, 30.0)]
    assert read_curve(read_run(folder), "nothing") == []
    empty = write_run(tmp_path, "a", 1, record())
    assert read_curve(read_run(empty)) == []
    assert read_per_image(read_run(empty)) == {}
    assert read_pictures(read_run(empty)) == []
    assert len(falling_loss(1.0, 0.1)) == 100


def test_pictures_stay_inside_the_folder_and_exist(tmp_path):
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    folder = write_run(
        tmp_path, "a", 0, record(), pictures=[("cat", "input", None, pixels), ("cat", "index", 2, pixels)]
    )
    (folder / "secret.png").write_bytes(b"x")
    listing = folder / "pictures" / "pictures.json"
    text = listing.read_text()
    entries = [
        '{"file": "../secret.png", "sample": "cat", "kind": "input", "stage": null, "caption": ""}',
        '{"file": "missing.png", "sample": "cat", "kind": "input"}',
        '"nonsense"',
    ]
    listing.write_text(text[:-1] + ", " + ", ".join(entries) + "]")
    found = read_pictures(read_run(folder))
    assert [(p.path.name, p.sample, p.kind, p.stage) for p in found] == [
        ("0.png", "cat", "input", None),
        ("1.png", "cat", "index", 2),
    ]
    listing.write_text("not JSON")
    assert read_pictures(read_run(folder)) == []
