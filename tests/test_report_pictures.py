"""indexnet.data.pictures: what the colours mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexnet.data.pictures import colour, error_map, index_map_picture, label_map, to_picture


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


@pytest.mark.parametrize("table", ["heat", "cool"])
def test_colour_is_brighter_for_more(table):
    pixels = colour(np.linspace(0, 1, 256), table)
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


def test_index_map_mean_channel_and_range():
    index = torch.stack([torch.zeros(2, 2), torch.eye(2)])
    picture = index_map_picture(index, size=2)
    assert (picture == index_map_picture(index, channel=1, size=2)).all()  # stretched: 0.5 is the brightest of the mean
    fixed = index_map_picture(index, value_range=(0.0, 1.0), size=2)
    assert (fixed[0, 0] == colour(np.array(0.5), "cool")).all()
    with pytest.raises(ValueError, match=r"0\.\.1"):
        index_map_picture(index, channel=2)


def test_index_map_constant_and_larger_than_size():
    assert index_map_picture(np.full((1, 4, 4), 0.25), size=2).shape == (4, 4, 3)
    assert len(np.unique(index_map_picture(np.full((1, 4, 4), 0.25)).reshape(-1, 3), axis=0)) == 1


def test_label_map_tells_classes_apart_and_ignores():
    labels = np.arange(30).reshape(5, 6)
    labels[0, 0] = 255
    pixels = label_map(torch.from_numpy(labels), classes=30)
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 30
    with pytest.raises(ValueError, match=r"0\.\.4.*5"):
        label_map(np.array([[0, 5]]), classes=5)
    with pytest.raises(ValueError, match="255"):
        label_map(np.array([[255]]), classes=5, ignore=None)
