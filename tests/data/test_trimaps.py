from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from indexnet.data.io.trimaps import quantise, trimap_from_alpha


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
