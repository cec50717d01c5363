"""``indexnet convert`` on weights of the released shapes."""

from __future__ import annotations

import pytest
import torch

from indexnet.cli import main
from indexnet.networks.checkpoint import load_checkpoint, load_network
from released import released_state


def test_convert_says_what_it_found_and_under_what_licence(shared, tmp_path, capsys):
    source, target = tmp_path / "indexnet_matting.pth.tar", tmp_path / "converted.ckpt"
    state = released_state(shared, "code_m2o_nl_c")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 27}, source)
    assert main(["convert", str(source), str(target)]) == 0
    out = capsys.readouterr().out
    notice = load_checkpoint(target)["indexnet"]["notice"]
    assert notice
    assert f"notice: {notice}" in out
    assert "resampling.family: m2o" in out
    assert "resampling.expansion: 1" in out
    network, meta = load_network(target)
    assert meta["task"]["name"] == "matting"
    assert sum(p.numel() for p in network.parameters()) == 5_953_515  # the released network
    before = target.read_bytes()
    assert main(["convert", str(source), str(target)]) == 2
    assert "converted.ckpt exists" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert main(["convert", "--overwrite", str(source), str(target)]) == 0
    assert main(["convert", str(target), str(tmp_path / "again.ckpt")]) == 2
    assert "converted.ckpt is a checkpoint of this program" in capsys.readouterr().err


@pytest.mark.parametrize("content", [{"weight": torch.zeros(1)}, None])
def test_convert_refuses_what_it_does_not_know(tmp_path, capsys, content):
    source = tmp_path / "x.pth.tar"
    source.write_text("no checkpoint")
    if content is not None:
        torch.save(content, source)
    assert main(["convert", str(source), str(tmp_path / "y.ckpt")]) == 2
    err = capsys.readouterr().err.strip()
    assert "x.pth.tar" in err
    assert "\n" not in err
    assert not (tmp_path / "y.ckpt").exists()
