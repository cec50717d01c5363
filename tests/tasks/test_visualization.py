"""indexnet.tasks.visualization: what the colours mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexnet.tasks.visualization import (
    colour,
    depth_error,
    depth_map,
    depth_scale,
    error_map,
    feature_picture,
    index_map_picture,
    label_entries,
    label_legend,
    label_overlay,
    to_picture,
)


def luminance(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float) @ np.array([0.2126, 0.7152, 0.0722])


def test_to_picture_rounds_and_clips():
    grey = to_picture(torch.tensor([[[-1.0, 0.0, 0.5, 1.0, 2.0, float("nan")]]]))
    assert grey.dtype == np.uint8
    assert grey.shape == (1, 6, 3)
    assert (grey == np.array([0, 0, 128, 255, 255, 0])[:, None]).all()


def test_to_picture_keeps_channel_order_and_takes_numpy():
    image = np.zeros((3, 2, 5), dtype=np.float32)
    image[0] = 1.0
    image[2, 1, 4] = 1.0
    pixels = to_picture(image)
    assert pixels.shape == (2, 5, 3)
    assert pixels.flags.c_contiguous
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[1, 4].tolist() == [255, 0, 255]
    assert to_picture(image[0]).shape == (2, 5, 3)


def test_to_picture_needs_no_detach():
    parameter = torch.zeros(1, 2, 2, requires_grad=True)
    assert to_picture(parameter).max() == 0


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4, 4), (1, 3, 4, 4), (4,)])
def test_to_picture_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="image must"):
        to_picture(torch.zeros(shape))


@pytest.mark.parametrize("colormap", ["inferno", "viridis"])
def test_colour_is_brighter_for_more(colormap):
    pixels = colour(np.linspace(0, 1, 256), colormap)
    assert pixels.shape == (256, 3)
    assert (np.diff(luminance(pixels)) >= -0.5).all()
    assert luminance(pixels)[-1] - luminance(pixels)[0] > 150


def test_error_map_is_black_without_error_and_saturates_at_scale():
    target = torch.rand(3, 4, 4)
    assert luminance(error_map(target, target)).max() < 1
    saturated = error_map(torch.full((1, 1, 2), 0.5), torch.tensor([[[0.0, 0.4]]]), scale=0.1)
    assert saturated.shape == (1, 2, 3)
    assert (saturated[0, 0] == saturated[0, 1]).all()
    assert luminance(saturated).min() > 240


def test_error_map_averages_channels_and_ignores_sign():
    zero = np.zeros((3, 1, 1))
    one_off = zero.copy()
    one_off[1] = 0.375
    expected = error_map(np.full((1, 1, 1), -0.125), np.zeros((1, 1, 1)), 0.25)
    assert (error_map(one_off, zero, 0.25) == expected).all()
    assert (expected == colour(np.array(0.5))).all()


def test_error_map_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="one shape"):
        error_map(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="positive"):
        error_map(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), 0.0)


def test_index_map_shows_every_cell_enlarged_by_a_whole_factor():
    index = torch.zeros(2, 4, 6)
    index[:, 0, 0] = 1.0
    pixels = index_map_picture(index, size=32)
    assert pixels.shape == (20, 30, 3)  # factor 5
    light = luminance(pixels)
    assert (light[:5, :5] > 200).all()
    assert (light[5:] < 60).all()


def test_index_map_is_the_stretched_mean_over_channels():
    index = torch.stack([torch.zeros(2, 2), torch.eye(2)])
    assert (index_map_picture(index, size=2) == colour(np.eye(2), "viridis")).all()


def test_index_map_constant_and_larger_than_size():
    assert index_map_picture(np.full((1, 4, 4), 0.25), size=2).shape == (4, 4, 3)
    assert len(np.unique(index_map_picture(np.full((1, 4, 4), 0.25)).reshape(-1, 3), axis=0)) == 1


def palette(classes):
    return np.array([list(bytes.fromhex(colour[1:])) for _, colour in label_entries(["x"] * classes, range(classes))])


def distances(colours):
    return np.linalg.norm(colours[:, None].astype(float) - colours[None], axis=-1)


def test_features_are_the_mean_over_channels_and_large_ones_are_shrunk():
    features = np.zeros((2, 4, 6), np.float32)
    features[0, 1, 2], features[1, 3, 5] = 4, 2
    assert np.array_equal(feature_picture(features), colour(features.mean(0) / 2, "viridis"))
    small = feature_picture(features.repeat(3, 1).repeat(3, 2), size=6)
    assert np.array_equal(small, feature_picture(features))
    assert feature_picture(np.ones((3, 1, 9), np.float32), size=4).shape == (1, 4, 3)


@pytest.mark.parametrize("classes", [11, 37, 150])
def test_every_class_has_a_colour_of_its_own(classes):
    colours = palette(classes)
    between = distances(colours)[~np.eye(classes, dtype=bool)]
    assert between.min() > 20  # of 441 between black and white
    assert distances(np.concatenate([colours, np.zeros((1, 3))]))[-1, :-1].min() > 60  # not taken for ignored pixels
    assert (colours == palette(200)[:classes]).all()  # whatever the number of classes


def test_overlay_keeps_the_hue_and_the_brightness_of_the_image():
    image = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(4, 6, dtype=torch.int64)
    labels[:, 3:] = 1
    labels[0, 0] = 255
    pixels = label_overlay(image, labels, classes=2)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    grey = to_picture(image).astype(float) @ np.array([0.299, 0.587, 0.114])
    expected = 0.35 * grey[..., None] + 0.65 * palette(2)[labels % 255]
    expected[0, 0] = 0.4 * grey[0, 0]  # ignored: dark and grey
    assert pixels == pytest.approx(expected, abs=0.51)


def test_overlay_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="one size"):
        label_overlay(torch.zeros(3, 4, 4), torch.zeros(4, 5), classes=2)
    with pytest.raises(ValueError, match=r"0\.\.1.*2"):
        label_overlay(torch.zeros(3, 1, 1), torch.full((1, 1), 2), classes=2)


def test_legend_shows_the_classes_that_occur_in_their_colours():
    names = [f"class {number}" for number in range(37)]
    assert label_entries(names, [4, 1, 4]) == [("class 1", "#ee6677"), ("class 4", "#66ccee")]
    assert [text for text, _ in label_entries(names, [255, 0])] == ["class 0", "not labelled"]
    picture = label_legend(names, [30, 2])
    assert picture.dtype == np.uint8
    found = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    for number, there in ((2, True), (30, True), (3, False)):
        assert (tuple(palette(37)[number].tolist()) in found) == there
    assert label_legend(names, range(37)).shape[0] < 700  # in columns
    assert label_legend(names, []).shape[2] == 3
    assert label_legend(["a" * 500], [0]).shape[1] < 800  # a long name is cut
    long = ["a" * 500 + end for end in "xy"]
    assert (label_legend(long[:1], [0]) != label_legend(long[1:], [0])).any()  # in its middle: the ends are told apart
    with pytest.raises(ValueError, match=r"0\.\.36"):
        label_legend(names, [37])


def test_depth_map_shares_its_scale_and_leaves_invalid_pixels_black():
    depth = torch.tensor([[[1.0, 2.0, 3.0, 0.5, 9.0, 0.0, -1.0, float("nan"), float("inf")]]])
    pixels = depth_map(depth, 1.0, 3.0)
    assert pixels.shape == (1, 9, 3)
    assert (pixels[0, :3] == colour(np.array([0.0, 0.5, 1.0]), "viridis")).all()
    assert (pixels[0, 3] == pixels[0, 0]).all()
    assert (pixels[0, 4] == pixels[0, 2]).all()
    assert (pixels[0, 5:] == 0).all()
    assert (depth_map(depth[0], 1.0, 3.0) == pixels).all()
    assert depth_map(np.full((2, 2), 2.0), 2.0, 2.0).shape == (2, 2, 3)
    for low, high in ((3.0, 1.0), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="range of depths"):
            depth_map(depth, low, high)
    with pytest.raises(ValueError, match="one channel"):
        depth_map(torch.ones(3, 2, 2), 0.0, 1.0)


def test_depth_error_is_grey_where_nothing_was_measured():
    target = np.array([[1.0, 2.0, 0.0, np.nan]])
    pixels = depth_error(np.array([[1.0, 2.5, 1.0, 1.0]]), target, scale=1.0)
    assert (pixels[0, :2] == colour(np.array([0.0, 0.5]))).all()
    assert (pixels[0, 2:] == 96).all()
    with pytest.raises(ValueError, match="one shape"):
        depth_error(np.ones((1, 2)), target)
    with pytest.raises(ValueError, match="positive"):
        depth_error(target, target, 0.0)


@pytest.mark.parametrize(("low", "high"), [(0.9, 7.3), (2.51, 2.83), (1.0, 1.0), (0.6, 79.0), (0.0, 1.0)])
def test_depth_scale_is_a_bar_of_the_map_s_colours(low, high):
    picture = depth_scale(low, high)
    assert picture.shape[1:] == (520, 3)
    bar = picture[20, 48:-48]
    assert (bar[[0, -1]] == colour(np.array([0.0, 1.0]), "viridis")).all()
    assert (np.diff(luminance(bar)) >= -0.5).all()
