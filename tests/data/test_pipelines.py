"""Training pipelines of matting against their descriptions, step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from indexnet.core.errors import UserError
from indexnet.data.io.trimaps import eroded_trimap, trimap_from_alpha
from indexnet.data.matting.compositing import composite, cover
from indexnet.data.matting.pipelines.base import create_pipeline, list_pipelines
from indexnet.data.matting.pipelines.transforms import Between, Unknown, choose_pixel, corner_around, covered_window
from pipeline_support import SIZE, disc, places, scene_of


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
