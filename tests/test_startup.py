"""What the console command imports: in processes of their own, of which one shows several things in turn."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest


def run(code, folder):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(steps, folder):
    """Run steps one after another in one process: of the modules that each must not need, those that are there."""
    asked = [
        f"{code}\nfound[{name!r}] = [name for name in {unused.split()} if name in sys.modules]"
        for name, code, unused in steps
    ]
    said = run("\n".join(["import json, sys", "found = {}", *asked, "print('FOUND', json.dumps(found))"]), folder)
    return json.loads(said.splitlines()[-1].removeprefix("FOUND "))


# what is imported stays, so that a step stands before those that need more
COMMANDS = [
    ("help", "from indexnet.cli import main\nimport contextlib\nwith contextlib.suppress(SystemExit): main(['--help'])",
     "torch hydra numpy pytorch_lightning"),
    ("tables", "from indexnet.run.experiments.tables import load_experiment; load_experiment('quickstart')",
     "torch numpy"),
    ("compose", "from indexnet.run.config import compose; compose(['task=depth', 'callbacks=ema'])",
     "torch timm numpy"),
    ("costs", "assert main(['costs', 'quickstart']) == 0",
     "pytorch_lightning torchmetrics wandb scipy.signal"),
    ("train",
     "code = main(['train', 'task=reconstruction', 'resampling=max_unpool', 'training.steps=1', 'data.test_count=2',\n"
     "    'training.batch_size=2', 'trainer.accelerator=cpu', 'trainer.num_workers=0'])\n"
     "assert code == 0",
     "scipy.signal scipy.stats torchvision timm albumentations wandb h5py"),
    ("what torchmetrics postpones works afterwards",
     "from torchmetrics.functional.image import arniqa\n"
     "import torchmetrics\n"
     "assert 'scipy.signal' not in sys.modules and 'torchvision' not in sys.modules\n"
     "module = sys.modules['torchmetrics.functional.image.arniqa']\n"
     "assert 'resnet50' in vars(module) and 'torchvision' not in sys.modules\n"
     "assert type(module.transforms.Normalize([0.5], [0.5])).__module__ == 'torchvision.transforms.transforms'\n"
     "assert type(module.resnet50()).__name__ == 'ResNet'\n"
     "import scipy, scipy.signal\n"
     "assert scipy.signal.convolve([1.0, 2.0], [1.0]).tolist() == [1.0, 2.0] and scipy.signal.__file__\n"
     "import gc; assert gc.isenabled()\n"
     "import timm, torchvision; assert torchvision.__file__", "wandb"),
]  # fmt: skip
LIBRARY = [
    ("registry", "import indexnet, indexnet.core.registry, indexnet.core.paths", "torch numpy hydra"),
    ("names",
     "offered = {'DataModule', 'create_network', 'create_resampling', 'create_task', 'load'}\n"
     "assert offered | {'__version__'} <= set(dir(indexnet))\n"
     "assert not hasattr(indexnet, 'create_netwrok')", "torch numpy pytorch_lightning"),
    ("resampling", "from indexnet import create_resampling; import indexnet.resampling",
     "timm torchvision pytorch_lightning hydra cv2 torchmetrics scipy wandb"),
    ("all names are those of their modules",
     "import indexnet.run.datamodule, indexnet.run.fit, indexnet.tasks\n"
     "assert indexnet.create_resampling is create_resampling is indexnet.resampling.create_resampling\n"
     "assert indexnet.DataModule is indexnet.run.datamodule.DataModule\n"
     "assert indexnet.create_task is indexnet.tasks.create_task\n"
     "assert indexnet.create_network('autoencoder').in_channels == 1", ""),
    ("imports are left alone", "assert not [each for each in sys.meta_path if '_startup' in str(each)]", ""),
]  # fmt: skip


@pytest.mark.parametrize("steps", [COMMANDS, LIBRARY], ids=["commands", "library"])
def test_what_is_not_needed_is_not_imported(steps, tmp_path):
    assert imported(steps, tmp_path) == {name: [] for name, *_ in steps}


def test_a_script_of_ones_own_needs_nothing_of_this_package(tmp_path):
    run("import pytorch_lightning, timm, torchmetrics, sys; assert 'indexnet' not in sys.modules", tmp_path)


@pytest.mark.parametrize("words", ["sites resnet18", "train task=matting encoder=resnet18 budget=smoke logger=none"])
def test_a_torchvision_of_another_torch_is_a_sentence(words, tmp_path):
    package = tmp_path / "own" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    done = subprocess.run(
        [sys.executable, "-m", "indexnet", *words.split()], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.strip().splitlines()[-1:]
    assert sentence.startswith(
        f"indexnet: torchvision {version('torchvision')} does not match torch {version('torch')}"
    )
    assert "Traceback" not in done.stderr


def test_a_torchmetrics_that_cannot_do_without_is_imported_plainly(tmp_path):
    package = tmp_path / "torchmetrics"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from scipy.signal import convolve\nfrom torchmetrics import inner\nclass Metric:\n    pass\n"
    )
    (package / "inner.py").write_text("from scipy.signal import dlti\nclass Own(dlti):\n    pass\n")
    run(
        "import sys; from indexnet import _startup\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "_startup.install(); import torchmetrics\n"
        "from scipy import signal\n"
        "assert torchmetrics.inner.Own.__mro__[1] is signal.dlti and torchmetrics.convolve is signal.convolve\n",
        tmp_path,
    )


def test_a_name_that_the_package_lacks_is_an_ordinary_error():
    import indexnet

    with pytest.raises(AttributeError, match="module 'indexnet' has no attribute 'create_netwrok'"):
        indexnet.create_netwrok  # noqa: B018
