from __future__ import annotations

import argparse
import os
import pickle
import zipfile

import pytest
import torch

from commands_support import autoencoder_checkpoint, matting_checkpoint
from indexnet.core.errors import UserError
from indexnet.networks import create_network
from indexnet.networks.checkpoint import (
    checkpoint_meta,
    load_checkpoint,
    load_network,
    resampling_title,
    save_checkpoint,
)

NETWORK = {"name": "autoencoder", "widths": [4], "in_channels": 1, "resampling": {"name": "indexnet", "family": "hin"}}


def make(path, **changes):
    network = create_network(**NETWORK)
    meta = checkpoint_meta(
        {"name": "reconstruction"}, NETWORK, {"seed": 3, "schedule": {"milestones": (1, 2)}}, "n", "s"
    )
    save_checkpoint(path, {**meta, **changes}, network.state_dict())
    return network


def test_network_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "deep" / "a.ckpt"
    saved = make(path).eval()
    x = torch.rand(2, 1, 10, 9)
    network, meta = load_network(path)
    assert not network.training
    assert torch.equal(network(x), saved(x))
    assert meta == {
        "version": 1,
        "task": {"name": "reconstruction"},
        "network": NETWORK,
        "config": {"seed": 3, "schedule": {"milestones": [1, 2]}},  # plain: the tuple has become a list
        "notice": "n",
        "source": "s",
    }
    raw = torch.load(path, weights_only=True)
    assert set(raw) == {"indexnet", "state_dict"}
    assert all(key.startswith("network.") for key in raw["state_dict"])
    assert os.listdir(path.parent) == ["a.ckpt"]  # no temporary file is left


def test_other_entries_of_a_training_checkpoint_do_not_matter(tmp_path):
    path = tmp_path / "a.ckpt"
    saved = make(path).eval()
    content = torch.load(path, weights_only=True)
    content["state_dict"]["test_metrics.psnr.sum"] = torch.zeros(())
    content |= {"global_step": 7, "optimizer_states": [{"state": {}, "param_groups": []}]}
    torch.save(content, path)
    network, _ = load_network(path)
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(network(x), saved(x))


def test_pretrained_weights_are_not_fetched_again(tmp_path):
    network, meta = load_network(matting_checkpoint(tmp_path / "m.ckpt"))
    assert meta["network"]["encoder"]["pretrained"] is True  # as the run had it
    assert network.in_channels == 4


@pytest.mark.parametrize("value", [{"a": torch.zeros(1)}, {"a": object()}, {"a": {1: 2}}])
def test_only_plain_data_is_written(value):
    with pytest.raises(TypeError, match=r"plain data only|text keys only"):
        checkpoint_meta({"name": "matting"}, NETWORK, value)


def write_cut(path):
    make(path)
    path.write_bytes(path.read_bytes()[:-900])


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "b")


def write_folder(path):
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "last.ckpt").touch()


def write(content):
    return lambda path: torch.save(content, path)


NO_FILE = "no (complete )?checkpoint file"
BAD = {
    "released": (write({"state_dict": {"module.layer0.0.weight": torch.zeros(1)}, "epoch": 3}), "indexnet convert"),
    "foreign": (write({"conv.weight": torch.zeros(1)}), "checkpoint of something else"),
    "pickled code": (write({"arguments": argparse.Namespace(lr=0.1), "state_dict": {}}), "can run code"),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": [1, 2]})), NO_FILE),
    "text": (lambda path: path.write_text("not a checkpoint\n"), NO_FILE),
    "empty": (lambda path: path.touch(), NO_FILE),
    "cut": (write_cut, NO_FILE),
    "zip": (write_zip, NO_FILE),
    "newer": (lambda path: make(path, version=2), "format 2 but this program reads format 1"),
    "unnamed": (lambda path: make(path, network={"widths": [4]}), "indexnet.network has no name"),
    "list": (write([1, 2]), "checkpoint of something else"),
    "folder": (write_folder, r"last checkpoint is .*last\.ckpt"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path, kind):
    path = tmp_path / "it.ckpt"
    put, sentence = BAD[kind]
    put(path)
    with pytest.raises(UserError, match=sentence) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no checkpoint .*nowhere\.ckpt"):
        load_network(tmp_path / "nowhere.ckpt")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    make(path, network={**NETWORK, "widths": [6]})
    with pytest.raises(UserError, match=r"a\.ckpt: its weights do not fit the network 'autoencoder'"):
        load_network(path)


@pytest.mark.parametrize(
    ("resampling", "title"),
    [
        ("max_unpool", "max_unpool"),
        ({"name": "indexnet", "family": "m2o", "nonlinear": True, "context": False}, "m2o, nonlinear"),
        ({"name": "bilinear", "pooling": "avg"}, "bilinear, avg pooling"),
    ],
)
def test_checkpoints_are_named_by_their_operator(tmp_path, resampling, title):
    path = autoencoder_checkpoint(tmp_path / "a.ckpt", resampling)
    assert resampling_title(load_checkpoint(path)["indexnet"]) == title
