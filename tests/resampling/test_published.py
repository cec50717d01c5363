"""Operators against what their authors' code, or literal loops, computed; skipped without the reference values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from indexnet.resampling import create_resampling
from indexnet.resampling.functional import blur_pool, haar_bands, haar_merge
from indexnet.resampling.pooling import HaarDownsampling, LocalImportancePool, importance_pool


@pytest.fixture(scope="module")
def fixture(shared):
    """Give the arrays of a file of reference values."""
    return lambda name: np.load(shared / "fixtures" / "upsamplers" / f"{name}.npz")


def build(name, channels, decoder_channels, state=None, **options):
    """One stage in double precision, in evaluation mode, with given weights."""
    stage = create_resampling(name, [channels], [decoder_channels], **options).stages[0].double().eval()
    if state is not None:
        missing = stage.load_state_dict(
            {key: torch.tensor(value).double() for key, value in state.items()}, strict=False
        )
        assert not missing.unexpected_keys
        assert all(key.startswith("reduce.") for key in missing.missing_keys)
    return stage


def renamed(arrays, prefix, names):
    """Return the entries that begin with a prefix, their names translated by parts."""
    found = {}
    for key in arrays.files:
        if key.startswith(prefix):
            own, parameter = key[len(prefix) :].rpartition(".")[::2]
            if own in names:
                found[f"{names[own]}.{parameter}"] = arrays[key]
    assert found
    return found


def check(actual, expected):
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=1e-10)


def halve(stage, x):
    """Halve a map in both precisions and give what double precision does."""
    x = torch.tensor(x).double()
    down, single = stage.down(x), stage.float().down(x.float())
    torch.testing.assert_close(single.features.double(), down.features, rtol=0, atol=5e-5)
    if down.guide is not None:
        torch.testing.assert_close(single.guide.double(), down.guide, rtol=0, atol=5e-5)
    stage.double()
    return down


def run(stage, x, y):
    """Double a decoder map with the encoder map as the guide, as a network's stage does; odd sizes too."""
    x, y = torch.tensor(x).double(), torch.tensor(y).double()
    guide = stage.pass_through(x, y).guide
    out = stage.up(x, guide, tuple(y.shape[-2:]))
    single = stage.float().up(x.float(), None if guide is None else stage.pass_through(x.float(), y.float()).guide,
                              tuple(y.shape[-2:]))  # fmt: skip
    torch.testing.assert_close(single.double(), out, rtol=0, atol=5e-5)
    return out


_FADE = {
    "gate_generator.conv": "gate", "ker_generator.compressor_en": "compress_encoder",
    "ker_generator.compressor_de": "compress_decoder", "ker_generator.content_encoder": "encode",
}  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "name", "widths"),
    [("fade", "fade", (12, 12)), ("lite", "fade_lite", (12, 12)), ("semishift", "semi_shift", (6, 10))],
)
def test_fade(fixture, tag, name, widths):
    arrays = fixture("fade")
    stage = build(name, *widths, renamed(arrays, f"{tag}.", _FADE))
    own = "semishift." if tag == "semishift" else ""
    if not own:
        check(stage.kernels(*(torch.tensor(arrays[key]).double() for key in ("de", "en"))), arrays[f"{tag}.kernel"])
    check(run(stage, arrays[f"{own}de"], arrays[f"{own}en"]), arrays[f"{tag}.out"])


def test_an_open_gate_gives_the_encoder_map(fixture):
    arrays = fixture("fade")
    stage = build("fade", 12, 12)
    torch.nn.init.constant_(stage.gate.bias, 1e3)
    check(run(stage, arrays["de"], arrays["en"]), arrays["en"].astype(np.float64))


@pytest.mark.parametrize("style", ["lp", "pl"])
@pytest.mark.parametrize(("tag", "scope"), [("static", "static"), ("plus", "dynamic")])
def test_dysample(fixture, style, tag, scope):
    arrays = fixture("dysample")
    state = renamed(arrays, f"{style}_{tag}_s2.", {"offset": "offset", "scope": "scope"})
    stage = build("dysample", 16, 16, state, style=style, scope=scope)
    x = arrays["x"]
    check(run(stage, x, np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))), arrays[f"{style}_{tag}_s2.out"])


_SAPA = {
    "norm_x": "norm_decoder", "norm_y": "norm_encoder", "q": "query", "qy": "query", "qx": "query_decoder", "k": "key",
    "gate": "gate", "offset": "offset",
}  # fmt: skip


def test_sapa(fixture):
    arrays = fixture("sapa")
    for tag, guide in (("sapa_b", "y"), ("sapa_g", "y")):
        stage = build(tag, arrays[guide].shape[1], 12, renamed(arrays, f"{tag}.", _SAPA))
        check(run(stage, arrays["x"], arrays[guide]), arrays[f"{tag}.out"])
    for normalize, out in ((False, "out_raw"), (True, "out_ln")):
        check(run(build("sapa_i", 12, 12, normalize=normalize), arrays["x"], arrays["y12"]), arrays[f"sapa_i.{out}"])


def test_sapa_d(fixture):
    arrays = fixture("sapa_d")
    for tag, options in (("sapa_d", {}), ("low", {"points": 5, "low_resolution": True})):
        stage = build("sapa_d", 8, 12, renamed(arrays, f"{tag}.w.", _SAPA), embedding=8, **options)
        check(run(stage, arrays["x"], arrays["y"]), arrays[f"{tag}.out"])


_A2U = {
    "bnu.0": "norms.0", "bnv.0": "norms.1", "bconv_U.1": "first.conv", "bconv_V.1": "second.conv",
    "bconv_UP.1": "weight.conv", "bconv_DP.1": "weight_down.conv",
}  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "options"),
    [
        ("cs_d", {}),
        ("cw_d", {"channel": "cw"}),
        ("cs_d_k5", {"k_en": 5}),
        ("cs_d_s1", {"k_up": 1}),
        ("cs_d_s5", {"k_up": 5}),
    ],
)
def test_a2u_dynamic_and_paired(fixture, tag, options):
    arrays = fixture("a2u")
    state = renamed(arrays, f"dyn_{tag}.", _A2U)
    stage = build("a2u", 64, 6, state, **{"k_en": 6, **options})
    x = torch.tensor(arrays["x"]).double()
    down = halve(stage, arrays["x"])
    check(down.features[:, :4], arrays[f"dyn_{tag}.down_out_first4ch"])
    check(down.guide, arrays[f"dyn_{tag}.k_up"])
    check(run(stage, arrays["z"], arrays["x"]), arrays[f"dyn_{tag}.up_out"])
    stage.double()
    check(stage.kernels_down(x, stage.affinity(x)), arrays[f"dyn_{tag}.k_down"])


@pytest.mark.parametrize("channel", ["cw", "cs"])
@pytest.mark.parametrize(("suffix", "normalization"), [("sigsoft", "sigmoid+softmax"), ("soft", "softmax")])
def test_a2u_static_and_hybrid(fixture, channel, suffix, normalization):
    arrays = fixture("a2u")
    options = {"channel": channel, "normalization": normalization, "activation": "none", "pooling": "max"}
    filters = {f"{name}.value": arrays[f"hyb_{channel}.{key}"][None] for name, key in (("first", "U"), ("second", "V"))}
    hybrid = {"weight.conv.weight": arrays["hyb.P_w"], "weight.conv.bias": arrays["hyb.P_b"]}
    stage = build("a2u", 16, 6, {**filters, **hybrid}, dynamics="hybrid", **options)
    x = arrays["hyb.x"]
    check(halve(stage, x).guide, arrays[f"hyb_{channel}.k_up_{suffix}"])
    check(run(stage, arrays["hyb.z"], x), arrays[f"hyb_{channel}.up_out_{suffix}"])
    if suffix == "sigsoft":
        static = {"weight.value": arrays["static.P"].reshape(1, -1, 1, 1)}
        stage = build("a2u", 16, 6, {**filters, **static}, dynamics="static", **options)
        check(halve(stage, x).guide, arrays[f"static_{channel}.k_up_{suffix}"])


_FREQFUSION = {
    "hr_channel_compressor": "compress_encoder", "lr_channel_compressor": "compress_decoder",
    "content_encoder": "low_pass", "content_encoder2": "high_pass", "dysampler.offset": "sampler.offset",
    "dysampler.direct_scale": "sampler.scope", "dysampler.hr_offset": "sampler.offset_encoder",
    "dysampler.hr_direct_scale": "sampler.scope_encoder", "dysampler.norm_hr": "sampler.norm_encoder",
    "dysampler.norm_lr": "sampler.norm_decoder",
}  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "options", "left"),
    [
        ("default", {"resample": False}, "sampler."),
        ("full", {}, None),
        ("coco", {"resample_norm": False}, "sampler.norm"),
        ("ade", {"hamming": False}, None),
    ],
)
def test_freqfusion(fixture, tag, options, left):
    arrays = fixture("freqfusion")
    state = renamed(arrays, "w.", _FREQFUSION)
    state = {key: value for key, value in state.items() if left is None or not key.startswith(left)}
    stage = build("freqfusion", 8, 12, state, compressed=16, **options)
    check(run(stage, arrays["x"], arrays["y"]), arrays[f"{tag}.zero.out"])
    stage = build("freqfusion", 8, 12, state, compressed=16, **options)
    x, y = (torch.tensor(arrays[key]).double() for key in "xy")
    up, skip = stage.up_and_skip(x, stage.down(y))
    check(up, arrays[f"{tag}.zero.out"])
    check(skip, arrays[f"{tag}.zero.skip"])


def test_resfu(fixture):
    arrays = fixture("resfu")
    names = {"norm_x": "norm_decoder", "norm_y": "norm_encoder", "q": "query", "k": "key"}
    for theirs, ours in (("semantic_scores", "semantic"), ("detail_scores", "detail")):
        names |= {theirs: ours, f"{theirs}.norm": f"{ours}.norm"}
        names |= {f"{theirs}.channel_compressor.{n}": f"{ours}.score.{n}" for n in (1, 3, 4)}
    stage = build("resfu", 12, 8, renamed(arrays, "s2.w.", names))
    check(run(stage, arrays["s2.x"], arrays["s2.y"]), arrays["s2.out"])


_LDA = {
    "proj_q": "query", "proj_k": "key", "conv_offset.0": "offset_encode", "conv_offset.1.norm": "offset_norm",
    "conv_offset.3": "offset", "layer_norm.norm": "norm",
}  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "width", "options"),
    [
        ("default", 32, {}),
        ("h2k5", 32, {"heads": 2, "k": 5, "k_offset": 1, "groups": 4, "reach": 3, "reduction": 2}),
        ("norpb", 16, {"reduction": 2, "bias": False}),
    ],
)
def test_lda_aqu(fixture, tag, width, options):
    arrays = fixture("lda_aqu")
    state = renamed(arrays, f"{tag}.w.", _LDA)
    if options.get("bias", True):
        state["bias"] = arrays[f"{tag}.w.relative_position_bias_table"][0, :, 0]
    stage = build("lda_aqu", width, width, state, **options)
    x = arrays[f"{tag}.x"]
    like = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
    check(run(stage, x, like), arrays[f"{tag}.out"])
    torch.nn.init.zeros_(stage.offset.weight), torch.nn.init.zeros_(stage.offset.bias)
    check(stage.double().up(torch.tensor(x).double(), None, like.shape[2:]), arrays[f"{tag}.out_zero_offset"])


@pytest.mark.parametrize(("tag", "widths", "options"), [
    ("r3", (12, 6), {}), ("r2", (3, 4), {"radius": 2, "embedding": 16}),
])  # fmt: skip
def test_jbu(fixture, tag, widths, options):
    arrays = fixture("jbu")
    names = {
        f"{part}_proj.{n}": f"{own}.{n}" for part, own in (("range", "embed"), ("fixup", "correct")) for n in (0, 3)
    }
    state = renamed(arrays, f"{tag}.w.", names)
    state |= {"temperature": arrays[f"{tag}.w.range_temp"], "sigma": arrays[f"{tag}.w.sigma_spatial"]}
    stage = build("jbu", *widths, state, **options)
    check(run(stage, arrays[f"{tag}.x"], arrays[f"{tag}.y"]), arrays[f"{tag}.out"])


def test_naf(fixture):
    arrays = fixture("naf")
    names = {}
    for theirs, ours in (("encoder", "pixel"), ("sem_encoder", "context")):
        names[f"image_encoder.{theirs}.0"] = f"{ours}.0"
        for block in (1, 2):
            for half in (1, 2):
                place = 1 + 3 * (2 * (block - 1) + half - 1)
                names[f"image_encoder.{theirs}.{block}.norm{half}"] = f"{ours}.{place}"
                names[f"image_encoder.{theirs}.{block}.conv{half}"] = f"{ours}.{place + 2}"
    stage = build("naf", 6, 8, renamed(arrays, "s2.w.", names), embedding=32, k=5)
    check(stage.queries(torch.tensor(arrays["s2.y"]).double())[0], arrays["s2.query_n0"])
    check(run(stage, arrays["s2.x"], arrays["s2.y"]), arrays["s2.out"])


def test_blur_pooling(fixture):
    arrays = fixture("downsamplers")
    for parity, size in (("even", (8, 10)), ("odd", (7, 9))):
        x = torch.tensor(arrays[f"blur.{parity}.x"]).double()
        assert tuple(x.shape[2:]) == size
        for k in (3, 4, 5):
            check(blur_pool(x, k), arrays[f"blur.{parity}.avg_f{k}_reflect"])
            check(blur_pool(F.max_pool2d(x, 2, stride=1), k), arrays[f"blur.{parity}.max_f{k}_reflect"])
    for pooling, name in (("blur", "avg_f4"), ("max_blur", "max_f3")):
        down = halve(build("nearest", 3, 3, pooling=pooling), arrays["blur.even.x"])
        check(down.features, arrays[f"blur.even.{name}_reflect"])


def test_soft_and_importance_pooling(fixture):
    arrays = fixture("downsamplers")
    check(halve(build("nearest", 3, 3, pooling="soft"), arrays["soft.even.x"]).features, arrays["soft.even.paper"])
    state = {f"reduce.logits.{n}.weight": arrays[f"lip.w.logit.{part}.weight"] for n, part in enumerate(("conv", "bn"))}
    lip = build("nearest", 6, 6, {**state, "reduce.logits.1.bias": arrays["lip.w.logit.bn.bias"]}, pooling="lip")
    check(halve(lip, arrays["lip.even.x"]).features, arrays["lip.even.out"])
    for parity in ("even", "odd"):
        x = torch.tensor(arrays[f"lip.{parity}.x"]).double()
        check(lip.reduce(x), arrays[f"lip.{parity}.out"])
        check(LocalImportancePool(6).double()(x), arrays[f"lip.{parity}.out_at_init"])
        check(importance_pool(x, x), arrays[f"lip.{parity}.identity_logit"])
    parts = [f"shared.logit.{part}{n}" for n in (1, 2) for part in ("conv", "bn")]
    names = dict(zip([*parts, "lip.postprocessing.conv", "lip.postprocessing.bn"], (0, 1, 3, 4, 6, 7), strict=True))
    wide = LocalImportancePool(6, bottleneck=8).double()
    state = renamed(arrays, "lipb.w.", {theirs: f"logits.{number}" for theirs, number in names.items()})
    wide.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    check(wide(torch.tensor(arrays["lip.even.x"]).double()), arrays["lipb.out"])


def test_haar_and_wavelet_downsampling(fixture):
    arrays = fixture("downsamplers")
    x, z = (torch.tensor(arrays[f"haar.{key}"]).double() for key in "xz")
    bands = haar_bands(x)
    for band, name in zip(bands, ("LL", "LH", "HL", "HH"), strict=True):
        check(band, arrays[f"haar.{name}"])
    check(haar_merge(z, *bands[1:]), arrays["haar.up_z"])
    stage = build("haar", 5, 5, normalize=False)
    down = halve(stage, arrays["haar.x"])
    check(down.features, arrays["haar.LL"])
    check(stage.up(z, down.guide, down.size), arrays["haar.up_z"])
    torch.testing.assert_close(haar_merge(*bands), x, rtol=0, atol=1e-15)
    hwd = HaarDownsampling(5, 7).double().eval()
    state = renamed(arrays, "hwd.w.", {"conv_bn_relu.0": "conv", "conv_bn_relu.1": "norm"})
    hwd.load_state_dict({key: torch.tensor(value) for key, value in state.items()}, strict=False)
    x = torch.tensor(arrays["hwd.even.x"]).double()
    check(hwd(x), arrays["hwd.even.out"])
    torch.testing.assert_close(hwd.float()(x.float()).double(), hwd.double()(x), rtol=0, atol=5e-5)
    odd = F.pad(torch.tensor(arrays["hwd.odd.x"]).double(), (0, 1, 0, 1))  # with zeros, as its code does
    check(hwd(odd), arrays["hwd.odd.out"])
