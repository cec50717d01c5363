"""What cannot be replaced is said in a sentence."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from foreign_networks import EXAMPLE, FPN, Modules, UNet, UpBlock, conv, network
from indexnet.core.errors import UserError
from indexnet.resampling import find_sites, load_plan, replace


def test_plans_that_are_none(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(UserError, match=r"is not there; write one with plan\.save"):
        load_plan(path)
    for text, said in (("{", "is not valid JSON"), ("[" * 10**5, "nested more than 100 deep"), ("[]", "holds a list")):
        path.write_text(text)
        with pytest.raises(UserError, match=f"no plan can be read: .*{said}"):
            load_plan(path)
    plan = find_sites(network(UNet), EXAMPLE)
    plan.save(path)
    content = json.loads(path.read_text())
    site = content["sites"][-2]
    guided = {**site, "guide": {**site["guide"], "keys": [[1]]}}
    sites = [{}, {**site, "call": 7}, {**site, "channels": 0}, {**site, "in_size": [1]}, {**site, "times": "x"}, guided]
    wrong = [{"format": 0}, {"chosen": ["x"]}, {"unguided": 5}, {"downsampling": 5}, {"options": []}, {"more": 1}]
    for each in (*wrong, *({"sites": [one]} for one in sites)):
        path.write_text(json.dumps({**content, **each}))
        with pytest.raises(UserError, match="is no plan of this version"):
            load_plan(path)
    with pytest.raises(UserError, match=r"of another network, UNet: where the plan has pools.0, a MaxPool2d, this one"):
        replace(network(Modules), "carafe", plan=plan)


def elsewhere(**changes):
    """The plan of a network whose first guide comes from somewhere else."""
    plan = find_sites(UNet(), EXAMPLE)
    sites = [
        dataclasses.replace(site, guide=dataclasses.replace(site.guide, **changes)) if site.guide else site
        for site in plan.sites
    ]
    return dataclasses.replace(plan, sites=tuple(sites))


def by_function():
    model = UNet()
    return replace(model, "a2u", EXAMPLE, guides={"decoders.2": lambda *call: EXAMPLE}).plan


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
        (lambda: replace(UNet(), "carafe", plan="plan.json"), "plan must be what find_sites or load_plan returns"),
        (lambda: replace(UNet(), "a2u", plan=elsewhere(module="gone")), "output of gone, .* this one has no gone"),
        (lambda: replace(UNet(), "a2u", plan=by_function()), "a function as the guide of decoders.2#0, but not which"),
        (
            lambda: replace(UNet(), plan=dataclasses.replace(by_function(), downsampling="pool")),
            "None, pools or strided, got 'pool'",
        ),
        (lambda: replace(UNet(), "carafe", EXAMPLE, sites=[5]), r"sites must be an id or a pattern, .* got \[5\]"),
        (
            lambda: replace(UNet(), "a2u", EXAMPLE, guides={5: "encoders.0"}),
            "guides must be auto, the path of a module",
        ),
        (lambda: replace(UNet(), "a2u", EXAMPLE, unguided="none"), "unguided must be keep, input or the name of a"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


class Other(UNet):
    def __init__(self):
        super().__init__()
        self.encoders[2], self.decoders[0] = conv(12, 20), UpBlock(20, 12, 10)


@pytest.mark.parametrize("operator", ["nearest", "carafe"])
def test_a_plan_of_a_network_with_other_widths(operator):
    plan = find_sites(UNet(), EXAMPLE)
    model = Other()
    replace(model, operator, plan=plan)
    with pytest.raises(
        UserError, match=r"decoders.0, call 0: its map has 20 channels, and in the plan 16: the plan is"
    ):
        model(EXAMPLE)


def test_nothing_has_changed_after_a_mistake():
    model = network(UNet)
    with pytest.raises(UserError):
        replace(model, "fade", EXAMPLE, sites="decoders.*")
    assert {type(each) for each in model.modules()} == {type(each) for each in network(UNet).modules()}
    assert not [key for key in model.state_dict() if "resampling" in key]
