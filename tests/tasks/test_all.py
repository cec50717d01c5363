"""Every task: losses that train, metrics, pictures, the two learning rates, and a checkpoint that rebuilds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.run.config import compose, freeze
from indexnet.run.loader import build_data
from indexnet.run.schema import network_spec
from indexnet.tasks import create_task, get_task, list_tasks

SMALL = {
    "denoising": [
        "network=dncnn",
        "network.depth=5",
        "network.width=16",
        "training.size=32",
        "data.train_count=4",
        "data.test_count=2",
    ],
    "depth": ["encoder.width=0.25", "training.size=64", "data.train_count=4", "data.test_count=2"],
    "matting": ["encoder.width=0.25", "training.size=64", "data.train_count=4", "data.test_count=2"],
    "portrait": [
        "encoder=mobilenetv2_released",
        "encoder.width=0.25",
        "training.size=64",
        "data.train_count=4",
        "data.test_count=2",
    ],
    "reconstruction": ["network.widths=[4,8]", "data.train_count=4", "data.test_count=2"],
    "segmentation": ["encoder.name=test_efficientnet", "training.size=32", "data.train_count=4", "data.test_count=2"],
}


def _config(task, *overrides):
    return freeze(compose([f"task={task}", *SMALL[task], *overrides]))


def _data(config):
    return build_data(config["data"], config["task"]["name"], config["training"]["size"])


def _batch(config, split):
    dataset = getattr(_data(config), split)()
    return default_collate([dataset.sample(i, np.random.default_rng(i)) for i in range(2)])


def _build(task, *overrides, **options):
    config = _config(task, *overrides)
    options = {key: value for key, value in config["task"].items() if key not in ("name", "costs_size")} | options
    return get_task(task)(network=network_spec(config), optimizer=config["optimizer"], **options), config


def test_every_task_is_tested_here():
    assert set(list_tasks()) == set(SMALL)
    with pytest.raises(UserError, match="Did you mean 'matting'"):
        get_task("mating")


@pytest.mark.parametrize("name", list_tasks())
def test_losses_go_down_on_one_batch(name):
    torch.manual_seed(0)
    rate = 0.03 if name == "depth" else 0.003  # metres are far from where a normalised output starts
    task, config = _build(name, "optimizer=adam", f"optimizer.lr={rate}")
    batch = _batch(config, "train")
    assert not task.missing_keys(batch)
    assert task.missing_keys({"name": "x"}) == list(task.needs)
    assert task.input_channels(batch) == task.network.in_channels
    optimizer = task.configure_optimizers()
    losses = []
    for _ in range(12):
        loss = task.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", list_tasks())
def test_inference_metrics_and_pictures(name):
    task, config = _build(name)
    task.eval()
    batch = task.prepare(_batch(config, "test"))
    prediction = task.predict(batch)
    assert prediction.shape[-2:] == batch["image"].shape[-2:]
    metrics = task.create_metrics()
    rows = task.measure(prediction, batch, metrics, "indoor")
    assert [row.pop("name") for row in rows] == [f"indoor/{name}" for name in batch["name"]]
    assert list(rows[0]) == [f"indoor/{metric}" for metric in task.metric_names]
    for name, metric in metrics.items():
        assert [row[f"indoor/{name}"] for row in rows] == metric.latest.tolist()
        assert torch.isfinite(metric.compute())
    pictures = task.pictures(prediction, batch)
    assert {"input", "output", "error"} <= {picture.kind for picture in pictures}
    views = [task.draw(prediction, batch), task.draw(prediction, batch, like=prediction)]
    difference = task.difference(prediction, prediction)
    assert len(np.unique(difference.reshape(-1, 3), axis=0)) == 1  # nothing differs: one colour
    for image in [*(picture.image for picture in pictures), *views, difference]:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
    outputs = task.outputs(prediction, batch)
    assert all(array.shape[:2] == prediction.shape[-2:] for array in outputs.values())
    assert outputs[""].dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("name", list_tasks())
def test_a_task_is_rebuilt_from_what_its_checkpoint_says(name):
    task, _ = _build(name)
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    again = create_task(checkpoint["indexnet"]["task"], task.network, task.optimizer_spec)
    assert type(again) is type(task)
    assert again.options == task.options
    assert again.hparams == task.hparams
    with pytest.raises(UserError, match=f"task '{name}' has no option 'colour'"):
        create_task({"name": name, "colour": 1}, task.network)


def test_matting_measures_as_its_options_say():
    usual, config = _build("matting")
    assert {key: usual.options[key] for key in usual.measure_options} == {"semantics": "matlab", "region": "unknown"}
    batch = _batch(config, "test")
    prediction = (batch["alpha"] * 200).round() / 255
    numbers = {}
    for options in ({}, {"semantics": "released_python"}, {"region": "image"}):
        task, _ = _build("matting", **options)
        metrics = task.create_metrics()
        assert list(metrics) == list(task.metric_names) == ["sad", "mse", "grad", "conn"]
        for metric in metrics.values():
            metric.update(*task.metric_inputs(prediction, batch))
        numbers[str(options)] = [metric.compute().item() for metric in metrics.values()]
    assert numbers["{}"][0] > 0
    for other in list(numbers)[1:]:
        assert all(a != pytest.approx(b, rel=1e-3) for a, b in zip(numbers["{}"], numbers[other], strict=True)), other


def test_terms_are_logged_and_decide_what_a_batch_needs():
    task, config = _build("matting", loss={"alpha": 1, "laplacian": 2})
    batch = {key: value for key, value in _batch(config, "train").items() if key not in ("fg", "bg")}
    assert not task.missing_keys(batch)
    losses = task.losses(batch)
    assert list(losses) == ["loss", "alpha", "laplacian"]
    assert losses["loss"].item() == pytest.approx(losses["alpha"].item() + 2 * losses["laplacian"].item())
    usual, _ = _build("matting")
    assert usual.missing_keys(batch) == ["fg", "bg"]
    assert usual.remedy(["fg", "bg"]) == "choose another data set, or give task.loss.composition=0"
    hu, config = _build("depth", loss={"log": 1, "gradient": 1, "normal": 1})
    assert list(hu.losses(_batch(config, "train"))) == ["loss", "log", "gradient", "normal"]


def test_matting_copies_what_is_known():
    task, config = _build("matting")
    task.eval()
    batch = _batch(config, "test")
    with torch.inference_mode():
        prediction = task.infer(batch)
    known = (batch["trimap"] == 0) | (batch["trimap"] == 1)
    assert torch.equal(prediction[known], batch["trimap"][known])


def _rates(task):
    optimizer = task.configure_optimizers()
    return {group["lr"]: sum(p.numel() for p in group["params"]) for group in optimizer.param_groups}


def test_the_encoder_learns_at_a_hundredth_with_pretrained_weights_only(tmp_path):
    scratch, _ = _build("matting", "optimizer.lr=0.01")
    assert list(_rates(scratch)) == [0.01]
    reduced, _ = _build("matting", "optimizer.lr=0.01", "optimizer.encoder_lr_multiplier=0.01")
    rates = _rates(reduced)
    assert sorted(rates) == pytest.approx([1e-4, 1e-2])
    assert sum(rates.values()) == sum(p.numel() for p in reduced.network.parameters())
    weights = tmp_path / "weights.pth"
    torch.save(scratch.network.encoder.state_dict(), weights)
    config = _config("matting", f"encoder.pretrained={weights}")
    assert network_spec(config)["encoder"]["freeze_bn"] is True
    assert network_spec(_config("matting"))["encoder"]["freeze_bn"] is False


def test_the_released_groups_have_the_released_sizes():
    config = freeze(compose(["task=matting", "resampling.expansion=1", "optimizer.encoder_lr_multiplier=0.01"]))
    task = get_task("matting")(network=network_spec(config), optimizer=config["optimizer"])
    assert _rates(task) == {0.01: 4_141_515, 1e-4: 1_812_000}


@pytest.mark.parametrize(("name", "key"), [("segmentation", "label"), ("depth", "depth")])
def test_pixels_without_a_target_change_no_loss(name, key):
    torch.manual_seed(0)
    task, config = _build(name)
    task.eval()
    batch = _batch(config, "train")
    void = 255 if name == "segmentation" else 0
    half = {**batch, key: batch[key].clone()}
    half[key][..., : half[key].shape[-2] // 2, :] = void
    with torch.no_grad():
        whole, part = task.losses(batch)["loss"], task.losses(half)["loss"]
        none = task.losses({**batch, key: torch.full_like(batch[key], void)})["loss"]
    assert whole != part
    assert none == 0
    if name == "depth":  # not a number is no measurement either
        half[key][..., : half[key].shape[-2] // 2, :] = float("nan")
        with torch.no_grad():
            assert task.losses(half)["loss"] == part


def test_depth_is_written_in_millimetres():
    task, config = _build("depth")
    batch = _batch(config, "test")
    prediction = torch.full((2, 1, 64, 64), 2.5)
    prediction[0, 0, 0, 0] = 100.0  # farther than 16 bits of millimetres reach
    written = task.outputs(prediction, batch)[""]
    assert written.dtype == np.uint16
    assert written[1, 1] == 2500
    assert written[0, 0] == 65535


def test_labels_of_other_classes_are_refused(tmp_path):
    task, config = _build("segmentation")
    task.check_data(_data(config))
    with pytest.raises(
        UserError, match=r"data=camvid has other classes \(11: sky, building, pole, ...\) than"
    ) as error:
        task.check_data(create_data("camvid", root=str(tmp_path), task="segmentation"))
    assert "(8: " in str(error.value)


@pytest.mark.parametrize(("name", "override", "words"), [
    ("matting", "task.semantics=mathlab", "task.semantics='mathlab' must be matlab, released_python or mmediting"),
    ("matting", "task.region=all", "task.region='all' must be unknown or image"),
    ("denoising", "task.sigma=0", "task.sigma=0 must be a number above 0"),
    ("denoising", "task.sigma=much", "task.sigma='much' must be a number"),
    ("denoising", "task.quantise=1", "task.quantise=1 must be true or false"),
    ("denoising", "task.sigm=25", "unknown config key 'task.sigm'"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_starts(name, override, words):
    with pytest.raises(UserError, match=words):
        _config(name, override)
