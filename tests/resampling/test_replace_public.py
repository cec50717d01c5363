"""Operators in public networks."""

import pytest
import torch

from indexnet.resampling import find_sites, replace

WIDE = {"decoder.psp#0", "decoder.psp#1", "decoder.psp#2", "decoder.psp#3", "decoder#0", "decoder#1", "decoder#3"}


def create(name, *args, **options):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    return getattr(smp, name)(*args, encoder_weights=None, **options).eval()


def check(model, own, size, guided="sapa_b"):
    """Check that a no-op changes nothing, and that gradients reach a blind and a guided operator; return the plan."""
    x = torch.rand(2, 3, size, size)
    keys = list(model.state_dict())
    plan = find_sites(model, x[:1])
    with torch.no_grad():
        before = model(x)
        replaced = replace(model, own, plan=plan)
        after = model(x)
    if isinstance(before, dict):
        assert all(torch.equal(after[name], before[name]) for name in before)
    else:
        assert torch.equal(after, before)
    assert list(model.state_dict()) == keys
    replaced.undo()
    for operator in ("dysample", guided):
        replaced = replace(model, operator, plan=plan)
        result = model.train()(x)
        sum(each.sum() for each in (result.values() if isinstance(result, dict) else [result])).backward()
        assert all(each.grad is not None for each in replaced.parameters())
        replaced.undo()
    model.eval()
    return plan


def widths(plan):
    return {site.id: site.guide.channels if site.guide else None for site in plan.default}


@pytest.mark.long
def test_unet():
    plan = check(create("Unet", "resnet34"), "nearest", 64)
    assert [(site.channels, site.owner) for site in plan.default] == [
        (512, "decoder.blocks.0"), (256, "decoder.blocks.1"), (128, "decoder.blocks.2"), (64, "decoder.blocks.3"),
        (32, "decoder.blocks.4"),
    ]  # fmt: skip
    assert list(widths(plan).values()) == [256, 128, 64, 64, None]
    assert all(site.guide.module is None for site in plan.default[:4])


@pytest.mark.long
def test_unet_with_an_encoder_of_timm():
    model = create("Unet", "tu-convnext_atto", encoder_depth=4, decoder_channels=(256, 128, 64, 32))
    assert list(widths(check(model, "nearest", 64)).values()) == [80, 40, None, None]


@pytest.mark.long
def test_pairs_of_a_unet_with_vgg16():
    model, x = create("Unet", "vgg16_bn"), torch.rand(2, 3, 64, 64)
    pools = [f"encoder.features.{i}#pool0" for i in (6, 13, 23, 33, 43)]
    ups = [f"decoder.blocks.{i}#0" for i in range(5)]
    plan = find_sites(model, x)
    for operator in ("max_unpool", "indexnet", "haar"):
        replaced = replace(model, operator, plan=plan, downsampling="pools")
        assert replaced.plan.chosen == (pools[-1], ups[0])
        assert "512 channels but the decoder map 256" in replaced.left[ups[1]]
        replaced.undo()
    for operator in ("a2u", "semi_shift"):
        replaced = replace(model, operator, plan=plan, downsampling="pools")
        assert replaced.plan.chosen == (*pools, *ups)
        model.train()(x).sum().backward()
        assert all(each.grad is not None for each in replaced.parameters())
        replaced.undo()


@pytest.mark.long
def test_upernet_leaves_its_pyramid():
    plan = check(create("UPerNet", "resnet18"), "bilinear", 128)
    assert widths(plan) == {f"decoder.fpn_lateral_blocks.{i}#0": 256 for i in range(3)} | {"decoder#2": 256}
    assert {site.id for site in plan.sites if site.kind == "upsample"} - {
        *widths(plan),
        "segmentation_head.1#0",
    } == WIDE


@pytest.mark.long
def test_the_backbone_of_a_detector():
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    plan = check(fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone.eval(), "nearest", 64)
    assert [site.guide.module for site in plan.default] == [f"fpn.inner_blocks.{i}" for i in (2, 1, 0)]


@pytest.mark.long
def test_segformer_has_one_site():
    plan = find_sites(create("Segformer", "resnet18"), torch.rand(1, 3, 128, 128))
    assert [site.id for site in plan.default] == ["decoder#2"]
    assert plan["decoder#0"].why == "x8, not x2"
