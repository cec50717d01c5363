"""The wheel, made of the source archive, in an environment without the checkout; what a release says of itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import yaml

import indexnet
from indexnet.run.record import versions

ROOT = Path(__file__).resolve().parents[1]


def done(*words, folder, **variables):
    """Run a command in ``folder``, without what this environment knows of the checkout, and return what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("INDEXNET_", "PYTHONPATH"))}
    ended = subprocess.run(
        [str(word) for word in words], cwd=folder, env={**clean, **variables}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the source archive, unpacked, and of the wheel that was made in it."""
    folder = tmp_path_factory.mktemp("built")
    hatchling = (sys.executable, "-m", "hatchling", "build", "--directory", folder, "--target")
    done(*hatchling, "sdist", folder=ROOT)
    name = f"indexnet-{indexnet.__version__}"
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    done(*hatchling, "wheel", folder=folder / name)
    return folder / name, folder / f"{name}-py3-none-any.whl"


@pytest.fixture(scope="module")
def commands(built, tmp_path_factory):
    """The folder of the commands of an environment that has the wheel, and else what this one has."""
    folder = tmp_path_factory.mktemp("environment")
    done(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    done(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built[1], folder=folder)
    # Packages that indexnet needs. A folder named here is searched last, and the .pth files in it, that of an
    # editable indexnet for one, do not count.
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


@pytest.mark.long
def test_the_source_archive_has_what_a_contributor_needs(built):
    source, _ = built
    for folder in ("src/indexnet", "src/hydra_plugins", "conf", "experiments", "tests", "docs", "benchmarks"):
        files = (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".csv", ".md"))
        wanted = {path.relative_to(ROOT) for path in files}
        assert wanted
        assert not {path for path in wanted if not (source / path).is_file()}
    for file in ("LICENSE", "NOTICE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile",
                 "environment/constraints.txt", "environment/match_torchvision.py"):  # fmt: skip
        assert (source / file).read_bytes() == (ROOT / file).read_bytes()


@pytest.mark.long
def test_the_wheel_works_without_the_checkout(commands, tmp_path):
    said = done(
        commands / "python", "-c",
        "import indexnet, importlib.metadata as metadata\n"
        "from indexnet.core.paths import data_root\n"
        "assert indexnet.create_resampling('carafe', channels=[4]).stages\n"
        "about = metadata.metadata('indexnet')\n"
        "print(indexnet.__file__, data_root(), about['Version'], about['License-Expression'], sep='\\n')\n"
        "print(*about.get_all('License-File'))\n",
        folder=tmp_path,
    ).splitlines()  # fmt: skip
    places = [Path(line) for line in said[:2]]
    assert all(commands.parent in place.parents for place in places), places
    assert said[2:] == [indexnet.__version__, "Apache-2.0", "LICENSE NOTICE"]
    listed = done(commands / "indexnet", "list", "experiments", folder=tmp_path)
    files = {path.relative_to(ROOT / "experiments").as_posix() for path in (ROOT / "experiments").rglob("*.yaml")}
    assert all(file.removesuffix(".yaml") in listed for file in files)
    words = "train -m experiments=quickstart rows=hin seeds=0 budget=smoke logger=none trainer.accelerator=cpu"
    assert "1 of 1 runs done" in done(commands / "indexnet", *words.split(), folder=tmp_path)
    done(commands / "indexnet", "report", "quickstart", folder=tmp_path)
    assert (tmp_path / "reports" / "quickstart" / "photos-smoke" / "report.html").is_file()


@pytest.mark.long
def test_a_plugin_beside_the_wheel(commands, tmp_path):
    page = (ROOT / "docs" / "extending.md").read_text("utf-8")
    for place in ("mine/my_operator.py", "mine/resampling/min_unpool.yaml"):
        (text,) = re.findall(rf"```\w+ file={re.escape(place)}\n(.*?)```", page, flags=re.DOTALL)
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text, encoding="utf-8")
    (line,) = re.findall(r"```text\nindexnet (train .*)\n", page)
    words = ["logger=none", "trainer.accelerator=cpu", "--config-dir", "mine"]
    words = [*shlex.split(line.removesuffix("--config-dir mine")), *words]
    done(commands / "indexnet", *words, folder=tmp_path, PYTHONPATH="mine")
    assert list((tmp_path / "runs" / "single").rglob("record.json"))


def test_a_version_is_told_as_it_is():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == versions()["indexnet"] == indexnet.__version__
    changes = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert changes[0] == (indexnet.__version__, str(cited["date-released"]))
    titles = re.findall(r"^  title\s*= \{(.*)\},$", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    assert [paper["title"] for paper in cited["references"]] == titles
