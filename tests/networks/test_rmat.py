"""RMat: the printed costs of all its models, its assembly of features, any operator, whole images only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from encoder_support import by_nvlabs
from indexnet.core.errors import UserError
from indexnet.networks import count_costs, create_network, create_pyramid, infer_alpha
from indexnet.networks.architectures.rmat import LocalFeatureAssembly
from indexnet.networks.encoders.mix_transformer import NOTICE
from indexnet.networks.layers import run_on_meta
from indexnet.networks.tiled import matting_protocol
from indexnet.resampling import list_resampling, watch_stages
from indexnet.tasks import Task, create_task

# encoder, decoder, tskip, lskip, lfa; printed parameters in millions, counted ones; GFLOPs by the rule, true GMACs
ROWS = {
    "B1": (1, "mlp", "mlp", False, False, "13.6", 13_642_369, "10.367", "2.27"),
    "B2": (1, "conv", "mlp", False, False, "15.4", 15_411_841, "14.315", "6.51"),
    "B3": (1, "conv", "mlp", True, False, "15.8", 15_795_777, "14.992", "7.23"),
    "B4": (1, "conv", "mlpconv", True, False, "18.2", 18_157_121, "17.280", "9.69"),
    "B5": (1, "mlpdw", "mlp", True, False, "14.0", 14_034_945, "11.102", "3.06"),
    "B6": (1, "mlpdw", "mlpconv", True, False, "16.1", 16_133_121, "11.844", "3.85"),
    "B7": (2, "conv", "mlp", True, False, "26.8", 26_840_641, "20.593", "8.76"),
    "B8": (2, "conv", "mlpconv", True, False, "29.2", 29_201_985, "22.881", "11.22"),
    "B9": (2, "mlpdw", "mlp", True, False, "25.1", 25_079_809, "16.703", "4.59"),
    "B10": (2, "mlpdw", "mlpconv", True, False, "27.2", 27_177_985, "17.445", "5.38"),
    "M3": (1, "conv", "mlp", True, True, "16.8", 16_848_705, "16.619", "8.98"),
    "M7": (2, "conv", "mlp", True, True, "27.9", 27_893_569, "22.220", "10.51"),
}
PRINTED_GFLOPS = {"M3": "16.62", "M7": "22.22"}
NARROW = {"encoder": {"name": "mit_b0", "drop_path": 0.0}}
OPERATORS = [info.name for info in list_resampling()]
QUICK = ("deconv", "indexnet", "max_unpool", "sapa_i")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("B1", "B6", "M3", "M7") else pytest.mark.long) for name in ROWS]
)
def test_every_model_costs_what_is_printed(name):
    size, decoder, tskip, lskip, lfa, printed, parameters, gflops, gmacs = ROWS[name]
    options = {"decoder": decoder, "tskip": tskip, "lskip": lskip, "lfa": lfa}
    with torch.device("meta"):
        network = create_network("rmat", encoder=f"mit_b{size}", **options)
    costs = count_costs(network, (4, 224, 224))
    assert costs.parameters == parameters
    assert f"{parameters / 1e6:.1f}" == printed
    assert costs.resampling_parameters == 0
    assert f"{costs.paper_gflops:.3f}" == gflops
    assert f"{costs.true_gmacs:.2f}" == gmacs
    if name in PRINTED_GFLOPS:
        assert f"{costs.paper_gflops:.2f}" == PRINTED_GFLOPS[name]


class WithoutAttention(TorchFunctionMode):
    """Gives the queries in the place of an attention's result."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func is torch.nn.functional.scaled_dot_product_attention else func(*args, **(kwargs or {}))


def test_true_costs_are_what_torch_counts_without_attention():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = create_network("rmat", **NARROW).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), WithoutAttention():
        network(torch.empty(1, 4, 64, 96, device="meta"))
    assert count_costs(network, (4, 64, 96)).true_macs == counter.get_total_flops() / 2


@pytest.mark.parametrize(
    "operator", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in OPERATORS]
)
def test_every_doubling_takes_any_operator(operator):
    """On the meta device: each stage is guided by a map as wide as the decoder's, of the size that it comes to."""
    with torch.device("meta"):
        network = create_network("rmat", resampling=operator, lskip=False, **NARROW)
    with watch_stages(network.resampling) as seen:
        assert run_on_meta(network, (2, 4, 70, 64)).shape == (2, 1, 70, 64)
    assert [(down.size, len(results)) for results in seen for down in results[:1]] == [
        ((70, 64), 1), ((35, 32), 1), ((18, 16), 1), ((9, 8), 1), ((5, 4), 1)
    ]  # fmt: skip
    if network.resampling.info.guided:
        assert [results[0].skip.shape[1] for results in seen] == [64, 64, 256, 256, 256]
        assert all(results[0].guide is not None for results in seen)
        assert len(network.guides) == 2


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("bilinear", {"decoder": "mlp", "lskip": False}),
        ("max_unpool", {}),
        ("pixel_shuffle", {"decoder": "mlp", "tskip": "mlpconv"}),
        pytest.param("deconv", {"decoder": "mlpdw", "tskip": "mlpconv", "lfa": False}, marks=pytest.mark.long),
        pytest.param("haar", {"lfa": False}, marks=pytest.mark.long),
        pytest.param("indexnet", {"lskip": False, "lfa": False}, marks=pytest.mark.long),
        pytest.param("freqfusion", {"decoder": "mlpdw"}, marks=pytest.mark.long),
    ],
)
def test_every_parameter_learns(operator, options):
    torch.manual_seed(0)
    network = create_network("rmat", resampling=operator, **NARROW, **options)
    y = network(torch.randn(2, 4, 32, 64))
    assert y.shape == (2, 1, 32, 64)
    y.square().mean().backward()
    learning = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
    assert [key for key, grad in learning.items() if grad is None or not torch.isfinite(grad).all()] == []
    frozen = {key for key, _ in network.named_parameters()} - learning.keys()
    assert {key.partition(".")[0] for key in frozen} == ({"guides"} if operator == "max_unpool" else set())


def test_new_layers_start_as_xavier_and_glorot_draw_them():
    torch.manual_seed(0)
    network = create_network("rmat", **NARROW)
    weight = network.blocks[0][0].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)
    assert network.blocks[0][0].bias.eq(0).all()
    assert network.encoder.stages[0].embedding.project.weight[:, 3].eq(0).all()


def test_assembly_without_reduction_is_literal_attention():
    """Attn(low, low, x): one head and one query after another, in double precision."""
    torch.manual_seed(0)
    width, heads, size = 8, 2, (3, 5)
    assembly = LocalFeatureAssembly(width, heads, reduction=1).double()
    for parameter in assembly.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    low, x = torch.randn(2, 1, width, *size, dtype=torch.float64)
    p = {key: value.detach().numpy() for key, value in assembly.state_dict().items()}

    def norm(tokens, key):
        centred = tokens - tokens.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * p[f"{key}.weight"] + p[f"{key}.bias"]

    def linear(tokens, key):
        return tokens @ p[f"{key}.weight"][:, :, 0, 0].T + p[f"{key}.bias"]

    low_tokens, tokens = (each[0].reshape(width, -1).T.numpy() for each in (low, x))
    queries, keys = (linear(norm(low_tokens, "norm"), key) for key in ("query", "key"))
    values = linear(norm(tokens, "norm"), "value")
    mixed = np.zeros_like(values)
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        for place in range(len(tokens)):
            weights = np.exp(keys[:, part] @ queries[place, part] / np.sqrt(width / heads))
            mixed[place, part] = weights @ values[:, part] / weights.sum()
    y = tokens + linear(mixed, "project")
    hidden = torch.nn.functional.gelu(torch.from_numpy(linear(norm(y, "ffn_norm"), "ffn.0"))).numpy()
    y = y + linear(hidden, "ffn.2")
    with torch.no_grad():
        ours = assembly(low, x)[0].reshape(width, -1).T.numpy()
    np.testing.assert_allclose(ours, y, atol=1e-12)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had that was made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [value.numel() for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        self.numbers = max([self.numbers, *made])
        return out


def test_the_attention_matrix_is_never_made():
    torch.manual_seed(0)
    assembly = LocalFeatureAssembly(16, 2)
    low, x = torch.randn(2, 1, 16, 48, 48)
    with Largest() as largest:
        assembly(low, x).mean().backward()
    assert largest.numbers == 32 * 48 * 48  # the feed-forward layer's
    assert largest.numbers < 2 * 48**2 * 24**2 / 10
    encoder = create_pyramid("mit_b0", 4)
    with Largest() as largest, torch.no_grad():
        encoder(torch.randn(1, 4, 256, 256))
    assert largest.numbers <= max(4 * 32 * 64**2, max(p.numel() for p in encoder.parameters()))


def test_checkpoints_keep_the_notice_of_the_encoders_weights(tmp_path):
    torch.save({"state_dict": by_nvlabs(create_pyramid("mit_b0", 3).state_dict())}, tmp_path / "mit_b0.pth")
    spec = {"name": "rmat", "encoder": {"name": "mit_b0", "pretrained": str(tmp_path / "mit_b0.pth")}}
    task = create_task("matting", spec)
    assert task.notice == NOTICE
    content = {"state_dict": {f"network.{key}": value for key, value in task.network.state_dict().items()}}
    task.on_save_checkpoint(content)
    torch.save(content, tmp_path / "run.ckpt")
    (tmp_path / "mit_b0.pth").unlink()  # a checkpoint is enough
    restored = Task.load_from_checkpoint(tmp_path / "run.ckpt")
    assert restored.notice == NOTICE
    assert create_task("matting", {"name": "rmat", **NARROW}).notice == ""


def test_it_takes_whole_images_only(monkeypatch):
    network = create_network("rmat", **NARROW).eval()
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    trimap = np.full((40, 50), 128, np.uint8)
    whole = infer_alpha(network, image, trimap, memory="auto")
    assert whole.shape == (40, 50)
    assert np.isfinite(whole).all()
    with pytest.raises(UserError, match=r"looks at the whole image .* cannot be kept by tiles"):
        infer_alpha(network, image, trimap, memory=10**6)
    monkeypatch.setattr(matting_protocol, "room", lambda *_: 10**6)
    monkeypatch.setattr(matting_protocol, "available_memory", lambda: 10**6)
    with pytest.raises(UserError, match=r"this image, 64x64 pixels for the network, needs more memory .* whole images"):
        infer_alpha(network, image, trimap, memory="auto")
    assert np.array_equal(infer_alpha(network, image, trimap, memory=None), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "cnn"}, "decoder of rmat is 'conv' or 'mlp' or 'mlpdw', got 'cnn'"),
        ({"tskip": "conv"}, "tskip of rmat is 'mlp' or 'mlpconv', got 'conv'"),
        ({"lskip": 1}, "lskip of rmat is True or False, got 1"),
        ({"encoder": "resnet34"}, "network=rmat needs an encoder that hands out a pyramid .*'resnet34'.*mit_b1"),
        ({"encoder": {"name": "mit_b1", "freeze_bn": True}}, "no option 'freeze_bn'"),
        ({"resampling": {"name": "carafe", "pooling": "avg"}}, "resampling.pooling=avg means nothing there"),
        ({"resampling": "none"}, "'none' is for networks that halve nothing"),
    ],
)
def test_mistakes_are_named(options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        create_network("rmat", **options)


def test_images_that_are_too_small_are_named():
    network = create_network("rmat", **NARROW)
    with pytest.raises(UserError, match="needs images of at least 32x32 pixels, its total stride; got 16x40"):
        network(torch.zeros(2, 4, 40, 16))
    with pytest.raises(UserError, match="cannot train on a batch of one image of 32x32 pixels"):
        network(torch.zeros(1, 4, 32, 32))
    assert network.eval()(torch.zeros(1, 4, 32, 32)).shape == (1, 1, 32, 32)
