"""The picture on the first page: what an index map is, computed by the functions of `indexnet.ops`."""

from __future__ import annotations

import torch
from pictures import data_uri
from torch import Tensor
from torch.nn import functional as F

from indexnet.ops import indexed_pool, indexed_upsample, normalise_indices, pack_cells, unpack_cells

CELL = (0, 0)  # row and column of the cell of 2x2 whose numbers are written out
PIXEL = 20  # of the picture's units, of a value at full resolution
PANEL = 8 * PIXEL
LEFT, TOP, RIGHT, BELOW = 20, 44, 70, 110  # margins, and the gaps between panels


def maps() -> dict[str, Tensor]:
    """Return the maps of the picture, each (h, w): a thin line, downsampled and upsampled by an index map."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    line = torch.where((y - 1 - 0.75 * x).abs() <= 0.5, 0.95, 0.1)[None, None]
    logits = 8 * (pack_cells(line) - 0.5)  # an index network learns this function; here it is a fixed one
    pooling, upsampling = normalise_indices(logits, "sigmoid+softmax/sigmoid")
    pooled = indexed_pool(line, pooling)
    found = {
        "encoder map": line,
        "index map": unpack_cells(upsampling),
        "upsampled with it": indexed_upsample(pooled, upsampling),
        "pooled by it": pooled,
        "decoder map": pooled,
        "without it: nearest": F.interpolate(pooled, scale_factor=2),
    }
    return {name: values[0, 0] for name, values in found.items()}


def markdown(place: str) -> str:
    """Return the picture as a figure with an SVG inside, in the colours of the page."""
    width, height = 2 * LEFT + 3 * PANEL + 2 * RIGHT, TOP + 2 * PANEL + BELOW + 12
    parts = []
    for number, (name, values) in enumerate(maps().items()):
        row, column = divmod(number, 3)
        parts.append(_panel(name, values, LEFT + column * (PANEL + RIGHT), TOP + row * (PANEL + BELOW)))
    first, second = TOP + PANEL / 2, TOP + PANEL + BELOW + PANEL / 2
    a, b, c = (LEFT + column * (PANEL + RIGHT) for column in range(3))
    parts += [
        _arrow(a + PANEL, first, b, first, "index", "function"),
        _arrow(b + PANEL, first, c, first, "kept as", "guide"),
        _arrow(a + PANEL / 2, TOP + PANEL, a + PANEL / 2, second - PANEL / 2 - 24, "down"),
        _arrow(a + PANEL, second, b, second, "network"),
        _arrow(b + PANEL, second, c, second, "up"),
        _arrow(b + PANEL * 0.75, second - PANEL / 2 - 24, c + 10, TOP + PANEL + 4, "up, with it"),
    ]
    said = "An index map, made from the encoder map, with which that map is pooled and the decoder map is upsampled"
    return (
        f'<figure class="index-map"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}.">'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z"/></marker></defs>{"".join(parts)}</svg></figure>\n'
    )


def _panel(name: str, values: Tensor, x: float, y: float) -> str:
    """Return a map with its name, and the numbers of one cell."""
    side = PANEL / values.shape[0]
    count = 2 if values.shape[0] == 8 else 1
    top, left = CELL[0] * count, CELL[1] * count
    numbers = "".join(
        f'<text class="number {"dark" if values[i, j] > 0.5 else "bright"}" '
        f'x="{x + (j + 0.5) * side:g}" y="{y + (i + 0.5) * side + 3.5:g}">{_short(float(values[i, j]))}</text>'
        for i in range(top, top + count)
        for j in range(left, left + count)
    )
    return (
        f'<text x="{x + PANEL / 2:g}" y="{y - 10:g}">{name}</text>'
        f'<image href="{data_uri(values)}" x="{x:g}" y="{y:g}" width="{PANEL}" height="{PANEL}"/>'
        f'<rect class="cell" x="{x + left * side:g}" y="{y + top * side:g}" width="{count * side:g}" '
        f'height="{count * side:g}"/>{numbers}'
    )


def _short(value: float) -> str:
    """Return two digits without the zero before the point, as the squares are small."""
    return f"{value:.2f}".removeprefix("0")


def _arrow(x0: float, y0: float, x1: float, y1: float, *words: str) -> str:
    """Return an arrow with words above the middle, or beside it where it goes down."""
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    down = x0 == x1
    texts = "".join(
        f'<text class="word" x="{x + 26 * down - 46 * (y1 < y0):g}" y="{y - 8 + 22 * row + 4 * down:g}">{word}</text>'
        for row, word in enumerate(words)
    )
    return (
        f'<path class="arrow" d="M{x0 + 4 * (not down):g} {y0 + 4 * down:g} L{x1 - 4 * (not down):g} {y1:g}"/>{texts}'
    )
