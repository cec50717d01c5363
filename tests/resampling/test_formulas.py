"""Parameters and multiply-adds of operators, as the papers print them and by formulas."""

from __future__ import annotations

import pytest

from indexnet.resampling import create_resampling

C, D = 96, 64  # encoder and decoder width
FORMULAS = {
    "lp": ("dysample", {}, 8 * 4 * D + 8 * 4),
    "lp+": ("dysample", {"scope": "dynamic"}, 2 * 8 * 4 * D + 8 * 4),
    "pl": ("dysample", {"style": "pl", "groups": 8}, D // 4 * 16 + 16),
    "pl+": ("dysample", {"style": "pl", "scope": "dynamic"}, 2 * (D // 4) * 8 + 8),
    "lda_aqu": ("lda_aqu", {}, 2 * D * 16 + 2 * D + 11 * 8 + 18 * 9 * 8 + 18 + 9 * 16),
    "a2u static": ("a2u", {"pooling": "max", "dynamics": "static", "channel": "cw", "activation": "none"},
                   36 + 2 * 25 * C),
    "a2u point": ("a2u", {"pooling": "max", "dynamics": "static", "channel": "cw", "position": "point",
                          "activation": "none"}, 9 + 8 * 25 * C),
    "a2u hybrid cs": ("a2u", {"pooling": "max", "dynamics": "hybrid", "activation": "none"}, 36 * (C + 1) + 50),
    "a2u dynamic cw": ("a2u", {"pooling": "max", "channel": "cw", "activation": "none"},
                       36 * (C + 1) + 2 * (C * C + C)),
    "a2u paired": ("a2u", {}, 72 * (C + 1) + 2 * (C + 1) + 4 * C),
    "semi_shift": ("semi_shift", {}, 64 * (C + D) + 64 + 9 * 64 * 25 + 25),
    "sapa_b": ("sapa_b", {}, 34 * (C + D) + 64),
    "sapa_g": ("sapa_g", {}, 34 * C + 67 * D + 97),
    "sapa_d": ("sapa_d", {}, 128 * C + 416 * D + 544),
    "freqfusion": ("freqfusion", {"resample": False}, 64 * (C + D) + 19_746),
    "freqfusion resampled": ("freqfusion", {}, 64 * (C + D) + 19_746 + 52_176),
    "freqfusion without norm": ("freqfusion", {"resample_norm": False}, 64 * (C + D) + 19_746 + 51_920),
    "resfu": ("resfu", {}, 34 * (C + D) + 30_162),
    "jbu": ("jbu", {}, 81 * C + 5_990),
    "naf": ("naf", {}, 10 * C * 32 + 40 * 32**2 + 26 * 32),
    "naf, as published": ("naf", {"embedding": 256, "k": 9}, 10 * C * 128 + 40 * 128**2 + 26 * 128),
    "lip": ("nearest", {"pooling": "lip"}, 9 * C * C + 2 * C),
    "hwd": ("nearest", {"pooling": "hwd"}, 4 * C * C + 3 * C),
}  # fmt: skip
EQUAL = {
    "fade": ("fade", {}, 129 * C + 14_490),
    "fade_lite": ("fade_lite", {}, 51 * C + 276),
    "sapa_i": ("sapa_i", {}, 0),
    "haar": ("haar", {}, 0),
}


def parameters(name, channels, decoder_channels=None, **options):
    resampling = create_resampling(name, channels, decoder_channels, **options)
    return sum(p.numel() for p in resampling.parameters())


@pytest.mark.parametrize("case", [*FORMULAS, *EQUAL])
def test_parameters(case):
    name, options, expected = (FORMULAS | EQUAL)[case]
    assert parameters(name, [C], [D] if case in FORMULAS else [C], **options) == expected


A2U_NET = [64, 64, 128, 256]  # encoder and decoder widths of the matting network of the thesis, chapter 4


@pytest.mark.parametrize(
    ("options", "expected", "printed"),
    [
        ({"dynamics": "static", "position": "point", "channel": "cw"}, 102_436, "0.10M"),
        ({"dynamics": "static", "channel": "cw"}, 25_744, "26K"),
        ({"dynamics": "hybrid", "channel": "cw"}, 44_176, "44K"),
        ({"dynamics": "hybrid", "channel": "cs"}, 18_776, "19K"),
        ({"dynamics": "dynamic", "channel": "cw"}, 199_824, "0.20M"),
        ({"dynamics": "dynamic", "channel": "cs"}, 19_608, "20K"),
        ({"dynamics": "dynamic", "channel": "cs", "pooling": "paired"}, 38_184, "38K"),
        ({"dynamics": "hybrid", "channel": "cw", "k_up": 1}, 27_664, None),
        ({"dynamics": "hybrid", "channel": "cw", "k_up": 5}, 77_200, None),
        ({"dynamics": "dynamic", "channel": "cs", "k_up": 1}, 3_096, None),
        ({"dynamics": "dynamic", "channel": "cs", "k_up": 5}, 52_632, None),
    ],
)
def test_a2u_adds_what_the_thesis_prints(options, expected, printed):
    """Tables 4.2 and 4.3."""
    count = parameters("a2u", A2U_NET, **{"pooling": "max", "activation": "none", **options})
    assert count == expected
    if printed is not None:
        assert printed == (f"{count / 1e6:.2f}M" if printed.endswith("M") else f"{count / 1e3:.0f}K")
    if options.get("pooling") == "paired":
        assert parameters("a2u", A2U_NET, **{**options, "activation": "leaky_relu"}) == 40_232


@pytest.mark.parametrize(
    ("dynamics", "channel", "weights"),
    [
        ("static", "cw", 4 * 9 + 2 * 25 * C),
        ("static", "cs", 4 * 9 + 2 * 25),
        ("hybrid", "cw", 4 * 9 * C + 2 * 25 * C),
        ("hybrid", "cs", 4 * 9 * C + 2 * 25),
        ("dynamic", "cw", 4 * 9 * C + 2 * C * C),
        ("dynamic", "cs", 4 * 9 * C + 2 * C),
    ],
)
def test_a2u_has_the_formulas_of_the_thesis(dynamics, channel, weights):
    """Table 4.8: of one stage, without biases; pairs have twice the weights of kernels."""
    for pooling, kernels in (("max", 0), ("paired", 4 * 9 if dynamics == "static" else 4 * 9 * C)):
        (stage,) = create_resampling("a2u", [C], pooling=pooling, dynamics=dynamics, channel=channel).stages
        own = {name: p.numel() for name, p in stage.named_parameters() if not name.startswith("norms.")}
        assert sum(count for name, count in own.items() if not name.endswith(".bias")) == weights + kernels


@pytest.mark.parametrize(
    ("widths", "expected", "printed"),
    [
        (A2U_NET, 263_824, "0.26M"),  # thesis, Table 4.2
        ([64, 128, 256], 201_964, "0.20M"),  # DnCNN: Table 3.6
        ([64, 128, 256, 512, 512], 383_028, "0.38M"),  # SegNet: 25.35 - 24.96 = 0.39 of rounded ones
        ([32, 24, 32, 64, 160], 308_788, "0.31M"),  # matting on MobileNetV2
        ([32, 64, 128, 256, 512], 352_308, "0.35M"),  # FastDepth: 4.31 - 3.96
        ([256] * 6, 444_888, "0.44M"),  # SegFormer, in the papers on FADE and SAPA
    ],
)
def test_carafe_adds_what_the_tables_print(widths, expected, printed):
    count = parameters("carafe", widths)
    assert count == expected
    assert f"{count / 1e6:.2f}M" == printed


SIX = [256] * 6  # widths of the six places in SegFormer


@pytest.mark.parametrize(
    ("widths", "name", "options", "expected", "printed"),
    [
        (A2U_NET, "fade", {}, 124_008, "0.12M"),
        (A2U_NET, "fade_lite", {}, 27_216, "27K"),
        (A2U_NET, "sapa_i", {}, 0, "0.00M"),
        (A2U_NET, "sapa_b", {}, 35_072, "0.04M"),
        (A2U_NET, "sapa_b", {"embedding": 64}, 68_096, None),
        (A2U_NET, "indexnet", {}, 12_263_424, "12.26M"),
        (SIX, "fade", {}, 285_084, "0.29M"),
        (SIX, "fade_lite", {}, 79_992, "80K"),
        (SIX, "sapa_b", {}, 104_832, "0.10M"),
        (SIX, "sapa_g", {}, 155_718, None),
        (SIX, "sapa_d", {}, 838_848, "0.84M"),
        (SIX, "a2u", {"activation": "none"}, 114_108, "0.11M"),  # printed 0.12M
        (SIX, "a2u", {"pooling": "max", "activation": "none"}, 58_596, "0.06M"),
        ([256], "dysample", {}, 8_224, None),  # printed 32.7K for four, without biases
        ([256], "dysample", {"scope": "dynamic"}, 16_416, None),
        ([256] * 3, "freqfusion", {}, 314_070, "0.31M"),
        ([256], "resfu", {}, 47_570, None),
        ([256], "lda_aqu", {}, 39_410, None),
        ([256], "jbu", {}, 26_726, None),
        ([256], "naf", {"embedding": 256, "k": 9}, 986_368, None),
    ],
)
def test_operators_add_what_is_printed_of_them(widths, name, options, expected, printed):
    count = parameters(name, widths, **options)
    assert count == expected
    if printed is not None:
        assert printed == (f"{count / 1e6:.2f}M" if printed.endswith("M") else f"{count / 1e3:.0f}K")


@pytest.mark.parametrize(
    ("name", "options", "macs"),
    [
        ("semi_shift", {}, 4 * C * 64 + D * 64 + 45 * 64 * 25),
        ("sapa_b", {}, (4 * C + D) * 32),
        ("sapa_g", {}, (4 * C + D) * 32 + D + D * 32),
        ("sapa_d", {}, 128 * (4 * C + D) + 288 * D),
        ("dysample", {}, 32 * D),
        ("dysample", {"scope": "dynamic"}, 64 * D),
        ("dysample", {"style": "pl"}, 8 * D),
        ("freqfusion", {"resample": False}, 64 * (4 * C + D) + 1530 * 64),
        ("freqfusion", {}, 64 * (4 * C + D) + 1530 * 64 + 288 * 4 * 72),
        ("resfu", {}, 32 * (4 * C + D) + 123_904),
        ("lda_aqu", {}, 2 * D * 16 + 684 * 8),
        ("jbu", {}, 4 * (81 * C + 5826)),
        ("naf", {}, 4 * (10 * C * 32 + 40 * 32**2)),
        ("nearest", {"pooling": "lip"}, 36 * C * C),
        ("nearest", {"pooling": "hwd"}, 4 * C * C),
    ],
)
def test_multiply_adds_of_a_low_resolution_position(name, options, macs):
    stage = create_resampling(name, [C], [D], **options).stages[0]
    assert stage.paper_macs(2, 2) == macs
    assert stage.paper_macs(7, 6) == 12 * macs


@pytest.mark.parametrize(
    ("options", "predicted", "shared", "own"),
    [
        # what predicts weights, once an image; a low-resolution position with shared filters counted once, and for each
        ({}, 72 * C + 2 * 25 * C, 2 * 25 + 72, 2 * 25 * C + 72),
        ({"pooling": "max", "channel": "cw"}, 36 * C + 2 * 25 * C * C, 2 * 25 * C + 36, 2 * 25 * C + 36),
        ({"pooling": "conv", "dynamics": "static"}, 0, 9 * C * C + 2 * 25 + 36, 9 * C * C + 2 * 25 * C + 36),
    ],
)
def test_multiply_adds_of_a2u(options, predicted, shared, own):
    stage = create_resampling("a2u", [C], [D], **options).stages[0]
    assert stage.paper_macs(7, 6) == predicted + 12 * shared
    assert stage.true_macs(7, 6) == predicted + 12 * own


MATTING = [(256, 64), (128, 64), (64, 128), (32, 256)]  # sides and widths of the decoder maps at 512 x 512
SEGFORMER = [(side, 256) for side in (64, 64, 64, 32, 32, 16)]  # 3, 2 and 1 times


@pytest.mark.parametrize(
    ("maps", "name", "options", "printed"),
    [
        (MATTING, "carafe", {}, "6.00"),
        (MATTING, "fade", {}, "8.85"),
        (MATTING, "fade_lite", {}, "1.46"),
        (MATTING, "a2u", {"pooling": "max", "k_en": 6}, "0.66"),
        (SEGFORMER, "carafe", {}, "1.45"),
        (SEGFORMER, "fade", {}, "2.65"),
        (SEGFORMER, "fade_lite", {}, "0.89"),
        (SEGFORMER, "a2u", {"pooling": "max", "k_en": 6}, "0.41"),
        (SEGFORMER, "sapa_i", {}, "0.75"),
    ],
)
def test_assembly_counts_are_those_of_the_fade_and_sapa_papers(maps, name, options, printed):
    """GFLOPs added to two networks, as their READMEs print them: 1e9 multiply-adds, assembly included."""
    stages = create_resampling(name, [width for _, width in maps], **options).stages
    sides = [2 * side for side, _ in maps]
    count = sum(s.true_macs(side, side) + s.assembly_macs(side, side) for s, side in zip(stages, sides, strict=True))
    if (name, printed) == ("fade_lite", "1.46"):  # printed without its blend; the other rows have theirs
        count -= sum(8 * width * side * side for side, width in maps)
    assert f"{count / 1e9:.2f}" == printed
