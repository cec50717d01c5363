"""Gradient and connectivity error of one alpha matte, on arrays: the arithmetic of the metrics ``grad`` and ``conn``.

Sources: Rhemann et al., CVPR 2009; the evaluation code in Matlab of Xu et al., CVPR 2017; the code released with Index
Networks; MMEditing. The results are theirs, the way to them is shorter: filters run only where a pixel counts, and a
connected component is labelled only where filling it from one pixel leaves a doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Levels = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Semantics = Literal["matlab", "released_python", "mmediting"]

SIGMA = 1.4  # of the derivative of a Gaussian, pixels
STEPS = 10  # thresholds of connectivity: 0.1, 0.2, ... 1.0
SMALLEST = 0.15  # differences to a pixel's level below this do not count in connectivity
_THRESHOLDS = np.arange(STEPS + 1) * 0.1
_LEVELS = (np.arange(256, dtype=np.float32) / 255).astype(np.float32)
_STEP_OF_LEVEL = (_LEVELS[:, None] >= _THRESHOLDS[1:]).sum(1).astype(np.uint8)  # (256,), the same in single precision
_SEEDS = 4  # components that are filled before all are labelled
_STRIP, _GAP = 64, 32  # rows that are filtered at once, and columns that are not worth a new piece


def gradient_error(prediction: Floats, target: Floats, counted: Mask, semantics: Semantics) -> float:
    """Sum the squared differences of gradient magnitudes, of mattes stretched to [0, 1] by their own extremes.

    Args:
        prediction: (H, W), finite, any range.
        target: likewise.
        counted: (H, W), the pixels that count; the stretch goes by all.
        semantics: ``released_python`` has filters of radius 6, not normalised, and mirrored borders; the others 9x9
            filters of L2 norm 1 and repeated borders.

    Returns:
        The sum, not divided by anything.
    """
    released = semantics == "released_python"
    smooth, slope = _released_kernels() if released else _matlab_kernels()
    border = cv2.BORDER_REFLECT if released else cv2.BORDER_REPLICATE
    radius = len(smooth) // 2
    ranges = [(matte.min(), matte.max()) for matte in (prediction, target)]
    height, width = counted.shape
    total = 0.0
    for top, bottom, left, right in pieces(counted):
        above, before = min(radius, top), min(radius, left)
        around = np.s_[top - above : min(bottom + radius, height), left - before : min(right + radius, width)]
        inside = np.s_[above : above + bottom - top, before : before + right - left]
        magnitudes = []
        for matte, (low, high) in zip((prediction, target), ranges, strict=True):
            part = matte[around] - low
            if high > low:
                part /= high - low
            across = cv2.sepFilter2D(part, cv2.CV_32F, slope, smooth, borderType=border)[inside]
            down = cv2.sepFilter2D(part, cv2.CV_32F, smooth, slope, borderType=border)[inside]
            magnitudes.append(np.sqrt(across * across + down * down))  # cv2.magnitude rounds by where the array lies
        difference = (magnitudes[0] - magnitudes[1])[counted[top:bottom, left:right]]
        total += float(np.square(difference, dtype=np.float64).sum())
    return total


def connectivity_error(prediction: Floats, target: Floats, counted: Mask, semantics: Semantics) -> float:
    """Sum the differences of connectedness to the source region (Rhemann et al., 2009, with the published constants).

    At each threshold the source region is the largest 4-connected component where both mattes reach it. A pixel's
    level is the last threshold at which it belongs to all source regions so far.

    Args:
        prediction: (H, W), finite, in [0, 1]; multiples of 1/255 are taken for those, whatever rounding they saw.
        target: likewise.
        counted: (H, W), the pixels that count; components are those of the whole image.
        semantics: ``released_python`` stretches both mattes to [0, 1] by their own extremes first. With ``mmediting`` a
            threshold that no pixel reaches in both ends the level of every pixel; the others skip it, and pixels that
            never left have level 1. Of several largest components ``matlab`` takes the first column by column, the
            others row by row.

    Returns:
        The sum, not divided by anything.
    """
    where = np.flatnonzero(counted)
    if not len(where):
        return 0.0
    mattes = _as_levels(prediction), _as_levels(target)
    if semantics == "released_python":
        mattes = _stretched(mattes[0]), _stretched(mattes[1])
    matlab = semantics == "matlab"
    levels = source_levels(_steps(*mattes, single=matlab), semantics == "mmediting", by_columns=matlab)
    level = _THRESHOLDS.astype(np.float32)[levels.ravel()[where]]
    connected = []
    for matte in mattes:
        values = matte.ravel()[where]
        distance = (cv2.LUT(values, _LEVELS).ravel() if values.dtype == np.uint8 else values) - level
        distance[distance < SMALLEST] = 0
        connected.append(distance)
    return float(np.abs(connected[0] - connected[1]).sum(dtype=np.float64))


# --- gradient --------------------------------------------------------------------------------------------------------


def _matlab_kernels() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a Gaussian and its derivative, (9,), whose outer product has the L2 norm 1."""
    radius = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * 1e-2))))
    x = np.arange(-radius, radius + 1)
    smooth = np.exp(-(x**2) / (2 * SIGMA**2))
    slope = x * smooth
    return smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)


def _released_kernels() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a Gaussian of sum 1, cut at 4 sigma, and its derivative, (13,)."""
    radius = int(4 * SIGMA + 0.5)
    x = np.arange(-radius, radius + 1)
    smooth = np.exp(-(x**2) / (2 * SIGMA**2))
    smooth /= smooth.sum()
    return smooth, x * smooth / SIGMA**2


def pieces(counted: Mask) -> Iterator[tuple[int, int, int, int]]:
    """Yield rectangles (top, bottom, left, right), apart from each other, that hold all pixels that count."""
    height, _ = counted.shape
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        columns = np.flatnonzero(counted[top:bottom].any(0))
        if len(columns):
            breaks = np.flatnonzero(np.diff(columns) > _GAP)
            for left, right in zip(columns[np.r_[0, breaks + 1]], columns[np.r_[breaks, -1]], strict=True):
                yield top, bottom, int(left), int(right) + 1


# --- connectivity ----------------------------------------------------------------------------------------------------


def _as_levels(matte: Floats) -> Levels | Floats:
    """Return a matte in [0, 1] as uint8 where it is one of 8 bits, else as it is."""
    levels = np.asarray(cv2.convertScaleAbs(matte, alpha=255), np.uint8)
    exact = np.asarray(cv2.LUT(levels, _LEVELS), np.float32)
    return levels if np.array_equal(exact, matte) or np.abs(exact - matte).max() < 1e-6 else matte


def _stretched(matte: Levels | Floats) -> Levels | Floats:
    """Stretch a matte by its extremes in single precision, as the released code does on the scale of 0..255."""
    if matte.dtype == np.uint8 and (matte.min(), matte.max()) == (0, 255):
        return matte
    scaled = matte.astype(np.float32) if matte.dtype == np.uint8 else matte * np.float32(255)
    stretched: Floats = np.empty_like(scaled)
    cv2.normalize(scaled, stretched, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_32F)
    return stretched / np.float32(255)


def _steps(first: Levels | Floats, second: Levels | Floats, single: bool) -> Levels:
    """Return how many thresholds each pixel reaches in both mattes, 0 to 10.

    Matlab and NumPy 1 compare in single precision, NumPy 2 in double: what is 0.7 or 0.9 in single precision does not
    reach that threshold in double. ``single`` says which; 8-bit levels that are not stretched never lie there.
    """
    if first.dtype == np.uint8 and second.dtype == np.uint8:
        return np.asarray(cv2.LUT(cv2.min(first, second), _STEP_OF_LEVEL), np.uint8)
    one, other = (_LEVELS[matte] if matte.dtype == np.uint8 else matte for matte in (first, second))
    lower = np.minimum(one, other)
    steps: Levels = np.zeros(lower.shape, np.uint8)
    for threshold in _THRESHOLDS[1:].astype(np.float32) if single else _THRESHOLDS[1:]:
        steps += lower >= threshold
    return steps


def source_levels(steps: Levels, empty_counts: bool, by_columns: bool) -> Levels:
    """Return the number of thresholds after which each pixel leaves the source region, 0 to 10.

    The source region of the next threshold lies inside the last one, or apart from it: then every pixel has left.
    """
    result: Levels = np.zeros(steps.shape, np.uint8)
    reached = int(steps.max())
    if not reached:
        return result if empty_counts else np.full_like(result, STEPS)
    x, y, width, height = cv2.boundingRect(steps)
    steps = steps[y : y + height, x : x + width]
    levels = result[y : y + height, x : x + width]
    seeds: list[tuple[int, int]] = []
    for threshold in range(1, reached + 1):
        source = _filled_component(steps, threshold, seeds)
        if source is None:
            source = _largest_component(steps >= threshold, by_columns)
        if threshold > 1 and not (source & (levels == threshold - 1)).any():
            return result
        levels += source
    if not empty_counts:
        levels[source] = STEPS
    return result


def _filled_component(steps: Levels, threshold: int, seeds: list[tuple[int, int]]) -> Mask | None:
    """Return the largest component by filling a few, which is much faster than labelling all.

    One that has more pixels than every other one that was filled, and than all that is left, is the largest.

    Args:
        steps: (H, W), thresholds that each pixel reaches.
        threshold: which one components are looked for at; some pixel reaches it.
        seeds: (x, y) that were filled at the last threshold; changed to those filled now.

    Returns:
        (H, W), or None where there is no such component among the few.
    """
    marks = np.asarray(cv2.threshold(steps, threshold - 1, 1, cv2.THRESH_BINARY)[1], np.uint8)
    left = cv2.countNonZero(marks)
    areas = [0, 0]  # of mark 2, 3, ...
    known, seeds[:] = seeds[:], []
    while len(seeds) < _SEEDS and left >= max(areas):
        x, y = known.pop(0) if known else _lasting_pixel(steps, marks)
        if marks[y, x] == 1:
            areas.append(cv2.floodFill(marks, None, (x, y), (len(areas),), flags=4)[0])
            left -= areas[-1]
            seeds.append((x, y))
    seeds += known
    *_, second, first = sorted(areas)
    return marks == areas.index(first) if first > max(second, left) else None


def _lasting_pixel(steps: Levels, marks: Levels) -> tuple[int, int]:
    """Return (x, y) of a pixel of mark 1 that reaches most thresholds, one of many together on a sparse grid."""
    for stride in (4, 1):
        grid = steps[::stride, ::stride] * (marks[::stride, ::stride] == 1)
        if grid.any():
            break
    index = int(_largest_component(grid == grid.max(), by_columns=False).argmax())
    return index % grid.shape[1] * stride, index // grid.shape[1] * stride


def _largest_component(mask: Mask, by_columns: bool) -> Mask:
    """Return the largest 4-connected component; of several the first in the order of reading."""
    found, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    areas = np.bincount(labels.ravel(), minlength=found)
    areas[0] = 0
    best = areas == areas.max()
    label = int(best.argmax())
    if best.sum() > 1:
        order = labels.ravel(order="F" if by_columns else "C")
        label = int(order[best[order].argmax()])
    return np.equal(labels, label)
