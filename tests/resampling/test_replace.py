"""Operators in networks of others."""

import copy
import functools
import json
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from foreign_networks import FPN, Coupled, Modules, UNet
from indexnet.core.errors import UserError
from indexnet.resampling import create_resampling, find_sites, list_resampling, load_plan, replace
from indexnet.resampling.pooling import GuidedStage

EXAMPLE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NETWORKS = {"unet": UNet, "fpn": FPN, "modules": Modules}
SAME = {"unet": "nearest", "fpn": "bilinear", "modules": "nearest"}  # what their own interpolation is


def network(cls, *args, seed=0):
    torch.manual_seed(seed)
    return cls(*args)


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


def test_plans_that_are_none(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_plan(path)
    path.write_text("{")
    with pytest.raises(UserError, match="it is no JSON"):
        load_plan(path)
    find_sites(network(UNet), EXAMPLE).save(path)
    content = json.loads(path.read_text())
    for wrong in ([], {**content, "format": 0}, {**content, "sites": [{}]}, {**content, "chosen": ["x"]}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="is no plan of this version"):
            load_plan(path)
    plan = find_sites(network(UNet), EXAMPLE)
    with pytest.raises(UserError, match=r"of another network, UNet: where the plan has pools.0, a MaxPool2d, this one"):
        replace(network(Modules), "carafe", plan=plan)


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


def test_sizes_at_run_time():
    model = Odd()
    replace(model, "carafe", EXAMPLE)
    assert model(torch.rand(1, 3, 21, 20), (21, 20)).shape == (1, 2, 21, 20)
    with pytest.raises(UserError, match=r"the network, call 0: a map of 16x16 is to become 30x30, which is not x2"):
        model(torch.rand(1, 3, 32, 32), (30, 30))


def patched():
    model = UNet()
    model.decoders[0].forward = model.decoders[0].forward
    return model


def twice():
    model = UNet()
    replace(model, "carafe", EXAMPLE)
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replace(nn.Sequential(nn.Conv2d(3, 4, 3)), "carafe", EXAMPLE), "nothing is replaced, and no site was"),
        (lambda: replace(nn.DataParallel(UNet()), "carafe", EXAMPLE), "wrapped by DataParallel; replace before"),
        (lambda: replace(torch.jit.script(nn.Conv2d(3, 3, 1)), "carafe", EXAMPLE), "is scripted"),
        (lambda: replace(patched(), "carafe", EXAMPLE), "decoders.0 has a forward of its own"),
        (lambda: replace(twice(), "carafe", EXAMPLE), "has replaced sites already; undo"),
        (lambda: replace(UNet, "carafe", EXAMPLE), "must be a torch.nn.Module, got type"),
        (lambda: replace(UNet(), "carafe"), "needs an example"),
        (lambda: replace(UNet(), example=EXAMPLE), "needs the name of an operator"),
        (lambda: replace(UNet(), "carafe", "image.png"), "the example must be a tensor"),
        (lambda: replace(UNet(), "carafe", torch.rand(1, 4, 64, 64)), "cannot be run on the example: RuntimeError"),
        (lambda: replace(UNet(), "caraffe", EXAMPLE), "Did you mean 'carafe'"),
        (lambda: replace(UNet(), "carafe", EXAMPLE, k_upp=3), "has no option 'k_upp'"),
        (lambda: replace(UNet(), "carafe", EXAMPLE, pooling="blur"), "pooling='blur' has no use"),
        (
            lambda: replace(UNet(), "carafe", EXAMPLE, downsampling="pool"),
            "None, pools or strided, got 'pool'. Did you",
        ),
        (lambda: replace(UNet(), "carafe", EXAMPLE, downsampling="pools", pooling="encoder"), "halves nothing"),
        (
            lambda: replace(UNet(), "max_unpool", EXAMPLE, downsampling="pools"),
            r"nothing is replaced: .*decoders.0#0 is left \(pools.2#pool0\)|the encoder map has",
        ),
        (lambda: replace(UNet(), "none", EXAMPLE), "absence of an operator"),
        (lambda: replace(UNet(), "max_unpool", EXAMPLE), "'max_unpool' needs what its own pooling saw"),
        (lambda: replace(UNet(), "carafe", EXAMPLE, sites="decoder.*"), "'decoder.*' names no site"),
        (
            lambda: replace(UNet(), "carafe", EXAMPLE, sites=["pools.0#pool0"]),
            "pools.0#pool0 halves a map; add downsampling='pools'",
        ),
        (
            lambda: replace(FPN(), "carafe", EXAMPLE, sites=["decoder.pyramid#0"]),
            r"cannot be replaced: x12 or x8, not x2",
        ),
        (lambda: replace(UNet(), "carafe", EXAMPLE, guides="encoders.0"), "'carafe' takes no guide|carafe takes no"),
        (lambda: replace(UNet(), "a2u", EXAMPLE, guides="encoder"), "no module 'encoder' runs before decoders.0#0"),
        (lambda: replace(UNet(), "a2u", EXAMPLE, guides="encoders.0"), "encoders.0 gives no map of 16x16"),
        (lambda: replace(UNet(), "a2u", EXAMPLE, guides=lambda *call: 3), r"must return a map \(N, C, 16, 16\)"),
        (lambda: replace(UNet(), "a2u", EXAMPLE, guides={"head": None}), "'head' names no chosen site"),
        (lambda: replace(UNet(), "a2u", EXAMPLE, unguided="fade"), "unguided=fade is a guided operator itself"),
        (lambda: replace(UNet(), "a2u", EXAMPLE, sites="decoders.2"), r"nothing is replaced: no map guides it"),
        (
            lambda: replace(UNet(), "a2u", plan=find_sites(UNet(), EXAMPLE), guides="encoders.0"),
            "guides needs an example beside the plan",
        ),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_nothing_has_changed_after_a_mistake():
    model = network(UNet)
    with pytest.raises(UserError):
        replace(model, "fade", EXAMPLE, sites="decoders.*")
    assert {type(each) for each in model.modules()} == {type(each) for each in network(UNet).modules()}
    assert not [key for key in model.state_dict() if "resampling" in key]


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
    replaced = replace(model, operator, plan=plan_of(Coupled), downsampling="pools")
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
