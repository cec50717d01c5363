"""Checkpoints of the released matting code: recognised, converted, with the released outputs."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.interop import NOTICE, convert, from_released, recognise_released
from indexnet.networks import create_network, infer_alpha, to_uint8
from indexnet.networks.checkpoint import load_network
from indexnet.networks.tiled.matting_protocol import aligned_input
from indexnet.resampling import watch_stages
from released import released_state

TOLERANCE = 1e-4
STAGES = {"index0": 0, "index2": 1, "index3": 2, "index4": 3, "index6": 4}
RECOGNISED = {
    "code_b11_maxunpool": None,
    "code_m2o_nl_c": ("m2o", True, True, 1),
    "code_hin_nl_c": ("hin", True, True, 2),
    "code_o2o_nl": ("o2o_unshared", True, False, 1),
    "paper_modelwise_l": ("o2o_modelwise", False, False, 2),
    "paper_m2o_nl_c": ("m2o", True, True, 2),
    "paper_o2o_nl": ("o2o_unshared", True, False, 2),
    "paper_shared_nl_c": ("o2o_shared", True, True, 2),
}


@pytest.fixture(scope="module")
def official(shared):
    return shared / "fixtures" / "official"


@pytest.fixture(scope="module")
def b11(shared):
    return released_state(shared, "code_b11_maxunpool")


def test_the_reference_weights_are_those_of_the_fixtures(shared, official):
    state = released_state(shared, "code_m2o_nl_c")
    for name, digest in json.loads((official / "weight_sha256_16.json").read_text()).items():
        assert hashlib.sha256(state[name].numpy().tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("configuration", RECOGNISED)
def test_every_configuration_is_recognised(shared, configuration):
    state = released_state(shared, configuration)
    options = recognise_released(state)
    found = options["resampling"]
    if RECOGNISED[configuration] is None:
        assert found == {"name": "max_unpool"}
    else:
        keys = ("name", "family", "nonlinear", "context", "expansion")
        assert found == dict(zip(keys, ("indexnet", *RECOGNISED[configuration]), strict=True))
    network = from_released({f"module.{key}": value for key, value in state.items()})
    assert not any(module.training for module in network.modules())
    # every released number found its place: the same multiset of values
    own = np.sort(np.concatenate([p.detach().numpy().ravel() for p in network.parameters()]))
    once = {k: v for k, v in state.items() if "modelwise" not in configuration or k[:6] not in list(STAGES)[1:]}
    theirs = [value.numpy().ravel() for key, value in once.items() if key.endswith((".weight", ".bias"))]
    assert np.array_equal(own, np.sort(np.concatenate(theirs)))


@pytest.mark.parametrize("configuration", ["code_m2o_nl_c", "paper_m2o_nl_c", "paper_modelwise_l"])
def test_index_networks_give_the_released_output(shared, official, configuration):
    expected = np.load(official / f"{configuration}.npz")
    network = from_released(released_state(shared, configuration))
    x = torch.from_numpy(np.load(official / "input.npz")["x"])
    with torch.no_grad(), watch_stages(network.resampling) as seen:
        alpha = network(x)[0, 0].numpy()
    np.testing.assert_allclose(alpha, expected["alpha"], atol=TOLERANCE, rtol=0)
    stage = STAGES[str(expected["stage"])]
    result = seen[stage][0]
    decoder = network.stage(stage).index_maps(result.guide)
    np.testing.assert_allclose(decoder[0].numpy(), expected["idx_de"], atol=TOLERANCE, rtol=0)
    cells = F.pixel_unshuffle(decoder, 2).unflatten(1, (-1, 4))
    encoder = F.pixel_shuffle(cells.softmax(2).flatten(1, 2), 2)[0].numpy()  # softmax of the sigmoid over each cell
    np.testing.assert_allclose(encoder, expected["idx_en"], atol=TOLERANCE, rtol=0)
    weighted = F.avg_pool2d(result.skip, 2)[0] * 4
    torch.testing.assert_close(weighted, result.features[0], atol=1e-4, rtol=1e-4)


def test_max_unpooling_gives_the_released_output(official, b11):
    expected = np.load(official / "code_b11_maxunpool.npz")
    network = from_released(b11)
    with torch.no_grad(), watch_stages(network.resampling) as seen:
        alpha = network(torch.from_numpy(np.load(official / "input.npz")["x"]))[0, 0].numpy()
    # near-ties between the candidates of a maximum may fall the other way
    assert (np.abs(alpha - expected["alpha"]) <= TOLERANCE).mean() >= 0.99
    assert (seen[4][0].guide[0].numpy() == expected["pool6_idx"]).mean() >= 0.99
    np.testing.assert_allclose(seen[4][0].features[0].numpy(), expected["pool6"], atol=0.05)


def test_inference_gives_the_released_alpha(shared, official):
    expected = np.load(official / "inference_demo_m2o.npz")
    network = from_released(released_state(shared, "code_m2o_nl_c"))
    image, trimap = expected["image_u8"], expected["trimap_u8"]
    planes = expected["aligned_input"].transpose(2, 0, 1)
    np.testing.assert_allclose(aligned_input(image, trimap), planes, atol=1e-5, rtol=0)
    alpha = infer_alpha(network, image, trimap)
    assert alpha.dtype == np.float32
    np.testing.assert_allclose(alpha, expected["alpha_float"], atol=255 * TOLERANCE, rtol=0)
    assert (to_uint8(alpha) == expected["alpha_u8"]).mean() > 0.999  # a truncation may fall the other way
    assert np.abs(to_uint8(alpha).astype(int) - expected["alpha_u8"]).max() <= 1


def test_modelwise_and_shared_are_told_apart_by_their_values(shared):
    modelwise = released_state(shared, "paper_modelwise_l")
    assert recognise_released(modelwise, "o2o_modelwise")["resampling"]["family"] == "o2o_modelwise"
    assert recognise_released(modelwise, "o2o_shared")["resampling"]["family"] == "o2o_shared"
    apart = modelwise | {"index6.indexnet4.0.weight": modelwise["index6.indexnet4.0.weight"] + 1e-3}
    assert recognise_released(apart)["resampling"]["family"] == "o2o_shared"
    with pytest.raises(UserError, match="family o2o_shared, not o2o_modelwise"):
        recognise_released(apart, "o2o_modelwise")
    x = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(from_released(modelwise)(x), from_released(modelwise, "o2o_shared")(x))


def test_a_wider_baseline_and_output_stride_16_are_recognised(shared, b11):
    wide = create_network("matting_unet", encoder={"name": "mobilenetv2_released", "width": 1.4})
    state = {to_released(key): value for key, value in wide.state_dict().items()}
    assert recognise_released(state)["encoder"]["width"] == 1.4
    again = from_released(state).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in wide.state_dict().items())
    without = {k: v for k, v in released_state(shared, "code_hin_nl_c").items() if not k.startswith("index6.")}
    network = from_released(without)
    assert network.size_multiple == 16
    assert network(torch.randn(1, 4, 32, 32)).shape == (1, 1, 32, 32)


def to_released(key: str) -> str:
    """The released name of one of our names (max unpooling)."""
    pairs = (
        ("encoder.units.", "layer"),
        ("context.branches.0.", "dconv_pp.aspp1.atrous_conv."),
        ("context.branches.1.", "dconv_pp.aspp2.atrous_conv."),
        ("context.branches.2.", "dconv_pp.aspp3.atrous_conv."),
        ("context.branches.3.", "dconv_pp.aspp4.atrous_conv."),
        ("context.pooled.0.", "dconv_pp.global_avg_pool.1."),
        ("context.pooled.1.", "dconv_pp.global_avg_pool.2."),
        ("context.project.", "dconv_pp.bottleneck_conv."),
        ("head.", "pred."),
    )
    for own, released in pairs:
        if key.startswith(own):
            return released + key.removeprefix(own)
    _, layer, rest = key.split(".", 2)
    return f"decoder_layer{layer}.dconv.{rest}"


def checkpoint(state: dict[str, torch.Tensor]) -> dict:
    """As the released training writes it, with what several processes leave in the norms."""
    junk = {"layer0.1._tmp_running_mean": torch.zeros(32), "layer0.1._tmp_running_var": torch.zeros(32)}
    junk |= {"layer0.1._running_iter": torch.ones(1), "pred.0.1._moving_average_fraction": torch.ones(1)}
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter], lr=1e-2)
    parameter.sum().backward()
    optimizer.step()
    return {
        "state_dict": {f"module.{key}": value for key, value in {**state, **junk}.items()},
        "optimizer": optimizer.state_dict(),
        "epoch": 29,
        "measure": {"sad": [np.float64(45.7), np.float32(45.6)], "step": [np.int64(3)]},
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_convert_writes_a_checkpoint_of_this_package(tmp_path, b11, zipped):
    source, target = tmp_path / "indexnet_matting.pth.tar", tmp_path / "new" / "b11.ckpt"
    torch.save(checkpoint(b11), source, _use_new_zipfile_serialization=zipped)
    if not zipped:  # numpy before version 2 named its module so
        source.write_bytes(source.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    convert(source, target)
    network, meta = load_network(target)
    assert meta["version"] == 1
    assert meta["task"] == {"name": "matting"}
    assert meta["config"] == {}
    assert meta["notice"] == NOTICE
    assert "non-commercial research" in NOTICE
    assert meta["source"].startswith("indexnet_matting.pth.tar, sha256 ")
    x = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), from_released(b11)(x))
    assert [path.name for path in target.parent.iterdir()] == ["b11.ckpt"]


def test_convert_overwrites_only_when_told(tmp_path, b11):
    source, target = tmp_path / "in.pth", tmp_path / "out.ckpt"
    torch.save(b11, source)
    target.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out.ckpt exists; .*--overwrite"):
        convert(source, target)
    assert target.read_bytes() == b"mine"
    with pytest.raises(UserError, match=r"in.pth has no index networks"):
        convert(source, target, family="m2o", overwrite=True)
    assert target.read_bytes() == b"mine"
    convert(source, target, overwrite=True)
    assert torch.load(target, weights_only=True)["indexnet"]["network"]["name"] == "matting_unet"
    for overwrite in (True, False):
        with pytest.raises(UserError, match=r"the output .* is a folder"):
            convert(source, tmp_path, overwrite=overwrite)


def test_old_files_without_batch_counters_load(b11):
    state = {key: value for key, value in b11.items() if not key.endswith("num_batches_tracked")}
    assert from_released(state).encoder.units[0][1].num_batches_tracked == 0


def test_something_else_is_refused_in_one_sentence(tmp_path, shared, b11):
    m2o = released_state(shared, "code_hin_nl_c")
    broken = {key: value for key, value in b11.items() if key != "decoder_layer3.dconv.0.weight"}
    cut = {key: value for key, value in m2o.items() if key != "index3.indexnet.3.weight"}
    cases = [
        ({"weight": torch.zeros(2)}, "not a checkpoint of a released network .*its first name is 'weight'"),
        (torch.nn.Conv2d(4, 32, 3).state_dict(), "not a checkpoint of a released network"),
        ({}, "holds no tensors by name"),
        ({"state_dict": {"a": 1}}, "holds no tensors by name"),
        (broken, r"looks like .* but 1 tensors are missing \(first: decoder.3.0.weight\)"),
        (cut, r"1 tensors are missing \(first: resampling.stages.2.network.second.weight\)"),
        (b11 | {"refine.0.weight": torch.zeros(1)}, r"1 tensors are unknown \(first: refine.0.weight\)"),
        (b11 | {"pred.0.1.bias": torch.zeros(3)}, r"1 tensors have another shape \(first: head.0.1.bias\)"),
        ({k: v for k, v in b11.items() if "dconv_pp" not in k}, "without ASPP"),
        (b11 | {"index0.foo": torch.zeros(1)}, "not those of an index network"),
    ]
    for state, message in cases:
        with pytest.raises(UserError, match=message):
            from_released(state)
    with pytest.raises(UserError, match=r"family is one of hin,.* got 'm2m'"):
        from_released(m2o, family="m2m")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth is not a checkpoint of a released network"):
        convert(tmp_path / "other.pth", tmp_path / "out.ckpt")
    assert not (tmp_path / "out.ckpt").exists()


def test_damaged_state_dicts_are_refused_in_a_sentence(shared, b11):
    m2o = released_state(shared, "paper_m2o_nl_c")

    def without(state, *prefixes):
        return {key: value for key, value in state.items() if not key.startswith(prefixes)}

    cases = [
        (without(b11, "layer7.0.conv.6.weight"), r"entry 'layer7.0.conv.6.weight' is missing; the file is damaged"),
        (b11 | {"pred.1.weight": torch.zeros(())}, r"entry 'pred.1.weight' has the shape \(\); the file is damaged"),
        (without(m2o, "index0."), "no entries 'index0...'; the file is damaged"),
        (m2o | {"index0.indexnet1.0.weight": torch.zeros(4)}, r"'index0.indexnet1.0.weight' has the shape \(4,\)"),
        (m2o | {"index2.indexnet3.3.weight": torch.zeros(())}, "'index2...' of shapes that do not fit each other"),
    ]
    for state, message in cases:
        with pytest.raises(UserError, match=message):
            from_released(state)


def test_every_entry_is_needed(shared):
    state = released_state(shared, "paper_shared_nl_c")
    weights = [key for key in state if not key.endswith("num_batches_tracked")]
    telling = ("layer0.0.", "layer7.0.conv.6.", "index0.indexnet1.", "index6.indexnet4.3.", "pred.1.")
    for key in {*weights[::40], *(key for key in weights if key.startswith(telling))}:
        with pytest.raises(UserError, match=r"^the state dict\b"):
            from_released({other: value for other, value in state.items() if other != key})


def write_text(path):
    path.write_text("# A project\n\nwith words\n")


def write_code(path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": print}, path)


def write_cut(path):
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_text, "is no complete checkpoint file"),
        (write_cut, "is no complete checkpoint file"),
        (lambda path: path.write_bytes(b""), "is no complete checkpoint file"),
        (write_code, "loading such a file can run code"),
        (lambda path: path.mkdir(), "is a folder, but a checkpoint file"),
        (lambda path: None, "there is no checkpoint"),
    ],
)
def test_an_unreadable_input_is_refused_without_unsafe_advice(tmp_path, write, reason):
    write(tmp_path / "README.md")
    with pytest.raises(UserError, match=reason) as raised:
        convert(tmp_path / "README.md", tmp_path / "x.ckpt")
    assert "weights_only" not in str(raised.value)
    assert "torch.load" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "x.ckpt").exists()
