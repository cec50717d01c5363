"""Foregrounds: the colours and the matte of one object, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexnet.core.errors import UserError
from indexnet.data.base import UInt8
from indexnet.data.files import check_files, check_names, check_one_size
from indexnet.data.io.images import list_images, read_alpha, read_image, read_matte
from indexnet.data.io.names import pair, sample_name


@dataclass(frozen=True)
class Foreground:
    """One object.

    Attributes:
        name: unique in its data set, fit for a file name.
        colour: its colours; or, with ``estimate``, the photograph that it was cut from.
        alpha: its matte, of the same size.
        estimate: whether the colours still have to be estimated from the photograph and the matte.
    """

    name: str
    colour: Path
    alpha: Path
    estimate: bool = False

    @property
    def files(self) -> tuple[Path, Path]:
        """Colours and matte."""
        return self.colour, self.alpha

    def stamps(self) -> list[list[Any]]:
        """Return what a decoded foreground depends on: place, bytes and time of change of its files."""
        return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.files]


def read_foreground(foreground: Foreground) -> tuple[UInt8, UInt8]:
    """Decode and check one object.

    Returns:
        Colours, uint8 (H, W, 3), RGB, estimated where that is asked for; and alpha, uint8 (H, W).

    Raises:
        UserError: a file cannot be read, alpha has colours, the two differ in size, or pymatting is not installed.
    """
    colour, alpha = read_image(foreground.colour), read_matte(foreground.alpha)
    check_one_size(foreground.alpha, alpha.shape, foreground.colour, colour.shape)
    if foreground.estimate:
        from indexnet.data.matting.estimate import estimate_foreground

        colour = estimate_foreground(colour, read_alpha(foreground.alpha))
    return colour, alpha


def pair_foregrounds(colours: Path, alphas: Path, estimate: bool = False) -> list[Foreground]:
    """Return the objects of a folder of colours and one of mattes, paired by stem, by name.

    Raises:
        UserError: a folder is missing or empty, a file has no partner, or two files of one folder share a stem.
    """
    found = pair(list_images(colours), list_images(alphas))
    for colour, alpha in found:
        if colour is None or alpha is None:
            lone, partners = (alpha, colours) if colour is None else (colour, alphas)
            assert lone is not None
            raise UserError(f"{lone} has no partner; put one named {lone.stem}.png into {partners}.")
    return [Foreground(sample_name(colour), colour, alpha, estimate) for colour, alpha in found if colour and alpha]


def check_foregrounds(title: str, foregrounds: Sequence[Foreground]) -> None:
    """Refuse a list of objects with missing files or repeated names, before anything is read.

    Raises:
        UserError: a file is missing, a name is there twice, or there is no object.
    """
    if not foregrounds:
        raise UserError(f"data={title} has no foreground.")
    needed = f"; every foreground of data={title} needs colours and alpha."
    check_files((path for item in foregrounds for path in item.files), "more files", needed)
    check_names(title, "foregrounds", (item.name for item in foregrounds))
