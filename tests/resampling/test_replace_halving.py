"""Operators in the place of what halves in networks of others, and pairs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foreign_networks import EXAMPLE, Coupled, Modules, network
from indexnet.core.errors import UserError
from indexnet.resampling import find_sites, list_resampling, load_plan, replace

COUPLED = find_sites(network(Coupled), EXAMPLE)


def test_coupled_pairs_share_what_they_saw():
    model = network(Coupled).eval()
    replaced = replace(model, "max_unpool", EXAMPLE, downsampling="pools")
    assert replaced.plan.chosen == ("pools.0#pool0", "pools.1#pool0", "#0", "#1")
    assert str(replaced.plan["#0"].guide) == "made by pools.1#pool0 (8)"
    seen = []
    for place in (*model.encoders, model.middle, *reversed(model.decoders)):
        place.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    model(EXAMPLE)
    (_, first), (halved, second), (_, middle), (up, decoded), (last, _) = seen
    pooled, indices = F.max_pool2d(first, 2, return_indices=True)
    assert torch.equal(halved, pooled)
    _, deeper = F.max_pool2d(second, 2, return_indices=True)
    assert torch.equal(up, F.max_unpool2d(middle, deeper, 2))
    assert torch.equal(last, F.max_unpool2d(decoded, indices, 2))


@pytest.mark.parametrize("operator", [info.name for info in list_resampling()])
def test_every_operator_as_a_pair(operator, tmp_path):
    model = network(Coupled)
    keys = list(model.state_dict())
    replaced = replace(model, operator, plan=COUPLED, downsampling="pools")
    assert len(replaced.plan.chosen) == 4
    model(torch.rand(2, 3, 16, 20)).square().sum().backward()
    assert all(each.grad is not None for each in replaced.parameters())
    assert [key for key in model.state_dict() if "resampling" not in key] == keys
    replaced.plan.save(tmp_path / "plan.json")
    again = network(Coupled, seed=1)
    replace(again, plan=load_plan(tmp_path / "plan.json"))
    again.load_state_dict(model.state_dict())
    small = torch.rand(1, 3, 24, 16)
    assert torch.equal(again.eval()(small), copy.deepcopy(model).eval()(small))
    replaced.undo()
    assert list(model.state_dict()) == keys


def test_widths_of_pairs_that_differ():
    replaced = replace(network(Coupled, (8, 12), (8, 8)), "max_unpool", EXAMPLE, downsampling="pools")
    assert replaced.plan.chosen == ("pools.0#pool0", "#1")
    assert "the encoder map has 12 channels but the decoder map 8" in replaced.left["#0"]
    assert replaced.left["pools.1#pool0"] == "#0 is left"


@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_pools_as_they_were(size):
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return F.max_pool2d(self.second(self.pool(self.conv(x))), kernel_size=2, stride=2, ceil_mode=True)

    model = network(Pools)
    x = torch.rand(1, 3, *size)
    before = model(x)
    replaced = replace(model, "bilinear", EXAMPLE, downsampling="pools")
    assert set(replaced.stages) == {"pool#pool0", "#pool0"}
    assert torch.equal(model(x), before)
    replaced.undo()
    replaced = replace(model, "carafe", EXAMPLE, downsampling="pools", pooling="lip")
    assert model(x).shape == before.shape
    model(x).sum().backward()
    assert all(each.grad is not None for each in replaced.parameters())


def test_arguments_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            x = F.avg_pool2d(input=self.conv(x), kernel_size=2)
            return self.conv.bias.sum() + F.interpolate(input=x, scale_factor=2)

    model = network(Named)
    before = model(EXAMPLE)
    replace(model, "nearest", EXAMPLE, downsampling="pools", pooling="avg", sites="*")
    assert torch.equal(model(EXAMPLE), before)


def test_a_plan_of_pairs_without_what_halves():
    plan = replace(network(Coupled), "a2u", EXAMPLE, downsampling="pools").plan
    with pytest.raises(UserError, match=r"nothing is replaced: no map guides it \(#0\)"):
        replace(network(Coupled), plan=plan, sites=["#0", "#1"])


@pytest.mark.parametrize("operator", ["pixel_shuffle", "bilinear", "deconv"])
def test_strided_convolutions_keep_their_weights(operator):
    model = network(Modules).eval()
    keys, shape = list(model.state_dict()), model(EXAMPLE).shape
    plan = find_sites(model, EXAMPLE)
    assert {site.id: site.verdict for site in plan.sites if site.kind == "conv"} == {
        "second.0#conv0": "optional", "third.0#conv0": "optional",
    }  # fmt: skip
    assert "has 8 inputs, too few" in plan["second.0#conv0"].why
    replaced = replace(model, operator, plan=plan, downsampling="strided", sites=["*#0", "third.0#conv0"])
    assert "third.0#conv0" in replaced.stages
    assert model(EXAMPLE).shape == shape
    assert [key for key in model.state_dict() if "resampling" not in key] == keys
    if operator == "bilinear":
        seen = {}
        model.third[0].register_forward_hook(lambda module, args, out: seen.update(x=args[0], out=out))
        model(EXAMPLE)
        full = F.conv2d(seen["x"], model.third[0].weight, model.third[0].bias, padding=1)
        assert torch.equal(seen["out"], F.max_pool2d(full, 2))


@pytest.mark.long
def test_networks_that_only_halve():
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet10t", num_classes=4).eval()
    before, keys = model(EXAMPLE), list(model.state_dict())
    replaced = replace(model, "bilinear", EXAMPLE, downsampling="pools", pooling="max_blur")
    assert "maxpool#pool0" in replaced.stages
    assert "approximately" in replaced.plan["maxpool#pool0"].why
    assert model(EXAMPLE).shape == before.shape
    replaced.undo()
    replaced = replace(model, "bilinear", EXAMPLE, downsampling="strided", pooling="blur")
    assert {key.partition("#")[0] for key in replaced.stages} == {f"layer{i}.0.conv1" for i in (2, 3, 4)}
    assert model(EXAMPLE).shape == before.shape
    replaced.undo()
    assert list(model.state_dict()) == keys
    assert torch.equal(model(EXAMPLE), before)


@pytest.mark.parametrize("width", [8, 5])
def test_a_transposed_convolution_is_replaced_where_it_is_named(width):
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.up = (
                nn.Conv2d(3, 8, 1),
                nn.Conv2d(8, 8, 3, 2, 1),
                nn.ConvTranspose2d(8, width, 2, 2),
            )
            self.out = nn.Conv2d(8 + width, 2, 1)

        def forward(self, x):
            first = self.first(x)
            return self.out(torch.cat([first, self.up(self.second(first))], 1))

    model = network(Transposed)
    before = model(EXAMPLE)
    plan = find_sites(model, EXAMPLE)
    site = plan["up#transposed0"]
    assert (site.verdict, site.how, str(site.guide)) == ("optional", "transposed 2, stride 2", "output of first (8)")
    with pytest.raises(UserError, match="nothing is replaced: x2 with weights of its own"):
        replace(model, "sapa_b", plan=plan)
    replaced = replace(model, "sapa_b", plan=plan, sites="up")
    model(torch.rand(1, 3, 20, 12)).sum().backward()
    assert all(each.grad is not None for each in replaced.parameters())
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert "up.weight" in model.state_dict()
    assert hasattr(replaced.stages["up#transposed0"], "project") == (width == 5)
    replaced.undo()
    assert torch.equal(model(EXAMPLE), before)
    assert all(each.requires_grad for each in model.parameters())
