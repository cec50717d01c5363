"""Matting inference without reference values: what it leaves alone, restores and refuses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.networks import create_network, infer_alpha, prepare_input, to_uint8
from indexnet.networks.tiled.matting_protocol import aligned_input, side_multiple


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_network("matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25}).eval()


def sample(height: int = 41, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    trimap = np.zeros((height, width), np.uint8)
    trimap[10:30] = 128
    trimap[30:] = 255
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), trimap


def test_known_pixels_are_the_trimaps(network):
    image, trimap = sample()
    alpha = infer_alpha(network, image, trimap)
    assert alpha.shape == trimap.shape
    assert alpha.dtype == np.float32
    known = trimap != 128
    assert np.array_equal(alpha[known], trimap[known])
    assert 0 <= alpha.min() <= alpha.max() <= 255
    assert np.unique(alpha[~known]).size > 10


def test_a_trimap_without_unknown_pixels_is_the_answer(network):
    image, trimap = sample()
    trimap[trimap == 128] = 255
    assert np.array_equal(infer_alpha(network, image, trimap), trimap)


def test_the_mode_is_restored_layer_by_layer(network):
    image, trimap = sample()
    expected = infer_alpha(network, image, trimap)
    network.train()
    network.head.eval()
    try:
        assert np.array_equal(infer_alpha(network, image, trimap), expected)
        assert network.training
        assert network.decoder.training
        assert not network.head.training
    finally:
        network.eval()


def test_double_precision_networks_run():
    torch.manual_seed(0)
    network = create_network("matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25}).double()
    assert infer_alpha(network, *sample(), device="cpu").dtype == np.float32


def test_preparation_is_the_same_from_tensors_and_from_files():
    image, trimap = sample(64, 32)
    expected = aligned_input(image, trimap)
    rgb = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255.0).float()
    x = prepare_input(rgb, torch.from_numpy(trimap[None, None] / 255.0).float())
    assert x.shape == (1, 4, 64, 32)
    np.testing.assert_allclose(x[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(np.unique(expected[3]), [0, 128 / 255, 1], atol=1e-6)


@pytest.mark.parametrize(("size", "aligned"), [((41, 50), (64, 64)), ((64, 33), (64, 64)), ((1, 96), (32, 96))])
def test_sizes_round_up(size, aligned):
    image, trimap = np.zeros((*size, 3), np.uint8), np.full(size, 128, np.uint8)
    assert aligned_input(image, trimap).shape == (4, *aligned)


def test_quantisation():
    alpha = np.array([-1.0, 0.0, 0.6, 254.6, 255.0, 300.0], np.float32)
    assert to_uint8(alpha).tolist() == [0, 0, 0, 254, 255, 255]
    assert to_uint8(alpha, "nearest").tolist() == [0, 0, 1, 255, 255, 255]
    with pytest.raises(UserError, match="'truncate' or 'nearest'"):
        to_uint8(alpha, "up")


def test_mistakes_are_named(network):
    image, trimap = sample()
    cases = [
        (image[:, :40], trimap, "the image is 40x41 and its trimap 50x41 pixels"),
        (image.astype(np.float32), trimap, r"image must be uint8 of shape \(H, W, 3\), got float32"),
        (image, image, r"trimap must be uint8 of shape \(H, W\)"),
    ]
    for picture, mask, message in cases:
        with pytest.raises(UserError, match=message):
            infer_alpha(network, picture, mask)
    with pytest.raises(UserError, match="4 input channels"):
        infer_alpha(create_network("autoencoder", widths=[4]), image, trimap)


@pytest.mark.parametrize(("size", "padded"), [((41, 50), (64, 64)), ((64, 96), (64, 96)), ((1, 70), (32, 96))])
def test_reflected_sides_are_padded_and_cut_off(network, size, padded):
    rng = np.random.default_rng(1)
    image, trimap = rng.integers(0, 256, (*size, 3), dtype=np.uint8), np.full(size, 128, np.uint8)
    borders = (0, padded[0] - size[0], 0, padded[1] - size[1], cv2.BORDER_REFLECT_101)
    larger, known = cv2.copyMakeBorder(image, *borders), cv2.copyMakeBorder(trimap, *borders)
    x = torch.from_numpy(aligned_input(image, trimap, 32, alignment="reflect")[None])
    assert torch.equal(x, torch.from_numpy(aligned_input(larger, known)[None]))
    alpha = infer_alpha(network, image, trimap, alignment="reflect")
    with torch.inference_mode():
        expected = network(x)[0, 0, : size[0], : size[1]].clamp(0, 1).numpy() * 255
    np.testing.assert_allclose(alpha, expected, atol=1e-4)


def test_reflection_takes_the_multiple_of_the_network(network):
    sixteen = create_network(
        "matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25}, output_stride=16
    ).eval()
    seen = []
    sixteen.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    image, trimap = sample()
    for alignment in ("resize", "reflect"):
        infer_alpha(sixteen, image, trimap, alignment=alignment)
    assert seen == [(64, 64), (48, 64)]
    assert side_multiple(network, "reflect") == side_multiple(network) == 32
