"""Trimaps: made of masks, boxes and mattes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from commands_support import photograph
from indexnet.core.errors import UserError
from indexnet.data.io.masks import auto_band, check_boxes, mask_from_boxes, trimap_from_mask
from indexnet.data.io.trimaps import quantise, trimap_from_alpha
from indexnet.data.matting.photographs import generate_trimap


def disc(height, width, y, x, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_unknown_is_what_lies_near_a_pixel_of_the_other_side(seed, band):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 12)) < rng.choice([0.1, 0.5, 0.9])
    if not mask.any() or mask.all():
        mask[0, 0] ^= True
    trimap = trimap_from_mask(mask, band)
    places = np.argwhere(np.ones_like(mask)).reshape(9, 12, 2)
    for y in range(9):
        for x in range(12):
            others = places[mask != mask[y, x]]
            near = np.sqrt(((others - (y, x)) ** 2).sum(axis=1)).min() <= band
            assert trimap[y, x] == (128 if near else 255 * mask[y, x])


def test_the_frame_of_the_image_is_no_edge():
    mask = np.zeros((20, 30), bool)
    mask[:, :15] = True  # cut off on three sides
    trimap = trimap_from_mask(mask, 3)
    assert (trimap[:, :12] == 255).all()
    assert (trimap[:, 12:18] == 128).all()
    assert (trimap[:, 18:] == 0).all()


def test_the_automatic_band_grows_with_the_image_and_leaves_something_known():
    small, large = disc(200, 300, 100, 150, 60), disc(800, 1200, 400, 600, 240)
    assert auto_band(large) == pytest.approx(4 * auto_band(small), abs=2)
    assert auto_band(small) == round(0.04 * np.sqrt(small.sum()))
    shares = [(trimap_from_mask(mask) == 128).mean() for mask in (small, large)]
    assert shares[0] == pytest.approx(shares[1], rel=0.15)
    thin = np.zeros((100, 400), bool)
    thin[48:53] = True  # a band of 4 would swallow it
    assert {0, 128, 255} == set(np.unique(trimap_from_mask(thin)))
    assert 255 not in trimap_from_mask(thin, 4)  # who gives a width gets it
    assert {0, 128, 255} == set(np.unique(trimap_from_mask(~thin)))


def test_masks_of_which_no_trimap_can_be_made():
    with pytest.raises(UserError, match="marks nothing"):
        trimap_from_mask(np.zeros((4, 5), bool))
    with pytest.raises(UserError, match="marks the whole image"):
        trimap_from_mask(np.ones((4, 5), bool))
    with pytest.raises(UserError, match="at least 1 pixel"):
        trimap_from_mask(disc(9, 9, 4, 4, 2), 0)


def scene(height=150, width=200):
    """A reddish disc and a reddish square before blue-green; with texture."""
    truth = disc(height, width, 70, 60, 30)
    truth[60:110, 130:170] = True
    rng = np.random.default_rng(0)
    image = photograph(height, width) // 6 + rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
    image[..., 1:] += np.uint8(90)
    image[truth] += np.array([150, 0, 0], np.uint8)
    image[truth, 1:] -= np.uint8(60)
    return image, truth


def overlap(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def test_boxes_find_what_they_enclose():
    image, truth = scene()
    first = mask_from_boxes(image, [(25, 35, 95, 105)])
    assert overlap(first, disc(150, 200, 70, 60, 30)) > 0.95
    remarks = []
    both = mask_from_boxes(image, [(25, 35, 95, 105), (175, 115, 125, 55)], remarks)  # corners in any order
    assert remarks == []
    assert overlap(both, truth) > 0.95
    assert np.array_equal(both, mask_from_boxes(image, [(25, 35, 95, 105), (125, 55, 175, 115)]))  # no chance in it
    assert not both[:30].any()


def test_boxes_on_a_large_image_are_cut_small_and_enlarged():
    image, truth = scene()
    large = image.repeat(8, axis=0).repeat(8, axis=1)
    found = mask_from_boxes(large, [tuple(8 * v for v in (25, 35, 95, 105)), tuple(8 * v for v in (125, 55, 175, 115))])
    assert found.shape == (1200, 1600)
    assert overlap(found, truth.repeat(8, axis=0).repeat(8, axis=1)) > 0.93


def test_a_box_in_which_nothing_is_found_counts_as_a_whole():
    flat = np.full((60, 80, 3), 90, np.uint8)
    remarks = []
    found = mask_from_boxes(flat, [(20, 10, 60, 50)], remarks)
    assert [text.partition(",1")[0] for text in remarks] == ["nothing was found in the box 20"]
    assert found[30, 40]
    assert not found[:10].any()
    tiny = mask_from_boxes(flat, [(20, 10, 22, 12)])  # too few pixels for any statistics
    assert tiny.sum() == 4


def test_boxes_outside_or_all_over_are_refused():
    image = photograph(20, 30)
    assert check_boxes([(-5, 2.4, 99, 7.6)], 20, 30) == [(0, 2, 30, 8)]
    with pytest.raises(UserError, match=r"box 40,2,50,9 has no pixel of the image inside, which is 30x20"):
        mask_from_boxes(image, [(40, 2, 50, 9)])
    with pytest.raises(UserError, match="cover the whole image"):
        mask_from_boxes(image, [(0, 0, 30, 20)])
    with pytest.raises(UserError, match="no box"):
        mask_from_boxes(image, [])


# --- trimaps of mattes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1, 5, 19])
def test_trimap_is_the_released_one(shared, distance):
    z = np.load(shared / "fixtures/official/trimap.npz")
    assert (trimap_from_alpha(z["alpha"], distance) == z[f"trimap_d{distance}"]).all()


@pytest.mark.parametrize("shape", [(33, 57), (40, 8), (1, 9)])
@pytest.mark.parametrize("distance", [0, 1, 2, 7, 19, 64, 65, 90])
def test_trimap_against_an_exact_distance_transform(shape, distance):
    g = np.random.default_rng(distance)
    alpha = (g.random(shape) > 0.6).astype(np.uint8) * 255
    alpha[tuple(g.integers(0, s, 3) for s in shape)] = 77
    unknown = (alpha > 0) & (alpha < 255)
    expected = np.where(distance_transform_edt(~unknown) <= distance, 128, alpha)
    assert (trimap_from_alpha(alpha, distance) == expected).all()


def test_a_hard_matte_has_no_unknown_region():
    alpha = np.zeros((6, 6), np.uint8)
    alpha[2:4] = 255
    assert (trimap_from_alpha(alpha, 19) == alpha).all()


def test_floating_point_mattes_are_rounded_to_eight_bits_first():
    alpha = np.array([[0.0, 1e-4, 0.5, 0.9999, 1.0, 1.7, -0.2]])
    assert quantise(alpha).tolist() == [[0, 0, 128, 255, 255, 255, 0]]
    assert trimap_from_alpha(alpha, 0).tolist() == [[0, 0, 128, 255, 255, 255, 0]]


@pytest.mark.parametrize("rule", ["dilated", "eroded", "fixed"])
def test_trimaps_are_made_from_the_name_and_never_wrong(rule):
    alpha = cv2.GaussianBlur((np.hypot(*np.mgrid[-60:60, -70:70]) < 40).astype(np.uint8) * 255, (0, 0), 4)
    trimaps = [generate_trimap(rule, f"t_{k}", alpha) for k in range(12)]
    for trimap in trimaps:
        assert set(np.unique(trimap)) == {0, 128, 255}
        assert (trimap[(alpha > 0) & (alpha < 255)] == 128).all()
        assert (alpha[trimap == 255] == 255).all()
        assert (alpha[trimap == 0] == 0).all()
    assert np.array_equal(trimaps[3], generate_trimap(rule, "t_3", alpha))
    different = len({trimap.tobytes() for trimap in trimaps})
    assert different == 1 if rule == "fixed" else different > 5
    if rule == "dilated":
        assert any(np.array_equal(trimaps[0], trimap_from_alpha(alpha, d)) for d in range(1, 20))
