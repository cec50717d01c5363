"""What the console command imports, each time in a process of its own."""

import subprocess
import sys

import pytest

TRAIN = (
    "from indexnet.cli import main\n"
    "code = main(['train', 'task=reconstruction', 'resampling=max_unpool', 'training.steps=1', 'data.test_count=2',\n"
    "    'training.batch_size=2', 'trainer.accelerator=cpu', 'trainer.num_workers=0'])\n"
    "assert code == 0\n"
)


def run(code, folder):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


MAIN = "from indexnet.cli import main; "


@pytest.mark.parametrize(
    ("code", "unused"),
    [
        (TRAIN, "scipy.signal scipy.stats torchvision timm albumentations wandb matplotlib h5py"),
        (f"{MAIN} assert main(['costs', 'tpami/table6_sunrgbd']) == 0",
         "pytorch_lightning torchmetrics wandb scipy.signal"),
        (f"{MAIN} import contextlib\nwith contextlib.suppress(SystemExit): main(['--help'])",
         "torch hydra numpy pytorch_lightning"),
        ("from indexnet.run.config import compose; compose(['task=depth', 'callbacks=ema'])", "torch timm numpy"),
        ("from indexnet.run.experiments.tables import load_experiment; load_experiment('quickstart')", "torch"),
        ("import indexnet, indexnet.core.registry, indexnet.core.paths", "torch numpy hydra"),
        ("import indexnet.resampling", "timm torchvision pytorch_lightning hydra cv2 torchmetrics scipy wandb"),
    ],
    ids=["train", "costs", "help", "compose", "tables", "registry", "resampling"],
)  # fmt: skip
def test_what_is_not_needed_is_not_imported(code, unused, tmp_path):
    asked = f"import sys; print('FOUND', [name for name in {unused.split()} if name in sys.modules])"
    assert run(f"{code}\n{asked}", tmp_path).splitlines()[-1] == "FOUND []"


def test_what_torchmetrics_postpones_works_afterwards(tmp_path):
    run(
        "import sys; from indexnet.cli import main\n"
        "assert main(['list', 'metrics']) == 0\n"
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
        "import timm, torchvision; assert torchvision.__file__\n",
        tmp_path,
    )


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


@pytest.mark.parametrize("code", ["import indexnet", "import indexnet.run.fit"])
def test_the_library_leaves_imports_alone(tmp_path, code):
    run(f"import sys; {code}; assert not [each for each in sys.meta_path if '_startup' in str(each)]", tmp_path)


def test_the_package_offers_its_names_when_they_are_asked_for(tmp_path):
    run(
        "import sys, indexnet\n"
        "offered = {'DataModule', 'create_network', 'create_resampling', 'create_task', 'load'}\n"
        "assert offered | {'__version__'} <= set(dir(indexnet))\n"
        "assert not {'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules)\n"
        "assert not hasattr(indexnet, 'create_netwrok') and 'torch' not in sys.modules\n"
        "from indexnet import create_resampling\n"
        "assert 'pytorch_lightning' not in sys.modules\n"
        "import indexnet.resampling, indexnet.run.datamodule, indexnet.tasks\n"
        "assert indexnet.create_resampling is create_resampling is indexnet.resampling.create_resampling\n"
        "assert indexnet.DataModule is indexnet.run.datamodule.DataModule\n"
        "assert indexnet.create_task is indexnet.tasks.create_task\n"
        "assert indexnet.create_network('autoencoder').in_channels == 1\n",
        tmp_path,
    )


def test_a_name_that_the_package_lacks_is_an_ordinary_error():
    import indexnet

    with pytest.raises(AttributeError, match="module 'indexnet' has no attribute 'create_netwrok'"):
        indexnet.create_netwrok  # noqa: B018
