"""Pseudo labels: what they are, whose samples get them and when, and that processes and precisions change nothing."""

from __future__ import annotations

import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.networks import Network, create_network, prepare_input
from indexnet.resampling.base import create_resampling
from indexnet.tasks.matting import MattingTask
from indexnet.tasks.pseudo_labels import View, draw_view, predict_labels

UNKNOWN = 128 / 255


class Tiny(Network):
    """A pixel's neighbourhood to alpha; with dropout, so that its mode shows."""

    encoder = None

    gain = 1.0  # while it trains

    def __init__(self, symmetric=False):
        super().__init__()
        self.in_channels, self.out_channels = 4, 1
        self.resampling = create_resampling("none", ())
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(4, 1, 3, padding=1), torch.nn.Dropout(0.5))
        if symmetric:  # to turns and to the order of colours
            self.layers[1].p = 0.0
            self.layers[0].weight.data[:] = torch.tensor([0.2, 0.2, 0.2, -0.3]).view(1, 4, 1, 1)

    def forward(self, x):
        return self.layers(x) * (self.gain if self.training else 1)


def batch(count=4, size=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    fg, bg, augmented = torch.rand(3, count, 3, size, size, generator=draw)
    alpha = torch.rand(count, 1, size, size, generator=draw)
    trimap = torch.tensor([0, UNKNOWN, 1])[torch.randint(0, 3, alpha.shape, generator=draw)]
    alpha = torch.where(trimap == trimap.new_tensor(UNKNOWN), alpha, trimap)
    pseudo = torch.arange(count) % 2 == 1
    image = alpha * fg + (1 - alpha) * bg
    augmented = torch.where(pseudo.view(-1, 1, 1, 1), augmented, image)
    return {"image": image, "alpha": alpha, "trimap": trimap, "fg": fg, "bg": bg, "augmented": augmented,
            "pseudo": pseudo, "composed": torch.ones(count, dtype=torch.bool), "name": ["x"] * count}  # fmt: skip


def test_the_label_of_an_image_seen_as_it_is_is_the_prediction():
    torch.manual_seed(0)
    network, given = Tiny(), batch()
    network.train()
    labels = predict_labels(network, given["image"], given["trimap"], given["alpha"], [View()] * 4)
    assert network.layers[1].training
    network.eval()
    with torch.no_grad():
        plain = network(prepare_input(given["image"], given["trimap"])).clamp(0, 1)
    unknown = (given["trimap"] - UNKNOWN).abs() < 1e-3
    torch.testing.assert_close(labels, torch.where(unknown, plain, given["alpha"]))
    assert not labels.requires_grad
    assert 0.2 < unknown.float().mean() < 0.5


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_what_is_seen_turned_is_turned_back(quarters):
    torch.manual_seed(0)
    network, given = Tiny().eval(), batch(1)
    args = [torch.rot90(given[key], quarters, (2, 3)) for key in ("image", "trimap", "alpha")]
    turned = predict_labels(network, *args, [View()])
    labels = predict_labels(network, *(given[key] for key in ("image", "trimap", "alpha")), [View(quarters)])
    torch.testing.assert_close(labels, torch.rot90(turned, -quarters, (2, 3)))
    assert not torch.equal(labels, predict_labels(network, *(given[k] for k in ("image", "trimap", "alpha")), [View()]))


def test_channels_are_seen_in_their_order():
    torch.manual_seed(0)
    network, given = Tiny().eval(), batch(1)
    order = (2, 0, 1)
    shuffled = predict_labels(network, given["image"][:, list(order)], given["trimap"], given["alpha"], [View()])
    labels = predict_labels(network, given["image"], given["trimap"], given["alpha"], [View(order=order)])
    assert torch.equal(labels, shuffled)


def test_views_follow_from_torchs_random_numbers():
    torch.manual_seed(3)
    first = [draw_view() for _ in range(200)]
    torch.manual_seed(3)
    assert [draw_view() for _ in range(200)] == first
    assert {view.quarters for view in first} == {0, 1, 2, 3}
    assert len({view.order for view in first}) == 6
    assert 0.35 < sum(view.quarters > 0 for view in first) / 200 < 0.65
    assert {draw_view(square=False).quarters for _ in range(50)} == {0, 2}


def test_before_its_step_a_sample_is_the_composite_that_it_was():
    given = batch()
    task = MattingTask(Tiny(), pseudo_from=1)
    assert task.with_pseudo_labels(given) is given  # no step is done
    plain = {key: value for key, value in given.items() if key not in ("augmented", "pseudo", "composed")}
    network = Tiny(symmetric=True)
    losses = [MattingTask(network, pseudo_from=1).losses(each)["loss"].item() for each in (given, plain)]
    assert losses[0] == losses[1]


def test_from_its_step_on_it_is_the_changed_image_with_what_the_network_says():
    torch.manual_seed(0)
    given, task = batch(), MattingTask(Tiny(symmetric=True), pseudo_from=0)
    labelled = task.with_pseudo_labels(given)
    other, own = given["pseudo"], ~given["pseudo"]
    for key in ("image", "alpha", "trimap", "fg", "bg"):
        assert torch.equal(labelled[key][own], given[key][own]), key
    assert torch.equal(labelled["image"][other], given["augmented"][other])
    assert torch.equal(labelled["composed"], own)
    known = (given["trimap"] - UNKNOWN).abs() > 1e-3
    assert torch.equal(labelled["alpha"][known], given["alpha"][known])
    losses = task.losses(given)
    first = MattingTask(task.network).losses({key: value[own] for key, value in given.items() if key != "name"})
    assert losses["composition"].item() == pytest.approx(first["composition"].item() / 2, rel=1e-5)
    # a network that sees the same in all views agrees with its own label
    assert losses["alpha"].item() < first["alpha"].item()


def test_the_gradient_of_two_processes_is_that_of_one():
    """Each has half of the batch, and their gradients are averaged, as in data-parallel training."""
    task, given = MattingTask(Tiny(symmetric=True), pseudo_from=0, loss={"alpha": 1, "composition": 1, "laplacian": 1,
                                                                        "gradient_penalty": 1}), batch(4)  # fmt: skip

    task.network.gain = 1.5  # else it agrees with its labels but for rounding, which decides the sign of a gradient

    def gradient(chosen):
        task.zero_grad()
        task.losses({key: value[chosen] for key, value in given.items()})["loss"].backward()
        return torch.cat([each.grad.flatten() for each in task.parameters()])

    halves = (gradient(slice(0, 2)) + gradient(slice(2, 4))) / 2
    torch.testing.assert_close(halves, gradient(slice(0, 4)), rtol=1e-4, atol=1e-6)


def test_weights_keep_their_gradient_in_mixed_precision():
    """Autocast would hand out the copies of the weights that the labels were predicted with, without gradient."""
    task, given = MattingTask(Tiny(symmetric=True), pseudo_from=0), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.losses(given)["loss"]
    loss.backward()
    assert task.network.layers[0].weight.grad.abs().max() > 0


def test_a_network_with_stages_stays_in_its_modes():
    torch.manual_seed(0)
    network = create_network("matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25})
    before = {key: value.clone() for key, value in network.state_dict().items()}
    given = batch(2, 64)
    labels = predict_labels(network, given["image"], given["trimap"], given["alpha"])
    assert labels.shape == given["alpha"].shape
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())  # statistics, too


@pytest.mark.parametrize("steps", [-1, 1.5, True])
def test_impossible_steps(steps):
    with pytest.raises(UserError, match=r"^task\.pseudo_from=.* must be a number of steps"):
        MattingTask(Tiny(), pseudo_from=steps)
