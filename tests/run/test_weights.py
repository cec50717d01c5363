"""``ckpt_path``: a run that starts from a whole checkpoint of the released matting code."""

from __future__ import annotations

import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.interop import NOTICE, from_released
from indexnet.networks import create_network
from indexnet.networks.checkpoint import load_checkpoint
from indexnet.run.job import run_job
from indexnet.run.resume import check_weights, load_weights
from indexnet.tasks import create_task
from released import released_state
from run_support import prepare_run


def saved(shared, tmp_path, configuration):
    path = tmp_path / "x.pth.tar"
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in released_state(shared, configuration).items()}}, path
    )
    return path


def spec(**resampling):
    return {"name": "matting_unet", "resampling": {"name": "indexnet", **resampling}}


def test_released_weights_are_taken_as_they_are(shared, tmp_path):
    path = saved(shared, tmp_path, "paper_m2o_nl_c")
    task = create_task("matting", spec(family="m2o", nonlinear=True, context=True))
    assert load_weights(task, path)["path"] == str(path)
    expected = from_released(released_state(shared, "paper_m2o_nl_c")).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in task.network.state_dict().items())
    assert task.notice == NOTICE
    other = create_network(**spec(family="hin"))
    with pytest.raises(UserError, match=r"x\.pth\.tar holds the weights of another network, matting_unet"):
        check_weights(path, other)


@pytest.mark.parametrize("family", [
    "o2o_modelwise", pytest.param("o2o_shared", marks=[pytest.mark.long, pytest.mark.nightly])
])  # fmt: skip
def test_the_network_says_whether_released_index_networks_are_shared(family, shared, tmp_path):
    path = saved(shared, tmp_path, "paper_modelwise_l")
    task = create_task("matting", spec(family=family, nonlinear=False, context=False))
    load_weights(task, path)
    expected = from_released(released_state(shared, "paper_modelwise_l"), family).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in task.network.state_dict().items())


def test_weights_that_are_no_numbers_are_refused_before_anything_starts(tmp_path):
    network = create_network("dncnn", width=4, depth=3)
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    meta = {"version": 1, "task": {"name": "denoising"}, "network": {"name": "dncnn", "width": 4, "depth": 3}}
    for change, words in (
        (lambda weight: weight + torch.nan, "is not finite"),
        (
            lambda weight: weight.to(torch.int8),
            r"\(1, 4, 3, 3\) of integers there, .* of real numbers here",
        ),
    ):
        path = tmp_path / f"{len(words)}.ckpt"
        spoilt = state | {"network.head.weight": change(state["network.head.weight"])}
        torch.save({"indexnet": meta, "state_dict": spoilt}, path)
        with pytest.raises(UserError, match=words):
            check_weights(path, network)


@pytest.mark.long
def test_a_run_starts_from_a_released_checkpoint_and_keeps_its_notice(shared, tmp_path, capsys):
    path = saved(shared, tmp_path, "paper_m2o_nl_c")
    words = [
        "task=matting", "data=scenes", "resampling=indexnet", "resampling.family=m2o", "resampling.nonlinear=true",
        "resampling.context=true", "encoder.pretrained=false", f"ckpt_path={path}", "training.batch_size=2",
        "training.size=64", "data.train_count=4", "data.test_count=1", "trainer.accelerator=cpu",
    ]  # fmt: skip
    folder = prepare_run(tmp_path / "runs", *words, "training.steps=1")
    assert run_job(folder.path) == 0
    assert f"notice of {path}: {NOTICE}" in capsys.readouterr().out
    assert folder.record().initial["path"] == str(path)
    assert load_checkpoint(folder.checkpoint())["indexnet"]["notice"] == NOTICE
