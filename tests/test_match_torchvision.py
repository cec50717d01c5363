"""The wheel of torchvision without compiled operators that `make setup` may put in the place of one for CUDA."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "environment" / "match_torchvision.py"


@pytest.fixture
def pack():
    return runpy.run_path(str(SCRIPT))["pack"]


def test_what_is_packed(pack, tmp_path, monkeypatch):
    about = "torchvision-9.8.7+cu999.dist-info"
    files = {
        "torchvision/__init__.py": "",
        "torchvision/version.py": "__version__ = '9.8.7+cu999'\ncuda = '99.9'\n",
        "torchvision/_meta_registrations.py": '@torch.library.register_fake("torchvision::nms")\ndef meta_nms(): ...\n',
        "torchvision/_C.so": "compiled",
        "torchvision/image.so": "compiled",
        "torchvision.libs/libjpeg.so": "compiled",
        "torchvision/__pycache__/version.pyc": "made anew",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 9.8.7+cu999\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n",
        f"{about}/INSTALLER": "pip",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD"))
    for name, text in files.items():
        (tmp_path / "installed" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "installed" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "installed")
    assert pack(tmp_path) == "9.8.7+noops"
    new = "torchvision-9.8.7+noops.dist-info"
    with zipfile.ZipFile(tmp_path / "torchvision-9.8.7+noops-cp311-cp311-linux_x86_64.whl") as wheel:
        packed = {name: wheel.read(name).decode() for name in wheel.namelist()}
    lines = list(csv.reader(io.StringIO(packed.pop(f"{new}/RECORD"))))
    assert packed == {
        "torchvision/__init__.py": "",
        "torchvision/version.py": "__version__ = '9.8.7+noops'\ncuda = '99.9'\n",
        "torchvision/_meta_registrations.py": '@register_meta("nms")\ndef meta_nms(): ...\n',
        f"{new}/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 9.8.7+noops\n",
        f"{new}/WHEEL": files[f"{about}/WHEEL"],
    }
    assert lines.pop() == [f"{new}/RECORD", "", ""]
    for name, digest, size in lines:
        content = packed.pop(name).encode()
        assert int(size) == len(content)
        assert base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=") == hashlib.sha256(content).digest()
    assert not packed


@pytest.mark.long
def test_the_installed_torchvision_packed_works_without_its_operators(pack, tmp_path):
    version = pack(tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "site"
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", place, wheel)
    use = (
        "import importlib.metadata, torch, torchvision\n"
        f"assert torchvision.__file__.startswith({str(place)!r})\n"
        f"assert torchvision.__version__ == importlib.metadata.version('torchvision') == {version!r}\n"
        "import timm, torchmetrics, pytorch_lightning\n"
        "assert torchvision.models.mobilenet_v3_small()(torch.rand(1, 3, 64, 64)).shape == (1, 1000)\n"
        "try:\n"
        "    torchvision.ops.nms(torch.rand(1, 4), torch.rand(1), 0.5)\n"
        "except RuntimeError as error:\n"
        "    assert 'custom C++ ops' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('it has operators')\n"
    )
    for words in (install, ("-c", use)):
        ended = subprocess.run(
            [sys.executable, *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(place)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
