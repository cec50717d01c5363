from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from indexnet.data.io.trimaps import quantise, trimap_from_alpha
from indexnet.data.matting.photographs import generate_trimap


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
