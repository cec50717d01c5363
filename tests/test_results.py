"""What docs/results says was measured: from the records beside it, by the commands that stand beside it."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import shlex
import shutil
from statistics import fmean
from types import SimpleNamespace

import pytest
import yaml
from results import FOLDER, MANIFEST, RUNS, collect, evaluations, main, results
from results_answers import across_text, answers_text
from results_methods import find_method, methods_text
from results_page import (
    PAGE,
    TEMPLATE,
    UntrueError,
    agreement_text,
    ahead_text,
    better,
    beyond_chance,
    by_mean,
    delta_text,
    figures,
    holds,
    mean_text,
    more_text,
    number,
    recorded_text,
    render,
    slower_text,
    table_text,
)
from results_statistics import ahead_by_batch, below_text, fallen, reestimated, statistics_text

from indexnet.core.errors import UserError
from indexnet.report.markdown import table_csv
from indexnet.run.identity import config_hash
from indexnet.run.record import Record
from indexnet.run.run_sets import read_config
from indexnet.sweep.frozen import compose_sweep
from report_fabricated import PSNR, built, column, record, row, write_run

RESULTS = [result for result in results() if result.table.done]
NAMED = pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.name)


def test_the_page_is_made_of_the_records():
    assert render() == PAGE.read_text(encoding="utf-8"), "python benchmarks/results.py page"
    assert {name: (FOLDER / name).read_text(encoding="utf-8") for name in figures()} == figures()


@pytest.fixture
def made_up(tmp_path):
    """Published A 30, B 29, C 28; measured over two seeds A 25 27, B 26 28.02, C 20 21."""
    measured = {"a": ("30", 25.0, 27.0), "b": ("29", 26.0, 28.02), "c": ("28", 20.0, 21.0)}
    for name, (_, *values) in measured.items():
        for seed, value in enumerate(values):
            costs = {
                "parameters": 1000 * (1 + len(values)) + (name == "b"),
                "true_gmacs": {"a": 2.0, "b": 3.0, "c": 1.0}[name],
                "train_samples_per_s": {"a": 12.0, "b": 5.0, "c": 20.0}[name],
            }
            write_run(tmp_path, name, seed, record({"psnr": value}, **costs))
    rows = [row(name, name.upper(), printed={"p": printed}) for name, (printed, *_) in measured.items()]
    return SimpleNamespace(name="made", table=built(tmp_path, rows, [column(**PSNR | {"printed": "p"})], seeds=(0, 1)))


def test_agreement_by_hand(made_up, monkeypatch):
    # A and B are the other way round, in both seeds: 2 - 1 of 3 pairs. B - A is 1 and 1.02: 1.01 +- 12.706 * 0.01
    assert agreement_text(made_up) == (
        "Kendall's tau with the published order of PSNR (dB): 0.33 over 3 rows (p = 1 for no relation at all; of "
        "single seeds 0.33 to 0.33). Of 3 pairs, 1 is the other way round: B over A (beyond the spread of seeds)."
    )
    monkeypatch.setattr("results_page.MOST_PAIRS", 0)
    assert agreement_text(made_up).endswith("Of 3 pairs, 1 is the other way round.")
    assert delta_text(made_up, "b", "a") == "+1.01 ± 0.13"
    assert delta_text(made_up, "a", "b") == "−1.01 ± 0.13"
    assert mean_text(made_up, "c") == "20.50 ± 0.71"
    assert mean_text(made_up, "c", seed=1) == "21.00"
    assert slower_text(made_up, "b", "a") == "2.4"
    assert (more_text(made_up, "b", "a"), better(made_up, "b", made_up, "a"), better(made_up, "a", made_up, "b")) == (
        "1",
        True,
        False,
    )


@pytest.fixture
def unequal(tmp_path):
    """Measured A 25 27, the baseline, B 26 28.02, C 20 by its second seed alone, and D not at all; 4 images of each."""
    for name, values in {"a": {0: 25.0, 1: 27.0}, "b": {0: 26.0, 1: 28.02}, "c": {1: 20.0}}.items():
        for seed, value in values.items():
            images = [value + offset for offset in (-0.2, -0.1, 0.1, 0.2)]
            write_run(tmp_path, name, seed, record({"psnr": value}, true_gmacs=1.0), per_image={"psnr": images})
    rows = [row(name, name.upper()) for name in "abcd"]

    def result(**reported):
        table = built(tmp_path, rows, [column(**PSNR)], reference="a", seeds=(0, 1))
        lines = {line["row"]: line for line in csv.DictReader(io.StringIO(table_csv(table)))}
        for name, cells in reported.items():
            lines[name] |= cells
        return SimpleNamespace(name="made", table=table, reported=lines)

    return result


def test_differences_are_over_common_seeds(unequal):
    found = unequal()
    # B - A is 1 and 1.02, of every image: 1.01 +- 12.706 * 0.01
    assert delta_text(found, "b", "a") == "+1.01 ± 0.13"
    assert delta_text(found, "b", "a", seed=1) == "+1.02"
    assert delta_text(found, "c", "a") == "−7.00"  # 20 - 27, where A has 26 in the mean
    assert delta_text(found, "c", "b") == "−8.02"
    with pytest.raises(ValueError, match="d or a has not run"):
        delta_text(found, "d", "a")
    lines = table_text(found).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["", "+1.01 ± 0.13", "−7.00"]
    assert better(found, "b", found, "a")
    assert not better(found, "a", found, "a")
    assert not better(found, "d", found, "a")


@pytest.mark.parametrize(
    ("low", "high", "expected"), [("0.9", "1.1", True), ("-1.1", "-0.9", True), ("-0.1", "2.1", False), ("", "", False)]
)
def test_a_difference_beyond_chance_has_an_interval_without_zero(unequal, low, high, expected):
    bounds = {"psnr_minus_baseline_low": low, "psnr_minus_baseline_high": high}
    found = unequal(b=bounds, c=bounds)
    assert beyond_chance(found, "b") is expected
    assert not beyond_chance(found, "c")  # an interval of one seed is over images alone
    assert not beyond_chance(found, "c", "b")
    assert beyond_chance(found, "b", "a") is expected
    assert beyond_chance(found, "a", "b") is expected


def test_an_interval_is_the_same_from_either_side(unequal):
    found = unequal(b={"psnr_minus_baseline_low": "-0.5", "psnr_minus_baseline_high": "2.5"})
    assert delta_text(found, "b", "a") == "+1.01 ± 1.50"
    assert delta_text(found, "a", "b") == "−1.01 ± 1.50"


def test_rows_that_are_ahead_are_counted_where_seeds_show_it(unequal):
    shown = unequal(b={"psnr_minus_baseline_low": "0.9", "psnr_minus_baseline_high": "1.1"})
    single = (shown, "a", "c")  # one seed in common
    assert ahead_text([(shown, "b", "a")]) == "all 1"
    assert ahead_text([(shown, "b", "a"), single]) == "1 of 2"
    assert ahead_text([single]) == "none of 1"
    with pytest.raises(UntrueError):
        ahead_text([single, (shown, "a", "b")])


def test_a_page_that_says_what_is_not_so_is_not_written(tmp_path, monkeypatch):
    assert holds(True, True) == ""
    template = tmp_path / "page.md.j2"
    template.write_text("# Of records\n{% set _ = holds(2 > 1, 1 > 2) %}\nOne is more than two.\n", encoding="utf-8")
    monkeypatch.setattr("results_page.TEMPLATE", template)
    with pytest.raises(UserError, match=r"page\.md\.j2, line 2: the records no longer say this"):
        render()


def test_metrics_that_only_records_have_are_a_column(tmp_path):
    for seed, sad in enumerate([4.0, 5.0]):
        write_run(tmp_path, "a", seed, record({"psnr": 25.0, "photographs/sad": sad}))
    table = built(tmp_path, [row("a", "A")], [column(**PSNR)], seeds=(0, 1))
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(table_csv(table)))}
    found = SimpleNamespace(name="made", table=table, reported=lines)
    assert recorded_text(found, "a", "photographs/sad") == "4.50 ± 0.71"
    head, _, line = table_text(found, also={"photographs/sad": "photographs: SAD"}).splitlines()
    assert dict(zip(head.split(" | "), line.split(" | "), strict=True))["photographs: SAD ↓"] == "4.50 ± 0.71"


def test_the_answers_say_on_what_their_marks_stand(unequal, tmp_path):
    def about():
        return answers_text([unequal()]).splitlines()[2].split(" | ")[0]

    assert about() == "| [A made-up table](#made): PSNR (dB) ↑, 3 of 4 rows, 1 to 2 seeds"
    shutil.rmtree(tmp_path / "made_up" / "photos-small" / "b" / "seed=0")
    assert about().endswith("≈ over test images alone")  # A still has two
    unknown = unequal(**{name: {"psnr_interval_low": ""} for name in "abc"})
    assert "what equals it is not known" in answers_text([unknown])


def test_the_answers_name_what_is_better_than_all_that_is_cheaper(tmp_path):
    costs = {"a": (1e6, 24.0), "b": (2e6, 23.0), "c": (3e6, 26.0), "d": (4e6, 25.0)}
    for name, (gmacs, psnr) in costs.items():
        write_run(tmp_path, name, 0, record({"psnr": psnr}, true_gmacs=gmacs))
    table = built(tmp_path, [row(name) for name in costs], [column(**PSNR)])
    reported = {
        name: {"psnr_rank": "1" if name == "c" else "", "psnr_tied": "", "psnr_interval_low": ""} for name in costs
    }
    lines = answers_text([SimpleNamespace(name="made", table=table, reported=reported)]).splitlines()[2:]
    assert [line.split(" | ")[1:3] for line in lines] == [["a", "24.00"], ["c", "26.00 ★"]]


def test_operators_across_tables_by_hand(tmp_path):
    values = {"one": {"a": 24.0, "b": 26.0, "b_form": 27.0, "b_tap": 23.0}, "two": {"a": 30.0, "b": 20.0}}
    options = {"a": {"name": "a"}, "b": {"name": "indexnet", "family": "b"}, "b_tap": {"name": "b", "k_up": 1}}
    tables = []
    for folder, rows in values.items():
        for name, psnr in rows.items():
            made = record({"psnr": psnr}) | {"resampling": options.get(name, options["b"])}
            write_run(tmp_path / folder, name, 0, made)
        table = built(tmp_path / folder, [row(name) for name in rows], [column(**PSNR)])
        reported = {line["row"]: line for line in csv.DictReader(io.StringIO(table_csv(table)))}
        tables.append(SimpleNamespace(name=folder, short=folder.title(), table=table, reported=reported))
    # the better form of b stands for both, its kernels of one tap are another operator, which one table alone has
    assert across_text(tables).splitlines() == [
        "| Operator | [One](#one) | [Two](#two) |",
        "| --- | --- | --- |",
        "| `a` | 24.00 (2 of 3) | 30.00 ★ (1 of 2) |",
        "| `b` | 27.00 ★ (1 of 3) | 20.00 (2 of 2) |",
    ]
    assert across_text(tables[:1]) == ""


def test_methods_by_hand():
    metrics = {"sad": 4.554, "mse": 0.01611, "grad": 8.0, "conn": 3.0}
    methods = [
        {"checkpoint": "weights/small.ckpt", "caption": "x", "metrics": metrics, "wall_time_s": 5.0},
        {"checkpoint": None, "caption": "knn", "metrics": {"sad": 3.0, "mse": 0.01}, "wall_time_s": 40.0},
    ]
    of = {"methods": methods, "test_count": 10, "data": {"name": "own"}, "device": "a CPU", "git": "0123456789"}
    evaluation = SimpleNamespace(found=of)
    assert methods_text(evaluation).splitlines()[2:] == [
        "| small | 4.55 | 0.0161 | 0.50 |",
        "| knn | 3.00 | 0.0100 | 4.0 |",
        "",
        "10 images of `own`; a CPU; code 0123456.",
    ]
    assert find_method(evaluation, "knn")["metrics"]["sad"] == 3.0


def test_places_by_hand(made_up):
    assert (number(made_up, "a"), number(made_up, "c")) == (26.0, 20.5)
    assert [each.name for each in by_mean(made_up, "c")] == ["b", "a", "c"]


def test_images_below_a_limit_by_hand(tmp_path):
    for seed, (first, second) in enumerate([([30.0, 19.0], [18.0]), ([20.0, 31.0], [30.0])]):
        splits = {"one": {"psnr": first, "ssim": [0.1] * 2}, "two": {"psnr": second, "ssim": [0.1]}}
        write_run(tmp_path, "a", seed, record({"psnr": 25.0}), splits=splits)
    write_run(tmp_path, "b", 0, record({"psnr": 25.0}), splits={"one": {"psnr": [21.0]}})
    rows = [row("a", "A"), row("b", "B"), row("c", "C")]
    table = built(tmp_path, rows, [column(**PSNR)], seeds=(0, 1))
    assert below_text(SimpleNamespace(table=table), "psnr", 20) == "A 2 and 0"
    assert below_text(SimpleNamespace(table=table), "psnr", 10) == "none"


def test_no_measured_number_is_typed_into_the_page():
    prose = re.sub(
        r"\{\{.*?\}\}|\{%.*?%\}|`[^`\n]*`|```.*?```|\]\([^)]*\)", "", TEMPLATE.read_text("utf-8"), flags=re.S
    )
    prose = re.sub(r"Tables? \d+(\.\d+)?(( and |, )\d+(\.\d+)?)*", "", prose)
    assert re.findall(r"\d+\.\d+|\d+ ?(?:%(?! interval)|dB|m\b)", prose) == []


@NAMED
def test_every_run_that_is_recorded_belongs_to_its_table(result):
    lines = list(csv.DictReader((result.folder / "table.csv").open(encoding="utf-8", newline="")))
    column = result.table.main.metric
    for line in lines:
        records = [
            Record.read(path) for path in sorted((RUNS / result.experiment / result.set).glob(f"{line['row']}/*"))
        ]
        assert int(line["seeds_finished"]) == len(records)
        if records:
            assert math.isclose(float(line[f"{column}_mean"]), fmean(r.metrics[column] for r in records), rel_tol=1e-9)
    again = csv.DictReader(io.StringIO(table_csv(result.table)))
    of_the_rest = ("_tied", "_low", "_high", "status")  # from images and unfinished runs, which are not kept
    kept = [key for key in lines[0] if not key.endswith(of_the_rest)]
    assert [[line[key] for key in kept] for line in lines] == [[line[key] for key in kept] for line in again]
    page = gzip.decompress((result.folder / "report.html.gz").read_bytes()).decode("utf-8")
    assert result.table.experiment.title in page


@NAMED
def test_nothing_of_the_machine_is_left_in_what_is_kept(result):
    for file in [*(RUNS / result.experiment / result.set).rglob("*.*"), *(FOLDER / "evaluations").rglob("*.*")]:
        assert re.findall(r"(?:^|[\s\"'])/\w+/\S*", file.read_text(encoding="utf-8")) == [], file


@pytest.mark.long
@pytest.mark.parametrize("result", results(), ids=lambda result: result.name)
def test_the_command_makes_the_runs_that_are_recorded(result):
    configs = result.configs()
    assert len(configs) == result.runs
    expected = {(c["experiment"]["row"], c["seed"]): config_hash(c) for c in configs}
    assert {c["experiment"]["name"] for c in configs} == {result.experiment}
    for _, run in result.table.done_runs:
        assert run.record.config_hash == expected[run.row, run.seed] == config_hash(read_config(run)), run.path


@pytest.mark.parametrize("each", evaluations(), ids=lambda each: each.name)
def test_the_command_of_an_evaluation_is_the_one_that_is_recorded(each):
    words = shlex.split(each.command)
    assert words[:2] == ["indexnet", "evaluate"]
    assert words[words.index("--output") + 1] == f"docs/results/evaluations/{each.name}"
    if each.found:
        methods = [word for word in words[2 : words.index("--gallery")] if "=" not in word]
        assert [found["checkpoint"] or found["caption"] for found in each.found["methods"]] == methods
        assert f"data={each.found['data']['name']}" in words


def test_a_shell_reads_the_listed_commands_as_the_manifest_has_them(capsys):
    assert main([]) == 0
    found = {}
    for part in capsys.readouterr().out.strip().split("\n\n"):
        title, command = part.split("\n", 1)
        found[title] = shlex.split(command.replace("\\\n", ""))  # as a shell joins lines, which shlex does not
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    for kind, mark in [
        ("tables", ": "),
        ("checks", ": "),
        ("evaluations", ": "),
        ("published", ", the published budget"),
    ]:
        for entry in manifest[kind]:
            (title,) = (each for each in found if each.startswith(f"# {entry['name']}{mark}"))
            assert found[title] == shlex.split(entry["command"])


def test_the_model_card_says_what_was_measured():
    names = {"this network": "weights/matting_scenes.ckpt", "closed form": "closed_form", "KNN": "knn"}
    card = (FOLDER.parent / "model_card.md").read_text(encoding="utf-8")
    found = {
        each.name: {m["checkpoint"] or m["caption"]: m["metrics"] for m in each.found["methods"]}
        for each in evaluations()
    }
    for label, method in names.items():
        numbers = [
            f"{found[name][method][metric]:.{digits}f}"
            for name in ("alphamatting_trimap1", "alphamatting_trimap2", "composites")
            for metric, digits in (("sad", 2), ("mse", 4), ("grad", 2), ("conn", 2))
        ]
        assert f"| {label} | {' | '.join(numbers)} |" in card


def test_statistics_by_hand(made_up):
    made_up.statistics = {
        "a/seed=0": {"running": [20.0, 30.0], "batch": [28.0, 30.0]},
        "a/seed=1": {"running": [24.0, 32.0], "batch": [29.0, 31.0]},
        "b/seed=0": {"running": [28.0, 29.0], "batch": [27.0, 29.0]},
    }
    text = statistics_text(made_up)
    assert "| 1. A | 26.50 | 20.00 | 29.50 | 28.00 | 30 |" in text
    assert "| 2. B | 28.50 | 28.00 | 28.00 | 27.00 | 29 |" in text
    agreement = text.splitlines()[-1].replace("\N{MINUS SIGN}", "-")
    assert agreement.endswith("over 2 rows: -1.00 by running statistics, 1.00 by those of the batch.")
    assert fallen(made_up, "running", 24.5) == 2
    assert fallen(made_up, "batch", 27) == 0
    assert (ahead_by_batch(made_up, "a"), ahead_by_batch(made_up, "b")) == ("0 of the 1", "1 of the 1")
    with pytest.raises(ValueError, match="empty"):
        reestimated(made_up, 29)
    made_up.statistics["a/seed=0"]["reestimated"] = [20.0, 30.5]
    made_up.statistics["b/seed=0"]["reestimated"] = [28.0, 28.0]
    assert reestimated(made_up, 29).replace("\N{MINUS SIGN}", "-") == (
        "between -0.50 and +0.25 dB (2 runs), and of 2 photographs below 29 dB they leave 3"
    )
    del made_up.statistics["b/seed=0"]
    assert "Kendall" not in statistics_text(made_up)


@NAMED
def test_statistics_are_of_recorded_runs(result):
    hashes = {f"{run.row}/seed={run.seed}": run.record.config_hash for _, run in result.table.done_runs}
    for name, each in result.statistics.items():
        assert each["config_hash"] == hashes[name]
        assert len(each["running"]) == len(each["batch"]) > 1
    if result.before:
        python, script = shlex.split(result.before)
        assert python == "python"
        assert (FOLDER.parents[1] / script).is_file()
    if result.after:
        python, script, name, *_ = shlex.split(result.after)
        assert (python, name) == ("python", result.name)
        assert (FOLDER.parents[1] / script).is_file()
    else:
        assert not result.statistics


@pytest.mark.long
def test_the_published_budgets_change_no_protocol():
    for each in yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["published"]:
        for config in compose_sweep(shlex.split(each["command"])[3:])[0]:
            assert config["changes"] == [], each["name"]


def test_collecting_keeps_what_is_there(tmp_path, monkeypatch):
    result = RESULTS[0]
    kept, runs, folder = (tmp_path / name for name in ("kept", "runs", "results"))
    shutil.copytree(RUNS, runs)
    curve = next((runs / result.experiment / result.set).glob("*/*/record.json")).parent / "csv" / "metrics.csv"
    curve.parent.mkdir(exist_ok=True)
    curve.write_text("epoch,step,train/loss\n0,9,0.5\n0,19,0.25\n")
    monkeypatch.setattr("results.FOLDER", folder)
    monkeypatch.setattr("results.RUNS", kept)
    folder.mkdir()
    collect([result.name], runs)
    records = sorted(path.relative_to(kept) for path in kept.rglob("record.json"))
    assert records == sorted(
        path.relative_to(runs) for path in (runs / result.experiment / result.set).rglob("record.json")
    )
    assert (kept / curve.relative_to(runs)).read_bytes() == curve.read_bytes()
    assert sorted(path.name for path in (folder / result.name).iterdir()) == [
        "report.html.gz",
        "report.md",
        "table.csv",
    ]
    shutil.rmtree((runs / records[0]).parent)  # a folder that has fewer runs
    with pytest.raises(
        UserError,
        match=f"1 of the runs .* such as {records[0].parent.relative_to(result.experiment + '/' + result.set)}",
    ):
        collect([result.name], runs)
    assert all((kept / path).exists() for path in records)
    assert [path.name for path in folder.iterdir()] == [result.name]


def test_a_table_that_nobody_knows_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no table of"):
        collect(["nothing"], tmp_path)
