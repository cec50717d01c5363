"""Pure functions and what operators promise whatever the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.resampling import create_resampling
from indexnet.resampling.assembly import reassemble
from indexnet.resampling.functional import (
    NORMALIZATIONS,
    crop_to,
    holistic_max_pool,
    holistic_max_unpool,
    indexed_pool,
    indexed_pool_with_skip,
    indexed_upsample,
    normalise_indices,
    pack_cells,
    pad_to_even,
    unpack_cells,
)
from reference import literal_reassembly

settings.register_profile("resampling", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("resampling")


def maps(max_side: int = 7, even: bool = False):
    """Float64 maps (N, C, H, W) with sides of at least 2."""
    side = st.integers(1, max_side // 2).map(lambda k: 2 * k) if even else st.integers(2, max_side)
    shape = st.tuples(st.integers(1, 2), st.integers(1, 3), side, side)
    values = st.floats(-10, 10, width=32)
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=values)).map(torch.from_numpy)


def packed(low: float = -10, high: float = 10):
    shape = st.tuples(st.integers(1, 2), st.integers(1, 3), st.just(4), st.integers(1, 3), st.integers(1, 3))
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(low, high))).map(torch.from_numpy)


@given(maps(even=True))
def test_packing_is_space_to_depth(x):
    n, c, height, width = x.shape
    cells = pack_cells(x)
    assert torch.equal(cells.reshape(n, 4 * c, height // 2, width // 2), F.pixel_unshuffle(x, 2))
    for channels_last in (False, True):
        assert torch.equal(unpack_cells(cells, channels_last), x)


@given(maps())
def test_padding_repeats_and_cropping_undoes_it(x):
    even = pad_to_even(x)
    assert even.shape[2] % 2 == 0
    assert even.shape[3] % 2 == 0
    assert torch.equal(crop_to(even, x.shape[-2:]), x)
    assert torch.equal(even[:, :, -1, : x.shape[3]], x[:, :, -1])
    assert torch.equal(even[:, :, : x.shape[2], -1], x[:, :, :, -1])


@pytest.mark.parametrize("size", [(4, 8), (8, 6), (3, 7), (9, 8), (8, 9)])
def test_more_than_what_an_odd_size_explains_is_not_cut(size):
    with pytest.raises(UserError, match=f"a map of 8x8 cannot be cut to {size[0]}x{size[1]}: up doubles a map"):
        crop_to(torch.zeros(1, 2, 8, 8), size)


@given(packed(), st.sampled_from(NORMALIZATIONS))
def test_index_maps_lie_in_range_and_softmax_sums_to_one(logits, normalization):
    encoder, decoder = normalise_indices(logits, normalization)
    for m in (encoder, decoder):
        assert m.shape == logits.shape
        assert m.min() > 0
        assert m.max() < 1
    if normalization.split("/")[0].endswith("softmax"):
        torch.testing.assert_close(encoder.sum(2), torch.ones_like(encoder.sum(2)))
    if normalization == "softmax/softmax":
        torch.testing.assert_close(decoder.sum(2), torch.ones_like(decoder.sum(2)))


@given(maps(even=True), st.floats(-5, 5))
def test_softmax_pooling_keeps_constants_and_bounds(x, constant):
    logits = torch.sin(3 * pack_cells(x))
    encoder, _ = normalise_indices(logits)
    pooled = indexed_pool(x, encoder)
    assert (pooled <= F.max_pool2d(x, 2) + 1e-9).all()
    assert (pooled >= -F.max_pool2d(-x, 2) - 1e-9).all()
    kept = indexed_pool(torch.full_like(x, constant), encoder)
    torch.testing.assert_close(kept, torch.full_like(kept, constant))


@given(maps(even=True))
def test_one_product_gives_the_pooled_and_the_weighted_map(x):
    encoder, _ = normalise_indices(torch.cos(pack_cells(x)))
    pooled, weighted = indexed_pool_with_skip(x, encoder)
    torch.testing.assert_close(weighted, x * unpack_cells(encoder))
    torch.testing.assert_close(pooled, 4 * F.avg_pool2d(weighted, 2))
    assert torch.equal(pooled, indexed_pool(x, encoder))


@given(maps(max_side=3), st.booleans())
def test_indexed_upsampling_is_weighted_nearest_neighbour(x, holistic):
    n, c, h, w = x.shape
    logits = torch.linspace(-3, 3, n * c * 4 * h * w, dtype=x.dtype).reshape(n, c, 4, h, w)
    decoder = torch.sigmoid(logits[:, :1] if holistic else logits)
    nearest = F.interpolate(x, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(indexed_upsample(x, decoder), unpack_cells(decoder) * nearest)


@given(maps())
def test_unpooling_puts_each_maximum_back(x):
    """As max_unpool(max_pool(x)): the maxima at their places, zeros elsewhere."""
    stage = create_resampling("max_unpool", [x.shape[1]]).stages[0]
    features, _, guide, size = stage.down(x)
    up = stage.up(features, guide, size)
    assert torch.equal(features, F.max_pool2d(pad_to_even(x), 2))
    kept = up != 0
    assert torch.equal(up[kept], x[kept])
    assert torch.equal(F.max_pool2d(pad_to_even(up.abs()), 2), features.abs())


@given(maps())
def test_holistic_max_index_reads_and_writes_one_position_for_all_channels(x):
    features, indices = holistic_max_pool(x)
    n, _c, height, width = x.shape
    up = holistic_max_unpool(features, indices, (height, width))
    squeezed = x.amax(1, keepdim=True)
    # The shared position holds the largest maximum over channels ...
    assert torch.equal(squeezed.flatten(2).gather(2, indices.flatten(2)).reshape(indices.shape), features.amax(1, True))
    assert torch.equal(features.amax(1, keepdim=True), F.max_pool2d(pad_to_even(squeezed), 2))
    # ... and is the only one of its cell that comes back.
    mask = torch.zeros(n, 1, height * width, dtype=torch.bool).scatter(2, indices.flatten(2), True)
    assert torch.equal(up, x * mask.reshape(n, 1, height, width))


@given(maps(max_side=5))
def test_holistic_equals_plain_unpooling_for_one_channel(x):
    x = x[:, :1]
    plain = create_resampling("max_unpool", [1]).stages[0]
    holistic = create_resampling("holistic_max_index", [1]).stages[0]
    a, b = plain.down(x), holistic.down(x)
    assert torch.equal(a.features, b.features)
    assert torch.equal(a.guide, b.guide)
    assert torch.equal(plain.up(a.features, a.guide, a.size), holistic.up(b.features, b.guide, b.size))


@given(maps(even=True))
def test_pixel_shuffle_can_be_the_identity(x):
    """With weights that copy one position, up after down gives that position's values back."""
    channels = x.shape[1]
    stage = create_resampling("pixel_shuffle", [channels]).stages[0].double()
    eye = torch.eye(channels, dtype=torch.float64)
    with torch.no_grad():
        for p in stage.parameters():
            p.zero_()
        stage.reduce.weight[:, 0::4, 0, 0] = eye
        stage.expand.weight[0::4, :, 0, 0] = eye
        features, _, guide, size = stage.down(x)
        up = stage.up(features, guide, size)
    assert torch.equal(up[:, :, ::2, ::2], x[:, :, ::2, ::2])
    assert up[:, :, 1::2].abs().sum() == 0


@pytest.mark.parametrize("name", ["nearest", "bilinear", "indexnet", "carafe"])
@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("size", [(12, 14), (11, 13)], ids=str)
def test_constant_maps_stay_constant(name, pooling, size):
    x = torch.full((1, 2, *size), 3.0)
    options = {} if name == "indexnet" else {"pooling": pooling}
    stage = create_resampling(name, [2], **options).stages[0]
    features, skip, guide, up_size = stage.down(x)
    torch.testing.assert_close(features, torch.full_like(features, 3.0))
    if name == "indexnet":
        return
    up = stage.up(features, guide, up_size)
    inner = up[..., 4:-4, 4:-4] if name == "carafe" else up  # its zero padding dims the border
    torch.testing.assert_close(inner, torch.full_like(inner, 3.0))
    assert torch.equal(skip, x)


def test_average_pooling_repeats_the_last_row():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    features = create_resampling("nearest", [1], pooling="avg").stages[0].down(x).features
    assert features.tolist() == [[[[2.0, 3.5], [6.5, 8.0]]]]


@pytest.mark.parametrize(("k", "groups", "scale"), [(5, 1, 2), (3, 2, 2), (1, 1, 2), (3, 1, 3)])
def test_reassembly_equals_one_tap_at_a_time(k, groups, scale):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    kernels = torch.randn(2, groups * k * k, scale * 3, scale * 4, dtype=torch.float64)
    expected = literal_reassembly(x, kernels, k, groups, scale)
    torch.testing.assert_close(reassemble(x, kernels, k, groups, scale), expected, rtol=1e-12, atol=1e-12)


def test_reassembly_with_the_centre_tap_is_nearest_neighbour():
    x = torch.randn(1, 3, 4, 5)
    kernels = torch.zeros(1, 9, 8, 10)
    kernels[:, 4] = 1
    assert torch.equal(reassemble(x, kernels, 3), F.interpolate(x, scale_factor=2.0, mode="nearest"))


def test_reassembly_equals_the_reference_values(shared):
    data = np.load(shared / "fixtures" / "upsamplers" / "carafe.npz")
    x = torch.from_numpy(data["x"]).double()
    names = [name for name in data.files if name.startswith("mask_logits_")]
    assert len(names) == 5
    for name in names:
        tag = name.removeprefix("mask_logits_")
        k, groups, scale = (int(part[1:]) for part in tag.split("_"))
        logits = torch.from_numpy(data[name]).double()
        n, _, height, width = logits.shape
        kernels = torch.softmax(logits.reshape(n, groups, k * k, height, width), 2).reshape(logits.shape)
        expected = torch.from_numpy(data[f"out_{tag}"])
        actual = reassemble(x, kernels, k, groups, scale)
        torch.testing.assert_close(actual, expected.double(), rtol=1e-10, atol=1e-10)
        single = reassemble(x.float(), kernels.float(), k, groups, scale)
        torch.testing.assert_close(single, expected.float(), rtol=2e-5, atol=2e-5)


def test_carafe_stage_equals_the_reference_values(shared):
    data = np.load(shared / "fixtures" / "upsamplers" / "carafe.npz")
    stage = create_resampling("carafe", [12], compressed=8).stages[0].double()
    tensor = {key: torch.from_numpy(data[key]).double() for key in data.files}
    stage.load_state_dict(
        {
            "compress.weight": tensor["pack_comp_w"].reshape(8, 12, 1, 1),
            "compress.bias": tensor["pack_comp_b"],
            "encode.weight": tensor["pack_enc_w"],
            "encode.bias": tensor["pack_enc_b"],
        }
    )
    x = tensor["pack_x"]
    size = (2 * x.shape[2], 2 * x.shape[3])
    kernels = stage.kernels(x)
    torch.testing.assert_close(kernels, tensor["pack_kernel"].reshape(kernels.shape), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(stage.up(x, None, size), tensor["pack_out"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(stage.float().up(x.float(), None, size), tensor["pack_out"].float(), rtol=0, atol=5e-5)


def test_carafe_starts_as_a_blur():
    stage = create_resampling("carafe", [3]).stages[0]
    kernels = stage.kernels(torch.randn(1, 3, 6, 6))
    torch.testing.assert_close(kernels, torch.full_like(kernels, 1 / 25), rtol=0.05, atol=0)
    assert stage.encode.weight.std().item() == pytest.approx(1e-3, rel=0.1)
    assert stage.encode.bias.abs().sum() == 0
    assert stage.compress.bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("max_unpool", {}, lambda c, d: 0),
        ("holistic_max_index", {}, lambda c, d: 0),
        ("nearest", {}, lambda c, d: 0),
        ("bilinear", {"pooling": "conv"}, lambda c, d: 9 * c**2 + c),
        ("deconv", {}, lambda c, d: 9 * c**2 + c + 16 * d**2 + d),
        ("pixel_shuffle", {}, lambda c, d: 4 * c**2 + c + 4 * d**2 + 4 * d),
        ("carafe", {}, lambda c, d: 64 * d + 57_764),
        ("carafe", {"pooling": "conv"}, lambda c, d: 64 * d + 57_764 + 9 * c**2 + c),
    ],
)
def test_parameter_counts_of_the_facts(name, options, formula):
    c, d = 6, 6 if name == "max_unpool" else 5
    resampling = create_resampling(name, [c], [d], **options)
    assert sum(p.numel() for p in resampling.parameters()) == formula(c, d)


def test_deconvolution_counts():
    """The papers' counter multiplies weights by output positions, four times what a transposed convolution costs."""
    stage = create_resampling("deconv", [2], [3]).stages[0]
    down, up = 9 * 4 * 12, 16 * 9 * 12
    assert stage.paper_macs(8, 6) == down + 4 * up
    assert stage.true_macs(8, 6) == down + up


def test_holistic_takes_the_first_of_equals():
    x = torch.zeros(1, 2, 2, 2)
    x[0, 1] = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    _, indices = holistic_max_pool(x)
    assert indices.item() == 1
