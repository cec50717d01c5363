"""Shapes of scene objects as vector drawings in scene coordinates, and their rasterisation.

A drawing is a list of marks, painted in order. Coordinates are scene coordinates: x to the right, y down, the scene is
the unit square. Drawn at any view, a shape stays what it is; strands get thinner than a pixel by getting fainter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import UInt8

Points = npt.NDArray[np.float64]

_SUPERSAMPLING = 2
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_BLEED = 1.4  # pixels by which OpenCV's anti-aliased polygons are wider than their outline, measured


@dataclass(frozen=True)
class Area:
    """Filled polygons: ``points`` (N, K, 2), each painted with ``value`` 1 (add) or 0 (cut a hole)."""

    points: Points
    value: int = 1


@dataclass(frozen=True)
class Lines:
    """Polylines: ``points`` (N, K, 2), ``width`` in scene units, at the end ``tip`` times that."""

    points: Points
    width: float
    tip: float = 1.0
    closed: bool = False


Mark = Area | Lines


def ribbons(points: Points, width: Points, closed: bool) -> Points:
    """Outlines of polylines (N, K, 2) that are ``width`` (K,) wide, with mitred corners: (N, M, 2)."""
    if closed:
        points = np.concatenate([points, points[:, :1]], 1)
        width = np.concatenate([width, width[:1]])
    x, y = np.moveaxis(points, 2, 0)
    dx, dy = x[:, 1:] - x[:, :-1], y[:, 1:] - y[:, :-1]
    length = np.sqrt(dx * dx + dy * dy) + 1e-9
    count = x.shape[1]
    means = []
    for along in (dx, dy):
        along /= length
        mean = np.empty(x.shape)  # of the directions before and after a point
        np.add(along[:, :-1], along[:, 1:], out=mean[:, 1:-1])
        mean[:, 0] = along[:, 0] + along[:, -1 if closed else 0]
        mean[:, -1] = along[:, -1] + along[:, 0 if closed else -1]
        mean /= 2
        means.append(mean)
    mitre = np.maximum(means[0] * means[0] + means[1] * means[1], 0.4)  # cut where it would stick out
    outline = np.empty((len(x), 2 * count, 2))
    for axis, (places, mean, half) in enumerate(((x, means[1], -0.5), (y, means[0], 0.5))):
        mean /= mitre
        mean *= half
        mean *= width
        np.add(places, mean, out=outline[:, :count, axis])
        np.subtract(places, mean, out=outline[:, : count - 1 : -1, axis])
    return outline


def rasterise(marks: Sequence[Mark], to_pixels: npt.NDArray[np.float64], width: int, height: int) -> UInt8:
    """Draw marks with anti-aliasing.

    Args:
        marks: what to draw, in order.
        to_pixels: (2, 3), maps scene coordinates to pixel positions, the first pixel spanning 0..1.
        width: of the result.
        height: of the result.

    Returns:
        Coverage, uint8 (height, width), 255 where fully covered.
    """
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    limit = 16 * max(canvas.shape)
    scale = _SUPERSAMPLING * float(np.sqrt(abs(np.linalg.det(to_pixels[:, :2]))))

    def draw(target: UInt8, outlines: Points, value: int) -> None:
        fixed = np.minimum(np.maximum(outlines, -limit), limit)
        fixed *= 1 << _SHIFT
        for outline in np.rint(fixed, out=fixed).astype(np.int32):
            # One by one: in one call, overlaps would count as holes.
            cv2.fillPoly(target, [outline], value, cv2.LINE_AA, _SHIFT)

    for mark in marks:
        placed = mark.points.reshape(-1, 2) @ to_pixels[:, :2].T
        placed += to_pixels[:, 2]
        placed *= _SUPERSAMPLING
        placed -= 0.5
        points = placed.reshape(mark.points.shape)
        if isinstance(mark, Area):
            draw(canvas, points, 255 * mark.value)
            continue
        strokes = mark.width * scale * evenly(1, mark.tip, mark.points.shape[1])
        outlines = ribbons(points, np.maximum(strokes - _BLEED, 0), mark.closed)
        thin = float(strokes.mean()) / _BLEED
        if thin >= 1:
            draw(canvas, outlines, 255)
        else:  # thinner than can be drawn: fainter; drawn apart, so that faint strands never darken what is there
            faint = np.zeros_like(canvas)
            draw(faint, outlines, max(1, int(255 * thin)))
            cv2.max(canvas, faint, canvas)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def transformed(
    points: Points, centre: Sequence[float] | Points, half: Sequence[float] | Points, angle: float = 0.0
) -> Points:
    """Place local points, in [-1, 1], into the scene: scale by ``half``, turn, move to ``centre``."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray((points * np.asarray(half)) @ np.array([[c, s], [-s, c]]) + np.asarray(centre))


@lru_cache(maxsize=256)
def evenly(first: float, last: float, count: int) -> npt.NDArray[np.float64]:
    """Return ``np.linspace``, made once, read-only."""
    found = np.linspace(first, last, count)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=256)
def around(count: int) -> npt.NDArray[np.float64]:
    """Angles all round, (count,), read-only."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    angles.flags.writeable = False
    return angles


@lru_cache(maxsize=256)
def _unit_circle(count: int) -> Points:
    return rays(around(count))


def rays(angles: npt.NDArray[np.float64]) -> Points:
    """Unit vectors in these directions, (..., 2)."""
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def circle(radius: float = 1.0, count: int = 96) -> Points:
    """A circle round the origin, (count, 2)."""
    return np.asarray(radius * _unit_circle(count))


def blob(rng: np.random.Generator, roughness: float = 0.5, count: int = 160) -> Points:
    """A smooth closed outline in [-1, 1]: a circle with random harmonics."""
    angles = around(count)
    radius = np.ones(count)
    for k in range(2, 8):
        radius += roughness * rng.normal() / k**1.2 * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) / 1.5
    radius = np.clip(radius, 0.25, None)
    return np.asarray(circle(count=count) * (radius / radius.max())[:, None])


def polygon(rng: np.random.Generator) -> Points:
    """A convex polygon, star, cross or rounded box in [-1, 1]."""
    kind = rng.integers(4)
    corners = int(rng.integers(3, 9))
    if kind == 0:
        return rays(np.sort(rng.uniform(0, 2 * np.pi, corners) * 0.3 + around(corners)))
    if kind == 1:
        radius = np.where(np.arange(2 * corners) % 2, rng.uniform(0.35, 0.75), 1.0)
        return circle(count=2 * corners) * radius[:, None]
    if kind == 2:
        a = rng.uniform(0.2, 0.5)
        return np.array(
            [[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]]
        )
    power = rng.uniform(2.5, 8)
    unit = circle(count=120)
    return np.asarray(np.sign(unit) * np.abs(unit) ** (2 / power))


def bust(rng: np.random.Generator) -> Points:
    """Head and shoulders in [-1, 1], one outline."""
    head, neck = rng.uniform(0.34, 0.44), rng.uniform(0.14, 0.2)
    shoulder = rng.uniform(0.7, 0.95)
    t = evenly(-1.5 * np.pi + 0.42, 0.5 * np.pi - 0.42, 60)
    skull = np.stack([head * 0.82 * np.cos(t), -0.5 + head * np.sin(t)], 1)
    right = np.array(
        [[neck, 0.02], [neck + 0.12, 0.12], [shoulder * 0.8, 0.28], [shoulder, 0.5], [shoulder + 0.05, 1.0]]
    )
    left = right[::-1] * np.array([-1, 1])
    return np.concatenate([skull, right, left])


def profile(rng: np.random.Generator) -> Points:
    """Outline of a turned vessel (bottle, goblet, vase) in [-1, 1], upright."""
    y = evenly(-1, 1, 80)
    knots = evenly(-1, 1, 6)
    widths = {
        0: [0.16, 0.17, 0.2, 0.5, 0.52, 0.48],  # bottle
        1: [0.45, 0.5, 0.4, 0.07, 0.07, 0.42],  # goblet
        2: [0.3, 0.22, 0.5, 0.62, 0.45, 0.3],  # vase
        3: [0.55, 0.52, 0.5, 0.47, 0.45, 0.43],  # tumbler
    }[int(rng.integers(4))]
    x = np.interp(y, knots, np.asarray(widths) * rng.uniform(0.85, 1.15, 6))
    x = np.convolve(np.pad(x, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    return np.concatenate([np.stack([x, y], 1), np.stack([-x, y], 1)[::-1]])


def strands(rng: np.random.Generator, outline: Points, style: str, size: float) -> list[Mark]:
    """Hair on an outline in scene coordinates.

    Args:
        rng: source of chance.
        outline: (K, 2), what the hair grows from.
        style: ``"fur"`` (short, dense, all round), ``"hair"`` (long, falling, with flyaways), ``"seeds"`` (straight
            rays with fine tips, a dandelion).
        size: half the height of the object, the unit of length.
    """
    count = {"fur": 420, "hair": 340, "seeds": 150}[style]
    middle = outline.mean(0)
    if style == "hair":  # from the upper part only
        weights = (outline[:, 1] < middle[1] + 0.1 * size).astype(float) + 1e-9
        roots = outline[rng.choice(len(outline), count, p=weights / weights.sum())]
    else:
        roots = outline[rng.integers(len(outline), size=count)]
    roots = middle + (roots - middle) * rng.uniform(0.75, 1.0, (count, 1))
    outward = (roots - middle) / (np.linalg.norm(roots - middle, axis=1, keepdims=True) + 1e-9)
    steps = {"fur": 6, "hair": 9, "seeds": 4}[style]
    t = evenly(0, 1, steps)[None, :, None]
    reach = {"fur": rng.uniform(0.15, 0.45), "hair": rng.uniform(0.5, 1.0), "seeds": 0.7}[style]
    lean, fall = {"fur": (0.5, 0.2), "hair": (0.45, rng.uniform(0.2, 1.2)), "seeds": (0.08, 0.0)}[style]
    length = size * reach * rng.uniform(0.3, 1.3, (count, 1, 1))
    wind = rng.normal(0, 0.35, 2) if style != "seeds" else np.zeros(2)
    heading = outward + lean * rng.normal(size=(count, 2)) + wind
    heading /= np.linalg.norm(heading, axis=1, keepdims=True) + 1e-9
    normal = heading[:, ::-1] * np.array([-1, 1])
    curl = rng.normal(0, {"fur": 0.25, "hair": 0.22, "seeds": 0.02}[style], (count, 1, 1))
    wave = rng.uniform(0, 0.06) * np.sin(t * rng.uniform(4, 12) + rng.uniform(0, 6.3, (count, 1, 1))) * t
    path = heading[:, None] * t + normal[:, None] * (curl * t**2 + wave) + np.array([0, fall]) * t**2
    points = roots[:, None] + length * path
    marks: list[Mark] = []
    base = 0.0026 * rng.uniform(0.6, 1.3)
    parts = np.split(points, [int(count * share) for share in (0.4, 0.65, 0.85)])
    for part, width in zip(parts, base * np.array([0.3, 0.5, 0.8, 1.2]), strict=True):
        marks.append(Lines(part, float(1.6 * width), tip=0.3))
    if style == "seeds":
        tips = points[::3, -1]
        spread = rng.normal(0, 0.05 * size, (len(tips), 5, 2))
        fan = np.stack([np.broadcast_to(tips[:, None], spread.shape), tips[:, None] + spread], 2).reshape(-1, 2, 2)
        marks.append(Lines(fan, 0.5 * base))
    return marks


def mesh(rng: np.random.Generator, web: bool) -> list[Points]:
    """Threads of a net in [-1, 1]: arrays (N, K, 2); a spider's web, or two warped families of lines."""
    if web:
        spokes, rings = int(rng.integers(9, 18)), int(rng.integers(6, 14))
        directions = rays(np.sort(around(spokes) + rng.normal(0, 0.06, spokes)))
        reach = rng.uniform(0.85, 1.1, (spokes, 1))
        radial = np.stack([np.zeros((spokes, 2)), directions * reach], 1)
        hub = rng.uniform(-0.15, 0.15, 2)
        radii = evenly(0.12, 0.95, rings)[:, None, None] + rng.normal(0, 0.012, (rings, spokes, 1))
        corners = radii * directions * reach
        ahead = np.roll(corners, -1, axis=1)
        sag = 0.47 * (corners + ahead)  # threads hang towards the hub
        loops = np.stack([corners, sag, ahead], 2).reshape(-1, 3, 2)
        return [radial + hub * (1 - np.linalg.norm(radial, axis=2, keepdims=True)), loops + hub * (1 - radii.mean())]
    lines = int(rng.integers(7, 22))
    t, offsets = evenly(-1.5, 1.5, 16), evenly(-1.5, 1.5, int(1.5 * lines))
    first = np.stack(np.broadcast_arrays(t[None], offsets[:, None]), 2)
    second = first[..., ::-1]
    phase, strength = rng.uniform(0, 6.3, 4), rng.uniform(0, 0.08)
    angle = rng.choice([0.0, np.pi / 4, rng.uniform(0, np.pi)])
    shear = np.array([[1, rng.uniform(-0.3, 0.3)], [0, 1]])
    result = []
    for family in (first, second):
        warp = np.stack(
            [np.sin(2.5 * family[..., 1] + phase[0]) + 0.5 * np.sin(5 * family[..., 0] + phase[1]),
             np.sin(2.5 * family[..., 0] + phase[2]) + 0.5 * np.sin(5 * family[..., 1] + phase[3])], -1,
        )  # fmt: skip
        result.append(transformed((family + strength * warp) @ shear, (0, 0), (1, 1), angle))
    return result


def plant(rng: np.random.Generator) -> tuple[list[tuple[Points, float]], Points]:
    """A branching plant, or a tuft of grass, in [-1, 1], growing upwards.

    Returns:
        Branches, as (polylines (N, K, 2), relative width), and leaves, as outlines (N, K, 2).
    """
    if rng.random() < 0.25:  # grass
        count = int(rng.integers(18, 45))
        root, lean, height = rng.uniform(-0.7, 0.7, count), rng.normal(0, 0.5, count), rng.uniform(0.8, 2.0, count)
        t = evenly(0, 1, 7)
        blades = np.stack([root[:, None] + lean[:, None] * t**2, 1 - height[:, None] * t], 2)
        return list(zip(np.array_split(blades, 3), (0.35, 0.6, 0.9), strict=True)), np.zeros((0, 3, 2))
    stems = int(rng.integers(1, 4))
    start = np.stack([rng.uniform(-0.25, 0.25, stems), np.ones(stems)], 1)
    angle, length = np.pi / 2 + rng.normal(0, 0.25, stems), rng.uniform(0.8, 1.1, stems)
    t = evenly(0, 1, 6)
    branches: list[tuple[Points, float]] = []
    buds, turns = [], []
    for level in range(4):  # all branches of a level at once
        angles = angle[:, None] + rng.normal(0, 0.35, len(angle))[:, None] * t
        steps = np.stack([np.cos(angles), -np.sin(angles)], 2)[:, 1:] * (length / 5)[:, None, None]
        path = np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, 1)], 1)
        branches.append((path, 0.55**level))
        if level >= 2:
            buds.append(path[:, [3, 5]].reshape(-1, 2))
            turns.append(np.repeat(angle, 2) + rng.normal(0, 0.8, 2 * len(angle)))
        parents = np.repeat(np.arange(len(angle)), rng.integers(2, 4, len(angle)))
        start = path[parents, rng.integers(2, 6, len(parents))]
        side = np.where(rng.random(len(parents)) < 0.5, -1, 1)
        angle = angle[parents] + side * rng.uniform(0.3, 0.9, len(parents))
        length = length[parents] * rng.uniform(0.5, 0.75, len(parents))
    at, turn = np.concatenate(buds), -np.concatenate(turns)
    t = evenly(0, np.pi, 7)
    edge = np.stack([1 - np.cos(t), rng.uniform(0.15, 0.4) * np.sin(t)], 1)
    leaf = np.concatenate([edge, edge[::-1] * np.array([1, -1])]) * rng.uniform(0.05, 0.11, (len(at), 1, 1))
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    turned = np.stack([c * leaf[..., 0] - s * leaf[..., 1], s * leaf[..., 0] + c * leaf[..., 1]], 2)
    return branches, at[:, None] + turned


def holes(rng: np.random.Generator) -> tuple[Points, list[Points]]:
    """A perforated plate, wheel or ring in [-1, 1].

    Returns:
        Its outline (K, 2), and the outlines of its holes, arrays (N, K, 2).
    """
    kind = int(rng.integers(4))
    if kind == 0:  # ring
        return circle(), [circle(rng.uniform(0.45, 0.85))[None]]
    if kind == 1:  # wheel with spokes, toothed or not
        teeth, spokes = int(rng.integers(10, 28)), int(rng.integers(4, 12))
        rim = 1 - rng.choice([0.0, 0.12]) * (np.sin(teeth * around(teeth * 8)) > 0)
        outline = circle(count=teeth * 8) * rim[:, None]
        gap = np.pi / spokes * rng.uniform(0.6, 0.92)
        ray = rays(around(spokes)[:, None] + np.linspace(-gap, gap, 10))
        return outline, [np.concatenate([0.8 * ray, rng.uniform(0.15, 0.3) * ray[:, ::-1]], 1)]
    if kind == 2:  # plate with a grid of holes
        count = int(rng.integers(4, 11))
        outline = polygon(rng) if rng.random() < 0.4 else transformed(circle(4.0 / 3, 4), (0, 0), (1, 1), np.pi / 4)
        hole = circle(rng.uniform(0.5, 0.85) / count, int(rng.choice([4, 6, 24])))
        grid = np.linspace(-1, 1, count, endpoint=False) + 1 / count
        y, x = np.meshgrid(grid, grid, indexing="ij")
        x = x + (np.arange(count) % 2)[:, None] / count
        return outline, [hole + np.stack([x, y], 2).reshape(-1, 1, 2)]
    ornament = []  # doily: rings of holes
    for ring, radius in enumerate(np.linspace(0.25, 0.85, int(rng.integers(2, 5)))):
        repeat = int(rng.integers(5, 9)) * (ring + 1)
        hole = transformed(circle(count=16), (radius, 0), (0.09, min(0.09, 2.2 * radius / repeat)))
        ornament.append(np.stack([transformed(hole, (0, 0), (1, 1), turn) for turn in around(repeat)]))
    edge = 1 - 0.06 * np.abs(np.sin(around(200) * int(rng.integers(8, 16))))
    return circle(count=200) * edge[:, None], ornament
