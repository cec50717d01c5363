"""Tiled inference: the same as on the whole image, where it must be, and within its budget."""

from __future__ import annotations

import io
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from indexnet.core.console import create_console, tracked
from indexnet.core.errors import UserError
from indexnet.networks import create_network, infer_alpha
from indexnet.networks.tiled import matting_protocol
from indexnet.networks.tiled.memory import forward_bytes, live_bytes
from indexnet.networks.tiled.tiling import MARGIN, needs_whole_image, plan_tiles, run_tiled, smallest_tile
from indexnet.resampling import create_resampling, list_resampling

SMALL = {"name": "mobilenetv2_released", "width": 0.25}
REACH = 288  # what encoder and decoder of the matting network see around a pixel, rounded up
EVERYWHERE = np.ones((32, 832), bool)
CASES = {
    "m2o": ("matting_unet", {"resampling": "indexnet"}),
    "hin": ("matting_unet", {"resampling": {"name": "indexnet", "family": "hin"}}),
    "max_unpool": ("matting_unet", {"resampling": "max_unpool"}),
    "holistic": ("matting_unet", {"resampling": "holistic_max_index"}),
    "carafe": ("matting_unet", {"resampling": "carafe"}),
    "no_context": ("matting_unet", {"context": "none"}),
    "stride_16": ("matting_unet", {"output_stride": 16}),
    "deep_matting": ("deep_matting", {"encoder": "vgg11_bn", "hidden": 16}),
    "deeplabv3plus": ("deeplabv3plus", {}),
    "refinenet": ("refinenet", {}),
}


def built(case: str) -> nn.Module:
    """A network with the statistics of its activations, so that they are of ordinary size."""
    name, options = CASES[case]
    torch.manual_seed(0)
    network = create_network(name, **{"encoder": SMALL, **options})
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(2, 4, 128, 128))
    return network.eval()


@pytest.fixture(scope="module")
def m2o() -> nn.Module:
    """A network that tests only look at; hooks are theirs to remove."""
    return built("m2o")


def strip(length: int = 832) -> torch.Tensor:
    """A long picture whose left is dark and right is bright, so that a mean over a part of it is another."""
    torch.manual_seed(1)
    return torch.randn(1, 4, 32, length) + torch.linspace(-1, 1, length)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_a_grid_covers_every_pixel_once(rows, columns, margin, more):
    size, margin = (rows * 32, columns * 32), margin * 32
    pixels = smallest_tile(size, 32, margin) + more
    count = np.zeros(size, int)
    for tile in plan_tiles(size, pixels, 32, margin):
        tile.core.of(count)[...] += 1
        assert np.prod(tile.window.size) <= pixels
        assert tile.window.top == max(0, tile.core.top - margin)
        assert tile.window.right == min(size[1], tile.core.right + margin)
        assert not any(edge % 32 for edge in (tile.core.top, tile.core.left, tile.window.bottom, tile.window.right))
    assert (count == 1).all()


def test_an_image_that_fits_is_one_tile():
    assert len(plan_tiles((320, 320), 320 * 320, 32, 64)) == 1


# by far the largest; their layers are tiled as those of the others
LONG = ("deep_matting", "refinenet")


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.long] * (case in LONG)) for case in CASES])
def test_tiles_are_the_whole_image(case):
    margin, length = (480, 1184) if case == "refinenet" else (REACH, 832)  # long chains of pooling see further
    network, x = built(case), strip(length)
    if case == "refinenet":
        network.pooling[-1].whole_image = True
    pixels, wanted = 32 * (length // 2 + margin), np.ones((32, length), bool)
    with torch.no_grad():
        whole = network(x)[0, 0].numpy()
    tiled = run_tiled(network, x, wanted, pixels, 32, margin)
    assert whole.std() > 1e-3
    assert np.abs(tiled - whole).max() < 1e-3 * whole.std()
    assert not any("forward" in vars(module) for module in network.modules())  # what was replaced is back


def test_the_default_margin_leaves_less_than_a_level(m2o):
    network, x = m2o, strip()
    with torch.no_grad():
        whole = network(x)[0, 0].numpy()
    tiled = run_tiled(network, x, EVERYWHERE, 32 * (416 + MARGIN), 32)
    assert 0 < np.abs(tiled - whole).max() < 1 / 255
    seen = run_tiled(network, x, EVERYWHERE, 32 * (416 + 32), 32, 32)
    assert np.abs(seen - whole).max() > 1 / 255  # a margin is needed


@pytest.mark.parametrize("case", ["m2o", "deeplabv3plus"])
def test_the_context_needs_the_whole_image(case):
    network, x = built(case), strip()
    with torch.no_grad():
        whole = network(x)[0, 0].numpy()
    network.context.whole_image = False
    tiled = run_tiled(network, x, EVERYWHERE, 32 * (416 + REACH), 32, REACH)
    assert np.abs(tiled - whole).max() > 1e-2 * whole.std()


def test_only_tiles_with_wanted_pixels_are_decoded(m2o):
    network, x = m2o, strip()
    wanted = np.zeros((32, 832), bool)
    wanted[5, 640:650] = True
    widths = []
    handle = network.head.register_forward_hook(lambda *args: widths.append(args[2].shape[3]))
    tiled = run_tiled(network, x, wanted, 32 * (416 + REACH), 32, REACH)
    handle.remove()
    assert widths == [832 - 640 + REACH]  # one tile of two, and of its core what is wanted
    with torch.no_grad():
        whole = network(x)[0, 0].numpy()
    np.testing.assert_allclose(tiled[wanted], whole[wanted], atol=1e-3 * whole.std())
    assert not tiled[:, :640].any()


def sample(height: int = 50, width: int = 900) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    trimap = np.zeros((height, width), np.uint8)
    trimap[:, 300:800] = 128
    trimap[:, 640:660] = 255
    image = np.clip(rng.normal(100, 40, (height, width, 3)) + np.linspace(0, 100, width)[:, None], 0, 255)
    return image.astype(np.uint8), trimap


def budget_of(network: nn.Module, pixels: int) -> int:
    return forward_bytes(network, pixels) + 24 * 64 * 928


def test_a_budget_cuts_the_image_and_changes_nothing_that_shows(m2o, monkeypatch):
    network = m2o
    image, trimap = sample()
    expected = infer_alpha(network, image, trimap)
    sizes = []
    forward_bytes(network, 1)  # the estimate looks at another size, once
    handle = network.encoder.units[0].register_forward_hook(lambda *args: sizes.append(tuple(args[2].shape[2:])))
    for pixels, cut in ((64 * 928, False), (64 * 640, True)):
        sizes.clear()
        monkeypatch.setattr(matting_protocol, "room", lambda *_, pixels=pixels: budget_of(network, pixels) + 1000)
        alpha = infer_alpha(network, image, trimap, memory=10**9)
        assert (len(sizes) > 1) == cut
        assert all(height * width <= pixels for height, width in sizes)
        assert np.abs(alpha - expected).max() <= (1 if cut else 0)
    handle.remove()


def test_reflected_images_are_cut_as_well(m2o, monkeypatch):
    network = m2o
    image, trimap = sample()
    expected = infer_alpha(network, image, trimap, alignment="reflect")
    tiled = []
    forward_bytes(network, 1)
    monkeypatch.setattr(matting_protocol, "room", lambda *_: budget_of(network, 64 * 640) + 1000)
    alpha = infer_alpha(network, image, trimap, memory=10**9, tiled=lambda: tiled.append(1), alignment="reflect")
    assert tiled == [1]
    assert np.abs(alpha - expected).max() <= 1


def test_an_impossible_budget_is_one_sentence(m2o, monkeypatch):
    network = m2o
    image, trimap = sample()
    monkeypatch.setattr(matting_protocol, "room", lambda *_: 10**6)
    with pytest.raises(UserError, match=r"^500 MB of memory are too little for this image of 900x50 ") as caught:
        infer_alpha(network, image, trimap, memory=500_000_000)
    assert re.search(
        r"give at least 0\.\d GB, of which 499 MB are what the program itself holds, or", str(caught.value)
    )
    with pytest.raises(UserError, match=r"^1\.5 GB of memory are too little"):
        infer_alpha(network, image, trimap, memory=1_500_000_000)
    # what the device has is not for a person to change: the smallest tiles are tried
    tried = []
    monkeypatch.setattr(
        matting_protocol, "run_tiled", lambda *args: tried.append(args[3]) or np.zeros((64, 928), np.float32)
    )
    assert infer_alpha(network, image, trimap, memory="auto").shape == (50, 900)
    assert tried == [smallest_tile((64, 928), 32, MARGIN)]


def test_a_device_without_memory_gets_smaller_tiles(m2o, monkeypatch):
    network = m2o
    image, trimap = sample()
    expected = infer_alpha(network, image, trimap)
    forward_bytes(network, 1)  # the estimate looks at another size, once
    tried = []

    def fail(module, args):
        height, width = args[0].shape[2:]
        tried.append(height * width)
        if height * width > 64 * 520:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    handle = network.register_forward_pre_hook(fail)
    assert np.abs(infer_alpha(network, image, trimap, memory="auto") - expected).max() < 1
    assert tried[0] == 64 * 928
    assert tried[-1] <= 64 * 520
    tried.clear()
    with pytest.raises(torch.cuda.OutOfMemoryError):  # nothing was said of a budget
        infer_alpha(network, image, trimap)
    assert len(tried) == 1
    handle.remove()
    broken = network.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        infer_alpha(network, image, trimap, memory="auto")
    broken.remove()


def test_live_bytes_counts_what_is_there_at_once():
    chain = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    pixels = 16 * 24
    # the input and two maps of eight channels; the last map finds the first of them gone
    assert live_bytes(chain, (4, 16, 24)) == 4 * pixels * (4 + 8 + 8)
    assert live_bytes(chain.double(), (4, 16, 24)) == 8 * pixels * (4 + 8 + 8)
    assert next(chain.parameters()).device.type == "cpu"


def test_the_estimate_grows_with_the_image_and_knows_the_network(m2o):
    with torch.device("meta"):
        small, large = m2o, create_network("matting_unet", resampling="indexnet").eval()
    assert forward_bytes(large, 10**6) > 2 * forward_bytes(small, 10**6)
    assert 1.8 < (forward_bytes(large, 4 * 10**6) - forward_bytes(large, 2 * 10**6)) / (
        forward_bytes(large, 2 * 10**6) - forward_bytes(large, 10**6)
    ) < 2.2  # fmt: skip


def test_encoders_that_pool_in_every_block_are_not_tiled():
    plain = create_network("matting_unet", encoder={"name": "mobilenetv2_035"})
    squeezing = create_network("matting_unet", encoder={"name": "test_efficientnet"})
    assert not needs_whole_image(plain)
    assert needs_whole_image(squeezing)
    image, trimap = np.zeros((96, 640, 3), np.uint8), np.full((96, 640), 128, np.uint8)
    with pytest.raises(UserError, match="looks at the whole image"):
        infer_alpha(squeezing, image, trimap, memory=1_000_000)


def test_operators_that_average_over_the_whole_map_are_not_tiled():
    """Their results for a tile are others than for the image: the others are compared in the tests above."""
    whole = {info.name for info in list_resampling() if needs_whole_image(create_resampling(info.name, [32, 32]))}
    assert whole == {"a2u", "freqfusion", "naf", "resfu"}
    assert needs_whole_image(create_resampling("nearest", [32], pooling="lip"))
    assert not needs_whole_image(create_resampling("a2u", [32], dynamics="static", activation="none", pooling="max"))


def test_an_image_finds_the_same_room_again_and_again(monkeypatch):
    """What the allocator keeps of freed memory must not count against the next image."""
    given = []
    monkeypatch.setattr(matting_protocol, "release_memory", lambda: given.append(1))
    network = create_network("matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25})
    image, trimap = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 128, np.uint8)
    infer_alpha(network, image, trimap, memory=10**12)
    assert not given  # far from any limit
    with pytest.raises(UserError, match="too little"):
        infer_alpha(network, image, trimap, memory=1000)
    assert given


def test_a_long_picture_says_which_tile_is_being_done():
    """Where there is no terminal: a line now and then, also within one picture."""
    said, tiles = io.StringIO(), len(plan_tiles((256, 64), 128 * 64, 32, 32))

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.tiles = 0

        def forward(self, x):
            self.tiles += 1
            while f"predicting: 0 of 1, tile {self.tiles} of {tiles}, " not in said.getvalue():
                time.sleep(0.001)
            return x * self.weight

    network = Slow()
    for _ in tracked([0], "predicting", 1, console=create_console(said), every=0.001):
        run_tiled(network, torch.zeros(1, 1, 256, 64), np.ones((256, 64), bool), 128 * 64, 32, 32)
    assert network.tiles == tiles > 1
