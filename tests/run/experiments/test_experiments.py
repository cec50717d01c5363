"""The experiment files that are here: they load, freeze, build, and print what the papers print."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from indexnet.core.paths import conf_dir, experiments_dir
from indexnet.run.config import compose, freeze
from indexnet.run.experiments.experiment import Row
from indexnet.run.experiments.tables import list_experiments, load_experiment

NAMES = list_experiments()


COPIES = {
    "official/readme": "official_readme_comp1k",
    "tpami/table2_matting_design": "tpami_t2_matting_design",
    "tpami/table3_matting": "thesis_t3_4_matting_index_networks",
    "tpami/table4_normalization": "thesis_t3_5_index_normalization",
    "tpami/table5_denoising": "thesis_t3_6_denoising",
    "tpami/table6_sunrgbd": "thesis_t3_7_sunrgbd",
    "tpami/table7_nyudv2": "thesis_t3_9_fastdepth_nyudv2",
    "thesis/table3_8_ade20k": "thesis_t3_8_ade20k",
    "thesis/table3_10_hu": "thesis_t3_10_hu_nyudv2",
    "thesis/table3_2_reconstruction": "thesis_t3_2_reconstruction_fashion_mnist",
    "thesis/table4_1": "thesis_t4_1_reconstruction_mnist",
    "thesis/table4_2_upsamplers": "thesis_t4_2_a2u_upsamplers",
    "thesis/table4_3_kernel_size": "thesis_t4_3_a2u_kernel_size",
    "thesis/table4_4_normalization": "thesis_t4_4_a2u_normalization",
    "thesis/table4_5_benchmark": "thesis_t4_5_comp1k_benchmark",
    "thesis/table4_6_alphamatting": "thesis_t4_6_alphamatting_grad",
    "thesis/table4_7_distinctions": "thesis_t4_7_distinctions646",
    "thesis/table5_1_da": "thesis_t5_1_da_ground_truth",
    "thesis/table5_2_decoder_skip": "thesis_t5_2_decoder_skip",
    "thesis/table5_3_lfa_losses": "thesis_t5_3_lfa_losses",
    "thesis/table5_4_comp1k": "thesis_t5_4_comp1k_benchmark",
    "thesis/table5_5_generalization": "thesis_t5_5_generalization",
    "thesis/table5_6_alphamatting": "thesis_t5_6_alphamatting_mse_grad",
    "thesis/table5_7_gflops": "thesis_t5_7_gflops",
    "thesis/table5_8_sa_comp1k": "thesis_t5_8_sa_comp1k",
    "thesis/table5_9_sa_a2u": "thesis_t5_9_sa_a2u_aim500",
    "thesis/table5_10_alphamatting_full": "thesis_t5_10_alphamatting_full",
    "thesis/table6_1_prior": "thesis_t6_1_prior",
    "thesis/table6_2_prior_more": "thesis_t6_2_prior_more",
    "thesis/table6_3_baselines": "thesis_t6_3_baselines",
    "thesis/table6_4_pspm_sharing": "thesis_t6_4_pspm_sharing",
    "thesis/table6_6_losses": "thesis_t6_6_losses",
    "thesis/table6_7_pspm_pspnet": "thesis_t6_7_pspm_pspnet",
}


def test_the_named_experiments_are_here():
    assert {"quickstart", "quickstart_matting", *COPIES} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_loads(name):
    found = load_experiment(name)
    assert found.name == name
    assert any(not row.runs_never for row in found.rows)
    assert found.notes
    assert all(row.overrides for row in found.rows if not row.runs_never)
    assert len({row.label for row in found.rows}) == len(found.rows)
    assert len({(row.overrides, row.starts_from) for row in found.select(None)}) == len(found.select(None))
    for column in found.columns:
        if column.printed:
            assert any(row.printed.get(column.printed) for row in found.rows), column


def _frozen(name: str, row: Row, *given: str):
    own = dataclasses.replace(row, run_of=None)  # as if it were no other table's run
    made = load_experiment(name).composed_of(own, given)
    return freeze(compose([*made, *given, f"experiment.row={row.name}"]))


# one of ten that share their protocol; the quick test of that is in test_rmat_tables.py
ALIKE = [name for name in NAMES if name.startswith("thesis/table5_") and name != "thesis/table5_9_sa_a2u"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in ALIKE else name for name in NAMES]
)
def test_an_experiment_freezes_to_where_it_belongs(name):
    found = load_experiment(name)
    config = _frozen(name, found.select(None)[-1])
    assert config["experiment"]["name"] == name
    assert config["task"]["name"] == found.task


# their rows are those of zoo/depth, and those that its network cannot take
MORE_OF_THE_ZOO = [f"zoo/{task}" for task in ("denoising", "matting", "reconstruction", "segmentation")]


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name in MORE_OF_THE_ZOO else name for name in NAMES]
)
def test_every_row_freezes_and_builds(name):
    import torch

    from indexnet.networks import create_network, without_pretrained
    from indexnet.run.schema import network_spec

    found = load_experiment(name)
    seen = []
    for row in found.base_rows:
        if row.runs_never or row.run_of is not None:  # which is a row of the table that it names
            continue
        frozen = _frozen(name, row)
        spec = without_pretrained(network_spec(frozen))
        made = dict(spec), frozen.get("init"), *(frozen[group] for group in ("training", "data", "task"))
        assert made not in seen, f"{row.name} is another row once more"
        seen.append(made)
        with torch.device("meta"):
            create_network(spec.pop("name"), **spec)


@pytest.mark.parametrize(("name", "source"), COPIES.items())
def test_printed_numbers_are_copies(shared, name, source):
    copied = (experiments_dir() / f"{name}.csv").read_bytes()
    printed = (shared / "paper" / f"{source}.csv").read_bytes()
    if name == "tpami/table7_nyudv2":  # two cells that the thesis does not print
        lines = (shared / "paper" / "tpami_t7_fastdepth_nyudv2.csv").read_bytes().splitlines(True)
        printed = b"".join([*lines[:3], *printed.splitlines(True)[3:]])
    assert copied == printed


JOINED = {
    "mindspore/aim500": ("mindspore_aim500", "mindspore_training"),
    "mmediting/comp1k": ("mmediting_comp1k", "mmediting_comp1k_more"),
}


@pytest.mark.parametrize(("name", "sources"), JOINED.items())
def test_printed_numbers_of_two_tables_are_copies_of_both(shared, name, sources):
    """Of one table below or beside the other."""
    joined = list(csv.DictReader((experiments_dir() / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    one, two = (list(csv.DictReader((shared / "paper" / f"{each}.csv").open(encoding="utf-8"))) for each in sources)
    if one[0].keys() == two[0].keys():
        assert joined == one + two
        return
    assert [{key: line[key] for key in one[0]} for line in joined] == one
    speeds = ("speed_ms_per_step", "total_time_hours", "batch_size_per_device", "devices")
    by_run = {line["run"]: line for line in two}
    assert all(line[key] == by_run[line["run"]][key] for line in joined for key in speeds)
    assert [line["training_hardware"] for line in joined] == [by_run[line["run"]]["hardware"] for line in joined]


@pytest.mark.parametrize("name", [*COPIES, *JOINED])
def test_every_printed_line_is_a_row_in_its_order(name):
    found = load_experiment(name)
    lines = list(csv.DictReader((experiments_dir() / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    assert [row.printed["method"] for row in found.base_rows] == [line["method"] for line in lines]
    assert len({tuple(row.printed.values()) for row in found.base_rows}) == len(lines)


@pytest.mark.parametrize("name", ["zoo/depth", *MORE_OF_THE_ZOO])
def test_the_zoo_has_every_operator_or_says_why_not(name):
    from indexnet.resampling import list_resampling

    found = load_experiment(name)
    rows = {override.removeprefix("resampling=") for row in found.rows for override in row.overrides}
    packaged = {path.stem for path in (conf_dir() / "resampling").glob("*.yaml")}  # not those of other tests' plugins
    missing = ({info.name for info in list_resampling()} & packaged) - rows
    assert all(each in found.notes for each in missing)
    assert (len(found.seeds), found.reference) == (3, "bilinear")
    assert missing == ({"fade", "fade_lite", "haar", "max_unpool", "sapa_i"} if name == "zoo/depth" else set())


def test_the_matting_table_has_its_rows():
    found = load_experiment("tpami/table3_matting")
    assert sum(bool(row.printed["params"]) for row in found.rows) == 20
    assert set(found.exceptions) == {"b11_1_4"}
    by_name = {row.name: row for row in found.rows}
    assert by_name["m2o_nl_c"].printed["sad"] == "45.8"
    assert by_name["o2o_shared_l"].printed["params"] == "+80"
    assert [row.name for row in found.rows if row.pending] == ["dim_refinement"]


def test_the_denoising_table_has_every_row_at_three_noise_levels():
    found = load_experiment("tpami/table5_denoising")
    assert len(found.rows) == 60
    assert [row.block for row in found.rows] == [f"sigma {sigma}" for sigma in (15, 25, 50) for _ in range(20)]
    by_name = {row.name: row for row in found.rows}
    shown = {column.metric: column.printed for column in found.columns}
    assert list(shown) == ["bsd68/psnr", "bsd68/ssim", "set12/psnr", "set12/ssim"]
    row = by_name["m2o_nl_c_sigma50"]
    assert [row.printed[template] for template in shown.values()] == ["26.34", "0.8315", "27.29", "0.8803"]
    assert "resampling.pooling=encoder" in by_name["conv_carafe_sigma15"].overrides
    assert found.printed_data == ("train400",)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("tpami/table5_denoising", "train400", {"in_channels": 1}),
        ("tpami/table6_sunrgbd", "sunrgbd", {"in_channels": 3, "classes": 37}),
        ("tpami/table7_nyudv2", "nyuv2", {"in_channels": 3}),
    ],
)
def test_costs_are_counted_for_the_printed_data(name, data, expected):
    found = load_experiment(name)
    assert found.cost_overrides == (f"data={data}",)
    assert found.printed_data
    row = found.rows[1]
    config = freeze(compose([f"experiments={name}", *row.overrides, *found.cost_overrides]))
    assert {key: config["network"][key] for key in expected} == expected
    optimizer, schedule = config["optimizer"], config["schedule"]
    if name != "tpami/table5_denoising":
        assert config["encoder"]["pretrained"] is True
        assert config["encoder"]["freeze_bn"] is (name == "tpami/table6_sunrgbd")
        assert optimizer["encoder_lr_multiplier"] == 1
        assert (optimizer["name"], optimizer["lr"], optimizer["momentum"]) == ("sgd", 0.01, 0.9)
        assert optimizer["weight_decay"] == 1e-4
    assert schedule["gamma"] == 0.1


def test_unreadable_cells_stay_empty_and_the_assumption_is_stated():
    found = load_experiment("tpami/table4_normalization")
    third = found.rows[2]
    assert not any(third.printed[key] for key in ("normalization_decoder", "sad", "mse", "grad", "conn"))
    assert "assumed" in third.label
    assert "assumed" in found.notes
    assert "resampling.normalization=softmax+sigmoid/sigmoid" in third.overrides


def test_the_matting_quickstart_ranks_nothing_and_says_so():
    found = load_experiment("quickstart_matting")
    assert not found.ranks
    assert len(found.seeds) >= 2
    assert "ranks nothing" in f"{found.title} {found.notes}"


def test_experiments_are_package_data():
    import tomllib

    root = Path(__file__).resolve().parents[3]
    included = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(included["force-include"]) == {"conf", "experiments"}


def test_mmediting_trains_by_its_own_steps_rates_and_pipelines():
    from indexnet.core.schedules import in_steps

    found = load_experiment("mmediting/comp1k")
    ours, dimaug = (_frozen(found.name, row, "data=composition1k") for row in found.select(None))
    assert found.rows[0].cited
    assert (ours["data"]["pipeline"], ours["data"]["crop_around"]) == ("dim", "mixed")
    assert ours["task"].get("alignment", "resize") == "resize"
    assert (dimaug["data"]["pipeline"], dimaug["task"]["alignment"]) == ("mmediting", "reflect")
    for config in (ours, dimaug):
        assert (config["training"]["steps"], config["training"]["batch_size"]) == (78_000, 16)
        schedule = in_steps(config["schedule"], 78_000, 78_000, config["training"]["epochs"])
        assert (schedule["milestones"], schedule["gamma"]) == ([52_000, 67_600], 0.1)
        assert (config["optimizer"]["lr"], config["optimizer"]["encoder_lr_multiplier"]) == (0.01, 0.01)
        assert (config["encoder"]["freeze_bn"], config["resampling"]["expansion"]) == (False, 1)
        assert config["task"]["semantics"] == "mmediting"


def test_options_of_data_go_to_the_data_sets_that_have_them():
    found = load_experiment("mmediting/comp1k")
    row = found.select(None)[0]
    own = [text for text in row.overrides if text.startswith("data.")]
    assert own
    for given in (["data=composition1k"], ["budget=smoke", "data=composition1k"]):
        assert found.composed_of(row, given)[-len(row.overrides) :] == list(row.overrides)
    for given in ([], ["data"], ["data=scenes"], ["data=nosuch"]):
        rest = [text for text in row.overrides if text not in own]
        assert found.composed_of(row, given) == [f"experiments={found.name}", *rest]
    assert "data.composites=true" in load_experiment("mindspore/aim500").composed_of(None)
    assert "data.composites=true" not in load_experiment("mindspore/aim500").composed_of(None, ["data=scenes"])
