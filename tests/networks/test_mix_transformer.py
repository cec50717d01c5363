"""Mix Transformers: costs, shapes, a literal block, weights by the names of others, what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy.special import erf

from encoder_support import by_nvlabs
from indexnet.core.errors import UserError
from indexnet.networks import create_encoder, create_network, create_pyramid, list_pyramids
from indexnet.networks.encoders.mix_transformer import NOTICE, Block
from indexnet.networks.layers import run_on_meta

# depths of the stages, and parameters with 4 input channels where they were counted independently
SIZES = {
    "mit_b0": ((2, 2, 2, 2), None), "mit_b1": ((2, 2, 2, 2), 13_154_560), "mit_b2": ((3, 4, 6, 3), 24_199_424),
    "mit_b3": ((3, 4, 18, 3), None), "mit_b4": ((3, 8, 27, 3), None), "mit_b5": ((3, 6, 40, 3), None),
}  # fmt: skip


def meta(name: str, in_channels: int = 4):
    with torch.device("meta"):
        return create_pyramid(name, in_channels)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name > "mit_b2" else []) for name in SIZES]
)
def test_pyramids_have_their_depths_and_shapes(name):
    assert list_pyramids() == list(SIZES)
    encoder, (depths, parameters) = meta(name), SIZES[name]
    assert tuple(len(stage.blocks) for stage in encoder.stages) == depths
    if parameters is not None:
        assert sum(p.numel() for p in encoder.parameters()) == parameters
        assert sum(p.numel() for p in meta(name, 3).parameters()) == parameters - 3136
    maps = run_on_meta(encoder, (2, 4, 77, 94))
    expected = [(2, width, *(-(-side // stride) for side in (77, 94)))
                for width, stride in zip(encoder.widths, encoder.strides, strict=True)]  # fmt: skip
    assert [tuple(each.shape) for each in maps] == expected


def test_the_fourth_channel_starts_at_zero_and_learns():
    torch.manual_seed(0)
    encoder = create_pyramid("mit_b0", 4)
    first = encoder.stages[0].embedding.project.weight
    assert first[:, 3].eq(0).all()
    assert first[:, :3].std().item() == pytest.approx((2 / (49 * 32)) ** 0.5, rel=0.05)
    linear = encoder.stages[3].blocks[0].ffn.expand.weight
    assert linear.std().item() == pytest.approx(0.02, rel=0.05)
    maps = encoder(torch.randn(2, 4, 32, 32))
    sum(each.square().mean() for each in maps).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert first.grad[:, 3].ne(0).any()


def test_stochastic_depth_rises_and_acts_in_training_only():
    rates = [block.drop.rate for stage in meta("mit_b2").stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 16))
    torch.manual_seed(0)
    block = Block(16, 2, 1, drop=0.5)
    x = torch.randn(64, 9, 16)
    with torch.no_grad():
        kept = (block(x, (3, 3)) != x).flatten(1).any(1)
        assert 0 < kept.sum() < 64  # both branches of an image fall with a probability of a quarter
        whole = block.eval()(x, (3, 3))
        block.drop.rate = 0.0
        assert torch.equal(block.train()(x, (3, 3)), whole)


@pytest.mark.parametrize(("heads", "reduction"), [(2, 2), (1, 1)])
def test_a_block_is_the_literal_one(heads, reduction):
    """Written out in numpy, one head, one token and one tap after another."""
    torch.manual_seed(0)
    width, height, wide, ratio = 8, 4, 6, 4
    block = Block(width, heads, reduction).double().eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    p = {key: value.detach().numpy() for key, value in block.state_dict().items()}
    x = np.random.default_rng(0).normal(size=(height * wide, width))

    def norm(tokens, key, eps):
        centred = tokens - tokens.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
        return scaled * p[f"{key}.weight"] + p[f"{key}.bias"]

    def linear(tokens, key):
        return tokens @ p[f"{key}.weight"].T + p[f"{key}.bias"]

    a = norm(x, "norm1", 1e-6)
    source = a
    if reduction > 1:
        grid, cells = a.reshape(height, wide, width), []
        for row in range(0, height, reduction):
            for column in range(0, wide, reduction):
                cell = grid[row : row + reduction, column : column + reduction]
                cells.append(np.einsum("hwi,oihw->o", cell, p["attention.reduce.weight"]) + p["attention.reduce.bias"])
        source = norm(np.array(cells), "attention.norm", 1e-5)
    queries, both = linear(a, "attention.query"), linear(source, "attention.key_value")
    each, mixed = width // heads, []
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        keys, values = both[:, :width][:, part], both[:, width:][:, part]
        logits = queries[:, part] @ keys.T / np.sqrt(each)
        weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        mixed.append(weights @ values)
    y = x + linear(np.concatenate(mixed, 1), "attention.project")
    hidden = np.pad(linear(norm(y, "norm2", 1e-6), "ffn.expand").reshape(height, wide, -1), ((1, 1), (1, 1), (0, 0)))
    filtered = p["ffn.depthwise.bias"] + sum(
        hidden[i : i + height, j : j + wide] * p["ffn.depthwise.weight"][:, 0, i, j] for i in range(3) for j in range(3)
    )
    filtered = filtered.reshape(-1, ratio * width)
    y = y + linear(filtered * (1 + erf(filtered / np.sqrt(2))) / 2, "ffn.contract")
    with torch.no_grad():
        ours = block(torch.from_numpy(x)[None], (height, wide))[0].numpy()
    np.testing.assert_allclose(ours, y, atol=1e-12)


def by_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {"norm1": "layer_norm_1", "norm2": "layer_norm_2", "attention.query": "attention.self.query",
             "attention.project": "attention.output.dense", "attention.reduce": "attention.self.sr",
             "attention.norm": "attention.self.layer_norm", "ffn.expand": "mlp.dense1",
             "ffn.depthwise": "mlp.dwconv.dwconv", "ffn.contract": "mlp.dense2"}  # fmt: skip
    named = {}
    for key, value in state.items():
        stage, rest = key[7], key[9:]
        for ours, theirs in names.items():
            rest = rest.replace(ours, theirs)
        rest = rest.replace("embedding.project", f"patch_embeddings.{stage}.proj")
        rest = rest.replace("embedding.norm", f"patch_embeddings.{stage}.layer_norm")
        rest = re.sub(r"^blocks", f"block.{stage}", rest)
        rest = re.sub(r"^norm", f"layer_norm.{stage}", rest)
        if "attention.key_value" in rest:
            for part, half in zip(("key", "value"), value.chunk(2), strict=True):
                named[f"segformer.encoder.{rest.replace('attention.key_value', f'attention.self.{part}')}"] = half
        else:
            named[f"segformer.encoder.{rest}"] = value
    return named | {"decode_head.classifier.bias": torch.zeros(3), "classifier.weight": torch.zeros(3, 2)}


@pytest.mark.parametrize(("rename", "notice"), [(by_nvlabs, NOTICE), (by_transformers, NOTICE), (dict, "")])
def test_weights_load_by_the_names_of_others_with_their_notice(rename, notice, tmp_path):
    torch.manual_seed(0)
    state = {key: torch.randn(value.shape) for key, value in create_pyramid("mit_b0", 3).state_dict().items()}
    torch.save(rename(state), tmp_path / "weights.pth")
    encoder = create_pyramid("mit_b0", 4, pretrained=tmp_path / "weights.pth")
    loaded = encoder.state_dict()
    first = next(iter(loaded))
    assert loaded[first][:, 3].eq(0).all()
    loaded[first] = loaded[first][:, :3]
    assert loaded.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert encoder.notice == notice


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mit_b6", {}, "'mit_b6' is no encoder that hands out a pyramid.* Did you mean 'mit_b"),
        ("mit_b1", {"pretrained": True}, "pretrained=true: .* NVIDIA's, for non-commercial use only.*mit_b1.pth"),
        ("mit_b1", {"pretrained": 3}, "encoder.pretrained of mit_b1 is false or the path of a file, got 3"),
        ("mit_b1", {"drop_path": 1.0}, "encoder.drop_path must be a number from 0 to below 1, got 1.0"),
        ("mit_b0", {"pretrained": "other.pth"}, "no Mix Transformer weights .*first name: 'layer.weight'"),
        ("mit_b0", {"pretrained": "short.pth"}, r"\d+ of \d+ tensors are missing"),
        ("mit_b0", {"pretrained": "absent.pth"}, "there is no checkpoint"),
    ],
)
def test_mistakes_are_named(name, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"layer.weight": torch.zeros(2)}, "other.pth")
    torch.save({"norm1.weight": torch.ones(32), "norm1.bias": torch.zeros(32)}, "short.pth")
    with pytest.raises(UserError, match=message):
        create_pyramid(name, 4, **options)


def test_pyramids_and_chains_are_told_apart():
    with torch.device("meta"):
        with pytest.raises(UserError, match=r"'mit_b1' cannot be opened at its strides.*network=rmat takes it"):
            create_encoder("mit_b1", 4)
        with pytest.raises(UserError, match="'mit_b0' cannot be opened at its strides"):
            create_network("matting_unet", encoder={"name": "mit_b0", "drop_path": 0.1})


def test_small_images_are_refused():
    with pytest.raises(UserError, match="'mit_b0' needs images of at least 32x32 pixels, its total stride; got 64x31"):
        meta("mit_b0")(torch.empty(1, 4, 31, 64, device="meta"))
