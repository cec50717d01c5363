"""Small networks for tests: options with which every network builds and trains in no time."""

from __future__ import annotations

from indexnet.resampling import list_resampling

NARROW = {"name": "mobilenetv2_released", "width": 0.25}
TINY = "test_efficientnet"  # of timm: 0.06 million parameters, halves after every unit and ends with a halving
STRIDED = {"name": "nearest", "pooling": "encoder"}
SMALL = {
    "matting_unet": {"encoder": NARROW},
    "deep_matting": {"encoder": TINY, "hidden": 16},
    "autoencoder": {"widths": [4, 6, 8], "in_channels": 4},
    "dncnn_segnet": {"in_channels": 2},
    "segnet": {"encoder": TINY, "classes": 5},
    "fastdepth": {"encoder": {"name": "mobilenetv1_fastdepth", "width": 0.125}},
    "pspm": {"encoder": NARROW},
    "a2u_matting": {},
    "deeplabv3plus": {"encoder": NARROW},
    "dncnn": {"width": 8},
    "hu_depth": {"encoder": TINY},
    "refinenet": {"encoder": NARROW},
    "rmat": {"encoder": "mit_b0"},
    "upernet": {"encoder": TINY, "width": 16, "classes": 3},
}
OPERATORS = [info.name for info in list_resampling()]
ONE_GROUP = {"groups": 1}
NARROW_OPTIONS = {"dysample": ONE_GROUP, "freqfusion": ONE_GROUP, "sapa_d": ONE_GROUP, "naf": {"heads": 1},
                  "lda_aqu": {"reduction": 2, "groups": 1}}  # fmt: skip
