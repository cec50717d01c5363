"""Experiment files: rows, grids, printed numbers, and what is said about a wrong one."""

from __future__ import annotations

import copy
import os

import pytest
import yaml

from damage import BOMB, MERGES, fuzzed, put_any
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.run.config import compose
from indexnet.run.experiments.experiment import Row, hydra_value, variant
from indexnet.run.experiments.tables import load_experiment
from run_support import refused

CSV = "method,family,context,psnr\nA,,,20.0\nB,hin,0,30.1\nB,hin,1,31.0\nB,m2o,0,\n"
FILE = {
    "defaults": [{"override /task": "reconstruction"}],
    "experiment": {
        "name": "made/up",
        "title": "A made-up table",
        "source": "nobody",
        "printed": "up.csv",
        "baseline": "a",
        "seeds": [0, 3],
        "exceptions": {"a": "it is what it is"},
        "columns": [{"metric": "psnr", "printed": "psnr", "digits": 2}],
        "rows": [
            {"name": "a", "overrides": ["resampling=nearest", "resampling.pooling=avg"], "printed": {"method": "A"}},
            {
                "grid": {
                    "resampling.family": ["hin", "m2o"],
                    "resampling.nonlinear,resampling.context": [[False, False], [True, True]],
                },
                "overrides": ["resampling=indexnet"],
                "name": "{resampling.family}_{variant}",
                "label": "{family} {variant}",
            },
            {"name": "late", "pending": "not here yet."},
        ],
    },
}


REPEAT = {"key": "task.sigma", "values": [15, 25], "name": "Sigma{task.sigma}", "label": "sigma {task.sigma}"}


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Write a changed copy of FILE and load it."""
    monkeypatch.setenv("INDEXNET_EXPERIMENTS", str(tmp_path))
    folder = tmp_path / "experiments" / "made"
    folder.mkdir(parents=True)
    (folder / "up.csv").write_text(CSV, encoding="utf-8")

    def load(change=None, **values):
        content = copy.deepcopy(FILE)
        content["experiment"].update(values)
        if change:
            change(content)
        (folder / "up.yaml").write_text(
            f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False)}", encoding="utf-8"
        )
        return load_experiment("made/up")

    return load


def test_rows_are_a_union_of_rows_and_grids(made_up):
    found = made_up()
    assert [row.name for row in found.rows] == ["a", "hin_l", "hin_nl_c", "m2o_l", "m2o_nl_c", "late"]
    assert [row.label for row in found.rows] == ["a", "HIN L", "HIN NL+C", "M2O L", "M2O NL+C", "late"]
    assert found.rows[2].overrides == (
        "resampling=indexnet", "resampling.family=hin", "resampling.nonlinear=true", "resampling.context=true",
    )  # fmt: skip
    assert found.rows[0].printed["psnr"] == "20.0"
    assert found.rows[1].printed == {}
    assert found.rows[5].pending == "not here yet"
    assert found.seeds == (0, 3)
    assert found.reference == "a"
    assert found.task == "reconstruction"
    assert found.columns[0].title == "PSNR (dB)"
    assert found.columns[0].higher_is_better


def test_rows_are_matched_with_one_line_of_the_csv(made_up):
    rows = [
        {
            "grid": {"resampling.family": ["hin"], "resampling.context": [False, True]},
            "overrides": ["resampling=indexnet"],
            "name": "{resampling.family}{resampling.context}",
            "printed": {"family": "{resampling.family}", "context": "{resampling.context}"},
        },
        {"name": "unreadable", "printed": {"family": "m2o"}},
    ]
    found = made_up(rows=rows, baseline=None, exceptions={})
    assert [(row.name, row.printed["psnr"]) for row in found.rows] == [
        ("hin0", "30.1"), ("hin1", "31.0"), ("unreadable", ""),
    ]  # fmt: skip


def test_rows_are_repeated_in_blocks(made_up, tmp_path):
    columns = [
        {"metric": "psnr", "split": "set12", "printed": "psnr_{task.sigma}"},
        {"metric": "psnr", "split": "bsd68", "printed": "psnr", "title": "BSD"},
        {"metric": "ssim"},
    ]
    made_up()
    heading, *lines = CSV.splitlines()
    table = [f"{heading},psnr_15,psnr_25", *(f"{line},{n}.5,{n}.7" for n, line in enumerate(lines))]
    (tmp_path / "experiments" / "made" / "up.csv").write_text("\n".join(table), encoding="utf-8")
    found = made_up(repeat=REPEAT, columns=columns, cost_overrides=["data=mnist"])
    bases = ["a", "hin_l", "hin_nl_c", "m2o_l", "m2o_nl_c", "late"]
    assert [row.base for row in found.rows] == bases * 2
    assert [row.name for row in found.rows] == [f"{name}_sigma{sigma}" for sigma in (15, 25) for name in bases]
    assert [row.block for row in found.rows] == ["sigma 15"] * 6 + ["sigma 25"] * 6
    row = found.rows[7]
    assert row.label == "HIN L, sigma 25"
    assert row.overrides[-1] == "task.sigma=25"
    assert row.overrides[:-1] == found.rows[1].overrides[:-1]
    assert found.reference == "a"
    assert found.cost_overrides == ("data=mnist",)

    assert [(column.metric, column.split, column.title) for column in found.columns] == [
        ("set12/psnr", "set12", "set12 PSNR (dB)"), ("bsd68/psnr", "bsd68", "BSD"), ("ssim", "", "SSIM"),
    ]  # fmt: skip
    printed = found.columns[0].printed
    assert printed == "psnr_{task.sigma}"
    assert [found.rows[n].printed[printed] for n in (0, 6)] == ["0.5", "0.7"]
    assert found.rows[6].printed["psnr"] == "20.0"
    assert found.rows[1].printed == {}

    assert [row.name for row in found.select(["m2o_l", "a_sigma25"])] == ["m2o_l_sigma15", "a_sigma25", "m2o_l_sigma25"]
    assert len(found.select(None)) == 10
    for names, sentence in (
        (["late"], "cannot run yet"),
        (["late_sigma25"], "cannot run"),
        (["m2o_l", "m2o_l"], "twice"),
    ):
        with pytest.raises(UserError, match=sentence):
            found.select(names)
    with pytest.raises(UserError, match="Did you mean 'm2o_l_sigma25'"):
        found.select(["m2o_l_sigma35"])
    assert [(row.name, row.label) for row in found.base_rows][:2] == [("a", "a"), ("hin_l", "HIN L")]


def test_cited_rows_are_never_selected(made_up):
    cited = {"name": "theirs", "label": "Theirs", "cited": "somebody (2017).", "printed": {"method": "A"}}
    found = made_up(lambda content: content["experiment"]["rows"].append(cited), relative_to="theirs")
    row = found.rows[-1]
    assert (row.cited, row.printed["psnr"]) == ("somebody (2017)", "20.0")
    assert row.runs_never == "it is cited from somebody (2017)"
    assert row not in found.select(None)
    with pytest.raises(UserError, match=r"row 'theirs' of experiment made/up is never run, .* leave it out of rows"):
        found.select(["theirs"])
    assert found.relative_to == "theirs"


def test_columns_of_speed_and_bounds(made_up):
    columns = [{"metric": "psnr", "expected": "psnr"}, {"metric": "ms_per_step"}, {"metric": "images_per_second"}]
    found = made_up(columns=columns).columns
    assert [(column.expected, column.is_speed, column.higher_is_better) for column in found] == [
        ("psnr", False, True), ("", True, False), ("", True, True),
    ]  # fmt: skip


def test_rows_that_are_not_repeated_are_their_own_base(made_up):
    found = made_up()
    assert found.base_rows == found.rows
    assert {row.block for row in found.rows} == {""}
    assert Row("x", "x", (), {}).base == "x"


def test_exceptions_say_what_they_are_about(made_up):
    assert made_up().exception_cells == {}
    found = made_up(exceptions={"a": {"cells": ["gflops"], "why": "rounding.\n"}, "m2o_l": "both"})
    assert found.exceptions == {"a": "rounding", "m2o_l": "both"}
    assert found.exception_cells == {"a": {"gflops"}}


def _first(**values):
    return lambda content: content["experiment"]["rows"][0].update(values)


def _grid(**values):
    return lambda content: content["experiment"]["rows"][1].update(values)


@pytest.mark.parametrize(
    ("change", "values", "sentence"),
    [
        (_first(name="late"), {}, "two rows are called 'late'"),
        (_first(printed={"method": "C"}), {}, "row 'a' needs exactly one line of up.csv, but no line have method='C'"),
        (_first(printed={"method": "B"}), {}, "3 lines have method='B'"),
        (_first(printed={"methd": "B"}), {}, "Did you mean 'method'"),
        (_first(printed=["B"]), {}, "must be a mapping"),
        (_first(overides=[]), {}, "Did you mean 'overrides'"),
        (_first(overrides=["resampling"]), {}, "'resampling' in entry 1 of experiment.rows is no override"),
        (_first(name="A b"), {}, None),
        (_first(name="/"), {}, "no name for a folder"),
        (_first(name="{family}"), {}, "placeholder in entry 1"),
        (_grid(grid={"a,b": [[1]]}), {}, "lists of 2 values"),
        (_grid(grid={"a": []}), {}, "needs a list of values"),
        (_grid(name="x"), {}, "two rows are called 'x'"),
        (None, {"columns": [{"metric": "pnsr"}]}, "Did you mean 'psnr'"),
        (None, {"columns": [{"metric": "psnr", "printed": "pnsr"}]}, "column of up.csv: 'pnsr'. Did you mean 'psnr'"),
        (None, {"columns": [{"metric": "later", "pending": True}]}, "needs a title and higher_is_better"),
        (
            _first(cited="X"),
            {},
            "is cited from X and never run, so it can have no overrides",
        ),
        (
            _first(cited="X", overrides=None, printed=None),
            {},
            "is cited, so it needs published",
        ),
        (_first(cited="X", overrides=None, same_as="b"), {}, "never run, so it can have no same_as"),
        (_first(cited="X", overrides=None, init={"row": "b"}), {}, "never run, so it can have no init"),
        (_first(intermediate=True), {"baseline": None, "relative_to": "a"}, "row in experiment.relative_to: 'a'"),
        (_first(cited=" "), {}, "entry 1 of experiment.rows.cited must be a text"),
        (None, {"relative_to": "aa"}, "row in experiment.relative_to: 'aa'. Did you mean 'a'"),
        (None, {"columns": [{"metric": "psnr", "expected": "psnr_lt"}]}, "column of up.csv: 'psnr_lt'. Did you mean"),
        (None, {"columns": [{"metric": "hours"}]}, "hours in experiment.columns says how fast a run trains"),
        (
            None,
            {"columns": [{"metric": "psnr"}, {"metric": "hours", "split": "x"}]},
            "it has no test split",
        ),
        (None, {"exceptions": ["a"]}, "experiment.exceptions must be a mapping"),
        (None, {"exceptions": {"a": None}}, "experiment.exceptions.a must say why"),
        (None, {"exceptions": {"a": {"cells": ["gflops"]}}}, "experiment.exceptions.a must say why"),
        (None, {"exceptions": {"a": {"cells": ["flops"], "why": "x"}}}, "a list of params and gflops, not ['flops']"),
        (None, {"exceptions": {"a": {"cell": ["gflops"], "why": "x"}}}, "Did you mean 'cells'"),
        (None, {"cost_overrides": ["mnist"]}, "experiment.cost_overrides must be a list of overrides"),
        (None, {"cost_overrides": "data=mnist"}, "experiment.cost_overrides must be a list of overrides"),
        (None, {"repeat": [15, 25]}, "experiment.repeat must be a mapping"),
        (None, {"repeat": REPEAT | {"valus": []}}, "Did you mean 'values'"),
        (None, {"repeat": REPEAT | {"values": []}}, "experiment.repeat.values must be a list"),
        (None, {"repeat": REPEAT | {"name": 3}}, "experiment.repeat.name must be a text"),
        (None, {"repeat": REPEAT | {"name": "x{task.sigm}"}}, "Did you mean 'task.sigma'"),
        (None, {"repeat": REPEAT | {"label": "noise"}}, "two blocks the same label"),
        (None, {"repeat": REPEAT | {"key": "resampling.pooling"}}, "placeholder in experiment.repeat"),
        (_first(overrides=["task.sigma=1"]), {"repeat": REPEAT}, "sets task.sigma, which experiment.repeat sets"),
        (
            None,
            {"repeat": REPEAT, "columns": [{"metric": "psnr", "printed": "psnr_{task.sigma}"}]},
            "column of up.csv: 'psnr_15'. Did you mean 'psnr'",
        ),
        (None, {"columns": [{"metric": "psnr", "printed": "psnr_{task.sigma}"}]}, "placeholder in experiment.columns"),
        (None, {"columns": ["psnr"]}, "experiment.columns must be a mapping"),
        (
            None,
            {"columns": [{"metric": "psnr", "digits": -1}]},
            "experiment.columns.digits must be an integer from 0 to 12, not -1",
        ),
        (None, {"columns": [{"metric": "psnr", "higher_is_better": "false"}]}, "columns.higher_is_better must be true"),
        (None, {"printed_data": 5}, "experiment.printed_data must be"),
        (None, {"printed": "x" * 300 + ".csv"}, "cannot be read"),
        (None, {"printed": "a\0b"}, "no name of a file"),
        (None, {"ranks": "no"}, "experiment.ranks must be true or false, not 'no'"),
        (_first(overrides=[5]), {}, "entry 1 of experiment.rows.overrides must be a list of texts"),
        (_grid(grid={f"k{n}": list(range(22)) for n in range(9)}, label="x", name="{k0}"), {}, "more than 10000 rows"),
        (lambda content: content.update(defaults=5), {}, "override /task"),
        (lambda content: content.update(plugins=5), {}, "must be a list of modules"),
        (None, {"columns": []}, "at least one column"),
        (None, {"baseline": "b"}, "experiment.baseline: 'b'"),
        (None, {"exceptions": {"b": "why"}}, "experiment.exceptions: 'b'"),
        (None, {"printed": "down.csv"}, "names down.csv, but there is no such file"),
        (None, {"name": "made/down"}, "its place says 'made/up'"),
        (None, {"seeds": [1, 1]}, "names a seed twice"),
        (None, {"seeds": [True]}, "list of integers"),
        (None, {"rows": []}, "experiment.rows is empty"),
        (None, {"cost_input": [4, 224]}, "[channels, height, width]"),
        (None, {"n_jobs": 0}, "n_jobs"),
        (None, {"titel": "x"}, "Did you mean 'title'"),
        (lambda content: content.pop("defaults"), {}, "override /task"),
        (lambda content: content.pop("experiment"), {}, "no mapping `experiment`"),
    ],
)
def test_a_wrong_file_is_named(made_up, change, values, sentence):
    if sentence is None:  # a name that becomes one
        assert made_up(change, baseline=None, exceptions={}, **values).rows[0].name == "a_b"
        return
    with refused(sentence, "up.yaml"):
        made_up(change, **values)


def test_yaml_that_is_none(made_up, tmp_path):
    made_up()
    (tmp_path / "experiments" / "made" / "up.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"up\.yaml is not valid YAML"):
        load_experiment("made/up")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")], ids=["pipe", "link"])
def test_an_experiment_that_is_no_file_is_named(make, made_up, tmp_path):
    made_up()
    make(tmp_path / "experiments" / "q3.yaml")
    with pytest.raises(UserError, match=r"q3\.yaml is no file"):
        compose(["experiments=q3"])


def test_an_unknown_experiment_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'quickstart'"):
        load_experiment("quikstart")


@pytest.mark.parametrize("group", ["resampling", "network", "data", "task"])
def test_an_unknown_option_says_where_ones_own_are_found(group, made_up, tmp_path, monkeypatch):
    monkeypatch.delenv("INDEXNET_PLUGINS", raising=False)
    monkeypatch.delenv("INDEXNET_EXPERIMENTS", raising=False)
    neither = r"Your own are found through INDEXNET_EXPERIMENTS \(not set\) and INDEXNET_PLUGINS \(not set\)\.$"
    with pytest.raises(UserError, match=f"^unknown {group} option 'zzz'.*{neither}"):
        compose([f"{group}=zzz"])
    with pytest.raises(UserError, match=r"^unknown experiment 'zzz'.*through INDEXNET_EXPERIMENTS \(not set\)\.$"):
        compose(["experiments=zzz"])
    monkeypatch.setenv("INDEXNET_EXPERIMENTS", str(tmp_path))
    made_up()
    monkeypatch.setenv("INDEXNET_PLUGINS", "gate")
    with pytest.raises(UserError, match=f"through INDEXNET_EXPERIMENTS={tmp_path} and INDEXNET_PLUGINS=gate.$"):
        compose([f"{group}=zzz"])
    with pytest.raises(UserError, match=f"unknown experiment 'zzz'.*through INDEXNET_EXPERIMENTS={tmp_path}.$"):
        load_experiment("zzz")


def test_select(made_up):
    found = made_up()
    assert [row.name for row in found.select(None)] == ["a", "hin_l", "hin_nl_c", "m2o_l", "m2o_nl_c"]
    assert [row.name for row in found.select(["m2o_l", "a"])] == ["a", "m2o_l"]
    for names, sentence in ((["hin_nl"], "hin_l"), (["late"], "cannot run yet: not here yet"), (["a", "a"], "twice")):
        with pytest.raises(UserError, match=sentence):
            found.select(names)


def test_variants():
    assert [variant(n, c) for n in (False, True) for c in (False, True)] == ["L", "L+C", "NL", "NL+C"]


@pytest.mark.parametrize(
    "value", [None, True, False, 3, -0.5, 1e-7, "hin", "sigmoid+softmax/sigmoid", "", "true", "3", "a b", "a,b", "it's",
              "x=y", [1, "a,b", None], "M2O NL+C (assumed)", {"a": 1}, "back\\slash", "end\\", "2024-02-31"]
)  # fmt: skip
def test_hydra_reads_back_what_is_written(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    assert not override.is_sweep_override()
    assert override.value() == value


# --- files as crashes and people leave them --------------------------------------------------------------------------

BROKEN_FILES = {
    "no UTF-8": b"# @package _global_\nexperiment: \xff\xfe",
    "alias bomb": BOMB.encode(),
    "merge bomb": MERGES.encode(),
    "deep": b"[" * 20_000,
    "a number": b"7",
    "a list": b"[1]",
    "keys that are no text": b"1: 2",
    "a list as key": b"[1]: 2",
    "a date that is none": b"experiment: 2024-02-31",
    "defaults that are a number": b"defaults: 5\nexperiment: {}",
    "defaults of numbers": b"defaults: [5]\nexperiment: {}",
    "defaults of two groups in one": b"defaults: [{override /task: matting, override /data: scenes}]\nexperiment: {}",
    "a header that is none": b"# @package\nexperiment: {}",
    "an interpolation that is none": b"# @package _global_\nexperiment: {name: '${'}",
    "a tag": b"experiment: !!python/object/apply:os.getcwd []",
}


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_is_named_by_all_that_read_it(content, made_up, tmp_path, monkeypatch):
    """By the reader of tables, and by Hydra, which reads the same file."""
    made_up()
    (tmp_path / "experiments" / "made" / "up.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"up\.yaml"):
        load_experiment("made/up")
    with pytest.raises(UserError, match=r"up\.yaml|experiments?[=. ]"):
        compose(["experiments=made/up"])


@pytest.mark.parametrize("content", [b"\xff", b"7", MERGES.encode(), b"defaults: 5", b"name: 2024-02-31"])
def test_an_option_of_a_group_of_ones_own_that_is_broken_is_named(content, made_up, tmp_path):
    made_up()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        compose(["data=mine"])


MISSING_LINE = [
    ("experiments/made/up.yaml", "# Mine\nexperiment: {}", "experiments=made/up"),
    ("experiments/made/up.yaml", "# @package global\nexperiment: {}", "experiments=made/up"),
    ("network/mine.yaml", "defaults: [{override /encoder: none}]\nname: autoencoder", "network=mine"),
    ("network/mine.yaml", "network: {name: autoencoder}", "network=mine"),
    ("data/mine.yaml", "data: {name: photos}", "data=mine"),
]


@pytest.mark.parametrize(("file", "content", "word"), MISSING_LINE)
def test_a_file_without_the_line_that_hydra_needs_is_named_with_it(file, content, word, made_up, tmp_path, capsys):
    made_up()
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    assert main(["train", "task=reconstruction", word]) == 2
    group = word.partition("=")[0]
    assert capsys.readouterr().err == (
        f"indexnet: {path} must begin with the line `# @package _global_`: without it all that the file says is put "
        f"below {group}.\n"
    )


@pytest.mark.parametrize(
    "content", [b"import sys\nsys.exit(0)", b"\xff\xfe", b"a = '\0'", b"(" * 10_000, b"1 / 0", b"x ="]
)
def test_a_broken_plugin_is_named(content, made_up, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"broken_{abs(hash(content))}.py").write_bytes(content)
    with pytest.raises(UserError, match=r"plugin 'broken_.*up\.yaml"):
        made_up(lambda file: file.update(plugins=[f"broken_{abs(hash(content))}"]))


def _any_file(made_up, data):
    content = copy.deepcopy(FILE)
    content["experiment"] |= {
        "repeat": copy.deepcopy(REPEAT),
        "cost_input": [1, 32, 32],
        "n_jobs": 2,
        "printed_data": ["mnist"],
        "overrides": ["training.size=32"],
        "cost_overrides": ["data=mnist"],
        "notes": "x",
    }
    put_any(data, content, 2)
    said = ""
    try:
        found = made_up(lambda file: (file.clear(), file.update(content)))
        found.select(None), found.base_rows, [found.composed_of(row) for row in found.rows]
    except UserError as error:
        said = str(error)
    assert not said or "up.yaml" in said, said


test_values_of_any_kind_anywhere_in_a_file, test_many_values_of_any_kind = fuzzed(_any_file, 40, 3000)
