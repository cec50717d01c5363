"""Operators in networks of others."""

import copy
import functools
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from foreign_networks import EXAMPLE, FPN, Coupled, Modules, UNet, network
from indexnet.core.errors import UserError
from indexnet.resampling import create_resampling, find_sites, list_resampling, load_plan, replace
from indexnet.resampling.pooling import GuidedStage

NETWORKS = {"unet": UNet, "fpn": FPN, "modules": Modules}
SAME = {"unet": "nearest", "fpn": "bilinear", "modules": "nearest"}  # what their own interpolation is


@functools.cache
def plan_of(cls):
    return find_sites(network(cls), EXAMPLE)


def guides(plan):
    return {site.id: str(site.guide) for site in plan.sites if site.kind == "upsample" and site.guide is not None}


def verdicts(plan):
    return {site.id: site.verdict for site in plan.sites if site.kind == "upsample"}


def test_sites_of_a_unet():
    plan = find_sites(network(UNet), EXAMPLE)
    assert verdicts(plan) == {f"decoders.{i}#0": "replace" for i in range(3)}
    assert guides(plan) == {
        "decoders.0#0": "argument skip of decoders.0 (12)",
        "decoders.1#0": "argument skip of decoders.1 (8)",
    }
    site = plan["decoders.0#0"]
    assert (site.in_size, site.out_size, site.channels, site.how) == ((8, 8), (16, 16), 16, "nearest")
    assert "argument skip of decoders.0 (12)" in str(plan)
    assert plan.network == "UNet"


def test_sites_of_an_fpn():
    plan = find_sites(network(FPN), EXAMPLE)
    assert verdicts(plan) == {
        "decoder.pyramid#0": "leave", "decoder.pyramid#1": "leave", "decoder.laterals.0#0": "replace",
        "decoder.laterals.1#0": "replace", "decoder#0": "replace", "#0": "optional",
    }  # fmt: skip
    assert guides(plan)["decoder.laterals.0#0"] == "argument skip of decoder.laterals.0 (12)"
    assert guides(plan)["decoder.laterals.1#0"] == "argument skip of decoder.laterals.1 (6)"
    assert guides(plan)["decoder#0"] == "output of decoder.laterals.1 (8)"
    assert "enlarges the network's output" in plan["#0"].why


def test_a_pyramid_that_doubles_at_one_size_is_left():
    plan = find_sites(network(FPN), torch.rand(1, 3, 32, 32))  # 4 x 4 maps pooled to 2 x 2
    assert plan["decoder.pyramid#1"].verdict == "leave"
    assert plan["decoder.pyramid#1"].why == "x2 or x4, not x2"


def test_sites_of_modules():
    plan = find_sites(network(Modules), EXAMPLE)
    assert guides(plan) == {"up2.0#0": "output of second (8)", "up1#0": "output of first (8)"}


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = (nn.Conv2d(*widths, 3, 2, 1) for widths in ((3, 6), (6, 8), (8, 12)))
        self.fpn = FeaturePyramidNetwork([6, 8, 12], 8, LastLevelMaxPool())

    def forward(self, x):
        c1 = self.c1(x)
        c2 = self.c2(c1)
        return self.fpn({"0": c1, "1": c2, "2": self.c3(c2)})


def test_torchvision_fpn():
    model = network(Pyramid)
    plan = find_sites(model, EXAMPLE)
    assert guides(plan) == {f"fpn#{i}": f"output of fpn.inner_blocks.{1 - i} (8)" for i in range(2)}
    before = model(EXAMPLE)
    replaced = replace(model, "nearest", plan=plan)
    assert all(torch.equal(value, before[name]) for name, value in model(EXAMPLE).items())
    replaced.undo()
    replaced = replace(model, "sapa_b", EXAMPLE)
    sum(each.sum() for each in model(EXAMPLE).values()).backward()
    assert all(each.grad is not None for each in replaced.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_no_op_changes_nothing(name):
    model = network(NETWORKS[name]).eval()
    before, keys, text = model(EXAMPLE), list(model.state_dict()), str(model)
    replaced = replace(model, SAME[name], EXAMPLE)
    assert len(replaced.stages) >= 2
    assert torch.equal(model(EXAMPLE), before)
    assert list(model.state_dict()) == keys
    odd = torch.rand(2, 3, 80, 48)
    assert torch.equal(model(odd), network(NETWORKS[name]).eval()(odd))
    replaced.undo()
    replaced.undo()
    assert type(model) is NETWORKS[name]
    assert str(model) == text
    assert torch.equal(model(EXAMPLE), before)


def fitting(name):
    if name == "indexnet":
        return {"family": "hin"}
    return {}


PLUGGED = [
    info.name
    for info in list_resampling()
    if not info.guided or issubclass(type(create_resampling(info.name, [8]).stages[0]), GuidedStage)
]


@pytest.mark.parametrize("operator", PLUGGED)
def test_gradients_reach_every_new_parameter(operator):
    model = network(Modules)
    keys = set(model.state_dict())
    replaced = replace(model, operator, plan=plan_of(Modules), **fitting(operator))
    assert set(replaced.stages) == {"up2.0#0", "up1#0"}
    new = set(model.state_dict()) - keys
    assert all(key.startswith(("up2.0.resampling_0.", "up1.resampling_0.")) for key in new)
    assert keys <= set(model.state_dict())
    model(torch.rand(2, 3, 16, 24)).square().sum().backward()
    parameters = list(replaced.parameters())
    assert len(parameters) == sum(not key.endswith(("running_mean", "running_var", "tracked")) for key in new)
    assert all(each.grad is not None for each in parameters)


def test_the_guide_is_what_reaches_the_operator():
    model = network(UNet).eval()
    replaced = replace(model, "sapa_b", EXAMPLE, sites="decoders.0")
    seen = {}
    stage = replaced.stages["decoders.0#0"]
    model.encoders[1].register_forward_hook(lambda module, args, out: seen.update(skip=out))
    x = model.decoders[0].register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    before = model(EXAMPLE)
    x.remove()
    expected = stage.up(seen["x"], stage.create_guide(seen["skip"]), (16, 16))
    got = model.decoders[0].conv(torch.cat([expected, seen["skip"]], 1))
    assert torch.equal(got, model.decoders[0](seen["x"], seen["skip"]))
    assert not torch.equal(before, network(UNet).eval()(EXAMPLE))


def test_a_site_without_guide_is_left_or_given_one():
    model = network(UNet)
    replaced = replace(model, "resfu", EXAMPLE)
    assert set(replaced.stages) == {"decoders.0#0", "decoders.1#0"}
    assert replaced.left["decoders.2#0"] == "no map guides it"
    replaced.undo()
    replaced = replace(model, "resfu", EXAMPLE, unguided="dysample")
    assert replaced.stages["decoders.2#0"].info.name == "dysample"
    replaced.undo()
    replaced = replace(model, "resfu", EXAMPLE, unguided="input")
    assert replaced.stages["decoders.2#0"].channels == 3
    model(EXAMPLE).sum().backward()
    assert all(each.grad is not None for each in replaced.parameters())
    assert "argument x of the network (3)" in str(replaced)


def test_guides_by_name_and_by_function():
    model = network(UNet).eval()
    replaced = replace(
        model,
        "sapa_b",
        EXAMPLE,
        guides={"decoders.1": "encoders.0.0", "decoders.2": lambda owner, args, kwargs: IMAGES[0]},
    )
    assert [stage.channels for stage in replaced.stages.values()] == [12, 8, 3]
    assert str(replaced.plan["decoders.1#0"].guide) == "output of encoders.0.0 (8)"
    assert model(EXAMPLE).shape == (1, 2, 64, 64)
    with pytest.raises(UserError, match=r"the guide of decoders\.2#0 is a function"):
        replaced.plan.save("nowhere.json")


IMAGES = [EXAMPLE]


def test_widths_that_do_not_fit_are_left_with_the_operators_words():
    replaced = replace(network(Modules), "indexnet", EXAMPLE)
    assert set(replaced.stages) == {"up2.0#0", "up1#0"}
    replaced = replace(network(FPN), "fade_lite", EXAMPLE)
    assert set(replaced.stages) == {"decoder#0"}
    assert "the encoder map has 12 channels but the decoder map 8" in replaced.left["decoder.laterals.0#0"]
    with pytest.raises(UserError, match=r"resampling 'fade_lite', site decoder.laterals.0#0: .* 12 channels .* 8"):
        replace(network(FPN), "fade_lite", EXAMPLE, sites="decoder.laterals.0")


def test_shared_index_networks_are_one():
    model = network(Modules)
    replaced = replace(model, "indexnet", EXAMPLE, family="o2o_modelwise")
    new = [key for key in model.state_dict() if "resampling_" in key and key.endswith("weight")]
    assert {key.split(".network")[0] for key in new} == {"up2.0.resampling_0"}
    model(EXAMPLE).sum().backward()
    assert all(each.grad is not None for each in replaced.parameters())


def test_a_plan_builds_the_network_again(tmp_path):
    model = network(UNet).eval()
    replaced = replace(model, "a2u", EXAMPLE, sites="decoders.[01]", k_up=3)
    for each in replaced.parameters():
        nn.init.normal_(each)
    replaced.plan.save(tmp_path / "plan.json")
    plan = load_plan(tmp_path / "plan.json")
    assert plan == replaced.plan
    again = network(UNet, seed=1).eval()
    assert replace(again, plan=plan).stages.keys() == replaced.stages.keys()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(EXAMPLE), model(EXAMPLE))
    other = replace(network(UNet), "carafe", plan=plan)  # the same sites, another operator
    assert [stage.info.name for stage in other.stages.values()] == ["carafe"] * 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("cls", "operator", "downsampling"),
    [(Modules, "sapa_b", None), (UNet, "dysample", None), (Coupled, "max_unpool", "pools")],
)
def test_one_graph(cls, operator, downsampling):
    model = network(cls).eval()
    replace(model, operator, EXAMPLE, downsampling=downsampling)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(EXAMPLE), model(EXAMPLE))
    exported = torch.export.export(model, (EXAMPLE,)).module()
    torch.testing.assert_close(exported(EXAMPLE), model(EXAMPLE))
    with pytest.raises(UserError, match="is compiled; replace first"):
        replace(compiled, operator, EXAMPLE)


def test_what_was_used_is_dropped():
    import weakref

    model = network(Modules).eval()
    replace(model, "sapa_b", EXAMPLE)
    kept = []
    model.second.register_forward_hook(lambda module, args, out: kept.append(weakref.ref(out)))
    with torch.no_grad():
        model(EXAMPLE)
    assert kept[0]() is None


def test_the_network_stays_as_it_is_while_sites_are_found():
    model = network(UNet).train()
    model.encoders[0].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    find_sites(model, EXAMPLE)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert model.training
    assert not model.encoders[0].training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, image, size=None):
        x = self.conv(image)
        return self.out(F.interpolate(x, size=size or (2 * x.shape[-2], 2 * x.shape[-1])))


def test_a_network_of_one_size():
    class Fixed(UNet):
        def forward(self, x):
            assert x.shape[-1] == 64
            return super().forward(x)

    model = network(Fixed)
    with pytest.raises(UserError, match=r"enlarged by 32 pixels: AssertionError.* or the example again where it takes"):
        find_sites(model, EXAMPLE)
    plan = find_sites(model, EXAMPLE, EXAMPLE)
    assert guides(plan) == guides(find_sites(network(UNet), EXAMPLE))
    replaced = replace(model, "sapa_b", EXAMPLE, plan=plan, guides={"decoders.0": "encoders.1"})
    assert str(replaced.plan["decoders.0#0"].guide) == "output of encoders.1 (12)"


def test_sizes_at_run_time():
    model = Odd()
    replace(model, "carafe", EXAMPLE)
    assert model(torch.rand(1, 3, 21, 20), (21, 20)).shape == (1, 2, 21, 20)
    with pytest.raises(UserError, match=r"the network, call 0: a map of 16x16 is to become 30x30, which is not x2"):
        model(torch.rand(1, 3, 32, 32), (30, 30))


def test_a_shared_module_with_maps_of_two_widths_is_left():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Upsample(scale_factor=2)
            self.down, self.middle, self.out = nn.Conv2d(3, 4, 5, 4, 2), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.out(self.up(self.middle(self.up(self.down(x)))))

    with pytest.raises(UserError, match=r"called with maps of 4, 6 channels; give each a module of its own \(up#0\)"):
        replace(Two(), "carafe", EXAMPLE)


def test_a_container_that_goes_through_its_children_gets_none():
    class Head(nn.Sequential):
        def forward(self, x):
            return F.interpolate(super().forward(x), scale_factor=2)

    model = nn.Sequential(Head(nn.Conv2d(3, 4, 3, 2, 1)), nn.Conv2d(4, 2, 1))
    assert "its owner, a Head, goes through its children" in find_sites(model, EXAMPLE)["0#0"].why


def test_a_skip_that_is_added_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            first = self.first(x)
            x = F.interpolate(self.second(first), scale_factor=2)
            x += first
            return self.out(x)

    assert guides(find_sites(InPlace(), EXAMPLE)) == {"#0": "output of first (4)"}


def test_aligned_corners_are_said():
    plan = find_sites(network(Modules, "bilinear"), EXAMPLE)
    assert plan["up2.0#0"].how == "bilinear"
    model = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.UpsamplingBilinear2d(scale_factor=2), nn.Conv2d(2, 2, 1))
    assert find_sites(model, EXAMPLE)["1#0"].why == "x2; its corners are aligned, those of operators are not"


@pytest.mark.parametrize("operator", ["sapa_b", "freqfusion", "dysample"])
def test_half_precision(operator):
    model = network(Modules)
    replaced = replace(model, operator, plan=plan_of(Modules))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.rand(2, 3, 16, 24)).float().square().mean()
    loss.backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in replaced.parameters())


def test_activation_checkpointing():
    model = network(Modules)
    replaced = replace(model, "sapa_b", plan=plan_of(Modules))
    x, grads = torch.rand(2, 3, 16, 24), []
    for run in (model, lambda image: checkpoint(model, image, use_reentrant=False)):
        model.zero_grad()
        run(x).sum().backward()
        grads.append([each.grad.clone() for each in replaced.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_copies_pickles_and_threads():
    model = network(Modules).eval()
    replaced = replace(model, "sapa_b", EXAMPLE)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    images = [torch.rand(1, 3, 32, 32) for _ in range(4)]
    with torch.no_grad():
        expected = [model(image) for image in images]
    replaced.undo()
    results = {}

    def call(index):
        with torch.no_grad():
            results[index] = twin(images[index])

    threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(torch.equal(results[index], expected[index]) for index in range(4))
