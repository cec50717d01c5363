"""An override is read as a person means it; where it cannot be, the sentence names what is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexnet.core.errors import UserError
from indexnet.core.registry import nearest
from indexnet.resampling.indexnet import FAMILIES
from indexnet.run.config import compose, freeze, parse_overrides, to_plain
from indexnet.sweep.expand import expand


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("ckpt_path=runs/single/a/seed=0/checkpoints/last.ckpt", "runs/single/a/seed=0/checkpoints/last.ckpt"),
        ("paths.runs=Läufe (alt)", "Läufe (alt)"),
        ("paths.runs=it's", "it's"),
        ("paths.runs=日本\\", "日本\\"),
        ("paths.runs=a&b;c#d!", "a&b;c#d!"),
        ("paths.runs=${oc.env:HOME,x}/Läufe", None),
        ("paths.runs=~/runs", str(Path("~/runs").expanduser())),
        ("paths.runs='seed=0,1'", "seed=0,1"),
        ("tags=[größer,b c,seed=1]", ["größer", "b c", "seed=1"]),
    ],
)
def test_a_value_that_hydras_grammar_does_not_take_is_read_as_it_is_meant(word, value):
    found = to_plain(compose(["task=reconstruction", word]))
    key = word.partition("=")[0]
    given = found["paths"]["runs"] if key == "paths.runs" else found[key]
    assert given == (f"{Path.home()}/Läufe" if value is None else value)


def test_values_to_sweep_over_are_read_as_they_are_meant():
    jobs = list(expand(parse_overrides(["ckpt_path=a/seed=0/b.ckpt,é.ckpt", "seed=1"])))
    assert [compose(job).ckpt_path for job in jobs] == ["a/seed=0/b.ckpt", "é.ckpt"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("rows=hin,", "rows=hin,: a comma divides values, and beside one there is none; leave that comma out."),
        ("tags=[a,,ä]", "tags=[a,,ä]: a comma divides values"),
        ("paths.runs=[x", "paths.runs=[x cannot be read as an override; the form is key=value"),
        ("seed=int(1", "seed=int(1 cannot be read"),
        ("=3", "=3 cannot be read"),
        ("seed", "seed cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_remedy(word, sentence):
    for read in (compose, parse_overrides):
        with pytest.raises(UserError) as error:
            read([word])
        assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=0.1", "Did you mean 'optimizer.lr'?"),
        ("batch_size=2", "'training.batch_size'"),
        ("model.batch_size=2", "'training.batch_size'"),
        ("gpus=2", "'trainer.devices'"),
        ("checkpoint=x", "'ckpt_path'"),
        ("trainer.devises=2", "'trainer.devices'"),
        ("backbone=resnet50", "'encoder'"),
        ("operator=carafe", "'resampling'"),
        ("dataset=mnist", "'data'"),
        ("max_epochs=3", "give training.epochs or training.steps"),
        ("fast_dev_run=true", "give budget=smoke"),
        ("resampling=HIN", "Did you mean resampling=indexnet resampling.family=hin?"),
        ("resampling=maxpool", "Did you mean resampling=max_unpool?"),
        ("network=indexnet", "Did you mean resampling=indexnet?"),
        ("budget=full", "Did you mean budget=paper?"),
        ("task=segment", "Did you mean 'segmentation'?"),
    ],
)
def test_a_hint_names_what_is_meant(word, meant):
    with pytest.raises(UserError) as error:
        compose([word])
    assert meant in str(error.value)


@pytest.mark.parametrize("word", ["+paths.root=x", "+debug.fast=true", "resampling=hinn"])
def test_no_hint_is_better_than_one_that_misleads(word):
    with pytest.raises(UserError) as error:
        freeze(compose(["task=reconstruction", word]))
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_told_from_an_operator(family):
    with pytest.raises(UserError, match=f"Did you mean resampling=indexnet resampling.family={family}?"):
        compose([f"resampling={family}"])


def test_names_that_begin_alike_are_near():
    assert nearest("depth_estimation", ["matting", "depth"]) == "depth"


@pytest.mark.parametrize("word", ["seed=4294967296", "seed=-1"])
def test_a_seed_that_torch_would_cut_is_refused(word):
    with pytest.raises(UserError, match="integer from 0 to 4294967295"):
        freeze(compose(["task=reconstruction", word]))
    with pytest.raises(UserError, match="a seed is an integer from 0 to 4294967295"):
        list(expand(parse_overrides([word])))
    assert freeze(compose(["task=reconstruction", "seed=4294967295"]))["seed"] == 4294967295
