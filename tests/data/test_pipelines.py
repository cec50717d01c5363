"""Training pipelines of matting against their descriptions, step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from indexnet.benchmarks.literal_data import whole_gca
from indexnet.core.errors import UserError
from indexnet.data.io.trimaps import ErodedTrimap, eroded_trimap, trimap_from_alpha
from indexnet.data.matting.compositing import composite, cover
from indexnet.data.matting.pipelines.base import Scene, create_pipeline, list_pipelines
from indexnet.data.matting.pipelines.gca import Warp, change_colours, crop_corner, draw_warp, over
from indexnet.data.matting.pipelines.transforms import Between, Unknown, choose_pixel, corner_around, covered_window

SIZE = 32


def disc(height=150, width=190, at=(60, 130), radius=28, soft=6):
    y, x = np.mgrid[:height, :width]
    far = radius - np.hypot(y - at[0], x - at[1])
    return np.clip(255 * (far / soft + 0.5), 0, 255).astype(np.uint8)


def places(shape):
    """Colours that say where in the image a pixel is: red its row, green its column."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y, x, 255 - y], 2).astype(np.uint8)


def scene_of(pipeline, alpha, background=None, colour=None):
    colour = places(alpha.shape) if colour is None else colour
    if background is None:
        background = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    arrays = (colour, alpha)
    return Scene(arrays, background, lambda number: arrays, 1)


def literal_dim(alpha, far, rng):
    """Draw what the released code draws, on the full image: crop side, corner, trimap, mirroring."""
    unknown = far <= rng.integers(1, 20)
    trimap = np.where(unknown, 128, np.where(alpha == 255, 255, 0)).astype(np.uint8)
    height, width = alpha.shape
    side = int(rng.choice([side for side in (SIZE, SIZE * 3 // 2, SIZE * 2) if side < min(height, width)]))
    half = side // 2
    inside = np.zeros_like(unknown)
    inside[half : height - half + 1, half : width - half + 1] = True
    ys, xs = np.nonzero(unknown & inside if (unknown & inside).any() else unknown)
    pick = rng.integers(len(ys))
    top, left = np.clip(ys[pick] - half, 0, height - side), np.clip(xs[pick] - half, 0, width - side)
    return side, int(top), int(left), trimap, bool(rng.integers(2))


def render(layers, side, top, left, mirrored):
    """Crop, scale and mirror targets of full size, as released."""
    made = {}
    for name, array in layers.items():
        how = cv2.INTER_NEAREST if name == "trimap" else cv2.INTER_CUBIC
        crop = array[top : top + side, left : left + side]
        small = cv2.resize(crop, (SIZE, SIZE), interpolation=how) if side != SIZE else crop
        made[name] = small[:, ::-1] if mirrored else small
    return made


def read_back(fg, colour, how=cv2.INTER_CUBIC):
    """Find a crop's side, corner and mirroring from the places that its colours say; exactly, by making it again."""
    mirrored = bool(fg[16, 24, 1].astype(int) < fg[16, 8, 1])
    shown = fg[:, ::-1] if mirrored else fg
    slope = (float(shown[24, 16, 0]) - float(shown[8, 16, 0])) / 16
    side = int(SIZE * min((1, 1.5, 2), key=lambda zoom: abs(zoom - slope)))
    top, left = (round(float(shown[1:-1, 1:-1, k].mean()) + 0.5 - side / 2) for k in (0, 1))
    found = []
    for y in (top - 1, top, top + 1):
        for x in (left - 1, left, left + 1):
            crop = colour[max(0, y) : y + side, max(0, x) : x + side]
            if np.array_equal(cv2.resize(crop, (SIZE, SIZE), interpolation=how), shown):
                found.append((side, y, x, mirrored))
    assert len(found) == 1
    return found[0]


def test_dim_gives_what_the_full_resolution_order_gives_in_the_same_distribution():
    alpha, pipeline = disc(), create_pipeline("dim", SIZE)
    scene = scene_of(pipeline, alpha)
    colour, background = scene.foreground[0], cover(scene.background, alpha.shape, shrink=False)
    layers = {"image": composite(colour, background, alpha), "alpha": alpha, "fg": colour, "bg": background}
    far = ndimage.distance_transform_edt((alpha == 0) | (alpha == 255))
    trimaps = [trimap_from_alpha(alpha, distance) for distance in range(1, 20)]
    rng, drawn = np.random.default_rng(1), []
    for _ in range(700):
        targets = pipeline.draw(scene, rng)
        side, top, left, mirrored = read_back(targets.fg, colour)
        made = [render({"trimap": trimap}, side, top, left, mirrored)["trimap"] for trimap in trimaps]
        assert any(np.array_equal(trimap, targets.trimap) for trimap in made)
        for name, wanted in render(layers, side, top, left, mirrored).items():
            difference = np.abs(getattr(targets, name).astype(int) - wanted)
            assert difference.max() <= (0 if name in ("alpha", "fg") else 2), name
        drawn.append((side, top, left, int((targets.trimap == 128).sum()), mirrored))
    rng, wanted = np.random.default_rng(2), []
    for _ in range(3000):
        side, top, left, trimap, mirrored = literal_dim(alpha, far, rng)
        crop = cv2.resize(trimap[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        wanted.append((side, top, left, int((crop == 128).sum()), mirrored))
    columns = list(zip(zip(*drawn, strict=True), zip(*wanted, strict=True), strict=True))
    for k in (0, 4):
        counts = [[column.count(value) for value in sorted(set(columns[k][1]))] for column in columns[k]]
        assert stats.chi2_contingency(counts).pvalue > 0.01
        assert sum(counts[0]) == 700
    for k in (1, 2, 3):
        assert stats.ks_2samp(*columns[k]).pvalue > 0.01
    # crops of one side alone: their places depend on it
    for side in (32, 48, 64):
        tops = [[row[1] for row in rows if row[0] == side] for rows in (drawn, wanted)]
        assert stats.ks_2samp(*tops).pvalue > 0.01


@pytest.mark.parametrize("shape", [(20, 30), (32, 60), (60, 32), (33, 33), (9, 200)])
@pytest.mark.parametrize("name", list_pipelines())
def test_every_size_of_foreground_gives_samples(name, shape):
    pipeline = create_pipeline(name, SIZE)
    alpha = disc(*shape, at=(shape[0] // 2, shape[1] // 2), radius=6)
    rng = np.random.default_rng(0)
    for _ in range(8):
        tensors = pipeline.draw(scene_of(pipeline, alpha), rng).tensors()
        for key, channels in {"image": 3, "alpha": 1, "trimap": 1, "fg": 3, "bg": 3}.items():
            assert tensors[key].shape == (channels, SIZE, SIZE)
            assert tensors[key].min() >= 0
            assert tensors[key].max() <= 1
        assert set(tensors["trimap"].unique().tolist()) <= {0.0, np.float32(128 / 255).item(), 1.0}


@pytest.mark.parametrize("name", list_pipelines())
@pytest.mark.parametrize("value", [0, 255])
def test_a_foreground_without_unknown_pixels_is_cropped_anywhere(name, value):
    pipeline = create_pipeline(name, SIZE)
    scene = scene_of(pipeline, np.full((90, 100), value, np.uint8))
    rng = np.random.default_rng(0)
    corners = {pipeline.draw(scene, rng).fg[0, 0].tobytes() for _ in range(6)}
    assert len(corners) > 1 or (name in ("gca", "a2u") and value == 0)


@pytest.mark.parametrize("name", list_pipelines())
def test_image_foreground_background_and_alpha_agree(name):
    pipeline = create_pipeline(name, SIZE)
    scene = scene_of(pipeline, disc(64, 64, (32, 32), 20))
    rng = np.random.default_rng(3)
    for _ in range(10):
        sample = pipeline.draw(scene, rng).tensors()
        mixed = sample["alpha"] * sample["fg"] + (1 - sample["alpha"]) * sample["bg"]
        difference = (sample["image"] - mixed).abs()
        # colours that are scaled after compositing are not those composed after scaling; gca and a2u do not scale
        assert difference.mean() < (1e-6 if name in ("gca", "a2u") else 0.03)


def test_another_background_behind_the_same_crop_is_a_top_left_one():
    pipeline = create_pipeline("dim", SIZE)
    background = places((100, 120))  # larger than the foreground: not scaled
    background[..., 2] = 7
    targets = pipeline.draw(scene_of(pipeline, disc(50, 60, (25, 30), 12), background), np.random.default_rng(0))
    assert np.array_equal(targets.bg[..., :2], targets.fg[..., :2])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_unknown_is_decided_by_exact_distances(seed):
    """Of a window or of single pixels, as of the whole image."""
    rng = np.random.default_rng(seed)
    alpha = rng.choice(np.array([0, 255, 100], np.uint8), (37, 41), p=[0.55, 0.44, 0.01])
    mixed = alpha == 100
    exact = ndimage.distance_transform_edt(~mixed) if mixed.any() else np.full(alpha.shape, np.inf)
    ys, xs = rng.integers(37, size=30), rng.integers(41, size=30)
    for distance in (1, 2, 5, 13, 19, 40):
        field, near = Unknown(alpha, distance), exact <= distance
        literal = np.where(near, 128, np.where(alpha == 255, 255, 0))
        assert np.array_equal(field.trimap(slice(0, 37), slice(0, 41)), literal)
        assert np.array_equal(field.trimap(slice(3, 20), slice(30, 41)), literal[3:20, 30:41])
        assert np.array_equal(field.inside(slice(3, 20), slice(30, 41)), near[3:20, 30:41])
        fits = np.flatnonzero(near[ys, xs])
        assert field.first(ys, xs) == (fits[0] if fits.size else None)


def test_a_background_that_is_hardly_enlarged():
    """OpenCV copies where the sizes before and after are equal, whatever the factors."""
    background = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    whole = cover(background, (8, 32), shrink=False)
    assert np.array_equal(covered_window(background, (8, 32), 0, 0, 8), whole[:8, :8])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_part_of_a_background_is_that_of_the_whole(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    background = np.random.default_rng(draw(0, 99)).integers(0, 256, (draw(8, 90), draw(8, 90), 3), dtype=np.uint8)
    side = draw(8, 50)
    size = draw(side, 200), draw(side, 200)
    top, left = draw(0, size[0] - side), draw(0, size[1] - side)
    part = covered_window(background, size, top, left, side)
    whole = cover(background, size, shrink=False)[top : top + side, left : left + side]
    assert part.shape == whole.shape
    assert np.abs(part.astype(int) - whole).max() <= 1
    assert np.count_nonzero(part != whole) <= part.size // 200 + 1


@pytest.mark.parametrize("count", [1, 3, 2000])
def test_every_pixel_that_fits_is_as_likely_as_the_others(count):
    field = np.zeros((60, 70), np.uint8)
    rng = np.random.default_rng(count)
    places_that_fit = rng.choice(40 * 50, count, replace=False)
    field[10:50, 10:60].flat[places_that_fit] = 7
    field[0] = 7  # outside the window
    window = slice(10, 50), slice(10, 60)
    seen = [choose_pixel(Between(field, 5, 9), *window, rng) for _ in range(4000)]
    assert all(field[place] == 7 and place[0] >= 10 for place in seen)
    numbers = [(y - 10) * 50 + x - 10 for y, x in seen]
    if count < 2000:
        counts = [numbers.count(place) for place in places_that_fit]
        assert count == 1 or stats.chisquare(counts).pvalue > 0.01
    else:  # too many for a count of each: blocks
        fitting = field[window] == 7
        wanted = np.array(
            [block[fitting[k * 4 : k * 4 + 4]].size for k, block in enumerate(np.split(field[window], 10))]
        )
        counts = np.bincount([number // 200 for number in numbers], minlength=10)
        assert stats.chisquare(counts, wanted / wanted.sum() * 4000).pvalue > 0.01
    assert choose_pixel(Between(field, 8, 9), *window, rng) is None


def test_a_crop_lies_around_its_pixel_and_inside_the_image():
    field = np.zeros((50, 60), np.uint8)
    field[30, 20] = 1
    rng = np.random.default_rng(0)
    assert corner_around(Between(field, 1, 1), 20, 1, rng) == (20, 10)
    field[:] = 0
    field[2, 58] = 1  # the crop does not fit around it
    assert corner_around(Between(field, 1, 1), 20, 1, rng) == (0, 40)


def test_mmediting_trimaps_come_from_the_scaled_alpha_and_crops_surround_mixed_pixels():
    pipeline = create_pipeline("mmediting", SIZE)
    alpha = disc(200, 200, (50, 60), 20, 3)
    scene, rng = scene_of(pipeline, alpha), np.random.default_rng(0)
    sides = set()
    for _ in range(60):
        targets = pipeline.draw(scene, rng)
        assert (targets.trimap[(targets.alpha > 0) & (targets.alpha < 255)] == 128).all()
        every = {
            (a, b)
            for a in range(1, 30)
            for b in range(1, 30)
            if np.array_equal(eroded_trimap(targets.alpha, a, b), targets.trimap)
        } if len(sides) < 3 else {(1, 1)}  # fmt: skip
        assert every
        side, top, left, _ = read_back(targets.fg, scene.foreground[0], cv2.INTER_LINEAR)
        sides.add(side)
        centre = top + side // 2, left + side // 2
        window = alpha[max(0, centre[0] - 1) : centre[0] + 2, max(0, centre[1] - 1) : centre[1] + 2]
        assert ((window > 0) & (window < 255)).any()
    assert sides == {32, 48, 64}


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


@pytest.mark.parametrize("shape", [(150, 190), (30, 34)])
def test_dim_crops_around_mixed_pixels_where_asked(shape):
    """Round pixels of an alpha between 0 and 1 alone, where the trimap is unknown far beyond them."""
    alpha = disc(*shape, (shape[0] // 2, shape[1] // 2), min(shape) // 5, 1)
    centres = {}
    for around in ("unknown", "mixed"):
        pipeline, rng = create_pipeline("dim", SIZE, around), np.random.default_rng(0)
        scene = scene_of(pipeline, alpha)
        drawn = [pipeline.draw(scene, rng) for _ in range(40)]
        assert all(set(np.unique(each.trimap)) <= {0, 128, 255} for each in drawn)
        middles = [each.alpha[SIZE // 2 - 2 : SIZE // 2 + 2, SIZE // 2 - 2 : SIZE // 2 + 2] for each in drawn]
        centres[around] = sum(bool(((m > 0) & (m < 255)).any()) for m in middles)
    assert centres["mixed"] > centres["unknown"]
    assert centres["mixed"] == 40 or min(shape) < SIZE  # enlarged, a crop is moved inside where it does not fit


def test_only_dim_chooses_what_it_crops_around():
    with pytest.raises(UserError, match=r"^data.crop_around=mixed is for data.pipeline=dim; gca crops in one way"):
        create_pipeline("gca", 320, "mixed")
    with pytest.raises(UserError, match=r"^data.crop_around must be one of unknown, mixed; got 'mix'"):
        create_pipeline("dim", 320, "mix")


def test_an_unknown_pipeline_is_one_sentence():
    with pytest.raises(UserError, match=r"^data.pipeline must be one of a2u, dim, gca, mmediting; got 'dime'\.$"):
        create_pipeline("dime", 320)
