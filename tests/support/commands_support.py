"""What the tests of the commands share: small checkpoints with random weights, small image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from indexnet.networks import create_network, without_pretrained
from indexnet.networks.checkpoint import checkpoint_meta, save_checkpoint

PHOTOS = {"name": "photos", "channels": 1, "train_count": 8, "test_count": 5}
SCENES = {"name": "scenes", "train_count": 4, "test_count": 2, "seed": 0, "backgrounds": None}


def config(task: str, data: dict[str, Any], size: int) -> dict[str, Any]:
    """The part of a frozen configuration that the commands read."""
    return {
        "task": {"name": task},
        "data": data,
        "training": {"size": size},
        "paths": {"runs": "runs", "data": "data"},
        "experiment": {"name": None, "row": None, "label": None},
    }


def save_random(path: Path, task: str, network: dict[str, Any], data: dict[str, Any] | None, size: int = 32) -> Path:
    """Save a network with random weights as a checkpoint of a run."""
    torch.manual_seed(0)
    options = without_pretrained(network)
    built = create_network(options.pop("name"), **options)
    plain = config(task, data, size) if data else {}
    save_checkpoint(path, checkpoint_meta({"name": task}, network, plain), built.state_dict())
    return path


def autoencoder_checkpoint(path: Path, resampling: Any = "max_unpool", channels: int = 1) -> Path:
    network = {"name": "autoencoder", "widths": [4, 6], "in_channels": channels, "resampling": resampling}
    return save_random(path, "reconstruction", network, PHOTOS | {"channels": channels})


def matting_checkpoint(path: Path, resampling: Any = "max_unpool", data: dict[str, Any] | None = SCENES) -> Path:
    # what a run with pretrained weights stores: the command must not fetch them again
    encoder = {"name": "mobilenetv2_released", "width": 0.35, "pretrained": True, "freeze_bn": False}
    network = {"name": "matting_unet", "encoder": encoder, "resampling": resampling, "context": "none"}
    return save_random(path, "matting", network, data, 64)


def labelled_checkpoint(path: Path, classes: Sequence[str] = ("sky", "road", "car")) -> Path:
    """Save a small segmentation network with random weights."""
    torch.manual_seed(0)
    spec = {"name": "segnet", "classes": len(classes), "encoder": "test_efficientnet", "resampling": "nearest"}
    network = create_network(spec["name"], **{key: value for key, value in spec.items() if key != "name"})
    entry = {"name": "segmentation", "classes": list(classes)}
    save_checkpoint(path, checkpoint_meta(entry, spec, {}), network.state_dict())
    return path


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def trimap(height: int, width: int) -> np.ndarray:
    """Background left, unknown in the middle, foreground right; uint8 (H, W)."""
    result = np.full((height, width), 128, np.uint8)
    result[:, : width // 4] = 0
    result[:, -(width // 4) :] = 255
    return result


def save_image(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def save_alphamatting(root, names=("GT01", "GT02", "GT03")):
    """The layout of alphamatting.com, with two trimap sets."""
    for number, name in enumerate(names):
        height, width = 40 + number, 50
        save_image(root / "input_training_lowres" / f"{name}.png", photograph(height, width, number))
        alpha = np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))
        save_image(root / "gt_training_lowres" / f"{name}.png", alpha)
        for kind in ("Trimap1", "Trimap2"):
            save_image(root / "trimap_training_lowres" / kind / f"{name}.png", trimap(height, width))
    return root


# Writes down every address that the process asks for; Python imports it by itself.
WATCH = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        where = args[0] if event == "socket.getaddrinfo" else args[1][0] if isinstance(args[1], tuple) else "local"
        with open({log!r}, "a") as log:
            log.write(f"{{event}} {{where}}\\n")
sys.addaudithook(watch)
"""
