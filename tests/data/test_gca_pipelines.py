"""The training pipelines gca and a2u against the published steps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage, stats

from indexnet.benchmarks.literal_data import whole_gca
from indexnet.data.io.trimaps import ErodedTrimap, eroded_trimap
from indexnet.data.matting.compositing import cover
from indexnet.data.matting.pipelines.base import Scene, create_pipeline
from indexnet.data.matting.pipelines.gca import Warp, change_colours, crop_corner, draw_warp, over
from pipeline_support import SIZE, disc, scene_of


def test_gca_warps_as_published(shared):
    known = np.load(shared / "fixtures/upsamplers/gca_data.npz")
    rows = zip(known["affine_params_cx_cy_angle_tx_ty_sx_sy_shear_fx_fy"], known["affine_inverse_M"], strict=True)
    for (cx, cy, angle, _, _, sx, sy, shear, fx, fy), matrix in rows:
        warp = Warp(angle, shear, (sx, sy), (fx, fy))
        np.testing.assert_allclose(warp.inverse((round(2 * cy - 1), round(2 * cx - 1))).ravel(), matrix, atol=1e-9)


def test_gca_trimaps_and_colours_as_published(shared):
    known = np.load(shared / "fixtures/upsamplers/gca_data.npz")
    for seed in (1, 2, 3):
        widths = [int(width) for width in known[f"trimap_seed{seed}_widths_fg_bg"]]
        assert np.array_equal(eroded_trimap(known["alpha"], *widths), known[f"trimap_seed{seed}"])
    for seed in (1, 2):
        np.random.seed(seed)  # the published code's source of randomness
        drawn = np.random.randint(-40, 40), np.random.rand(), np.random.rand()
        changed = change_colours(known["fg_bgr"][..., ::-1], known["alpha"], *drawn)
        np.testing.assert_allclose(changed[..., ::-1], known[f"jitter_seed{seed}_bgr"], atol=1e-2)
    clear = np.zeros_like(known["alpha"])
    assert np.array_equal(change_colours(known["fg_bgr"], clear, 20, 0.5, 0.5), known["fg_bgr"])


def test_an_eroded_trimap_of_8_bits_is_that_of_the_same_alpha():
    alpha = disc(50, 50, (25, 25), 15)
    for widths in ((1, 1), (4, 9), (29, 2)):
        assert np.array_equal(eroded_trimap(alpha, *widths), eroded_trimap(alpha / 255, *widths))
    for width in (1, 2, 3, 8, 11, 29, 30):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)).astype(bool)
        solid = ndimage.binary_erosion(alpha == 255, ellipse, border_value=1)
        clear = ndimage.binary_erosion(alpha == 0, ellipse, border_value=1)
        literal = np.where(solid, 255, np.where(clear, 0, 128))
        assert np.array_equal(eroded_trimap(alpha, width, width), literal)
        part = ErodedTrimap(alpha, width, 1)
        assert np.array_equal(part[5:40, 30:], eroded_trimap(alpha, width, 1)[5:40, 30:])


def test_two_objects_in_one_are_one_over_the_other():
    rng = np.random.default_rng(0)
    alpha, alpha2 = rng.random((2, 12, 14)).astype(np.float32)
    colour, colour2 = rng.integers(0, 256, (2, 12, 14, 3), dtype=np.uint8)
    background = rng.integers(0, 256, (12, 14, 3))
    mixed, both = over(colour, alpha, colour2, alpha2)
    in_turn = alpha2[..., None] * colour2 + (1 - alpha2[..., None]) * background
    in_turn = alpha[..., None] * colour + (1 - alpha[..., None]) * in_turn
    at_once = both[..., None] * mixed + (1 - both[..., None]) * background
    assert np.abs(in_turn - at_once).max() < 1.01  # colours are cut off to whole numbers


@pytest.mark.parametrize("name", ["gca", "a2u"])
@pytest.mark.parametrize("size", [(150, 190), (90, 40), (41, 30)])
def test_working_in_the_crop_gives_what_working_on_whole_images_gives(name, size):
    """To the bit: objects alone, over others of their size or another, over one that leaves nothing transparent."""
    rng = np.random.default_rng(3)
    shapes = [size, size, (60, 70)]
    mattes = [disc(*shape, (shape[0] // 2, shape[1] // 2), min(shape) // 3) for shape in shapes]
    mattes.append(np.full((20, 20), 255, np.uint8))
    objects = [(rng.integers(0, 256, (*matte.shape, 3), dtype=np.uint8), matte) for matte in mattes]
    background = rng.integers(0, 256, (70, 110, 3), dtype=np.uint8)
    scene, pipeline = Scene(objects[0], background, objects.__getitem__, len(objects)), create_pipeline(name, SIZE)
    for seed in range(24):
        found = pipeline.draw(scene, np.random.default_rng(seed))
        wanted = whole_gca(pipeline, scene, np.random.default_rng(seed))
        for field in found._fields:
            assert np.array_equal(getattr(found, field), getattr(wanted, field)), (seed, field)


def test_gca_rotates_large_images_only_and_draws_from_the_published_ranges():
    rng = np.random.default_rng(0)
    warps = [draw_warp((800, 1024), 1024, rng) for _ in range(2000)]
    for values, low, high in (
        ([warp.angle for warp in warps], -30, 30),
        ([warp.shear for warp in warps], -10, 10),
        ([warp.zoom[0] for warp in warps], 0.8, 1.25),
        ([warp.zoom[1] for warp in warps], 0.8, 1.25),
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01
    counts = [sum(warp.mirror == pair for warp in warps) for pair in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    assert stats.chisquare(counts).pvalue > 0.01
    assert {draw_warp((1000, 1023), 1024, rng).angle for _ in range(20)} == {0.0}


def test_gca_crops_are_centred_on_an_unknown_pixel():
    trimap = np.zeros((120, 160), np.uint8)
    trimap[50:70, 80:100] = 128
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, left = crop_corner(trimap, 64, rng)
        assert trimap[top + 32, left + 32] == 128
    few = np.zeros((120, 160), np.uint8)
    few[60:68, 80:88] = 128  # four places of the coarse grid
    tops = [crop_corner(few, 64, rng)[0] for _ in range(200)]
    assert stats.kstest(tops, stats.randint(0, 57).cdf).pvalue > 0.001
    assert max(tops) <= 56


def test_a2u_crops_are_centred_on_any_unknown_pixel():
    trimap = np.zeros((120, 160), np.uint8)
    places = [(51 + k // 4, 81 + k % 4 * 3) for k in range(12)]  # hardly any of them on a grid of 4
    trimap[tuple(zip(*places, strict=True))] = 128
    trimap[5, 5] = 128  # around which the crop does not fit
    rng = np.random.default_rng(0)
    corners = [crop_corner(trimap, 64, rng, 1) for _ in range(1200)]
    counts = [corners.count((y - 32, x - 32)) for y, x in places]
    assert sum(counts) == len(corners)
    assert stats.chisquare(counts).pvalue > 0.01


def test_a2u_is_gca_with_a_background_of_its_own_shape():
    """Against the published steps, one after the other, with the same draws; a mirrored object and others."""
    alpha = disc(120, 140, (60, 70), 30)
    rng = np.random.default_rng(0)
    background = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    pipeline, seen = create_pipeline("a2u", SIZE), set()
    scene = scene_of(pipeline, alpha, background, rng.integers(0, 256, (*alpha.shape, 3), dtype=np.uint8))
    for seed in range(12):
        targets, draws = pipeline.draw(scene, np.random.default_rng(seed)), np.random.default_rng(seed)
        colour, matte = scene.foreground[0], np.float32(1 / 255) * alpha
        if draws.random() < 0.5:
            draws.integers(1)
            colour, matte = over(colour, matte, colour, matte)
        if draws.random() < 0.25:
            colour, matte = (cv2.resize(part, (40, 40), interpolation=cv2.INTER_NEAREST) for part in (colour, matte))
        warp = draw_warp(matte.shape, 64, draws)
        colour, matte = warp.apply(colour), warp.apply(matte)
        if mirrored := draws.random() < 0.5:
            colour, matte = colour[:, ::-1], matte[:, ::-1]
        seen.add(mirrored)
        trimap = eroded_trimap(np.ascontiguousarray(matte), *(int(width) for width in draws.integers(1, 30, size=2)))
        top, left = crop_corner(trimap, SIZE, draws, 1)
        window = slice(top, top + SIZE), slice(left, left + SIZE)
        assert np.array_equal(targets.trimap, trimap[window])
        assert np.array_equal(targets.alpha, 255 * matte[window])
        behind = cover(background, trimap.shape, shrink=False)[window]
        assert np.abs(targets.bg.astype(int) - behind).max() <= 1
        hue, drawn = int(draws.integers(-40, 40)), (float(draws.random()), float(draws.random()))
        colours = change_colours(np.ascontiguousarray(colour[window]), matte[window], hue, *drawn)
        np.testing.assert_allclose(targets.fg, np.clip(colours, 0, 255), atol=1e-3)
    assert seen == {True, False}
    assert pipeline.draws_background
