"""What tells rows apart in figures and tables: a colour, a marker and a dash, by the row's number.

The first eight colours differ in lightness as well, so that people with any colour vision can tell them apart; the
other sixteen are further steps of the same hues, and have other markers and dashes. All have a contrast of at least 3
with the page.
"""

from __future__ import annotations

from typing import NamedTuple

LIGHT = (
    "#2d2e9a", "#810015", "#5b913d", "#957bf1", "#905200", "#319bb4", "#ab3d8d", "#3f4952",
    "#004479", "#d24c4e", "#005c3a", "#80369e", "#5b3b00", "#00829b", "#7d0563", "#595d69",
    "#3f48b4", "#a9212c", "#008455", "#561b8a", "#af6608", "#066c6a", "#d462b2", "#6c7680",
)  # fmt: skip
"""Series colours on a light page."""

DARK = (
    "#396ed6", "#ba5000", "#6ca450", "#a188ff", "#ffc674", "#88f3f0", "#cf5291", "#a8b3bd",
    "#2896f5", "#e15959", "#61d19a", "#8955c5", "#d49838", "#1e9997", "#ffa0e0", "#ced9e4",
    "#96c9fe", "#fe9691", "#aae58e", "#d98dfa", "#916f00", "#4fb4cd", "#f272b0", "#6c7680",
)  # fmt: skip
"""The same on a dark one."""

_INK, _WHITE = "#14161a", "#ffffff"
_STEP = 8  # rows of one marker and dash


class Look(NamedTuple):
    """How a row is drawn: places in ``LIGHT`` or ``DARK``, and among four markers and dashes; no two of 96 alike."""

    colour: int
    marker: int


def look(number: int) -> Look:
    """Return how the row of a number, 1-based, is drawn."""
    return Look((number - 1) % len(LIGHT), (number - 1) // _STEP % 4)


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``, 0 to 1, as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG defines it."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def text_on(colour: str) -> str:
    """Return what text reads best on a colour: white or ink."""
    return max((_WHITE, _INK), key=lambda ink: contrast(ink, colour))


def variables(dark: bool) -> str:
    """Write the colours as CSS variables, ``--c0`` on, with those of text on them, ``--t0`` on."""
    colours = DARK if dark else LIGHT
    return " ".join(f"--c{place}: {each}; --t{place}: {text_on(each)};" for place, each in enumerate(colours))


def style(number: int) -> str:
    """Write the CSS variables of a row: its colour ``--s`` and that of text on it, ``--t``."""
    colour = look(number).colour
    return f"--s:var(--c{colour});--t:var(--t{colour})"
