"""Every task: losses that train, metrics, pictures, the two learning rates, and a checkpoint that rebuilds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from indexnet.data import create_data
from indexnet.errors import UserError
from indexnet.run.config import compose, data_options, freeze, network_spec
from indexnet.tasks import get_task, list_tasks

SMALL = {
    "matting": ["encoder.width=0.25", "training.size=64", "data.train_count=4", "data.test_count=2"],
    "reconstruction": ["network.widths=[4,8]", "data.train_count=4", "data.test_count=2"],
}


def _config(task, *overrides):
    return freeze(compose([f"task={task}", *SMALL[task], *overrides]))


def _batch(config, split):
    options = data_options(config)
    dataset = getattr(create_data(options.pop("name"), **options), split)()
    return default_collate([dataset.sample(i, np.random.default_rng(i)) for i in range(2)])


def _build(task, *overrides, **options):
    config = _config(task, *overrides)
    return get_task(task)(network=network_spec(config), optimizer=config["optimizer"], **options), config


def test_every_task_is_tested_here():
    assert set(list_tasks()) == set(SMALL)
    with pytest.raises(UserError, match="Did you mean 'matting'"):
        get_task("mating")


@pytest.mark.parametrize("name", list_tasks())
def test_losses_go_down_on_one_batch(name):
    torch.manual_seed(0)
    task, config = _build(name, "optimizer=adam", "optimizer.lr=0.003")
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
    batch = _batch(config, "test")
    with torch.inference_mode():
        prediction = task.infer(task.network, batch)
        assert prediction.shape[-2:] == batch["image"].shape[-2:]
        assert 0 <= float(prediction.min()) <= float(prediction.max()) <= 1
        for metric in task.create_metrics().values():
            metric.update(*task.metric_inputs(prediction, batch))
            assert metric.latest.shape == (2,)
            assert torch.isfinite(metric.compute())
    pictures = task.pictures(prediction, batch)
    assert {"input", "output", "error"} <= {picture.kind for picture in pictures}
    for picture in pictures:
        assert picture.image.dtype == np.uint8
        assert picture.image.shape[2] == 3


def test_matting_copies_what_is_known():
    task, config = _build("matting")
    task.eval()
    batch = _batch(config, "test")
    with torch.inference_mode():
        prediction = task.infer(task.network, batch)
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


def test_the_schedule_drops_at_its_milestones():
    task, _ = _build("reconstruction", schedule={"name": "multistep", "milestones": [2, 3], "gamma": 0.1})
    plan = task.configure_optimizers()
    optimizer, scheduler = plan["optimizer"], plan["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.0001])


def test_optimizer_mistakes():
    task, _ = _build("reconstruction")
    task.optimizer_spec = {"name": "adamm", "lr": 0.1}
    with pytest.raises(UserError, match="unknown optimizer 'adamm'"):
        task.configure_optimizers()
    task.optimizer_spec = {"name": "adam", "lr": 0.1, "momentum": 0.9}
    with pytest.raises(UserError, match="'momentum'"):
        task.configure_optimizers()
