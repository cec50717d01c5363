from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io import skimage_photographs
from indexnet.data.io.images import write_png
from indexnet.data.io.trimaps import trimap_from_alpha
from indexnet.data.scenes import CLASSES, objects
from indexnet.data.scenes.compose import draw_scene
from indexnet.data.scenes.objects import Frame, draw_object, square_view
from indexnet.data.scenes.shapes import ribbons
from indexnet.data.scenes.textures import PATTERNS, Surface, patterns, soften


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def samples():
    """Matting, segmentation and depth samples of the same 40 training and 40 test indices."""
    found = {}
    for task in ("matting", "segmentation", "depth"):
        data = create_data("scenes", task=task, size=96)
        found[task] = [split.sample(i, rng(i)) for split in (data.train(), data.test()) for i in range(40)]
    return found


def test_the_composite_is_exact(samples):
    for s in samples["matting"]:
        mixed = s["alpha"] * s["fg"] + (1 - s["alpha"]) * s["bg"]
        assert (mixed - s["image"]).abs().max() < 1e-6


def test_alpha_has_256_levels_and_the_trimap_agrees_with_it(samples):
    for s in samples["matting"]:
        levels = s["alpha"] * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        unknown = s["trimap"] == 128 / 255
        assert unknown.any()
        assert (s["alpha"] == s["trimap"])[~unknown].all()
        assert unknown[(s["alpha"] > 0) & (s["alpha"] < 1)].all()


def test_test_trimaps_use_one_dilation_of_the_released_range():
    test = create_data("scenes", size=320).test()
    distances = []
    for index in range(4):
        s = test.sample(index, rng())
        alpha = (s["alpha"][0] * 255).round().numpy().astype(np.uint8)
        trimap = (s["trimap"][0] * 255).round().numpy().astype(np.uint8)
        fits = [d for d in range(1, 20) if (trimap_from_alpha(alpha, d) == trimap).all()]
        assert fits
        distances.append(fits[0])
    assert len(set(distances)) > 1


def test_small_crops_shrink_the_dilation():
    train = create_data("scenes", size=32).train()
    unknown = [(train.sample(i, rng(i))["trimap"] == 128 / 255).float().mean() for i in range(20)]
    assert np.median(unknown) < 0.9


def test_variety(samples):
    """The matte statistics of the set: opaque, clear and mixed parts, all classes, all kinds of edges."""
    alphas = torch.stack([s["alpha"] for s in samples["matting"]])
    labels = torch.stack([s["label"] for s in samples["segmentation"]])
    assert set(labels.unique().tolist()) == set(range(len(CLASSES)))
    mixed = ((alphas > 0) & (alphas < 1)).float().mean((1, 2, 3))
    assert mixed.min() > 0.0004
    assert (mixed > 0.3).any()  # smoke, glass, nets
    assert (mixed < 0.05).any()  # hard edges
    assert 0.1 < alphas.mean() < 0.6
    assert (alphas == 1).float().mean() > 0.1
    assert (alphas == 0).float().mean() > 0.3
    colours = torch.stack([s["image"].mean((1, 2)) for s in samples["matting"]])
    assert colours.std(0).min() > 0.05


def test_depth_is_metric_and_objects_stand_before_the_background(samples):
    near = 0
    for s in samples["depth"]:
        depth = s["depth"]
        assert depth.min() >= 0.3
        assert depth.max() <= 20
        near += int(depth.min() < 0.8 * depth.max())
    assert near > 60
    data = create_data("scenes", task="depth", size=64).test()
    for index in range(10):
        scene = data.scene(index)
        assert scene.room is not None
        depths = [item.frame.depth for item in scene.objects]
        assert depths == sorted(depths, reverse=True)
        rendering = scene.render(square_view(64))
        empty = draw_scene(rng(), "test", skimage_photographs.names("test"), always_room=True)
        assert empty.room is not None
        behind = replace(scene, objects=()).render(square_view(64)).depth
        seen = rendering.label > 0
        assert (rendering.depth[~seen] == behind[~seen]).all()


def test_training_views_move_and_centre_on_edges():
    train = create_data("scenes", size=64).train()
    first, second = (train.sample(3, rng(seed)) for seed in (0, 1))
    assert not torch.equal(first["image"], second["image"])
    hits = 0
    for index in range(40):
        s = train.sample(index, rng(index))
        hits += int((s["trimap"] == 128 / 255)[:, 16:48, 16:48].any())
    assert hits >= 38


def test_mirrored_and_enlarged_views_show_the_same_scene():
    test = create_data("scenes", size=128).test()
    for index in range(8):
        scene = test.scene(index)
        whole = scene.render(square_view(128))
        mirrored = scene.render(square_view(128, mirrored=True))
        difference = np.abs(whole.alpha.astype(int) - mirrored.alpha[:, ::-1].astype(int))
        assert difference.mean() < 1  # only drawn edges differ, by rounding
        for shift in (-1, 1):  # and nothing is off by a pixel
            moved = np.roll(mirrored.alpha[:, ::-1], shift, axis=1).astype(int)
            assert difference.mean() <= np.abs(whole.alpha.astype(int) - moved).mean()
        assert np.abs(whole.bg - mirrored.bg[..., ::-1]).mean() < 1e-4
        part = scene.render(square_view(128, 0.25, 0.25, 0.5))
        small = cv2.resize(part.alpha, (64, 64), interpolation=cv2.INTER_AREA)
        difference = np.abs(small.astype(int) - whole.alpha[32:96, 32:96].astype(int)).mean()
        assert difference < 15  # strands and edges change with the resolution
        for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            moved = np.roll(small, shift, axis=(0, 1)).astype(int)
            assert difference <= np.abs(moved - whole.alpha[32:96, 32:96].astype(int)).mean()


@pytest.mark.parametrize("kind", CLASSES[1:])
def test_every_class_draws_partial_alpha_and_holds_its_part(kind):
    """Rendered alone: something is there, some of it mixed, and nothing of it lies outside the part it claims."""
    for seed in range(6):
        item = draw_object(rng(seed), kind, Frame(0.5, 0.5, 0.25, 0.3, 2.0), "train")
        assert CLASSES[item.label] == kind
        layer = item.render("train", square_view(256))
        assert layer is not None
        assert layer.alpha.min() >= 0
        assert layer.alpha.max() <= 1 + 1e-6
        assert layer.colour.min() >= 0
        assert layer.colour.max() <= 1
        assert layer.silhouette.any()
        levels = np.round(layer.alpha * 255)
        assert ((levels > 0) & (levels < 255)).any()
        if kind == "glass":
            assert np.median(layer.alpha[layer.silhouette]) < 0.8
        if kind != "smoke":
            full = objects.shapes.rasterise(item.clip or item.marks, square_view(256).to_pixels, 256, 256)
            outside = full.copy()
            outside[layer.rows, layer.columns] = 0
            assert outside.max() == 0


def test_an_object_out_of_sight_is_skipped():
    item = draw_object(rng(0), "lattice", Frame(3.0, 3.0, 0.1, 0.1, 2.0), "train")
    assert item.render("train", square_view(64)) is None


def test_what_is_not_asked_for_changes_nothing_else():
    test = create_data("scenes", size=64).test()
    for index in range(12):
        scene = test.scene(index)
        found, bare = (scene.render(square_view(64), geometry) for geometry in (True, False))
        assert bare.depth.size == bare.label.size == 0
        for name in ("alpha", "fg", "bg"):
            assert np.array_equal(getattr(found, name), getattr(bare, name))


@pytest.mark.parametrize("closed", [False, True])
def test_outlines_of_lines_are_those_of_the_formula(closed):
    """Point by point, on vectors: to each side half the width, along the mean direction's normal, cut at corners."""
    points, width = rng(1).random((5, 7, 2)), np.linspace(1, 0.3, 7)
    found = ribbons(points, width, closed)
    for line, outline in zip(points, found, strict=True):
        path, wide = (np.concatenate([line, line[:1]]), np.append(width, width[0])) if closed else (line, width)
        along = np.diff(path, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        for k, (place, thick) in enumerate(zip(path, wide, strict=True)):
            before = along[k - 1] if k or closed else along[0]
            after = along[k % len(along)] if k < len(along) or closed else along[-1]
            mean = (before + after) / 2
            mean = mean / max(mean @ mean, 0.4)
            aside = np.array([-mean[1], mean[0]]) * thick / 2
            np.testing.assert_allclose(outline[k], place + aside, atol=1e-12)
            np.testing.assert_allclose(outline[2 * len(path) - 1 - k], place - aside, atol=1e-12)


@pytest.mark.parametrize("source", ["clouds", "photograph"])
def test_a_surface_is_its_source_warped_and_looked_up(source, tmp_path):
    """To the bit, whichever form: three channels at once, or plane by plane from four, as floats times a unit."""
    image = rng(2).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    table = rng(3).integers(0, 256, (256, 1, 3), dtype=np.uint8)
    name = source if source == "clouds" else tmp_path / "a.png"
    surface = Surface(name, table, 0.9, 0.3, True, (0.4, 0.6))
    to_plane = square_view(48).to_scene
    planes = surface.render("train", to_plane, 48, 40)
    level = patterns("train")["clouds"] if source == "clouds" else (image,)
    chain = surface._to_source(level[0].shape, source == "clouds") @ to_plane
    number = max(0, round(float(np.log2(np.sqrt(abs(np.linalg.det(chain[:2, :2])))))))
    for _ in range(number if source == "photograph" else 0):
        level = (*level, cv2.pyrDown(level[-1]))
    chosen = level[number]
    chain = np.diag([chosen.shape[1] / level[0].shape[1], chosen.shape[0] / level[0].shape[0], 1]) @ chain
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_WRAP if source == "clouds" else cv2.BORDER_REFLECT_101
    warped = cv2.warpAffine(chosen, chain[:2], (48, 40), flags=flags, borderMode=border)
    colours = cv2.applyColorMap(warped, table) if source == "clouds" else cv2.LUT(warped, table.reshape(1, 256, 3))
    assert np.array_equal(np.stack(planes, 2), colours)
    out = np.empty((3, 40, 48), np.float32)
    surface.paint(out, "train", to_plane, 1 / 255)
    assert np.array_equal(out, np.moveaxis(colours * np.float32(1 / 255), 2, 0))


def test_over_of_two_half_transparent_objects():
    test = create_data("scenes", size=64).test()
    for index in range(20):
        scene = test.scene(index)
        if len(scene.objects) < 2:
            continue
        layers = [item.render("test", square_view(64)) for item in scene.objects]
        clear = np.ones((64, 64))
        premultiplied = np.zeros((3, 64, 64))
        for layer in layers:
            if layer is None:
                continue
            alpha, colour = np.zeros((64, 64)), np.zeros((3, 64, 64))
            alpha[layer.rows, layer.columns] = layer.alpha
            colour[:, layer.rows, layer.columns] = layer.colour
            clear *= 1 - alpha
            premultiplied = alpha * colour + (1 - alpha) * premultiplied
        got = scene.render(square_view(64))
        assert np.abs(got.alpha / 255 - (1 - clear)).max() < 0.5 / 255 + 1e-5
        assert np.abs((1 - clear) * got.fg - premultiplied).max() < 1e-4


def test_train_and_test_share_neither_photographs_nor_patterns():
    data = create_data("scenes", size=32, validation_count=2)
    assert not set(data.train().sources) & set(data.test().sources)
    validation = data.validation()
    assert validation is not None
    assert validation.sources == data.train().sources
    assert not torch.equal(validation.sample(0, rng())["image"], data.train().sample(0, rng())["image"])
    for name in PATTERNS:
        if name not in ("checks", "dots"):
            assert not np.array_equal(patterns("train")[name][0], patterns("test")[name][0])


def test_backgrounds_of_a_persons_folder(tmp_path):
    for index in range(12):
        colour = np.full((40, 50, 3), 20 * index, np.uint8)
        write_png(tmp_path / f"{index:02d}.png", colour)
    data = create_data("scenes", size=32, backgrounds=str(tmp_path))
    train, test = data.train(), data.test()
    assert not set(train.sources) & set(test.sources)
    assert len(set(train.sources) | set(test.sources)) == 12
    assert test.sample(0, rng())["image"].shape == (3, 32, 32)
    assert train.fingerprint() != create_data("scenes", size=32).train().fingerprint()
    used = [train.scene(i).backdrop.source for i in range(20)]
    assert any(source in train.sources for source in used)
    lonely = tmp_path / "one"
    write_png(lonely / "a.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match="two at least"):
        create_data("scenes", backgrounds=str(lonely)).train()
    with pytest.raises(UserError, match="does not exist"):
        create_data("scenes", backgrounds=str(tmp_path / "no")).train()


MEANS = [0.179, 0.2212, 0.4644, 0.1906, 0.0246]


def test_scenes_stay_what_they_are():
    """Rounded statistics of a few scenes; where they change on purpose, raise the version in the fingerprint."""
    test = create_data("scenes", size=64).test()
    means = [test.sample(i, rng())["alpha"].mean().item() for i in range(5)]
    assert means == pytest.approx(MEANS, abs=3e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0, 3.5, 7.0])
def test_soften_is_a_gaussian_blur(sigma):
    image = np.zeros((96, 96), np.uint8)
    image[30:66, 40:60] = 255
    expected = cv2.GaussianBlur(image, (0, 0), sigma) if sigma >= 0.3 else image
    assert np.abs(soften(image, sigma).astype(int) - expected.astype(int)).max() <= 14


def test_drawing_leaves_the_global_generator_alone():
    state = np.random.get_state()[1].copy()
    create_data("scenes", size=32).train().sample(0, rng())
    assert (np.random.get_state()[1] == state).all()
