"""What operators promise besides reference values: sums, constants, ranges, special cases, memory, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from indexnet.core.errors import UserError
from indexnet.resampling import create_resampling, get_resampling, list_resampling
from indexnet.resampling.pooling import PooledStage

POOLING = [info.name for info in list_resampling() if issubclass(get_resampling(info.name), PooledStage)]
POOLING.remove("deconv")  # its convolution is no option


def build(name, channels=16, decoder_channels=None, **options):
    """One stage in double precision, in evaluation mode, its weights far from where training starts."""
    torch.manual_seed(0)
    stage = create_resampling(name, [channels], [decoder_channels or channels], **options).stages[0].double().eval()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return stage


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predicted(stage, x, y):
    """The kernels of an operator that shows them, (N, taps, H, W)."""
    if stage.info.name == "a2u":
        return stage.create_guide(y)
    return stage.kernels(x) if stage.info.name == "carafe" else stage.kernels(x, y)


@pytest.mark.parametrize("name", ["carafe", "a2u", "semi_shift", "fade", "fade_lite", "resfu"])
def test_kernels_sum_to_one_in_mixed_precision_too(name):
    stage, x, y = build(name, 8), noise(1, 8, 4, 5), noise(1, 8, 8, 10)
    kernels = predicted(stage, x, y)
    torch.testing.assert_close(kernels.sum(1), torch.ones_like(kernels[:, 0]), rtol=0, atol=1e-12)
    stage, x, y = stage.float(), x.float(), y.float()
    with torch.autocast("cpu", torch.bfloat16):
        kernels = predicted(stage, x, y)
    assert kernels.dtype == torch.float32  # a softmax in half precision is off by some thousandths
    torch.testing.assert_close(kernels.sum(1), torch.ones_like(kernels[:, 0]), rtol=0, atol=1e-6)


def test_kernels_of_downsampling_sum_to_one():
    stage, x = build("a2u", 8), noise(1, 8, 8, 10)
    kernels = stage.kernels_down(x, stage.affinity(x))
    assert kernels.shape == (1, 36, 4, 5)
    torch.testing.assert_close(kernels.sum(1), torch.ones_like(kernels[:, 0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalization", ["sigmoid+softmax/sigmoid", "softmax/softmax"])
def test_index_maps_pool_a_constant_exactly_in_mixed_precision(normalization):
    stage = build("indexnet", 4, normalization=normalization).float()
    x = torch.full((1, 4, 8, 8), 3.0)
    with torch.autocast("cpu", torch.bfloat16):
        features = stage.down(x).features
    torch.testing.assert_close(features, torch.full_like(features, 3.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "margin"),
    [
        ("nearest", {}, 0), ("bilinear", {}, 0), ("dysample", {}, 0), ("dysample", {"scope": "dynamic"}, 0),
        ("carafe", {}, 4), ("a2u", {}, 2), ("a2u", {"k_up": 5, "dynamics": "hybrid"}, 4), ("semi_shift", {}, 4),
        ("sapa_i", {}, 4), ("sapa_b", {}, 4), ("sapa_g", {}, 4), ("freqfusion", {"resample": False}, 4),
        ("resfu", {}, 0), ("naf", {}, 0),
    ],
)  # fmt: skip
def test_a_constant_stays_constant(name, options, margin):
    """Whatever the encoder map; where taps outside count as zero, that far from the border."""
    stage = build(name, **options)
    guide = stage.down(noise(1, 16, 24, 28)).guide
    up = stage.up(torch.full((1, 16, 12, 14), 3.0).double(), guide, (24, 28))
    inner = up[..., margin : 24 - margin, margin : 28 - margin]
    torch.testing.assert_close(inner, torch.full_like(inner, 3.0), rtol=1e-12, atol=0)
    if margin:
        assert not torch.allclose(up, torch.full_like(up, 3.0), rtol=1e-3)


def test_fade_keeps_a_constant_that_both_maps_have():
    stage = build("fade")
    constant = torch.full((1, 16, 12, 14), 3.0).double()
    up = stage.up(constant, F.interpolate(constant, scale_factor=2.0), (24, 28))[..., 4:-4, 4:-4]
    torch.testing.assert_close(up, torch.full_like(up, 3.0), rtol=1e-12, atol=0)


def test_jbu_keeps_constants_only_without_its_correction():
    stage, x, y = build("jbu"), torch.full((1, 16, 6, 7), 3.0).double(), noise(1, 16, 12, 14)
    assert not torch.allclose(stage.up(x, y, (12, 14)), torch.tensor(3.0).double(), rtol=1e-2)
    nn.init.zeros_(stage.correct[-1].weight), nn.init.zeros_(stage.correct[-1].bias)
    torch.testing.assert_close(stage.up(x, y, (12, 14)), torch.full_like(y, 3.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("pooling", ["max", "avg", "blur", "max_blur", "soft", "lip"])
@pytest.mark.parametrize("size", [(12, 14), (11, 13), (2, 3)], ids=str)
def test_poolings_keep_constants_everywhere(pooling, size):
    features = build("nearest", 4, pooling=pooling).down(torch.full((1, 4, *size), 3.0).double()).features
    torch.testing.assert_close(features, torch.full_like(features, 3.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("style", ["lp", "pl"])
@pytest.mark.parametrize("scope", ["static", "dynamic"])
def test_dysample_without_offsets_is_bilinear(style, scope):
    stage, x = build("dysample", style=style, scope=scope), noise(1, 16, 5, 6)
    nn.init.zeros_(stage.offset.weight), nn.init.zeros_(stage.offset.bias)
    expected = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(stage.up(x, None, (10, 12)), expected, rtol=0, atol=1e-12)


def test_sapa_d_without_offsets_is_nearest_neighbour():
    stage, x = build("sapa_d"), noise(1, 16, 5, 6)
    nn.init.zeros_(stage.offset.weight), nn.init.zeros_(stage.offset.bias)
    expected = F.interpolate(x, scale_factor=2.0)
    torch.testing.assert_close(stage.up(x, noise(1, 16, 10, 12), (10, 12)), expected, rtol=0, atol=1e-12)


def test_freqfusion_without_offsets_does_not_resample():
    stage, plain = build("freqfusion"), build("freqfusion", resample=False)
    plain.load_state_dict({key: value for key, value in stage.state_dict().items() if not key.startswith("sampler.")})
    for layer in (stage.sampler.offset, stage.sampler.offset_encoder):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    x, down = noise(1, 16, 5, 6), stage.down(noise(1, 16, 9, 12))
    for actual, expected in zip(stage.up_and_skip(x, down), plain.up_and_skip(x, down), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    assert torch.equal(plain.up_and_skip(x, down)[0], plain.up(x, down.guide, down.size))


def test_naf_stays_in_the_range_of_each_channel_and_has_no_weights_for_it():
    stage, x = build("naf", 8, 16), noise(1, 16, 6, 7)
    up = stage.up(x, noise(1, 8, 12, 14), (12, 14))
    low, high = (bound[..., None, None] + slack for bound, slack in ((x.amin((2, 3)), -1e-12), (x.amax((2, 3)), 1e-12)))
    assert ((up >= low) & (up <= high)).all()
    other = build("naf", 8, 4)
    assert {k: v.shape for k, v in stage.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("size", [(8, 10), (7, 9)], ids=str)
def test_haar_gives_back_its_input(normalize, size):
    stage, x = build("haar", 4, normalize=normalize), noise(1, 4, *size)
    down = stage.down(x)
    torch.testing.assert_close(stage.up(down.features, down.guide, down.size), x, rtol=0, atol=1e-15)
    even = x[..., :6, :8]
    factor = 1 if normalize else 2
    torch.testing.assert_close(stage.down(even).features, factor * F.avg_pool2d(even, 2), rtol=0, atol=1e-15)


class _Largest(TorchFunctionMode):
    """Remember how many numbers the largest tensor has that any function returns, views left out."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not (out._is_view() or getattr(function, "__name__", "") == "expand"):
            self.count = max(self.count, out.numel())
        return out


@pytest.mark.parametrize("name", [info.name for info in list_resampling()])
def test_nothing_is_larger_than_the_unfolded_low_resolution_input(name):
    """A window at the high resolution, or of 49 taps, would be."""
    stage, x = create_resampling(name, [64]).stages[0], torch.randn(1, 64, 6, 6)
    with torch.no_grad(), _Largest() as largest:
        stage.up_and_skip(x, stage.down(torch.randn(1, 64, 12, 12)))
    taps = 9 if name == "a2u" else 25
    assert 4 * x.numel() <= largest.count <= taps * x.numel()


@pytest.mark.parametrize("name", POOLING)
@pytest.mark.parametrize("pooling", ["conv", "lip", "hwd"])
def test_every_operator_takes_the_learned_poolings_as_they_start(name, pooling):
    torch.manual_seed(0)
    stage = create_resampling(name, [16], pooling=pooling).stages[0]
    assert stage.down(torch.randn(1, 16, 7, 6)).features.shape == (1, 16, 4, 3)
    if pooling == "lip":  # starts as the average
        assert stage.reduce.logits[0].weight.abs().max() == 0
    if pooling == "hwd":  # as torch has it: uniform up to the root of 1 over 64 inputs
        assert 0.12 < stage.reduce.conv.weight.abs().max() <= 0.125


@pytest.mark.parametrize("name", [each for each in POOLING if get_resampling(each).info.guided])
def test_the_guide_is_made_before_the_halving_whoever_halves(name):
    stage, pooled = (create_resampling(name, [16], pooling=pooling).stages[0] for pooling in ("encoder", "max"))
    stage.load_state_dict(pooled.state_dict())
    before, x = torch.randn(1, 16, 7, 9), torch.randn(1, 16, 4, 5)
    down = stage.eval().pass_through(x, before)
    assert down.features is x
    assert down.skip is before
    assert down.size == (7, 9)
    expected = pooled.eval().down(before)
    assert torch.equal(expected.features, F.max_pool2d(F.pad(before, (0, 1, 0, 1), mode="replicate"), 2))
    assert torch.equal(down.guide, expected.guide)
    assert torch.equal(stage.up(x, down.guide, down.size), pooled.up(x, expected.guide, expected.size))


@pytest.mark.parametrize("name", [info.name for info in list_resampling() if info.guided])
def test_a_guide_that_does_not_fit_is_refused_in_one_sentence(name):
    stage = create_resampling(name, [16]).stages[0]
    down = stage.down(torch.randn(1, 16, 8, 12))
    x = torch.randn(1, 16, 4, 5)
    height, width = down.guide.shape[-2:]
    with pytest.raises(UserError, match=rf"resampling '{name}': the guide is {height}x{width}, but .* 4x5 needs"):
        stage.up(x, down.guide, (8, 10))
    with pytest.raises(UserError, match=rf"resampling '{name}': up needs a guide"):
        stage.up_and_skip(x, down._replace(guide=None))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_resampling("nearest", [2], poolings=["max"]), r"no option 'poolings'.*options: pooling\.$"),
        (lambda: create_resampling("a2u", [2], pooling="indexed"), "pooling='indexed' is not one of 'paired', 'max'"),
        (lambda: create_resampling("fade", [4], [2]), "4 channels but the decoder map 2, and the two must be equal"),
        (lambda: create_resampling("dysample", [6]), "6 channels, which groups=4 does not divide"),
        (lambda: create_resampling("dysample", [6], groups=2, style="pl"), "style='pl' cannot shuffle"),
        (lambda: create_resampling("lda_aqu", [12]), r"reduction \* groups=8 does not divide"),
        (lambda: create_resampling("lda_aqu", [16], reach="far"), "reach='far' must be a finite number, at least 0"),
        (lambda: create_resampling("lda_aqu", [16], reach=float("inf")), "reach=inf must be a finite number"),
        (lambda: create_resampling("sapa_d", [6]), "groups=4 does not divide"),
        (lambda: create_resampling("freqfusion", [16], compressed=20), "must be a multiple of 8"),
        (lambda: create_resampling("freqfusion", [6]), "groups=4 does not divide"),
        (lambda: create_resampling("naf", [16], embedding=48, heads=8), "a multiple of 16 and of 32, four times heads"),
        (lambda: create_resampling("naf", [6]), "heads=4 does not divide"),
        (lambda: create_resampling("resfu", [16], hidden=12), "hidden=12 must be a multiple of 8"),
        (lambda: create_resampling("jbu", [16], radius=0), "radius must be a positive integer, got 0"),
        (lambda: create_resampling("a2u", [16], position="point"), "give position=shared, or pooling=max"),
        (lambda: create_resampling("haar", [2], [3]), "choose an operator without detail bands"),
    ],
)  # fmt: skip
def test_operators_that_cannot_fit_say_so(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
