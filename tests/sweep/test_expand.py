"""What a command line with -m asks for."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from indexnet.core.errors import UserError
from indexnet.run.experiments.tables import load_experiment
from indexnet.sweep.expand import expand
from run_support import refused


def _expand(*arguments):
    return list(expand(OverridesParser.create().parse_overrides(list(arguments))))


def test_plain_products():
    assert _expand("task=reconstruction", "resampling.family=hin,m2o", "resampling.k=3,5") == [
        ["task=reconstruction", f"resampling.family={family}", f"resampling.k={k}"]
        for family in ("hin", "m2o")
        for k in (3, 5)
    ]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("seed=0,1", ["seed=0", "seed=1"]),
        ("seeds=[0,1]", ["seed=0", "seed=1"]),
        ("seeds=range(0,3)", ["seed=0", "seed=1", "seed=2"]),
        ("+data.x=choice(a,b)", ["+data.x=a", "+data.x=b"]),
        ("training.size=range(16,48,16)", ["training.size=16", "training.size=32"]),
        ("data.root='a,b','c d'", ["data.root='a,b'", "data.root='c d'"]),
        ("data.root='a,b'", ["data.root='a,b'"]),
        ("~debug", ["~debug"]),
    ],
)
def test_axes(argument, expected):
    assert _expand(argument) == [[text] for text in expected]


def test_nothing_is_one_job():
    assert _expand() == [[]]
    assert _expand("fail_fast=true", "rows=null") == [["fail_fast=true"]]


def test_a_table_is_rows_times_seeds():
    found = load_experiment("quickstart")
    jobs = _expand("experiments=quickstart", "budget=smoke")
    assert len(jobs) == 2 * len(found.rows)
    assert [job[-1] for job in jobs] == ["seed=0"] * len(found.rows) + ["seed=1"] * len(found.rows)
    hin = next(row for row in found.rows if row.name == "hin")
    assert _expand("experiments=quickstart", "rows=hin", "seeds=7", "budget=smoke") == [
        ["experiments=quickstart", *hin.overrides, "budget=smoke", "experiment.row=hin",
         f"experiment.label='{hin.label}'", "seed=7"]
    ]  # fmt: skip


def test_a_source_of_another_task_is_trained_as_its_own_table_says():
    asked = ("experiments=thesis/table6_2_prior_more", "rows=a1", "task.longest=512", "budget=smoke")
    portraits = ("data=portrait_folder", "data.root=p")
    for data, wanted in (("data=portrait2k",), ["data=composition1k"]), (portraits, []), ((), []):
        source, own = _expand(*asked, *data)
        assert {"experiment.row=m2o_nl_c", "budget=smoke"} <= set(source)
        assert [text for text in source if text.startswith(("data", "task."))] == wanted
        assert {*data, "task.longest=512", "init.row='tpami/table3_matting:m2o_nl_c'"} <= set(own)
    swept = _expand(*asked[:2], "network.prior_fusion=add,concat")
    assert [each for each in swept if "experiment.row=m2o_nl_c" in each] == swept[:1]  # trained once for all of them


def test_options_of_data_are_left_out_where_the_data_set_has_none():
    rows = ("experiments=mmediting/comp1k", "rows=ours", "seed=0")
    found = [[text for text in _expand(*rows, *more)[0] if text.startswith("data")] for more in (
        (), ("data=scenes",), ("data=composition1k",), ("data=distinctions646",),
    )]  # fmt: skip
    own = ["data.pipeline=dim", "data.crop_around=mixed"]
    assert found == [[], ["data=scenes"], [*own, "data=composition1k"], [*own, "data=distinctions646"]]
    for data in ("scenes", "composition1k"):  # strong augmentation is what the table is about
        (job,) = _expand("experiments=thesis/table5_5_generalization", "rows=n3_af", f"data={data}")
        assert "data.augment=af" in job
    with pytest.raises(UserError, match=r"data\.pipeline=gca would replace what row 'ours'"):
        _expand(*rows, "data.pipeline=gca")
    assert not any("paper" in text for job in _expand("experiments=mmediting/comp1k") for text in job)  # cited


@pytest.mark.parametrize("rows", ["rows=m2o,hin", "rows=[m2o,hin]", "rows='m2o','hin'"])
def test_rows_are_selected_in_the_order_of_the_table(rows):
    jobs = _expand("experiments=quickstart", rows, "seeds=0")
    assert [text for job in jobs for text in job if text.startswith("experiment.row")] == [
        "experiment.row=hin", "experiment.row=m2o",
    ]  # fmt: skip


def test_a_grid_over_a_table_makes_rows_of_their_own():
    jobs = _expand("experiments=quickstart", "rows=hin", "seed=0", "optimizer.lr=0.1,0.01", "budget=smoke,small")
    assert len(jobs) == 4
    names = [text for job in jobs for text in job if text.startswith("experiment.row=")]
    assert names == ["experiment.row=hin--optimizer.lr-0.1"] * 2 + ["experiment.row=hin--optimizer.lr-0.01"] * 2
    assert any("(optimizer.lr=0.1)" in text for text in jobs[0])


def test_several_tables():
    jobs = _expand("experiments=quickstart,tpami/table3_matting", "seeds=0")
    assert {job[0] for job in jobs} == {"experiments=quickstart", "experiments=tpami/table3_matting"}
    assert not any("dim_refinement" in text for job in jobs for text in job)  # pending


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experiments=quickstart", "rows=max_unpol"], "Did you mean 'max_unpool'"),
        (["experiments=quikstart"], "Did you mean 'quickstart'"),
        (["experiments=quickstart", "rows=hin,hin"], "rows: hin is given twice"),
        (["experiments=quickstart", "seeds=0,0"], "seeds: 0 is given twice"),
        (["experiments=quickstart", "seeds=0", "seed=1"], "both given"),
        (["experiments=quickstart", "seeds=0", "seeds=1"], "seeds= is given twice; give all in one, seeds=A,B"),
        (["experiments=quickstart", "rows=hin", "rows=m2o"], "rows= is given twice; give all in one, rows=A,B"),
        (["experiments=quickstart", "experiments=quickstart"], "experiments= is given twice"),
        (["experiments=quickstart", "seeds=0,00"], "seeds: 0 is given twice"),
        (["experiments=quickstart", "seeds=one"], "seeds=one: a seed is an integer"),
        (["experiments=quickstart", "seeds=-1"], "seeds=-1: a seed is an integer"),
        (["experiments=tpami/table3_matting", "rows=dim_refinement"], "cannot run yet: the refinement"),
        (["experiments=quickstart", "resampling=carafe"], "would replace what row"),
        (["experiments=quickstart", "resampling.family=hin,m2o"], "would replace what row 'hin'"),
        (["rows=hin"], "give experiments=NAME"),
        (["optimizer.lr=interval(0,1)"], "no list of values"),
    ],
)
def test_mistakes(arguments, sentence):
    with refused(sentence):
        _expand(*arguments)


def test_an_option_that_no_row_sets_may_be_given():
    jobs = _expand("experiments=quickstart", "rows=hin", "seeds=0", "resampling.skip=raw", "trainer.devices=2")
    assert "resampling.skip=raw" in jobs[0]
