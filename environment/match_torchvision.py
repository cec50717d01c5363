"""Put a torchvision that matches beside a torch without CUDA, where the index has torchvision for CUDA alone.

    python environment/match_torchvision.py

The compiled operators of such a torchvision need CUDA's libraries. Without them ``import torchvision`` fails, and with
it timm, torchmetrics and Lightning (pytorch/vision#9085). ``make setup`` calls this after each installation. Where
torchvision can be imported, nothing is changed. Elsewhere a wheel is made of the installed files without the compiled
ones, and takes their place; its version, ``0.28.0+noops``, tells it from PyTorch's own build for CPUs in records of
runs. What torchvision offers is there, but for its compiled operators (``torchvision.ops.nms``, the codecs of
``torchvision.io``), which say so when they are called.
"""

import base64
import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

COMPILED = ("torchvision/_C.so", "torchvision/image.so", "torchvision.libs/")
INSTALLER = re.compile(r"dist-info/(?!METADATA|WHEEL|LICENSE|top_level)|__pycache__")
"""What an installer has written, or writes anew."""


def is_needed() -> bool:
    """Return whether torch has no CUDA and torchvision cannot be imported beside it."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if torch.version.cuda is None and "operator torchvision::" in str(error):
            return True
        raise
    return False


def pack(folder: Path) -> str:
    """Write the wheel into a folder and return its version."""
    installed = importlib.metadata.distribution("torchvision")
    version, new = installed.version, f"{installed.version.partition('+')[0]}+noops"
    (tag,) = re.findall(r"^Tag: (\S+)$", installed.read_text("WHEEL") or "", flags=re.MULTILINE)
    record = []
    with zipfile.ZipFile(folder / f"torchvision-{new}-{tag}.whl", "w") as wheel:
        for file in sorted(installed.files or []):
            name = file.as_posix()
            if name.startswith(COMPILED) or INSTALLER.search(name):
                continue
            content = file.read_binary()
            if name.endswith("/_meta_registrations.py"):  # the file's own way for operators that may be missing
                content = content.replace(b'@torch.library.register_fake("torchvision::', b'@register_meta("')
            elif name == "torchvision/version.py":
                content = re.sub(rb"__version__ = '.*'", f"__version__ = '{new}'".encode(), content)
            elif name.endswith("dist-info/METADATA"):
                content = content.replace(f"\nVersion: {version}\n".encode(), f"\nVersion: {new}\n".encode(), 1)
            name = name.replace(f"torchvision-{version}.dist-info", f"torchvision-{new}.dist-info")
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
            wheel.writestr(name, content)
        name = f"torchvision-{new}.dist-info/RECORD"
        wheel.writestr(name, "".join([*record, f"{name},,\n"]))
    return new


def main() -> None:
    """Make the wheel where it is needed, and install it."""
    if not is_needed():
        return
    with tempfile.TemporaryDirectory() as folder:
        version = pack(Path(folder))
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", sys.executable,
             "--no-deps", "--no-index", "--find-links", folder, f"torchvision=={version}"],
            check=True,
        )  # fmt: skip
    print(f"torchvision {version}: made of the build for CUDA, without its compiled operators")


if __name__ == "__main__":
    main()
