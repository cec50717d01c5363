"""The code of a run is part of what it is: edited code is said, and ``rerun`` does the run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.locks import HeldError
from indexnet.run.config import compose, freeze
from indexnet.run.folder import RunFolder, prepare
from indexnet.run.identity import config_hash
from indexnet.run.job import DIVERGED, run_job
from indexnet.sweep.launch import prepare_jobs
from resume_support import interrupted_at_replace, interrupted_at_step
from run_support import RECONSTRUCTION, prepare_run, same, weights

OPERATOR = """
from torch.nn import functional as F
from indexnet.resampling import Downsampled, OperatorInfo, ResamplingStage, register_resampling
from edited_helper import GAIN

@register_resampling
class Edited(ResamplingStage):
    info = OperatorInfo(
        name="edited", title="Edited", paper="mine", equation="", learned=False, guided=False, equal_widths=False,
        downsampling="every second", parameters="0",
    )

    def down(self, x):
        return Downsampled(GAIN * x[..., ::2, ::2], x, None, (x.shape[-2], x.shape[-1]))

    def up(self, x, guide, size):
        return F.interpolate(x, size)
"""
WORDS = [*RECONSTRUCTION, "resampling=none", "resampling.name=edited", "plugins=[edited_operator]",
         "trainer.checkpoint_every=2"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a plugin, which this process imports once; what a test writes there counts, not what was run."""
    folder = tmp_path_factory.mktemp("plugin")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def edit(place):
    def write(gain: str, operator: str = OPERATOR) -> None:
        (place / "edited_operator.py").write_text(operator)
        (place / "edited_helper.py").write_text(f"GAIN = {gain}\n")

    write("1.0")
    return write


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """A finished run, to be copied."""
    (place / "edited_operator.py").write_text(OPERATOR)
    (place / "edited_helper.py").write_text("GAIN = 1.0\n")
    folder = prepare_run(tmp_path_factory.mktemp("finished"), *WORDS)
    assert run_job(folder.path) == 0
    return folder


@pytest.fixture
def done(finished, edit):
    """A finished run in the working directory's ``runs``, and the words of its command."""
    path = Path("runs/single") / finished.path.name
    shutil.copytree(finished.path, path)
    return RunFolder(path.resolve())


def _train(*words: str) -> int:
    return main(["train", *WORDS, *words])


def test_the_record_has_the_code_of_every_part(done):
    record = done.record()
    names = set(record.code)
    assert names >= {"edited_operator.py", "edited_helper.py", "indexnet/resampling/base.py"}
    for part in ("networks/architectures/autoencoder", "tasks/reconstruction", "tasks/base",
                 "data/datasets/skimage_patches", "metrics/image"):  # fmt: skip
        assert f"indexnet/{part}.py" in names
    assert not names & {"indexnet/tasks/visualization.py", "indexnet/resampling/none.py", "indexnet/tasks/matting.py"}
    assert set(record.code_folders) == {"edited_operator", "edited_helper"}
    assert record.code_before == {}
    assert record.changed_code() == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        pytest.param(
            ["task=matting", "data.train_count=6", "training.size=64"],
            "indexnet/networks/encoders/encoder.py",
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
        (["task=matting"], "indexnet/losses/matting.py"),
        pytest.param(
            ["task=matting"],
            "indexnet/networks/tiled/matting_protocol.py",
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
        (["task=matting", "resampling=carafe"], "indexnet/resampling/carafe.py"),
        (["task=matting", "data=composition1k"], "indexnet/data/matting/pipelines/dim.py"),
        (["task=denoising"], "indexnet/networks/architectures/dncnn.py"),
        (["task=segmentation"], "indexnet/metrics/segmentation.py"),
        pytest.param(["task=depth"], "indexnet/metrics/depth.py", marks=[pytest.mark.long, pytest.mark.nightly]),
    ],
)
def test_what_decides_a_run_is_part_of_it(words, name):
    from indexnet.run.resume import code_of
    from indexnet.run.schema import read_config

    more = ["encoder.pretrained=false"] if words[0] in ("task=matting", "task=segmentation", "task=depth") else []
    found = code_of(read_config(freeze(compose([*words, *more]))))
    assert name in found.digests
    assert found.folders == {}


def test_an_edited_file_is_named_where_the_run_is_found_done(done, edit, capsys):
    assert _train() == 0
    assert "changed" not in capsys.readouterr().out
    edit("1.0  # a remark")
    assert _train() == 0
    assert "changed" not in capsys.readouterr().out
    edit("0.0")
    assert _train() == 0
    said = capsys.readouterr().out
    assert said.startswith("done before: ")
    assert "; but edited_helper.py has changed since: rerun=changed does it again:\n" in said
    edit("0.0", OPERATOR.replace("[..., ::2, ::2]", "[..., 1::2, 1::2]"))
    assert _train() == 0
    assert "; but edited_helper.py and edited_operator.py have changed since: " in capsys.readouterr().out


def test_a_record_of_an_earlier_version_says_nothing(done, edit, capsys):
    file = done.path / "record.json"
    content = {key: value for key, value in json.loads(file.read_text()).items() if not key.startswith("code")}
    file.write_text(json.dumps(content))
    edit("0.0")
    assert _train("rerun=changed") == 0
    assert "changed" not in capsys.readouterr().out
    assert json.loads(file.read_text()) == content


def test_rerun_does_what_has_changed_again_and_keeps_the_old(done, edit, capsys):
    def files(folder: Path) -> dict[str, bytes]:
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return {name: content for name, content in found.items() if not name.startswith((".lock", "earlier"))}

    before = files(done.path)
    assert _train("rerun=changed") == 0
    assert not (done.path / "earlier").exists()
    edit("0.0")
    assert _train("rerun=changed", "trainer.num_workers=1") == 0
    said = capsys.readouterr().out
    assert "rerun=changed does again a finished run, whose results are kept in earlier/ of its folder" in said
    assert "training for 6 steps" in said
    assert files(done.path / "earlier" / "1") == before
    assert done.record().changed_code() == []
    assert done.record().started > json.loads(before["record.json"])["started"]
    assert done.config()["trainer"]["num_workers"] == 1  # places may be others
    assert not any(name.endswith(".again") for name in files(done.path / "earlier" / "1"))
    assert _train("rerun=changed") == 0
    assert sorted(path.name for path in (done.path / "earlier").iterdir()) == ["1"]
    for number in ("2", "3"):  # in any case, each time that it is asked for
        assert _train("rerun=true") == 0
        assert (done.path / "earlier" / number / "record.json").is_file()


def test_a_run_that_goes_on_with_other_code_says_so(edit, capsys):
    with interrupted_at_step(3):
        _train()
    (path,) = Path("runs/single").iterdir()
    folder = RunFolder(path)
    old = folder.record().code["edited_helper.py"]  # a killed run leaves it
    edit("0.0")
    assert _train() == 0
    said = capsys.readouterr().out
    assert "edited_helper.py changed since this run began; it goes on, and its record says so\n" in said
    assert "going on from step 2 of 6" in said
    record = folder.record()
    assert record.code_before == {"edited_helper.py": [old]}
    assert record.code["edited_helper.py"] != old
    assert record.changed_code() == ["edited_helper.py"]
    assert _train() == 0
    assert "but edited_helper.py changed while it ran: rerun=changed does it again" in capsys.readouterr().out
    assert _train("rerun=changed") == 0
    assert folder.record().code_before == {}
    assert json.loads((path / "earlier/1/record.json").read_text())["code_before"] == {"edited_helper.py": [old]}


def test_a_run_that_failed_before_its_first_step_has_one_code(edit):
    """Who mends a mistake and starts again has not trained with it."""
    with interrupted_at_step(1):
        _train()  # no checkpoint yet
    edit("0.0")
    assert _train() == 0
    (path,) = Path("runs/single").iterdir()
    assert RunFolder(path).record().code_before == {}


@pytest.mark.parametrize("kill", range(1, 9))
def test_a_kill_while_results_are_set_aside_loses_nothing(done, kill):
    config = freeze(compose(WORDS))
    files = {path.name for path in done.path.iterdir()} - {"config.yaml", ".lock"}
    content = (done.path / "record.json").read_bytes(), (done.path / "per_image.csv").read_bytes()
    with interrupted_at_replace(kill - 1), done.lock():
        done.set_aside()
        raise AssertionError("it is done with fewer files")
    folder = prepare(config)  # what every command does first
    if folder.status() == "done":  # nothing has been moved
        assert folder.runs_again(True)
        assert folder.runs_again("changed") is False
        assert files <= {path.name for path in folder.path.iterdir()}
        with folder.lock():
            folder.set_aside()
    assert folder.status() == "new"
    assert not folder.checkpoint().exists()
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", ".lock", "earlier"}
    assert [path.name for path in (folder.path / "earlier").iterdir()] == ["1"]
    old = folder.path / "earlier" / "1"
    assert files <= {path.name for path in old.iterdir()}
    assert ((old / "record.json").read_bytes(), (old / "per_image.csv").read_bytes()) == content


def test_an_interrupted_rerun_goes_on_and_is_not_begun_again(done, capsys):
    whole = weights(done)
    with interrupted_at_step(3):
        _train("rerun=true")
    assert done.status() == "running"
    assert _train("rerun=true") == 0
    assert sorted(path.name for path in (done.path / "earlier").iterdir()) == ["1"]
    assert same(whole, weights(done))
    # killed between the end of the run and that of the command
    with done.lock():
        done.set_aside()
    shutil.copytree(done.path / "earlier" / "1", done.path, dirs_exist_ok=True)
    capsys.readouterr()
    assert _train("rerun=true") == 0
    assert "rerun=true goes on where it was interrupted: done again already 1 of 1" in capsys.readouterr().out
    assert sorted(path.name for path in (done.path / "earlier").iterdir()) == ["1", "2"]
    assert _train("rerun=true") == 0
    assert sorted(path.name for path in (done.path / "earlier").iterdir()) == ["1", "2", "3"]


def test_a_diverged_run_is_done_again_too(edit, capfd):
    words = ["optimizer.lr=1e30", "schedule=constant"]
    assert _train(*words) == 3
    edit("0.0")
    assert _train(*words) == 3
    assert ". But edited_helper.py has changed since: rerun=changed does it again." in capfd.readouterr().err
    assert _train(*words, "rerun=changed") == 3
    (path,) = Path("runs/single").iterdir()
    assert RunFolder(path).status() == "diverged"
    assert (path / "earlier/1/record.json").is_file()
    assert run_job(path) == DIVERGED


def test_a_run_at_work_is_not_set_aside(done):
    with done.lock(), pytest.raises(HeldError, match="is in use by another process"):
        prepare_jobs([freeze(compose(WORDS))], rerun=True)
    assert done.status() == "done"
    assert not (done.path / "earlier").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("rerun=chnged", "rerun='chnged' must be changed, true or false."),
        ("rerun=1", "rerun=1 must be changed, true or false."),
        ("tags=mine", "tags='mine' must be a list of texts of at most 64 characters."),
        ("tags=[1]", "tags=[1] must be a list of texts of at most 64 characters."),
        (f"tags=[{'x' * 65}]", "must be a list of texts of at most 64 characters."),
    ],
)
def test_mistakes_are_one_sentence(word, said, mistake):
    mistake(main(["train", *RECONSTRUCTION, word]), said)
    assert not Path("runs").exists()


def test_neither_is_part_of_what_a_run_is(tmp_path):
    plain = freeze(compose(RECONSTRUCTION))
    assert "tags" not in plain
    assert "rerun" not in plain
    tagged = freeze(compose([*RECONSTRUCTION, "tags=[mine,first try]", "rerun=changed"]))
    assert tagged == {**plain, "tags": ["mine", "first try"]}
    assert config_hash(tagged) == config_hash(plain)
    with pytest.raises(UserError, match="rerun"):
        freeze(compose([*RECONSTRUCTION, "rerun=null"]))


def test_a_file_that_git_does_not_know_makes_a_revision_dirty(tmp_path):
    code = Path(__file__).resolve().parents[2] / "src" / "indexnet"
    for name in ("core", "run"):
        shutil.copytree(code / name, tmp_path / "src/indexnet" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/indexnet/__init__.py").write_text("__version__ = '0'\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    asked = (
        "from pathlib import Path; from indexnet.run.record import git_revision; print(git_revision())\n"
        "for name in ('src/indexnet/run/mine.py', 'experiments/mine.yaml', 'notes.txt'):\n"
        "    Path(name).parent.mkdir(exist_ok=True); Path(name).write_text('x = 1')\n"
        "    print(git_revision()); Path(name).unlink()"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    clean, *others = done.stdout.split()
    assert len(clean) == 40
    assert others == [f"{clean}-dirty", f"{clean}-dirty", clean]
