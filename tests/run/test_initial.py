"""``init``: parts that start from a checkpoint; ``training.freeze``: parts that are not trained."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from indexnet.core.files import sha256_file
from indexnet.networks import count_costs, create_network
from indexnet.run.config import compose, freeze
from indexnet.run.folder import RunFolder
from indexnet.run.identity import config_hash
from indexnet.run.initial import match
from indexnet.run.job import run_job
from indexnet.tasks import create_task
from linked_support import TINY, write_tables
from resume_support import interrupted_at_step
from run_support import RECONSTRUCTION, command, prepare_run, refused, same, weights

KIND = ((3, 4), "a fraction")
OWN = {"encoder.0.w": KIND, "encoder.0.n": ((), "a whole number"), "encoder.1.w": KIND, "decoder.w": KIND}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = prepare_run(tmp_path_factory.mktemp("source"), *RECONSTRUCTION, "resampling=nearest", "training.steps=2")
    assert run_job(folder.path) == 0
    return folder


def _record(folder):
    return json.loads((folder.path / "record.json").read_text())


def test_what_agrees_in_name_and_shape_is_taken():
    theirs = {"backbone.0.w": KIND, "backbone.0.n": ((), "a whole number"), "backbone.1.w": ((3, 5), "a fraction")}
    found = match(OWN, theirs, {"encoder": "backbone"}, "x.ckpt")
    assert found.taken == {"encoder.0.w": "backbone.0.w", "encoder.0.n": "backbone.0.n"}
    assert found.left == {"encoder.1.w": "(3, 5) of a fraction there, (3, 4) of a fraction here"}
    assert found.counts == {"encoder": (3, 2)}
    whole = match(OWN, {**OWN, "decoder.w": ((3,), "a fraction")}, {}, "x.ckpt")
    assert (list(whole.taken), list(whole.left)) == (["encoder.0.w", "encoder.0.n", "encoder.1.w"], ["decoder.w"])
    inner = match(OWN, OWN, {"encoder": "encoder", "encoder.1": "decoder"}, "x.ckpt")
    assert inner.taken["encoder.1.w"] == "decoder.w"


@pytest.mark.parametrize(
    ("theirs", "parts", "sentences"),
    [
        (OWN, {"encoda": "encoder"}, ["init.parts: the network has no part 'encoda'. Did you mean 'encoder'?"]),
        (OWN, {"encoder": "decodr"}, ["the network of x.ckpt has no part 'decodr'. Did you mean 'decoder'?"]),
        ({"b.0.n": ((), "a whole number")}, {"encoder": "b"}, ["init: of the part 'encoder' no weight fits what x.ck"]),
        ({"b.w": KIND}, {}, ["init: no weight fits what x.ckpt holds (encoder.0.w is absent there)"]),
    ],
)  # fmt: skip
def test_a_part_that_does_not_fit_is_one_sentence(theirs, parts, sentences):
    with refused(*sentences):
        match(OWN, theirs, parts, "x.ckpt")


def test_a_run_takes_parts_and_keeps_frozen_ones_as_they_are(source, tmp_path, capsys):
    words = [*RECONSTRUCTION, "resampling=bilinear", f"init.checkpoint={source.checkpoint()}"]
    folder = prepare_run(tmp_path, *words, "init.parts={contracting: contracting}", "training.freeze=[contracting]")
    assert run_job(folder.path) == 0
    said = capsys.readouterr().out
    assert f"init: 12 of 12 weights of contracting from contracting of init.checkpoint={source.checkpoint()}" in said
    assert "not trained: contracting" in said
    costs = count_costs(create_network("autoencoder", widths=[4, 8], resampling="bilinear"))
    assert _record(folder)["parameters"] == costs.parameters
    before, after = weights(source), weights(folder)
    frozen = [key for key in before if key.startswith("network.contracting.")]
    assert len(frozen) == 12  # statistics of norms among them
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not all(torch.equal(before[key], after[key]) for key in before if key not in frozen and "weight" in key)
    initial = _record(folder)["initial"]
    assert (initial["path"], initial["sha256"]) == (str(source.checkpoint()), sha256_file(source.checkpoint()))
    assert (len(initial["loaded"]), initial["left"]) == (12, {})
    state = torch.load(folder.checkpoint(), weights_only=True)["optimizer_states"][0]["state"]
    trained = [name for name, _ in create_network("autoencoder", widths=[4, 8]).named_parameters()]
    assert len(state) == sum(not name.startswith("contracting.") for name in trained)


def test_a_file_is_what_it_holds_wherever_it_lies(source, tmp_path):
    def frozen(path, *words):
        return freeze(compose([*RECONSTRUCTION, f"init.checkpoint={path}", *words]))

    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(source.checkpoint().read_bytes())
    known = config_hash(frozen(source.checkpoint()))
    assert config_hash(frozen(copy)) == known
    content = torch.load(copy, weights_only=True)
    content["state_dict"][next(iter(content["state_dict"]))] += 1
    torch.save(content, copy)
    assert config_hash(frozen(copy)) != known
    assert "init" not in freeze(compose(RECONSTRUCTION))
    parts = ["init.parts={bottom: bottom}"]
    assert config_hash(frozen(source.checkpoint(), *parts)) != known


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (["init.parts={bottom: bottom}"], ["give init.checkpoint=FILE too"]),
        (["init.checkpoint=nowhere.ckpt"], ["there is no checkpoint init.checkpoint=nowhere.ckpt"]),
        (["init.checkpoint=x.ckpt", "ckpt_path=y.ckpt"], ["ckpt_path and init are both given"]),
        (["init.row='first:a'"], ["init.row=first:a is said by the rows of tables alone"]),
        (["init.chekpoint=x"], ["Did you mean"]),
        (["training.freeze=[contractin]"], ["training.freeze: the network has no part 'contractin'. Did you"]),
        (["training.freeze=[contracting,bottom,expanding,head]", "resampling=nearest"], ["leaves nothing to train"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(words, sentences, tmp_path):
    (tmp_path / "y.ckpt").touch()
    with refused(*sentences):
        freeze(compose([*RECONSTRUCTION, *words]))


def test_frozen_parts_have_no_gradient_and_no_new_statistics():
    task = create_task("reconstruction", {"name": "autoencoder", "widths": [4, 8]})
    task.freeze_parts(["contracting.0"])
    task.eval()
    task.train()
    modes = {name: layer.training for name, layer in task.network.named_modules() if hasattr(layer, "running_mean")}
    assert modes == {name: not name.startswith("contracting.0.") for name in modes}
    groups = task.configure_optimizers()
    optimizer = groups["optimizer"] if isinstance(groups, dict) else groups
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    named = dict(task.network.named_parameters())
    assert {name for name in named if id(named[name]) not in held} == {
        name for name in named if name.startswith("contracting.0.")
    }


@pytest.mark.long
def test_a_killed_run_goes_on_without_what_it_began_with(source, tmp_path):
    own = tmp_path / "own.ckpt"
    own.write_bytes(source.checkpoint().read_bytes())
    words = [*RECONSTRUCTION, "resampling=nearest", f"init.checkpoint={own}", "training.freeze=[contracting]"]
    words += ["trainer.checkpoint_every=2", "experiment.name=t", "experiment.row=r"]
    whole, killed = (prepare_run(tmp_path / name, *words) for name in ("whole", "killed"))
    assert run_job(whole.path) == 0
    with interrupted_at_step(5):
        run_job(killed.path)
    assert killed.status() == "running"
    own.unlink()  # read at step 0 alone
    again = prepare_run(tmp_path / "killed", *words)
    assert run_job(again.path) == 0
    assert same(weights(whole), weights(again))
    assert _record(whole)["initial"] == _record(again)["initial"]


@pytest.mark.long
def test_a_sweep_trains_a_row_from_the_row_that_it_starts_from(tmp_path, monkeypatch):
    write_tables(tmp_path / "tables", monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = ["-m", "experiments=second", "rows=x,late", *TINY, "hydra.launcher.n_jobs=2"]
    done = subprocess.run(command("train", *words), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 runs done" in done.stdout
    assert "indexnet report second" in done.stdout
    early, late = (RunFolder(tmp_path / f"runs/second/photos-smoke/{row}/seed=0") for row in ("early", "late"))
    initial = _record(late)["initial"]
    assert initial["row"] == "second:early"
    assert initial["sha256"] == sha256_file(early.checkpoint())
    assert _record(RunFolder(tmp_path / "runs/first/photos-smoke/a/seed=0"))["experiment"] == "first"
