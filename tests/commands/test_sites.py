"""``indexnet sites MODEL``."""

import pytest

from indexnet.cli import main
from indexnet.resampling import load_plan


def test_a_network_of_torchvision(capsys, tmp_path):
    path = tmp_path / "plan.json"
    assert main(["sites", "lraspp_mobilenet_v3_large", "--save", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "Resampling in LRASPP" in shown
    plan = load_plan(path)
    assert [site.id for site in plan.default] == ["classifier#0"]
    assert plan["#0"].why == "x8, not x2"
    assert main(["sites", "lraspp_mobilenet_v3_large", "--save", str(path)]) == 2
    assert "exists; give --overwrite" in capsys.readouterr().err


def test_a_network_of_one_size(capsys):
    assert main(["sites", "vit_tiny_patch16_224.augreg_in21k", "--size", "224"]) == 0
    assert "takes images of 224x224, but not 32 pixels larger ones" in " ".join(capsys.readouterr().out.split())


def test_a_network_of_timm_only_halves(capsys):
    assert main(["sites", "timm:resnet10t", "--size", "64"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "avg 2, stride 2" in shown
    assert "takes the 0 with the verdict replace, 4 more with downsampling=pools, 3 more with downsampling=s" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet81"], "no network 'resnet81' in torchvision, timm, smp. Did you mean 'resnet"),
        (["keras:unet"], "'keras' is no library of networks; give one of torchvision, timm, smp"),
        (["timm:resnet10t", "--encoder", "resnet18"], "--encoder is for networks of segmentation-models-pytorch"),
        (["timm:resnet10t", "--size", "0"], "--size 0 must be from 1 to 4096 pixels"),
        (["timm:resnet10t", "--size", "100000"], "--size 100000 must be from 1 to 4096 pixels"),
        (["timm:resnet10t.no_such"], "timm:resnet10t.no_such cannot be built: 'Invalid pretrained tag"),
        (["timm:vit_tiny_patch16_224"], "does not take one image of 128x128: AssertionError"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, capsys):
    assert main(["sites", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
