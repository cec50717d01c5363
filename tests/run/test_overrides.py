"""Whatever an override says, it is seen in the frozen configuration or refused in one sentence that names its key.

It is read as a person means it; where it cannot be, the sentence names what is meant.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.paths import conf_dir
from indexnet.core.registry import nearest
from indexnet.resampling.indexnet import FAMILIES
from indexnet.run.config import (
    check_single,
    compose,
    compose_command_line,
    composing,
    freeze,
    parse_overrides,
    to_plain,
)
from indexnet.run.freezing.settle import settle, without_sweep
from indexnet.run.schema import read_config
from indexnet.sweep.expand import expand
from indexnet.sweep.progress import announce
from run_support import command, refused


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=[pytest.mark.long, pytest.mark.nightly])])
def test_no_override_is_ignored_or_ends_in_a_traceback(count):
    path = Path(__file__).parents[2] / "benchmarks" / "random_overrides.py"
    spec = importlib.util.spec_from_file_location("random_overrides", path)
    drawer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawer)
    with composing():
        judged = [(text[:80], *drawer.judge(text, sweep)) for text, sweep in drawer.draw(count, 0)]
    assert not [each for each in judged if each[2]]
    assert {way for _, way, _ in judged} == {"accepted", "refused"}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+trainer.max_epochs=1", "trainer.max_epochs is decided by the run itself"),
        ("+trainer.limit_train_batches=2", "give training.steps or budget.max_steps."),
        ("+logger.entity=me", "unknown config key 'logger.entity'."),
        ("+budget.max_epochs=1", "unknown config key 'budget.max_epochs'."),
        ("+budget.max_seconds=3", "unknown config key 'budget.max_seconds'. Did you mean 'budget.max_steps'?"),
        ("n_jobs=2", "unknown config key 'n_jobs'. Did you mean 'hydra.launcher.n_jobs'?"),
        ("split=validaton", "split='validaton' must be test or validation. Did you mean 'validation'?"),
        ("+encoder.width=2", "encoder.width belongs to an encoder"),
        ("+experiment.foo=1", "unknown config key 'experiment.foo'."),
        ("++experiment.title=x", "experiment.title=x: the file of an experiment says this"),
        ("+data.task=depth", "has no option 'task'"),
        ("~schedule", "schedule.name is missing; name one of the options of conf/schedule."),
        (
            "~trainer.accumulate_grad_batches",
            "trainer.accumulate_grad_batches is missing; it must be a positive integer.",
        ),
        ("~training.batch_size", "training.batch_size is missing"),
        ("~optimizer", "optimizer.name is missing"),
        ("~optimizer.lr", "optimizer.lr is missing"),
        ("~seed", "seed is missing; it must be an integer from 0 to 4294967295."),
        ("data.name=null", "data.name=None must be a name; data=NAME chooses one."),
        ("resampling.name=1.5", "resampling.name=1.5 must be a name"),
        ("data.test_count=[1,2]", "data.test_count=[1, 2] must be an integer."),
        ("data.test_count=abc", "data.test_count='abc' must be an integer."),
        ("optimizer=adam optimizer.betas=null", "optimizer.betas=None must be a list of numbers."),
        ("optimizer=adam optimizer.betas=[]", "optimizer.betas=[] must be a list of numbers."),
        ("network.widths=[4,x]", "network.widths=[4, 'x'] must be a list of integers."),
        ("resampling=[bilinear,nearest]", "the config group resampling is chosen by the name of one option"),
        ("network=[1,2]", "the config group network is chosen by the name of one option"),
        ("paths.runs=null", "paths.runs=None must be a text."),
        ("experiment=quickstart", "experiment=quickstart: an experiment is a table here, of several runs; give -m exp"),
        ("+experiment=quickstart", "give -m experiments=quickstart."),
        ("rows=???", "rows cannot be resolved: Missing mandatory value: rows."),
        ("seeds=${nosuch}", "seeds cannot be resolved: Interpolation key 'nosuch' not found."),
        ("rows=hin", "rows=... selects runs of a sweep; give -m too."),
    ],
)
def test_what_used_to_be_ignored_or_to_end_in_a_traceback(override, sentence):
    with refused(sentence):
        freeze(compose(["task=reconstruction", *override.split(" ")]))


@pytest.mark.parametrize("flags", [[], ["--cfg", "job"], ["--info", "defaults"], ["-m"]])
def test_overrides_are_checked_beside_any_flag(flags):
    with pytest.raises(UserError, match="network=3: the config group network is chosen by the name of one option"):
        compose_command_line(["task=reconstruction", "network=3", *flags])


def test_hydras_completion_knows_the_options_of_train(monkeypatch, capsys):
    for line, said in (("indexnet train task=re", "task=reconstruction"), ("indexnet status quick", "")):
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0  # as its script asks
        assert capsys.readouterr().out.strip() == said


@pytest.mark.long  # a shell that starts this program three times
def test_completion_in_a_shell(tmp_path):
    if shutil.which("bash") is None or shutil.which("indexnet") is None:
        pytest.skip("no bash, or no installed command")
    script = 'eval "$(indexnet train -sc install=bash)"; COMP_CWORD=2 COMP_LINE="indexnet train task=de"\n'
    script += 'hydra_bash_completion; echo "${COMPREPLY[@]}"'
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert said.stdout.split() == ["task=denoising", "task=depth"], said.stderr


@pytest.mark.parametrize("flags", [[], ["-m"]])
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"])
def test_a_folder_of_hydras_is_refused(key, flags):
    with pytest.raises(UserError, match=rf"{key}=there: a run's folder is built from its names.*paths\.runs=DIR"):
        compose_command_line(["task=reconstruction", f"{key}=there", *flags])


def test_help_shows_every_group_and_option(tmp_path, capsys):
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    (tmp_path / "own" / "optimizer" / "mine.yaml").write_text("name: adam\n")
    assert main(["train", "--help", "--config-dir", str(tmp_path / "own")]) == 0
    said = capsys.readouterr().out
    for file in conf_dir().glob("*/**/*.yaml"):
        assert re.search(
            rf"^  {file.parent.relative_to(conf_dir())}  .*\b{file.stem}\b", _unwrapped(said), re.MULTILINE
        )
    assert re.search(r"^  optimizer  .*\bmine\b", _unwrapped(said), re.MULTILINE)


def _unwrapped(text):
    """Put the lines that go on with a group's options after those that begin it."""
    return re.sub(r" +", "  ", re.sub(r"\n {10,}", " ", text))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ["--cfg", "job", "--resolve"], ["name: reconstruction"], marks=[pytest.mark.long, pytest.mark.nightly]
        ),
        pytest.param(
            ["--cfg", "job", "--package", "trainer"],
            ["gradient_clip_val: null"],
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
        (["--info", "defaults"], ["task/reconstruction"]),
        (["seed=1", "--cfg", "job", "task=depth", "seed=1"], ["name: depth", "seed: 1"]),  # on both sides of flags
    ],
)
def test_questions_about_the_configuration(words, said, tmp_path):
    asked = command("train", "task=reconstruction", *words)  # Hydra sets up logging
    done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [text for text in said if text not in done.stdout] == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["rows=[]", "seeds=[]", "rows=glob(nosuch*)", "seeds=range(3,3)"])
def test_a_selection_of_nothing_is_refused(override):
    with pytest.raises(UserError, match="selects nothing"):
        list(expand(parse_overrides(["experiments=quickstart", override])))


def test_rows_by_a_pattern():
    jobs = list(expand(parse_overrides(["experiments=quickstart", "rows=glob(hi*)", "seeds=0"])))
    assert [text for job in jobs for text in job if text.startswith("experiment.row=")] == ["experiment.row=hin"]


@pytest.mark.parametrize("key", ["fail_fast", "retry_failed"])
def test_what_says_how_a_sweep_goes_on_is_refused_for_a_single_run(key):
    check_single(compose([f"{key}=false"]))
    with pytest.raises(UserError, match=f"{key}=true says how a sweep goes on; give -m too"):
        check_single(compose([f"{key}=true"]))


def test_a_task_may_leave_out_the_steps(capsys):
    plain = to_plain(compose(["task=reconstruction", "training.epochs=90"]))
    del plain["training"]["steps"]
    config = settle(without_sweep(plain))
    assert read_config(config).training.steps is None
    announce([config], 1)
    assert "90 epochs in batches of" in capsys.readouterr().out


# --- hints ------------------------------------------------------------------------------------------------------------


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
    with refused(meant):
        compose([word])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("+paths.root=x", "unknown config key 'paths.root'."),
        ("+debug.fast=true", "unknown config key 'debug.fast'."),
        ("resampling=hinn", "'hinn'"),
    ],
)
def test_no_hint_is_better_than_one_that_misleads(word, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
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
