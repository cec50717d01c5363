"""Every operator through the same contract."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from indexnet.core.errors import UserError
from indexnet.resampling import (
    MaxUnpool,
    Nearest,
    OperatorInfo,
    Resampling,
    ResamplingStage,
    create_resampling,
    get_resampling,
    list_resampling,
    register_resampling,
    watch_stages,
)
from reference import literal_macs

VARIANTS = {
    "max_unpool": ("max_unpool", {}),
    "holistic_max_index": ("holistic_max_index", {}),
    "nearest-max": ("nearest", {}),
    "nearest-avg": ("nearest", {"pooling": "avg"}),
    "nearest-conv": ("nearest", {"pooling": "conv"}),
    "bilinear-max": ("bilinear", {}),
    "bilinear-avg": ("bilinear", {"pooling": "avg"}),
    "bilinear-conv": ("bilinear", {"pooling": "conv"}),
    "deconv": ("deconv", {}),
    "pixel_shuffle": ("pixel_shuffle", {}),
    "carafe-max": ("carafe", {"compressed": 4}),
    "carafe-avg": ("carafe", {"pooling": "avg", "compressed": 4, "k_up": 3}),
    "carafe-conv": ("carafe", {"pooling": "conv", "compressed": 4, "k_enc": 1, "k_up": 1}),
    "nearest-blur": ("nearest", {"pooling": "blur"}),
    "nearest-max_blur": ("nearest", {"pooling": "max_blur"}),
    "nearest-soft": ("nearest", {"pooling": "soft"}),
    "nearest-lip-conv": ("nearest", {"pooling": "lip"}),
    "nearest-hwd-conv": ("nearest", {"pooling": "hwd"}),
    "haar": ("haar", {}),
    "dysample": ("dysample", {"groups": 1}),
    "dysample-plus": ("dysample", {"groups": 1, "scope": "dynamic"}),
    "lda_aqu": ("lda_aqu", {"reduction": 1, "groups": 1}),
    "a2u": ("a2u", {}),
    "a2u-static": ("a2u", {"dynamics": "static", "channel": "cw", "activation": "none", "k_en": 6}),
    "a2u-point": ("a2u", {"pooling": "max", "position": "point", "channel": "cw", "activation": "sigmoid", "k_up": 1}),
    "a2u-hybrid": ("a2u", {"pooling": "avg", "dynamics": "hybrid", "normalization": "softmax"}),
    "semi_shift": ("semi_shift", {"compressed": 4, "k_up": 3}),
    "fade": ("fade", {"compressed": 4}),
    "fade_lite": ("fade_lite", {"k_up": 3}),
    "sapa_i": ("sapa_i", {"k_up": 3}),
    "sapa_i-norm": ("sapa_i", {"normalize": True}),
    "sapa_b": ("sapa_b", {"embedding": 4}),
    "sapa_g": ("sapa_g", {"embedding": 4, "k_up": 3}),
    "sapa_d": ("sapa_d", {"groups": 1, "embedding": 4, "points": 4}),
    "sapa_d-low": ("sapa_d", {"groups": 1, "embedding": 4, "points": 2, "low_resolution": True}),
    "freqfusion": ("freqfusion", {"compressed": 8, "groups": 1}),
    "freqfusion-plain": ("freqfusion", {"compressed": 4, "resample": False, "hamming": False, "sharpen_skip": False}),
    "resfu": ("resfu", {"embedding": 8, "hidden": 8}),
    "jbu": ("jbu", {"radius": 1, "embedding": 4}),
    "naf": ("naf", {"embedding": 16, "heads": 1, "k": 3}),
    "indexnet-max": ("indexnet", {"pooling": "max", "context": False}),
    "indexnet-hin-avg": ("indexnet", {"pooling": "avg", "family": "hin", "nonlinear": False}),
    "indexnet-m2o": ("indexnet", {}),
    "indexnet-m2o-linear": ("indexnet", {"nonlinear": False, "context": False}),
    "indexnet-m2o-raw": ("indexnet", {"skip": "raw", "context": False, "normalization": "softmax/softmax"}),
    "indexnet-hin": ("indexnet", {"family": "hin"}),
    "indexnet-modelwise": ("indexnet", {"family": "o2o_modelwise"}),
    "indexnet-shared": ("indexnet", {"family": "o2o_shared"}),
    "indexnet-shared-linear": ("indexnet", {"family": "o2o_shared", "nonlinear": False}),
    "indexnet-unshared": ("indexnet", {"family": "o2o_unshared", "expansion": 1}),
}
EQUAL_WIDTHS = [
    v for v, (name, _) in VARIANTS.items() if get_resampling(name).info.equal_widths and "hin" not in v.split("-")
]
# Compiling and exporting take seconds each: with every test some of the ways to compute, every night all of them.
TRACED = ("max_unpool", "nearest-conv", "sapa_b", "indexnet-m2o")
# With symbolic sizes one variant of each way to compute. The window of naf shrinks with a map.
DYNAMIC = (
    "max_unpool", "holistic_max_index", "nearest-max", "nearest-conv", "bilinear-max", "deconv", "pixel_shuffle",
    "carafe-max", "indexnet-m2o", "indexnet-m2o-linear", "indexnet-hin", "indexnet-modelwise", "indexnet-shared",
    "indexnet-unshared", "haar", "dysample", "sapa_b", "a2u", "sapa_d", "freqfusion", "resfu", "lda_aqu",
)  # fmt: skip


def mostly_nightly(variants):
    """Run a test on some variants always, on the others every night."""
    nightly = [pytest.mark.long, pytest.mark.nightly]
    return pytest.mark.parametrize(
        "variant", [each if each in TRACED else pytest.param(each, marks=nightly) for each in variants]
    )


every_variant = pytest.mark.parametrize("variant", VARIANTS)
pytestmark = pytest.mark.filterwarnings("ignore:resampling 'carafe'. k_up=1")
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


class OneStage(nn.Module):
    """Down, a decoder that does nothing much, up."""

    def __init__(self, resampling: Resampling):
        super().__init__()
        self.resampling = resampling

    def forward(self, x):
        stage = self.resampling.stages[0]
        down = stage.down(x)
        decoder = 0.5 * down.features
        if stage.decoder_channels != stage.channels:
            decoder = torch.cat([decoder] * stage.decoder_channels, 1)[:, : stage.decoder_channels]
        up, skip = stage.up_and_skip(decoder, down)
        return down.features, skip, up


def build(variant: str, channels=2, decoder_channels=None, dtype=torch.float32, seed=0) -> OneStage:
    name, options = VARIANTS[variant]
    torch.manual_seed(seed)
    decoder = None if decoder_channels is None else [decoder_channels]
    net = OneStage(create_resampling(name, [channels], decoder, **options)).to(dtype)
    for layer in net.modules():
        if isinstance(layer, nn.Dropout2d):
            layer.p = 0.0
    return net


def moved(net: OneStage) -> OneStage:
    """Move weights away from zeros, where functions have kinks and gradients vanish."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    return net


def picture(*shape: int, dtype=torch.float32) -> torch.Tensor:
    """Distinct values, so that no maximum is a tie."""
    generator = torch.Generator().manual_seed(3)
    count = torch.Size(shape).numel()
    return (torch.randperm(count, generator=generator).to(dtype) / count * 4 - 2).reshape(shape)


def test_every_operator_is_tested():
    assert {name for name, _ in VARIANTS.values()} == {info.name for info in list_resampling()}


@every_variant
@both_dtypes
def test_shapes_and_dtypes(variant, dtype):
    net = build(variant, 3, dtype=dtype)
    for height, width in ((6, 8), (7, 8), (6, 5), (3, 3), (2, 2)):
        features, skip, up = net(picture(2, 3, height, width, dtype=dtype))
        assert features.shape == (2, 3, (height + 1) // 2, (width + 1) // 2)
        assert skip.shape == up.shape == (2, 3, height, width)
        assert {features.dtype, skip.dtype, up.dtype} == {dtype}
        assert all(torch.isfinite(t).all() for t in (features, skip, up))


@every_variant
def test_gradients(variant):
    net = moved(build(variant, dtype=torch.float64))
    names, parameters = zip(*net.named_parameters(), strict=True) if list(net.parameters()) else ((), ())

    def forward(x, *values):
        return functional_call(net, dict(zip(names, values, strict=True)), (x,))

    x = picture(2, 2, 4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(forward, (x, *parameters), fast_mode=True)


@every_variant
def test_every_parameter_learns(variant):
    net = moved(build(variant, dtype=torch.float64))
    _, skip, up = net(picture(2, 2, 6, 6, dtype=torch.float64).requires_grad_())
    (skip.square().sum() + up.square().sum()).backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert not missing
    if variant != "carafe-conv":  # a softmax over one tap is constant
        assert all(p.grad.abs().sum() > 0 for p in net.parameters())


@every_variant
def test_state_dict_round_trip(variant):
    source, target = build(variant, seed=1), build(variant, seed=2)
    x = picture(2, 2, 6, 6)
    source(x)  # moves running statistics
    target.load_state_dict(source.state_dict())
    duplicate = copy.deepcopy(source)
    source.eval(), target.eval(), duplicate.eval()
    for other in (target, duplicate):
        assert all(map(torch.equal, source(x), other(x)))
    # A copy must not look into its original.
    for p in source.parameters():
        nn.init.constant_(p, 9.0)
    assert all(map(torch.equal, target(x), duplicate(x)))


@every_variant
def test_channels_last(variant):
    net = build(variant, 3, dtype=torch.float64)
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    for size in ((6, 8), (7, 5)):
        x = picture(2, 3, *size, dtype=torch.float64)
        expected = net(x)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        actual = other(x)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        if size == (6, 8):
            assert all(each.is_contiguous(memory_format=torch.channels_last) for each in actual)
        sum(a.sum() for a in actual).backward()
        assert torch.isfinite(x.grad).all()


@every_variant
def test_meta_device(variant):
    with torch.device("meta"):
        net = build(variant, 3)
        outputs = net(torch.empty(2, 3, 7, 6))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 4, 3), (2, 3, 7, 6), (2, 3, 7, 6)]
    assert all(o.is_meta for o in outputs)


@mostly_nightly(VARIANTS)
def test_export_static(variant):
    net = build(variant, 2).eval()
    x = picture(1, 2, 5, 6)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))


@mostly_nightly(DYNAMIC)
def test_export_dynamic(variant):
    net = build(variant, 2).eval()
    half_h, half_w = torch.export.Dim("h", min=2, max=64), torch.export.Dim("w", min=2, max=64)
    shapes = ({0: torch.export.Dim("n", min=1, max=16), 2: 2 * half_h, 3: 2 * half_w},)
    exported = torch.export.export(net, (picture(2, 2, 6, 8),), dynamic_shapes=shapes).module()
    for shape in ((1, 2, 4, 10), (3, 2, 12, 8)):
        x = picture(*shape)
        torch.testing.assert_close(exported(x), net(x))


@mostly_nightly(VARIANTS)
def test_compiles_without_graph_breaks(variant):
    net = build(variant, 2)
    x = picture(2, 2, 6, 8)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


@every_variant
def test_autocast(variant):
    net = build(variant, 2)
    x = picture(2, 2, 6, 8)
    expected = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = net(x)
    torch.testing.assert_close([each.float() for each in actual], [*expected], rtol=0.1, atol=0.1)


@every_variant
def test_decoder_widths(variant):
    if variant in EQUAL_WIDTHS:
        with pytest.raises(UserError, match=r"stage 0: .* 2 channels .* 3,"):
            build(variant, 2, 3)
        return
    _, skip, up = build(variant, 2, 3)(picture(1, 2, 5, 6))
    assert skip.shape == (1, 2, 5, 6)
    assert up.shape == (1, 3, 5, 6)


@every_variant
def test_facts(variant):
    name, _options = VARIANTS[variant]
    info = get_resampling(name).info
    assert all(getattr(info, field) != "" for field in OperatorInfo.__dataclass_fields__)
    net = build(variant)
    _, _, guide, _ = net.resampling.stages[0].down(picture(1, 2, 4, 4))
    assert info.guided == (guide is not None)
    assert info.learned or not list(net.parameters()) or "conv" in variant  # learned: as options are by default


@every_variant
def test_index_maps(variant):
    net = build(variant)
    stage = net.resampling.stages[0]
    down = stage.down(picture(1, 2, 5, 6))
    maps = stage.index_maps(down.guide)
    if not variant.startswith("indexnet"):
        assert maps is None
        return
    assert maps.shape == (1, 1 if "hin" in variant else 2, 6, 6)
    assert (maps > 0).all()
    assert (maps < 1).all()
    # What up makes of ones is the index map itself.
    torch.testing.assert_close(stage.up(torch.ones(1, 2, 3, 3), down.guide, (6, 6)), maps.expand(1, 2, 6, 6))


@pytest.mark.parametrize("variant", [each for each in VARIANTS if VARIANTS[each][0] not in ("indexnet", "a2u")])
def test_paper_macs_count_every_convolution_once(variant):
    """Of the two left out products that are no convolutions count: see the tests of these operators."""
    net = build(variant, 3)
    stage = net.resampling.stages[0]
    for size in ((6, 8), (7, 5)):
        total = literal_macs(net, picture(1, 3, *size))
        assert stage.paper_macs(*size) == total
        assert stage.true_macs(*size) <= total or variant == "lda_aqu"  # its groups share weights


def test_watching_stages():
    resampling = create_resampling("indexnet", [2, 3], family="hin", nonlinear=False)
    x = picture(1, 2, 8, 8)
    with watch_stages(resampling) as seen:
        resampling.stages[0].down(x)
        down = resampling.stages[0].down(x)
    resampling.stages[0].down(x)
    assert [len(s) for s in seen] == [2, 0]
    assert all(result is down for result in seen[0])  # the last one alone is held
    assert not any("down" in vars(stage) for stage in resampling.stages)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "carafe"])
def test_stages_of_encoders_that_stride_pass_their_maps_through(name):
    resampling = create_resampling(name, [3], [2], pooling="encoder")
    stage = resampling.stages[0]
    assert stage.strided
    assert not create_resampling(name, [3]).stages[0].strided
    before, x = picture(1, 7, 5, 6), picture(1, 3, 3, 3)
    with watch_stages(resampling) as seen:
        down = stage.pass_through(x, before)
    assert seen == [[down]]
    assert "pass_through" not in vars(stage)
    assert down.features is x
    assert down.skip is before
    assert (down.guide, down.size) == (None, (5, 6))
    assert stage.up(picture(1, 2, 3, 3), down.guide, down.size).shape == (1, 2, 5, 6)
    plain = create_resampling(name, [3], [2], pooling="max")
    assert stage.paper_macs(5, 6) == plain.stages[0].paper_macs(5, 6)
    assert resampling.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(RuntimeError, match="calls pass_through"):
        stage.down(before)


def test_the_absence_of_an_operator():
    none = create_resampling("none", [])
    assert len(none.stages) == 0
    assert none.channels == none.decoder_channels == ()
    assert list(none.parameters()) == []
    with watch_stages(none) as seen:
        pass
    assert seen == []
    assert "none" not in [info.name for info in list_resampling()]
    with pytest.raises(UserError, match="halve nothing, such as dncnn"):
        create_resampling("none", [2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_resampling("maxunpool", [2]), "Did you mean 'max_unpool'"),
        (lambda: create_resampling("indexnet", [2], famly="hin"), "no option 'famly'. Did you mean 'family'"),
        (lambda: create_resampling("max_unpool", [2], pooling="avg"), "no option 'pooling'"),
        (lambda: create_resampling("indexnet", [2], family="o2o_share"), "Did you mean 'o2o_shared'"),
        (lambda: create_resampling("indexnet", [2], expansion=3), "expansion=3 is not one of 1, 2"),
        (lambda: create_resampling("indexnet", [2], nonlinear="yes"), "nonlinear='yes' is not one of True, False"),
        (lambda: create_resampling("indexnet", [2], context=1), "context=1 is not one of True, False"),
        (lambda: create_resampling("indexnet", [2], normalization="softmax"), "normalization='softmax'"),
        (lambda: create_resampling("indexnet", [2], skip="index"), "Did you mean 'indexed'"),
        (lambda: create_resampling("bilinear", [2], pooling="mean"), "'max', 'avg', 'conv', 'blur'"),
        (lambda: create_resampling("indexnet", [2], reduction="max"), "reduction='max' is not one of None, 'mean'"),
        (lambda: create_resampling("indexnet", [4], [2]), "half of it and reduction='mean'"),
        (lambda: create_resampling("indexnet", [6], [2], reduction="mean"), "6 channels but the decoder map 2"),
        (lambda: create_resampling("max_unpool", [4], [2], reduction="mean"), "no option 'reduction'"),
        (lambda: create_resampling("carafe", [2], k_up=4), "k_up must be a positive odd integer, got 4"),
        (lambda: create_resampling("carafe", [2], compressed=0), "compressed must be a positive integer, got 0"),
        (lambda: create_resampling("nearest", []), "channels must be a list of positive integers"),
        (lambda: create_resampling("nearest", [2, 0]), r"got \[2, 0\]"),
        (lambda: create_resampling("nearest", [2.5]), r"got \[2.5\]"),
        (lambda: create_resampling("nearest", [2, 3], [2]), "2 stages but decoder_channels has 1"),
        (lambda: create_resampling("max_unpool", [2, 3], [2, 4]), "stage 1: .* 3 channels .* 4,"),
        (lambda: create_resampling("indexnet", [2, 3], [2, 4]), "choose family='hin'"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_registering_twice_is_refused():
    class Again(ResamplingStage):
        info = get_resampling("nearest").info

    with pytest.raises(UserError, match=r"resampling 'nearest' is registered twice, by \S+Nearest and \S+Again;"):
        register_resampling(Again)


def test_a_lone_stage():
    stage = Nearest(3, pooling="avg")
    assert stage.down(picture(1, 3, 4, 4)).features.shape == (1, 3, 2, 2)
    with pytest.raises(UserError, match="the encoder map has 2 channels but the decoder map 3"):
        MaxUnpool(2, 3)


def test_carafe_without_a_neighbourhood_warns():
    with pytest.warns(UserWarning, match="k_up=1 is nearest neighbour"):
        carafe = create_resampling("carafe", [2], k_up=1)
    x = picture(1, 2, 4, 4)
    nearest = create_resampling("nearest", [2]).stages[0]
    features, _, _, size = nearest.down(x)
    torch.testing.assert_close(carafe.stages[0].up(features, None, size), nearest.up(features, None, size))
