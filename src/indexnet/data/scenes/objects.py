"""Objects of scenes: drawn by chance once, rendered at any view as layers of alpha, colour, silhouette and depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32, UInt8
from indexnet.data.io import skimage_photographs
from indexnet.data.scenes import shapes
from indexnet.data.scenes.shapes import Area, Lines, Mark, Points, transformed
from indexnet.data.scenes.textures import Matrix, Surface, lay, palette, soften, tone

#: Class names; the index is the label.
CLASSES = ("background", "solid", "fur", "glass", "net", "plant", "smoke", "lattice")

_WEIGHTS = {"solid": 0.2, "fur": 0.26, "glass": 0.12, "net": 0.11, "plant": 0.13, "smoke": 0.08, "lattice": 0.1}
_GRAY = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
_KINDS, _SHARES = np.array(list(_WEIGHTS)), np.array(list(_WEIGHTS.values())) / sum(_WEIGHTS.values())
_PHOTOGRAPHIC = {"solid": 0.5, "fur": 0.15, "glass": 0.0, "net": 0.0, "plant": 0.1, "smoke": 0.0, "lattice": 0.25}


class View(NamedTuple):
    """What part of the scene is rendered, at which resolution.

    Attributes:
        to_pixels: (2, 3), maps scene coordinates to pixel positions, the first pixel spanning 0..1.
        to_scene: (3, 3), maps pixel indices (pixel centres) to scene coordinates.
        width: of the picture in pixels.
        height: of the picture in pixels.
        scale: pixels per scene unit.
    """

    to_pixels: Matrix
    to_scene: Matrix
    width: int
    height: int
    scale: float

    def cut(self, left: int, top: int, width: int, height: int) -> View:
        """Return the view of a part of this view's picture."""
        to_pixels = self.to_pixels - np.array([[0, 0, left], [0, 0, top]])
        to_scene = self.to_scene @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        return View(to_pixels, to_scene, width, height, self.scale)

    def columns(self) -> npt.NDArray[np.float64]:
        """Scene coordinate x of every column."""
        return np.asarray(self.to_scene[0, 0] * np.arange(self.width) + self.to_scene[0, 2])

    def rows(self) -> npt.NDArray[np.float64]:
        """Scene coordinate y of every row."""
        return np.asarray(self.to_scene[1, 1] * np.arange(self.height) + self.to_scene[1, 2])


def square_view(size: int, left: float = 0.0, top: float = 0.0, side: float = 1.0, mirrored: bool = False) -> View:
    """Return the view of the square of the given side at (left, top), mirrored left to right or not."""
    scale = size / side
    sign, shift = (-1.0, size + left * scale) if mirrored else (1.0, -left * scale)
    to_pixels = np.array([[sign * scale, 0, shift], [0, scale, -top * scale]])
    inverse = np.linalg.inv(np.vstack([to_pixels, [0, 0, 1]]))
    centres = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return View(to_pixels, inverse @ centres, size, size, scale)


class Frame(NamedTuple):
    """Where an object stands: centre and half sizes in scene units, distance in metres."""

    x: float
    y: float
    half_width: float
    half_height: float
    depth: float

    def place(self, points: Points, angle: float = 0.0) -> Points:
        """Place an object's own points, in [-1, 1], into the scene, turned."""
        return transformed(points, self[:2], self[2:4], angle)


class Layer(NamedTuple):
    """An object in its part of a view, h rows and w columns.

    Attributes:
        rows: which rows of the view.
        columns: which columns.
        alpha: (h, w) in [0, 1].
        colour: (3, h, w) in [0, 1]; goes on where alpha is 0.
        silhouette: (h, w), whether the object covers at least half of the pixel, transparent or not; None if it was not
            asked for.
        depth: (h, w), metres; likewise.
    """

    rows: slice
    columns: slice
    alpha: Float32
    colour: Float32
    silhouette: npt.NDArray[np.bool_] | None
    depth: Float32 | None


@dataclass(frozen=True)
class SceneObject:
    """One object.

    Attributes:
        kind: class name.
        frame: where it is.
        marks: its drawing.
        clip: a second drawing that bounds the first, or None.
        surface: its colours.
        opacity: peak alpha.
        defocus: standard deviation of the blur of its edges, in scene units.
        motion: blur along a direction, (length in scene units, angle); length 0 for none.
        light: direction of the light, angle.
        relief: strength of the shading.
        tilt: relative change of depth across the object.
        grain: map of the noise that gives smoke its shape.
    """

    kind: str
    frame: Frame
    marks: tuple[Mark, ...]
    clip: tuple[Mark, ...] | None
    surface: Surface
    opacity: float
    defocus: float
    motion: tuple[float, float]
    light: float
    relief: float
    tilt: float
    grain: Surface

    @property
    def label(self) -> int:
        """The class index."""
        return CLASSES.index(self.kind)

    def anchors(self) -> Points:
        """Points in scene coordinates where the alpha changes, (K, 2)."""
        if self.kind == "smoke":
            return self.frame.place(shapes.circle(0.55))
        drawn = [mark.points.reshape(-1, 2) for mark in self.marks]
        points = np.concatenate(drawn)
        if self.clip is not None:
            inside = np.abs(points - self.frame[:2]) < np.array(self.frame[2:4])
            points = points[inside.all(1)]
        return points

    def part(self, at: View) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of what the object may touch in a view, with a margin; None for nothing.

        The margin leaves room for the blur and for the colours that a trimap's unknown region, up to 19/320 of the
        view's side away, asks for.
        """
        if self.kind == "smoke":
            points = self.frame.place(shapes.circle(1.1, 16))
        else:
            points = np.concatenate([mark.points.reshape(-1, 2) for mark in self.clip or self.marks])
        x, y = points[:, 0], points[:, 1]
        corners = np.array([[x.min(), y.min()], [x.max(), y.max()]])  # a view is not turned
        pixels = corners @ at.to_pixels[:, :2].T + at.to_pixels[:, 2]
        margin = (3 * self.defocus + self.motion[0] + 0.02) * at.scale + at.width / 16 + 1
        left, top = np.maximum(np.floor(pixels.min(0) - margin), 0).astype(int)
        right, bottom = np.minimum(np.ceil(pixels.max(0) + margin), (at.width, at.height)).astype(int)
        if right - left < 8 or bottom - top < 8:
            return None
        return int(left), int(top), int(right - left), int(bottom - top)

    def render(self, split: str, whole: View, geometry: bool = True) -> Layer | None:
        """Render the object; None where the view does not show it.

        Args:
            split: whose patterns to use.
            whole: the view.
            geometry: whether silhouette and depth are wanted.
        """
        part = self.part(whole)
        if part is None:
            return None
        at = whole.cut(*part)
        rows = ((at.rows() - self.frame.y) / self.frame.half_height).astype(np.float32)
        columns = ((at.columns() - self.frame.x) / self.frame.half_width).astype(np.float32)
        if self.kind == "smoke":
            noise = self.grain.render(split, at.to_scene, at.width, at.height)[0] * np.float32(1 / 255)
            envelope = np.clip(1.15 - rows[:, None] ** 2 - columns[None] ** 2, 0, 1)
            coverage = np.clip((noise * 1.5 + envelope - 1.0) * 1.6, 0, 1) * envelope
            drawn = (coverage * 255).astype(np.uint8)
        else:
            drawn = self._drawn(at)
            coverage = drawn * np.float32(1 / 255)
        mass, shade = self._shading(drawn, at)
        size = (at.width, at.height)
        shade = np.asarray(cv2.resize(shade, size), np.float32)
        shade *= np.float32(1 / 255)
        colour = np.empty((3, at.height, at.width), np.float32)
        self.surface.paint(colour, split, at.to_scene)
        colour *= shade
        if self.kind == "glass" or geometry:
            bump = np.asarray(cv2.resize(mass, size), np.float32)
        if self.kind == "glass":
            alpha = self._glass(coverage, bump, rows, columns)
            colour += (alpha > self.opacity) * np.float32(0.4)  # highlights are white
            np.minimum(colour, 1, out=colour)
        else:
            alpha = coverage if self.opacity == 1 else coverage * np.float32(self.opacity)
        depth = silhouette = None
        if geometry:
            depth = bump * np.float32(-0.25 * self.relief * self.frame.half_width * self.frame.depth)
            depth += np.float32(self.frame.depth) * (1 + np.float32(self.tilt) * columns)
            silhouette = drawn >= (64 if self.kind == "smoke" else 128)
        left, top = part[:2]
        return Layer(
            rows=slice(top, top + at.height),
            columns=slice(left, left + at.width),
            alpha=alpha,
            colour=colour,
            silhouette=silhouette,
            depth=depth,
        )

    def _drawn(self, at: View) -> UInt8:
        """Coverage of the drawing, clipped and out of focus."""
        drawn = shapes.rasterise(self.marks, at.to_pixels, at.width, at.height)
        if self.clip is not None:
            bounds = shapes.rasterise(self.clip, at.to_pixels, at.width, at.height)
            drawn = np.asarray(cv2.multiply(drawn, bounds, scale=1 / 255), np.uint8)
        drawn = soften(drawn, self.defocus * at.scale)
        length = round(self.motion[0] * at.scale)
        if length > 2:
            kernel = np.zeros((length, length), np.float32)
            arm = (length - 1) / 2 * np.array([np.cos(self.motion[1]), np.sin(self.motion[1])])
            ends = np.rint((length - 1) / 2 + np.array([-arm, arm])).astype(int).tolist()
            cv2.line(kernel, ends[0], ends[1], (1.0,))
            drawn = np.asarray(cv2.filter2D(drawn, -1, kernel / kernel.sum()), np.uint8)
        return drawn

    def _shading(self, drawn: UInt8, at: View) -> tuple[Float32, Float32]:
        """Return a bump in [0, 1], high in the middle of the object, and the light on it; an eighth of the size."""
        small = (max(4, at.width // 8), max(4, at.height // 8))
        mass = cv2.resize(drawn, small, interpolation=cv2.INTER_AREA) * np.float32(1 / 255)
        sigma = min(max(0.35 * self.frame.half_width * at.scale / 8, 0.8), 6.0)
        mass = np.asarray(cv2.GaussianBlur(mass, (0, 0), sigma), np.float32)
        dy, dx = _slopes(mass), _slopes(mass.T).T
        slope = (np.cos(self.light) * dx + np.sin(self.light) * dy) * np.float32(3 * sigma)
        return mass, np.clip(0.72 + 0.25 * mass + self.relief * slope, 0.3, 1).astype(np.float32)

    def _glass(self, coverage: Float32, bump: Float32, rows: Float32, columns: Float32) -> Float32:
        """Alpha of glass: thin in the middle, denser at the rim, nearly opaque in the highlights."""
        rim = np.clip(1.15 - 1.25 * bump, 0, 1)
        alpha = coverage * (self.opacity * (0.25 + 0.75 * rim))
        across = np.exp(-(((columns + 0.25 + 0.1 * self.relief) / 0.06) ** 2)), np.exp(-(((columns - 0.3) / 0.1) ** 2))
        along = np.exp(-((rows / 0.55) ** 4)), np.exp(-(((rows + 0.35) / 0.08) ** 2))
        light = np.maximum(along[0][:, None] * across[0], along[1][:, None] * across[1])
        return np.asarray(np.maximum(alpha, light * coverage * np.float32(0.9)), np.float32)


def _slopes(field: Float32) -> Float32:
    """Return the differences of neighbours along the first axis, as ``np.gradient`` has them."""
    found = np.empty_like(field)
    np.subtract(field[2:], field[:-2], out=found[1:-1])
    found[1:-1] /= 2
    found[0], found[-1] = field[1] - field[0], field[-1] - field[-2]
    return found


def pick_kind(rng: np.random.Generator) -> str:
    """Draw a class."""
    return str(rng.choice(_KINDS, p=_SHARES))


def pick_surface(rng: np.random.Generator, kind: str, split: str) -> Surface:
    """Draw the colours of an object: what its class tends to wear."""
    if rng.random() < _PHOTOGRAPHIC[kind]:
        photos = skimage_photographs.names(split, colour_only=True)
        return lay(rng, photos[int(rng.integers(len(photos)))], tone(rng), (0.4, 1.0))
    light = rng.uniform(0.45, 1)
    names, colours = {
        "solid": (("clouds", "marble", "wood", "stripes", "checks", "dots", "weave", "cells", "bricks"), None),
        "fur": (("streaks", "streaks", "clouds", "speckle"), (0.07, 0.04, 0.45, rng.uniform(0.03, 0.4), light)),
        "glass": (("clouds",), (rng.choice([0.55, 0.3, 0.08]), 0.05, rng.uniform(0.05, 0.4), 0.45, 0.95)),
        "net": (("weave", "speckle", "clouds"), (rng.random(), 0.1, rng.uniform(0, 0.6), 0.15, light)),
        "plant": (("clouds", "streaks", "cells"), (0.28, 0.1, 0.6, 0.15, light)),
        "smoke": (("clouds",), (rng.random(), 0.2, 0.08, rng.uniform(0.3, 0.7), 1.0)),
        "lattice": (("wood", "marble", "clouds", "speckle", "weave"), None),
    }[kind]
    hue, spread, saturation, low, high = colours or (rng.random(), 0.25, rng.uniform(0.1, 0.8), 0.15, 1.0)
    name = names[int(rng.integers(len(names)))]
    return lay(rng, name, palette(rng, float(hue), spread, saturation, low, high), (0.7, 2.0))


Drawing = tuple[list[Mark], list[Mark] | None]


def _body(rng: np.random.Generator, frame: Frame) -> tuple[Points, Points]:
    """Head and shoulders in the scene, and the part of the outline where hair grows; a low body fills the bottom."""
    outline = frame.place(shapes.bust(rng))
    if frame.y + frame.half_height > 0.7:
        outline[outline[:, 1] > frame.y + 0.9 * frame.half_height, 1] = 1.2
    return outline, outline[:60]


def _solid(rng: np.random.Generator, frame: Frame) -> Drawing:
    choice = rng.random()
    if choice < 0.2:
        return [Area(_body(rng, frame)[0][None])], None
    outline = shapes.polygon(rng) if choice < 0.55 else shapes.blob(rng)
    angle = float(rng.uniform(-np.pi, np.pi))
    marks: list[Mark] = [Area(frame.place(outline, angle)[None])]
    if rng.random() < 0.3:  # a hole, or a handle
        hole = transformed(shapes.blob(rng, 0.3), rng.uniform(-0.2, 0.2, 2), [rng.uniform(0.15, 0.4)] * 2)
        marks.append(Area(frame.place(hole, angle)[None], 0))
    return marks, None


def _fur(rng: np.random.Generator, frame: Frame) -> Drawing:
    style = str(rng.choice(["fur", "hair", "hair", "seeds"]))
    if style == "hair" and rng.random() < 0.7:
        outline, root = _body(rng, frame)
    elif style == "seeds":
        outline = root = transformed(shapes.circle(), frame[:2], [0.18 * min(frame[2:4])] * 2)
    else:
        outline = root = transformed(shapes.blob(rng, 0.6), frame[:2], np.array(frame[2:4]) * 0.8)
    return [*shapes.strands(rng, root, style, frame.half_height), Area(outline[None])], None


def _glass(rng: np.random.Generator, frame: Frame) -> Drawing:
    choice = rng.random()
    outline = shapes.profile(rng) if choice < 0.7 else shapes.circle() if choice < 0.88 else shapes.polygon(rng)
    placed = frame.place(outline, float(rng.normal(0, 0.12)))[None]
    return [Area(placed), Lines(placed, 0.006, closed=True)], None


def _net(rng: np.random.Generator, frame: Frame) -> Drawing:
    web = rng.random() < 0.3
    angle, width = float(rng.uniform(-0.5, 0.5)), float(np.exp(rng.uniform(np.log(0.002), np.log(0.009))))
    marks: list[Mark] = [
        Lines(frame.place(family, angle), (0.5 if web else 1) * width) for family in shapes.mesh(rng, web)
    ]
    if web or rng.random() < 0.3:  # hangs free
        return marks, None
    outline = shapes.circle() if rng.random() < 0.5 else shapes.polygon(rng)
    placed = frame.place(outline, angle)[None]
    rim = Lines(placed, 3 * width, closed=True)
    return [*marks, rim], [Area(placed), rim]


def _plant(rng: np.random.Generator, frame: Frame) -> Drawing:
    branches, leaves = shapes.plant(rng)
    width = 0.016 * rng.uniform(0.5, 1.3)
    marks: list[Mark] = [Lines(frame.place(paths), float(width * relative)) for paths, relative in branches]
    return [*marks, Area(frame.place(leaves))], None


def _lattice(rng: np.random.Generator, frame: Frame) -> Drawing:
    outline, cut = shapes.holes(rng)
    angle = float(rng.uniform(-np.pi, np.pi))
    return [Area(frame.place(outline, angle)[None]), *(Area(frame.place(holes, angle), 0) for holes in cut)], None


_DRAW: dict[str, Callable[[np.random.Generator, Frame], Drawing]] = {
    "solid": _solid,
    "fur": _fur,
    "glass": _glass,
    "net": _net,
    "plant": _plant,
    "lattice": _lattice,
    "smoke": lambda rng, frame: ([], None),
}


def draw_object(rng: np.random.Generator, kind: str, frame: Frame, split: str) -> SceneObject:
    """Draw one object of a class at a place."""
    marks, clip = _DRAW[kind](rng, frame)
    blur, opacity = rng.random(), rng.random()
    defocus = rng.uniform(0.004, 0.018) if blur < 0.25 else rng.uniform(0.0, 0.002)
    if kind in ("net", "plant", "fur"):
        defocus *= 0.5  # thin structures would vanish
    moving = kind in ("solid", "lattice", "fur") and rng.random() < 0.08
    thin = 0.5 + 0.4 * opacity / 0.07 if opacity < 0.07 else 1.0
    peak = {"glass": 0.25 + 0.5 * opacity, "smoke": 0.4 + 0.6 * opacity}.get(kind, thin)
    return SceneObject(
        kind=kind,
        frame=frame,
        marks=tuple(marks),
        clip=None if clip is None else tuple(clip),
        surface=pick_surface(rng, kind, split),
        opacity=float(peak),
        defocus=float(defocus),
        motion=(float(rng.uniform(0.02, 0.05)) if moving else 0.0, float(rng.uniform(0, np.pi))),
        light=float(rng.uniform(0, 2 * np.pi)),
        relief=float(rng.uniform(0.2, 0.6)),
        tilt=float(rng.uniform(-0.06, 0.06)),
        grain=lay(rng, "clouds", _GRAY, (0.5, 1.2)),
    )
