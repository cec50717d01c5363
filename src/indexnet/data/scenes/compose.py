"""Scenes: drawn by chance, looked at from a view, composed into image, matte, depth and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from indexnet.data.base import Float32, UInt8
from indexnet.data.scenes.objects import Frame, SceneObject, View, draw_object, pick_kind
from indexnet.data.scenes.textures import PATTERNS, Surface, blurs, lay, palette, soften, tone

_ROOM_PROBABILITY = 0.35


@dataclass(frozen=True)
class Rendering:
    """A scene at a view of side S.

    Attributes:
        alpha: uint8 (S, S), opacity of all objects together.
        fg: (3, S, S) in [0, 1], colours of the objects; continued where there is none.
        bg: (3, S, S) in [0, 1].
        label: uint8 (S, S), class of the first object whose silhouette is met, else 0; empty if it was not asked for.
        depth: (S, S), metres to that object, else to the background; likewise.
    """

    alpha: UInt8
    fg: Float32
    bg: Float32
    label: UInt8
    depth: Float32


@dataclass(frozen=True)
class Room:
    """A floor and a far wall; the camera looks level. Lengths in metres, ``horizon`` and ``focal`` in scene units."""

    camera_height: float
    horizon: float
    focal: float
    distance: float
    floor: Surface

    def depths(self, at: View) -> npt.NDArray[np.float64]:
        """Return metres to what each row shows of floor and wall."""
        drop = np.maximum(at.rows() - self.horizon, 1e-6)
        return np.asarray(np.minimum(self.focal * self.camera_height / drop, self.distance))


@dataclass(frozen=True)
class Scene:
    """Objects from back to front before a backdrop or in a room.

    Attributes:
        split: whose patterns and photographs it uses.
        objects: from the farthest to the nearest.
        backdrop: colours of the backdrop or the room's wall.
        blur: defocus of the background, in scene units.
        room: None before a flat backdrop.
        distance: metres to the backdrop.
        tilt: relative change of the backdrop's depth across and down the scene.
    """

    split: str
    objects: tuple[SceneObject, ...]
    backdrop: Surface
    blur: float
    room: Room | None
    distance: float
    tilt: tuple[float, float]

    def render(self, at: View, geometry: bool = True) -> Rendering:
        """Render the scene at a view.

        Args:
            at: the view.
            geometry: whether label and depth are wanted.
        """
        bg = self._background(at)
        depth = self._distances(at) if geometry else np.empty((0, 0), np.float32)
        label = np.zeros(depth.shape, np.uint8)
        alpha = np.zeros((at.height, at.width), np.float32)
        fg = np.empty((3, at.height, at.width), np.float32)
        started = False
        for item in self.objects:
            layer = item.render(self.split, at, geometry)
            if layer is None:
                continue
            where = (layer.rows, layer.columns)
            colours = (slice(None), layer.rows, layer.columns)
            if not started:  # beyond the first object's part, its mean colour
                fg[:] = layer.colour[:, ::8, ::8].mean((1, 2), keepdims=True)
                fg[colours] = layer.colour
                alpha[where] = layer.alpha
                started = True
            else:  # the "over" operator on unmultiplied colours
                total = layer.alpha + (1 - layer.alpha) * alpha[where]
                share = layer.alpha / np.maximum(total, np.float32(1e-6))
                for colour, below in zip(layer.colour, fg[colours], strict=True):
                    colour -= below
                    colour *= share
                    below += colour
                alpha[where] = total
            if layer.depth is not None and layer.silhouette is not None:
                inside = layer.silhouette.view(np.uint8)
                cv2.copyTo(layer.depth, inside, depth[where])
                cv2.copyTo(np.full(inside.shape, item.label, np.uint8), inside, label[where])
        if not started:
            fg.fill(0.5)
        np.clip(fg, 0, 1, out=fg)  # rounding of "over"
        matte = np.asarray(cv2.convertScaleAbs(alpha, alpha=255), np.uint8)
        return Rendering(matte, fg, bg, label, np.clip(depth, 0.3, 20, out=depth))

    def _background(self, at: View) -> Float32:
        """Return the colours of the background."""
        bg = np.empty((3, at.height, at.width), np.float32)
        sigma = self.blur * at.scale
        if self.room is None and not blurs(sigma):
            self.backdrop.paint(bg, self.split, at.to_scene, 1 / 255)
            return bg
        light, first = np.full((1, 1), 1 / 255, np.float32), at.height
        parts = []
        if self.room is not None:
            floor = self.room.depths(at)
            light = (np.minimum(1.15 - 0.05 * floor, 1) / 255).astype(np.float32)[:, None]  # dimmer with distance
            first = int(np.count_nonzero(floor == self.room.distance))  # rows from here on show the floor
        if first:
            parts.append((self.backdrop, at.to_scene, first))
        if self.room is not None and first < at.height:
            # A pixel on the floor: depth Z = focal * camera_height / drop, X = (x - 1/2) * camera_height / drop.
            room = self.room
            to_floor = np.array(
                [
                    [room.camera_height, 0, -0.5 * room.camera_height],
                    [0, 0, room.focal * room.camera_height],
                    [0, 1, -room.horizon],
                ]
            )
            below = at.cut(0, first, at.width, at.height - first)
            parts.append((room.floor, to_floor @ below.to_scene, below.height))
        if not blurs(sigma):
            top = 0
            for surface, to_plane, height in parts:
                surface.paint(bg[:, top : top + height], self.split, to_plane)
                top += height
            bg *= light
            return bg
        pictures = [
            cv2.merge(surface.render(self.split, to_plane, at.width, height)) for surface, to_plane, height in parts
        ]
        soft = soften(np.asarray(cv2.vconcat(pictures), np.uint8), sigma)
        for plane, channel in zip(bg, cv2.split(soft), strict=True):
            np.multiply(channel, light, out=plane)
        return bg

    def _distances(self, at: View) -> Float32:
        """Return metres to the background, (S, S)."""
        if self.room is not None:
            return np.repeat(self.room.depths(at).astype(np.float32)[:, None], at.width, axis=1)
        slope = self.tilt[0] * (at.columns() - 0.5) + self.tilt[1] * (at.rows() - 0.5)[:, None]
        return (self.distance * (1 + slope)).astype(np.float32)

    def anchors(self) -> npt.NDArray[np.float64]:
        """Points inside the scene where some object's alpha changes, (K, 2)."""
        points = np.concatenate([item.anchors() for item in self.objects])
        inside = ((points > 0.01) & (points < 0.99)).all(1)
        return np.asarray(points[inside])


def draw_scene(rng: np.random.Generator, split: str, sources: Sequence[str | Path], always_room: bool = False) -> Scene:
    """Draw a scene.

    Args:
        rng: the only source of chance.
        split: whose photographs and patterns the objects use.
        sources: photographs for the background.
        always_room: whether every scene has a floor, so that size and place tell the depth.
    """
    in_room = rng.random() < _ROOM_PROBABILITY or always_room
    if rng.random() < 0.8:
        backdrop = lay(rng, sources[int(rng.integers(len(sources)))], tone(rng), (0.45, 1.0), turn=0.1)
    else:
        backdrop = _pattern(rng, (0.7, 2.0))
    blur = rng.uniform(0.004, 0.02) if rng.random() < 0.4 else 0.0
    distance = float(rng.uniform(3.5, 9.5))
    room = None
    if in_room:
        floor = _pattern(rng, (0.15, 0.35), middle=(0.0, 5.0))  # in metres: a tile spans 3 to 7 of them
        room = Room(rng.uniform(1.0, 1.7), rng.uniform(0.3, 0.5), rng.uniform(0.9, 1.2), distance, floor)
        blur *= 0.4
    count = int(rng.choice([1, 2, 3, 4], p=[0.25, 0.35, 0.25, 0.15] if in_room else [0.55, 0.3, 0.15, 0.0]))
    nearest, farthest = 0.8, 3.2
    if room:  # nearer than that, feet are below the picture, and small things with them
        nearest, farthest = room.focal * room.camera_height / (1.08 - room.horizon), 0.8 * distance
    depths = np.sort(rng.uniform(nearest, max(nearest, farthest), count))[::-1]
    objects = []
    for depth in depths:
        kind = pick_kind(rng)
        frame = _in_room(rng, kind, depth, room) if room else _before_backdrop(rng, kind, depth, count)
        objects.append(draw_object(rng, kind, frame, split))
    tilt = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.2, 0.2)))
    return Scene(split, tuple(objects), backdrop, float(blur), room, distance, tilt)


def _pattern(
    rng: np.random.Generator, scales: tuple[float, float], middle: tuple[float, float] = (0.5, 0.5)
) -> Surface:
    name = PATTERNS[int(rng.integers(len(PATTERNS)))]
    colours = palette(rng, rng.random(), 0.15, rng.uniform(0.05, 0.6), rng.uniform(0.1, 0.5), rng.uniform(0.55, 1))
    return lay(rng, name, colours, scales, middle=middle)


def _before_backdrop(rng: np.random.Generator, kind: str, depth: float, count: int) -> Frame:
    height = rng.uniform(0.26, 0.5) if count == 1 else rng.uniform(0.18, 0.38)
    if kind in ("net", "smoke"):
        height *= 1.3
    aspect = rng.uniform(0.45, 0.7) if kind == "glass" else rng.uniform(0.75, 1.25)
    spread = 0.12 if count == 1 else 0.25
    x, y = 0.5 + rng.uniform(-spread, spread), 0.52 + rng.uniform(-spread, spread) * 0.7
    return Frame(float(x), float(y), float(height * aspect), float(height), float(depth))


def _in_room(rng: np.random.Generator, kind: str, depth: float, room: Room) -> Frame:
    tall = rng.uniform(0.35, 0.8) * (0.6 if kind == "glass" else 1.0)  # half height in metres
    half = room.focal * tall / depth
    aspect = rng.uniform(0.4, 0.6) if kind == "glass" else rng.uniform(0.75, 1.15)
    foot = room.horizon + room.focal * room.camera_height / depth
    rise = 2 * tall * rng.uniform(0, 0.5) * room.focal / depth if kind in ("smoke", "net", "lattice") else 0.0
    y = foot - half - rise
    return Frame(float(rng.uniform(0.15, 0.85)), float(y), float(half * aspect), float(half), float(depth))
