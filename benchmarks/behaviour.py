"""What a person gets from a list of commands, written down so that two versions of the code can be compared.

    python benchmarks/behaviour.py record FOLDER [--source SRC]    run the commands with the code in SRC (default: this)
    python benchmarks/behaviour.py compare FOLDER OTHER            list every output, number and picture that differs

Times, speeds, memory, places and revisions are taken out; everything else is compared to the last character, and files
that are no text by their content.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    "reconstruction": "data=photos resampling=max_unpool",
    "denoising": "network=dncnn_segnet resampling=indexnet resampling.family=m2o",
    "segmentation": "data=scenes",
    "depth": "data=scenes",
    "matting": "data=scenes resampling=indexnet",
}
SMALL = "training.steps=4 training.batch_size=2 training.size=64 schedule=constant budget=smoke data.test_count=3"
BOX = "--images IMAGES/a.png --box 10,10,60,60"
GUIDED = "--images IMAGES --trimaps TRIMAPS"
LISTED = ("operators", "networks", "data", "tasks", "metrics", "experiments")


def commands() -> list[tuple[str, str]]:
    """Return name and arguments of every command, in order; ``{last_TASK}`` is the checkpoint of a task's run."""
    found = []
    for task, options in TASKS.items():
        weights = " encoder.pretrained=false" if task in ("segmentation", "depth", "matting") else ""
        found.append((f"train_{task}", f"train task={task} {options} {SMALL}{weights}"))
    found += [
        ("train_again", f"train task=reconstruction {TASKS['reconstruction']} {SMALL}"),
        ("sweep", "train -m experiments=quickstart rows=max_unpool,m2o seeds=0,1 budget=smoke hydra.launcher.n_jobs=1"),
        ("sweep_again", "train -m experiments=quickstart rows=max_unpool,m2o seeds=0,1 budget=smoke"),
        ("grid", f"train -m task=reconstruction resampling.family=hin,m2o seed=0,1 {SMALL}"),
        ("cfg", "train --cfg job experiments=quickstart"),
        ("status", "status quickstart"),
        ("status_json", "status quickstart --json"),
        ("report", "report quickstart"),
        ("report_empty", "report tpami/table5_denoising"),
        ("data_check", "data check scenes"),
        *((f"list_{what}", f"list {what}") for what in LISTED),
        *((f"evaluate_{task}", f"evaluate {{last_{task}}} --limit 2 --output evaluated/{task}") for task in TASKS),
        ("evaluate_closed_form", "evaluate closed_form {last_matting} --limit 2 --output evaluated/two"),
        ("robustness", "robustness {last_matting} --limit 2 --ranges 3-5,6-9 --output robust"),
        *((f"predict_{task}", f"predict {{last_{task}}} --images IMAGES --output predicted/{task}") for task in TASKS
          if task not in ("matting", "reconstruction")),
        ("predict_reconstruction", "predict {last_reconstruction} --images GREY --output predicted/reconstruction"),
        ("predict_matting", f"predict {{last_matting}} {GUIDED} --output predicted/matting --cutout"),
        ("predict_box", f"predict {{last_matting}} {BOX} --output predicted/box --depth 16"),
        ("compare", "compare {last_matting} closed_form --images IMAGES --trimaps TRIMAPS --output compared"),
        ("compare_segmentation", "compare {last_segmentation} {last_segmentation} --images IMAGES --output compared_s"),
        *((f"export_{task}", f"export {{last_{task}}} --format torch_export --output {task}.pt2") for task in TASKS),
        ("export_onnx", "export {last_matting} --format onnx --output matting.onnx"),
        *((f"costs_{table}", f"costs {table}") for table in TABLES),
        ("help", "--help"),
        *((f"help_{name}", f"{name} --help") for name in HELPED),
        *((f"mistake_{i}", text) for i, text in enumerate(MISTAKES)),
    ]  # fmt: skip
    return found


TABLES = (
    "quickstart", "quickstart_matting", "tpami/table2_matting_design", "tpami/table3_matting",
    "tpami/table4_normalization", "tpami/table5_denoising", "tpami/table6_sunrgbd", "tpami/table7_nyudv2",
    "thesis/table3_2_reconstruction", "thesis/table4_1", "mindspore/aim500",
)  # fmt: skip
HELPED = (
    "train", "evaluate", "predict", "app", "compare", "robustness", "status", "plan", "report", "dashboard", "costs",
    "bench", "convert", "export", "data", "list",
)  # fmt: skip
MISTAKES = (
    "train task=mating", "train task.nam=x", "train optimizer.lr=-1", "train resampling=indexnet resampling.famly=hin",
    "train -m experiments=quickstart rows=nosuch", "train experiments=quickstart", "train -m optimizer.lr=0.1,0.1",
    "status nosuch", "report quickstrt", "costs tpami/table9", "evaluate nosuch.ckpt", "data check nosuch",
    "predict {last_matting} --images IMAGES --output predicted/none", "export {last_matting} --format nosuch",
    "predict {last_matting} --images IMAGES --trimaps TRIMAPS --output predicted/matting", "list nosuch",
    "train data=camvid", "train data=camvid task=segmentation",
    "train training.batch_size=3 trainer.accumulate_grad_batches=2",
    "train seeds=0", "train trainer.devices=0", "compare {last_depth} {last_matting} --images IMAGES --output x",
)  # fmt: skip


def pictures(folder: Path) -> None:
    """Write two photographs, their trimaps and two grey pictures."""
    from skimage import data

    for name, photo in (("a", data.astronaut()[30:126, 150:246]), ("b", data.coffee()[100:180, 200:301])):
        height, width = photo.shape[:2]
        trimap = np.zeros((height, width), np.uint8)
        trimap[height // 5 : -height // 5, width // 5 : -width // 5] = 128
        trimap[height // 3 : -height // 3, width // 3 : -width // 3] = 255
        for kind, pixels in (("IMAGES", photo), ("TRIMAPS", trimap), ("GREY", photo[..., 1])):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / kind / f"{name}.png")


_UNITS = "ms|s|min|h|hours?|minutes?|seconds?|MiB|MB|GB|GiB|(samples|images)/s|(samples|images) a second"
_GONE = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\+\d\d:\d\d)?)?"), "DATE"),
    (re.compile(r"\b[0-9a-f]{40}(-dirty)?\b"), "REVISION"),
    (re.compile(r"(revision|git) [0-9a-f]{7,12}\b"), "REVISION"),
    (re.compile(rf"\d[\d.,]*\s*({_UNITS})(?=\b)"), "N \\1"),
    (re.compile(r"\"(pid|seconds|[a-z_]*_s|[a-z_]*memory[a-z_]*)\": [\d.]+"), "\"\\1\": N"),
    (re.compile(r"last seen \S+ ago"), "AGO"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"[-─━]{4,}"), "----"),
)  # fmt: skip
_UNEQUAL = re.compile(r"(events\.out\.|/hparams\.yaml|/lock|\.lock|\.pt2$|\.onnx$|\.ckpt$|console\.log|\.npz$)")


def settle(text: str, folder: Path) -> str:
    """Take out of a text what differs from run to run."""
    text = text.replace(str(folder.resolve()), "HERE").replace(str(folder), "HERE").replace(str(ROOT), "ROOT")
    for pattern, word in _GONE:
        text = pattern.sub(word, text)
    return text


def record(folder: Path, source: Path) -> None:
    """Run every command in ``folder`` and write down what came of each in ``behaviour.json``."""
    import torch

    folder.mkdir(parents=True)
    pictures(folder)
    environment = {
        **os.environ, "PYTHONPATH": str(source), "COLUMNS": "200", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled",
        "NO_COLOR": "1", "TERM": "dumb",
    }  # fmt: skip
    found: dict[str, dict[str, object]] = {}
    places: dict[str, str] = {}
    for name, text in commands():
        arguments = [part.format(**places) if part.startswith("{") else part for part in text.split(" ")]
        done = subprocess.run(
            [sys.executable, "-m", "indexnet", *arguments], cwd=folder, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        found[name] = {"command": text, "code": done.returncode} | {
            stream: settle(getattr(done, stream), folder) for stream in ("stdout", "stderr")
        }
        print(f"{name}: {done.returncode}", flush=True)
        if name.startswith("train_") and name != "train_again":
            task = name.removeprefix("train_")
            (place,) = sorted((folder / "runs" / "single").glob(f"{task}-*/checkpoints/last.ckpt"))
            places[f"last_{task}"] = str(place.relative_to(folder))
    files: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or (_UNEQUAL.search(name) and path.suffix != ".ckpt"):
            continue
        if path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
            content = b"".join(key.encode() + value.numpy().tobytes() for key, value in sorted(state.items()))
            files[name] = hashlib.sha256(content).hexdigest()
        elif path.suffix in (".json", ".csv", ".md", ".html", ".tex", ".yaml", ".txt"):
            files[name] = settle(path.read_text(encoding="utf-8"), folder)
        else:
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "behaviour.json").write_text(json.dumps({"commands": found, "files": files}, indent=1), encoding="utf-8")


def compare(one: Path, other: Path) -> int:
    """Print what differs; return how many outputs and files do."""
    a, b = (json.loads((folder / "behaviour.json").read_text(encoding="utf-8")) for folder in (one, other))
    count = 0
    for kind in ("commands", "files"):
        for name in sorted(a[kind].keys() | b[kind].keys()):
            old, new = a[kind].get(name), b[kind].get(name)
            if old == new:
                continue
            count += 1
            print(f"== {kind[:-1]} {name}")
            texts = [
                json.dumps(each, indent=1).replace("\\n", "\n") if not isinstance(each, str) else each
                for each in (old, new)
            ]
            for line in list(difflib.unified_diff(*(text.splitlines() for text in texts), lineterm="", n=0))[:30]:
                print(f"   {line[:300]}")
    print(f"{count} of {len(a['commands'])} commands and {len(a['files'])} files differ")
    return count


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("folder", type=Path)
    recorder.add_argument("--source", type=Path, default=ROOT / "src")
    comparer = commands.add_parser("compare")
    comparer.add_argument("folder", type=Path)
    comparer.add_argument("other", type=Path)
    args = parser.parse_args()
    if args.what == "record":
        record(args.folder.resolve(), args.source.resolve())
    else:
        sys.exit(1 if compare(args.folder, args.other) else 0)


if __name__ == "__main__":
    main()
