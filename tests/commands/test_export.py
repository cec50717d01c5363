"""`indexnet export`: files that give what PyTorch gives, and say what they are."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from commands_support import autoencoder_checkpoint, photograph, save_random, trimap
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.inference.export import SUFFIXES, Difference, describe, export, refuse_differences
from indexnet.inference.loading import load_task
from indexnet.networks.architectures.dncnn import DnCNN
from indexnet.networks.checkpoint import resampling_title
from indexnet.networks.tiled.matting_protocol import infer_alpha
from indexnet.resampling.max_unpool import MaxUnpool
from indexnet.resampling.pooling import CellMeans
from indexnet.tasks.matting import MattingTask

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ENCODER = {"name": "mobilenetv2_released", "width": 0.25}
DNCNN = {"name": "dncnn", "in_channels": 3, "depth": 3, "width": 4, "resampling": "none"}
AUTOENCODER = {"name": "autoencoder", "widths": [4, 6], "in_channels": 3}
NETWORKS = {
    "matting": {"name": "matting_unet", "encoder": ENCODER, "context": "none", "resampling": "indexnet"},
    "denoising": DNCNN,
    "depth": {"name": "fastdepth", "encoder": {"name": "mobilenetv1_fastdepth", "width": 0.125}},
    "segmentation": {"name": "segnet", "encoder": "vgg11_bn", "classes": 3, "resampling": "max_unpool"},
    "reconstruction": AUTOENCODER | {"resampling": "carafe"},
}  # fmt: skip
FAMILIES = ("hin", "o2o_modelwise", "o2o_shared", "o2o_unshared", "m2o")
OPERATORS = [
    *({"name": name} for name in ("max_unpool", "holistic_max_index", "bilinear", "deconv", "pixel_shuffle")),
    *({"name": "indexnet", "family": family} for family in FAMILIES),
    {"name": "indexnet", "family": "o2o_shared", "nonlinear": False, "context": False},
    *({"name": name} for name in ("a2u", "resfu", "sapa_b", "sapa_g")),
    *({"name": name, "groups": 1} for name in ("dysample", "freqfusion", "sapa_d")),
    {"name": "a2u", "pooling": "max", "channel": "cw", "position": "point"},
    {"name": "a2u", "pooling": "max", "dynamics": "static", "position": "point"},
    {"name": "nearest", "pooling": "blur"},
    {"name": "lda_aqu", "reduction": 2, "groups": 1},
    {"name": "naf", "heads": 1, "embedding": 16},
]
MATTING = [
    {"name": "matting_unet", "encoder": ENCODER, "resampling": "max_unpool"},
    {"name": "deep_matting", "encoder": "vgg11_bn", "hidden": 16, "resampling": "bilinear"},
    {"name": "deeplabv3plus", "encoder": ENCODER},
    {"name": "refinenet", "encoder": ENCODER},
    {"name": "rmat", "encoder": "mit_b0"},
]
STRIDES = {"name": "bilinear", "pooling": "encoder"}
OTHERS = {
    "segmentation": {
        "name": "upernet",
        "encoder": "test_efficientnet",
        "width": 8,
        "classes": 3,
        "resampling": STRIDES,
    },
    "depth": {"name": "hu_depth", "encoder": "test_resnet", "resampling": STRIDES},
    "portrait": {"name": "pspm", "encoder": ENCODER, "segmentation": "pspnet", "modulation": "shared"},
}


@pytest.fixture
def checkpoint(tmp_path):
    """Write a checkpoint whose output is no constant: normalisation of random networks hides nothing."""

    def make(task, network):
        path = save_random(tmp_path / "model.ckpt", task, network, None)
        content = torch.load(path, weights_only=True)
        generator = torch.Generator().manual_seed(3)
        for key, value in content["state_dict"].items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.2, generator=generator)
            elif key.endswith(".bias"):
                value.normal_(0.2, 0.2, generator=generator)
        content["indexnet"] |= {"notice": "for tests only", "source": "made up"}
        torch.save(content, path)
        return path

    return make


def run_file(path, kind, *tensors):
    if kind == "onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return torch.from_numpy(session.run(None, {n: t.numpy() for n, t in zip(names, tensors, strict=True)})[0])
    return torch.export.load(path).module()(*tensors)


def facts_of(path, kind):
    if kind == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    extra = {"indexnet.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["indexnet.json"])


def test_a_small_checkpoint(checkpoint, capsys):
    path = checkpoint("matting", NETWORKS["matting"])
    content = torch.load(path, weights_only=True)
    content["indexnet"]["config"] = {
        "data": {"name": "scenes"}, "training": {"steps": None, "epochs": 7, "batch_size": 4, "size": 96},
        "paths": {"runs": "/home/me"}, "experiment": {"name": "mine", "row": "own", "label": "My row"},
    }  # fmt: skip
    torch.save(content | {"optimizer_states": [torch.zeros(100000)]}, path)
    assert main(["export", str(path), "--format", "weights"]) == 0
    small = path.with_suffix(".small.ckpt")
    said = capsys.readouterr().out
    assert f"wrote {small}" in said
    assert "notice: for tests only" in said
    assert small.stat().st_size < 0.6 * (path.stat().st_size - 400000)
    (task, _), (again, meta) = load_task(path), load_task(small)
    assert meta["source"] == "made up; trained by indexnet on scenes, 7 epochs of batches of 4 at 96 pixels"
    assert "/home/me" not in str(meta)
    assert resampling_title(meta) == "My row"
    kept = again.network.state_dict()
    for key, value in task.network.state_dict().items():
        assert torch.equal(kept[key], value.half().float() if value.ndim > 1 else value)
    image, known = photograph(64, 96), trimap(64, 96)
    apart = np.abs(task.predict_alpha(image, known) - again.predict_alpha(image, known))
    assert 0 < apart.max() < 3  # levels of 255
    assert main(["export", str(small), "--format", "weights", "--output", str(small), "--overwrite"]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err


def test_weights_too_large_for_half_precision(checkpoint, capsys):
    path = checkpoint("denoising", DNCNN)
    content = torch.load(path, weights_only=True)
    kernel = next(value for value in content["state_dict"].values() if value.ndim > 1)
    kernel[0] = 1e6
    torch.save(content, path)
    assert main(["export", str(path), "--format", "weights"]) == 2
    assert "in half precision" in capsys.readouterr().err
    assert not path.with_suffix(".small.ckpt").exists()


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_beside_the_checkpoint(kind, checkpoint, capsys):
    path = checkpoint("denoising", DNCNN)
    assert main(["export", str(path), "--format", kind]) == 0
    said = capsys.readouterr().out
    output = path.with_suffix(SUFFIXES[kind])
    assert f"wrote {output}" in said
    assert said.count("checked against PyTorch") == 4
    assert "notice: for tests only" in said
    x = torch.rand(1, 3, 47, 61)
    task, _ = load_task(path)
    expected = task.infer({"image": x}).detach()
    assert expected.std() > 0.1
    torch.testing.assert_close(run_file(output, kind, x), expected, rtol=0, atol=1e-5)
    facts = facts_of(output, kind)
    if kind == "onnx":
        assert facts["indexnet.notice"] == "for tests only"
        facts = {key.removeprefix("indexnet."): value for key, value in facts.items()}
        facts["inputs"], facts["task"] = json.loads(facts["inputs"]), json.loads(facts["task"])
    assert facts["task"]["name"] == "denoising"
    assert facts["inputs"][0]["shape"] == ["batch", 3, "height", "width"]
    assert len(facts["checkpoint_sha256"]) == 64
    before = output.read_bytes()
    assert main(["export", str(path), "--format", kind]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_a_difference_is_refused_and_nothing_written(checkpoint, capsys, monkeypatch):
    path = checkpoint("denoising", DNCNN)
    plain = DnCNN.forward

    def other_in_the_file(self, x):
        return plain(self, x) + (1e-3 if torch.onnx.is_in_onnx_export() else 0)

    monkeypatch.setattr(DnCNN, "forward", other_in_the_file)
    assert main(["export", str(path)]) == 2
    assert "would differ from PyTorch (random, 1 x 101x64: largest difference" in capsys.readouterr().err
    assert not path.with_suffix(".onnx").exists()
    assert [each.name for each in path.parent.iterdir()] == ["model.ckpt"]


def test_an_operation_that_onnx_does_not_know_is_named(checkpoint, capsys, monkeypatch):
    path = checkpoint("reconstruction", AUTOENCODER | {"resampling": "max_unpool", "widths": [4]})
    monkeypatch.setattr(MaxUnpool, "prepare_export", lambda self: None)  # leaves unpooling as it is
    assert main(["export", str(path)]) == 2
    assert "network 'autoencoder' cannot be exported to onnx" in capsys.readouterr().err
    assert not path.with_suffix(".onnx").exists()


def test_what_cannot_be_exported_is_said(checkpoint, tmp_path, monkeypatch, mistake):
    path = checkpoint("denoising", DNCNN)
    for arguments, sentence in (
        ([str(path), "--output", str(tmp_path)], "is a folder, but the name of a file is needed"),
        ([str(path), "--output", str(path), "--overwrite"], "is the checkpoint itself"),
        ([str(tmp_path / "none.ckpt")], "there is no checkpoint"),
        (["knn"], "knn is a method without a network"),
    ):
        mistake(main(["export", *arguments]), sentence)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    mistake(main(["export", str(path)]), "needs onnx: pip install 'indexnet[export]'")


def test_the_graph_does_what_the_task_does(checkpoint):
    """Matting: normalisation, clipping and known pixels lie inside; only the 8-bit cut is left out."""
    task, meta = load_task(checkpoint("matting", NETWORKS["matting"]))
    sample = task.image_sample(photograph(64, 96), trimap(64, 96))
    batch = {key: value[None] for key, value in sample.items() if key in ("image", "trimap")}
    with torch.no_grad():
        alpha, raw = task.export_module()(batch["image"], batch["trimap"])
    assert alpha.std() > 0.1
    assert (alpha - task.infer(batch | {"name": ["a photograph"]})).abs().max() <= 1.01 / 255
    known = batch["trimap"] != 128 / 255
    assert torch.equal(alpha[known], batch["trimap"][known])
    assert torch.equal(alpha[~known], raw.clamp(0, 1)[~known])
    assert not torch.equal(raw, raw.clamp(0, 1))
    facts = describe(task.export_module(), task, meta, "0")
    assert facts["size_multiple"] == 32
    assert facts["normalisation"]["where"] == "inside the graph"
    assert "0 background, 128/255 unknown, 1 foreground" in facts["inputs"][1]["meaning"]
    assert facts["sizes"].startswith("multiples of 32, from 64;")
    json.dumps(facts)
    padded = MattingTask(task.network, alignment="reflect")
    assert "by reflection" in describe(padded.export_module(), padded, meta, "0")["sizes"]
    plain = describe(task.export_module(), task, meta | {"notice": "", "source": ""}, "0")
    assert facts.keys() - plain.keys() == {"notice", "source"}


def test_the_recipe_for_other_sizes_gives_what_predict_gives(checkpoint):
    """As the documentation has it; alpha, pasted at the enlarged size, would be far off beside known pixels."""
    task, content = exported(checkpoint("matting", NETWORKS["matting"]), "onnx")
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def matte(" in block)
    recipe = {}
    exec(block, recipe)
    session = onnxruntime.InferenceSession(content)
    for height, width in ((75, 107), (64, 96), (40, 50)):
        image, known = photograph(height, width, 1), trimap(height, width)
        expected = infer_alpha(task.network, image, known)
        assert expected[known == 128].std() > 10
        assert np.abs(recipe["matte"](session, image, known) - expected).max() < 0.01
        if min(height, width) > 32:  # the same file, as if it were that of a network whose images are padded
            expected = infer_alpha(task.network, image, known, alignment="reflect")
            assert np.abs(recipe["matte_padded"](session, image, known) - expected).max() < 0.01


def test_paths_stay_at_home(tmp_path):
    path = autoencoder_checkpoint(tmp_path / "a.ckpt")
    task, meta = load_task(path)
    meta["network"]["encoder"] = {"name": "x", "pretrained": "/home/somebody/weights.pth"}
    assert "somebody" not in json.dumps(describe(task.export_module(), task, meta, "0"))


def exported(path, kind):
    task, meta = load_task(path)
    module = task.export_module()
    content, differences = export(module, kind, describe(module, task, meta, "0"))
    assert len(differences) == 4
    return task, content


# torch.export takes minutes for the others, which it can export too
@pytest.mark.long
@pytest.mark.parametrize(
    ("task_name", "kind"),
    [
        *(pytest.param(name, "onnx", marks=[pytest.mark.nightly] * (name == "segmentation")) for name in NETWORKS),
        pytest.param("reconstruction", "torch_export", marks=pytest.mark.nightly),
    ],
)
def test_every_task_exports(task_name, kind, checkpoint, tmp_path):
    task, content = exported(checkpoint(task_name, NETWORKS[task_name]), kind)
    (tmp_path / "file").write_bytes(content)
    matting = task_name == "matting"
    sample = task.image_sample(photograph(64, 96, seed=2), trimap(64, 96) if matting else None)
    batch = {key: value[None] for key, value in sample.items() if key in ("image", "trimap")}
    got = run_file(tmp_path / "file", kind, *batch.values())
    expected = task.infer(batch | {"name": ["a photograph"]}).detach()
    if task_name == "segmentation":
        assert (got.argmax(1, keepdim=True) == expected).float().mean() > 0.99
    else:
        assert (got - expected).abs().max() <= (1.01 / 255 if matting else 1e-4)


@pytest.mark.long
@pytest.mark.parametrize("resampling", OPERATORS, ids=lambda entry: "-".join(map(str, entry.values())))
def test_every_operator_exports(resampling, checkpoint):
    _, content = exported(checkpoint("reconstruction", AUTOENCODER | {"resampling": resampling}), "onnx")
    x = np.random.default_rng(0).random((2, 3, 36, 28), dtype=np.float32)
    assert onnxruntime.InferenceSession(content).run(None, {"image": x})[0].std() > 0.01


@pytest.mark.long
@pytest.mark.parametrize("network", MATTING, ids=lambda entry: entry["name"])
def test_every_matting_network_exports(network, checkpoint):
    exported(checkpoint("matting", network), "onnx")


@pytest.mark.long
@pytest.mark.parametrize("task", OTHERS)
def test_networks_of_other_tasks_export(task, checkpoint):
    exported(checkpoint(task, OTHERS[task]), "onnx")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_means_of_cells_export_for_any_size():
    """ONNX knows no pooling to a grid; cells overlap where a side is no multiple of their number, or shorter."""
    buffer, names = io.BytesIO(), {"input_names": ["x"], "output_names": ["y"]}
    means = torch.nn.Sequential(CellMeans(3), CellMeans(5))
    axes = {"x": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(
        means, (torch.rand(1, 2, 6, 6),), buffer, dynamo=False, opset_version=17, dynamic_axes=axes, **names
    )
    x = torch.rand(2, 2, 7, 20)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.nn.functional.adaptive_avg_pool2d(x, 3), 5)
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), expected)


def test_no_share_of_differences_is_allowed_where_nothing_is_chosen():
    few = [Difference("random", "x", 1e-3, 1e-6, 1e-4)]
    refuse_differences(few, "onnx", {"network": {}}, takes_maxima=True)
    with pytest.raises(UserError, match="would differ"):
        refuse_differences(few, "onnx", {"network": {}}, takes_maxima=False)
