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
