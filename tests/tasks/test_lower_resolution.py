"""Tasks whose network predicts at a lower resolution: losses, predictions, pictures of index maps, options."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import default_collate

from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.networks.base import at_output_size
from indexnet.networks.imagenet import normalise
from indexnet.tasks import create_task
from indexnet.tasks.gallery import write_gallery

INDEX = {"name": "indexnet", "family": "hin", "pooling": "encoder"}
UPERNET = {"name": "upernet", "encoder": "test_efficientnet", "width": 8, "classes": 8, "resampling": INDEX}
HU = {"name": "hu_depth", "encoder": "test_resnet", "resampling": INDEX}
NETWORKS = {"segmentation": UPERNET, "depth": HU}
BOTH = pytest.mark.parametrize("name", NETWORKS)


def scenes(name, split="train", size=64):
    data = create_data("scenes", task=name, size=size, train_count=2, test_count=2)
    return getattr(data, split)()


def batch_of(split):
    return default_collate([split.sample(index, np.random.default_rng(index)) for index in range(2)])


def test_targets_are_reduced_to_the_nearest_pixels():
    label = torch.arange(64).reshape(1, 8, 8)
    assert at_output_size(label, torch.empty(1, 5, 2, 2)).tolist() == [[[18, 22], [50, 54]]]  # 2 of 0..3, 6 of 4..7
    depth = torch.rand(2, 1, 6, 8)
    assert torch.equal(at_output_size(depth, torch.empty(2, 1, 3, 4)), depth[:, :, 1::2, 1::2])
    assert at_output_size(label, torch.empty(1, 5, 8, 8)) is label


@BOTH
def test_losses_are_taken_at_the_networks_resolution(name):
    torch.manual_seed(0)
    task, batch = create_task(name, NETWORKS[name]), batch_of(scenes(name))
    loss = task.losses(batch)["loss"]
    output = task.network(normalise(batch["image"]))
    if name == "segmentation":
        label = batch["label"][:, 2::4, 2::4]
        assert loss.item() == pytest.approx(F.cross_entropy(output, label, ignore_index=255).item(), rel=1e-4)
    else:
        depth = batch["depth"][:, :, 1::2, 1::2]
        assert loss.item() == pytest.approx((output - depth)[depth > 0].abs().mean().item(), rel=1e-4)


@BOTH
def test_a_batch_of_one_pixel_at_the_lowest_resolution_is_one_sentence(name):
    batch = {key: value[:1] for key, value in batch_of(scenes(name, size=32)).items()}
    with pytest.raises(UserError, match=r"cannot train on one image of this size.* give a larger training\.size"):
        create_task(name, NETWORKS[name]).training_step(batch, 0)


@BOTH
def test_predictions_have_the_size_of_the_image_and_index_maps_are_in_the_gallery(name, tmp_path):
    torch.manual_seed(0)
    task = create_task(name, NETWORKS[name]).eval()
    batch = batch_of(scenes(name, "test", 75))
    prediction = task.predict(batch)
    assert prediction.shape == (2, 1, 75, 75)
    if name == "depth":
        whole = F.interpolate(task.network(normalise(batch["image"])), (75, 75), mode="bilinear", align_corners=True)
        torch.testing.assert_close(prediction, whole.clamp(min=0))
    write_gallery(tmp_path, task, {"": scenes(name, "test")})
    stages = {each["stage"] for each in json.loads((tmp_path / "pictures.json").read_text()) if each["kind"] == "index"}
    assert stages == set(range(3 if name == "segmentation" else 4))


def test_segmentation_at_one_size_and_at_five():
    torch.manual_seed(0)
    batch = batch_of(scenes("segmentation", "test"))
    whole, *others = (
        create_task("segmentation", UPERNET, evaluation=how, short_side=64) for how in ("whole", "single", "multi")
    )
    for task in others:
        task.network.load_state_dict(whole.network.state_dict())
    found = [task.eval().predict(batch) for task in (whole, *others)]
    assert torch.equal(found[0], found[1])  # the images have that size
    assert found[2].shape == found[0].shape
    with pytest.raises(UserError, match=r"task\.evaluation must be one of whole, single, multi; got 'milti'"):
        create_task("segmentation", UPERNET, evaluation="milti")
    with pytest.raises(UserError, match=r"task\.short_side must be a whole number of pixels, at least 32"):
        create_task("segmentation", UPERNET, short_side=8)


def test_depth_is_averaged_over_pixels_or_images():
    batch = batch_of(scenes("depth", "test"))
    batch["depth"][0, :, 3:] = 0
    rows = {}
    for average in ("pixels", "images"):
        task = create_task("depth", HU, average=average)
        metrics = task.create_metrics()
        rows[average] = task.measure(batch["depth"] * 1.1 + 0.2, batch, metrics)
        rel = metrics["rel"].compute().item()
        mean = np.mean([row["rel"] for row in rows[average]])
        assert (rel == pytest.approx(mean)) == (average == "images")
    for images, pixels in zip(rows["images"], rows["pixels"], strict=True):
        assert images == pytest.approx({**pixels, "name": images["name"]})


def literal_hu_loss(prediction, depth):
    """Hu et al.'s loss of dense maps (H, W), float64, pixel by pixel."""

    def sobel(values):
        around = np.pad(values, 1)
        x, y = np.zeros_like(values), np.zeros_like(values)
        for row in range(values.shape[0]):
            for column in range(values.shape[1]):
                cell = around[row : row + 3, column : column + 3]
                x[row, column] = cell[:, 2] @ [1, 2, 1] - cell[:, 0] @ [1, 2, 1]
                y[row, column] = cell[2] @ [1, 2, 1] - cell[0] @ [1, 2, 1]
        return x, y

    def unit(values):
        x, y = sobel(values)
        normal = np.stack([-x, -y, np.ones_like(x)])
        return normal / np.sqrt((normal**2).sum(0))

    error = prediction - depth
    log = np.log(np.abs(error) + 0.5).mean()
    gradient = sum(np.log(np.abs(each) + 0.5).mean() for each in sobel(error))
    return log + gradient + np.abs(1 - (unit(prediction) * unit(depth)).sum(0)).mean()


def test_the_loss_of_hu_is_the_literal_one():
    torch.manual_seed(0)
    task = create_task("depth", HU, loss={"log": 1, "gradient": 1, "normal": 1}).eval().double()
    image = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    depth = 1 + 4 * torch.rand(2, 1, 32, 48, dtype=torch.float64)
    found = task.losses({"image": image, "depth": depth})["loss"].item()
    with torch.no_grad():
        output = task.network(normalise(image))[:, 0].numpy()
    small = depth[:, 0, 1::2, 1::2].numpy()
    expected = np.mean([literal_hu_loss(*pair) for pair in zip(output, small, strict=True)])
    assert found == pytest.approx(expected, abs=1e-6)
