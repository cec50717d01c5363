"""Names of files: which belong together, and how a name is written where only UTF-8 fits.

A name is first looked for as it is written. Where that finds nothing, the same characters in another Unicode form match
(macOS writes an accent as a character of its own), and then the same letters in another case. Endings never count.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.data.io.images import any_images, list_images


def printable(name: str) -> str:
    r"""Return a name with its bytes that are no UTF-8 escaped, such as ``\xb2``; any other name as it is."""
    return name_bytes(name).decode("utf-8", "backslashreplace")


def name_bytes(name: str) -> bytes:
    """Return the bytes of a file's name, for hashes; those of any other text are its UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def is_file(path: Path) -> bool:
    """Return whether there is a file; False also for a name that no file can have, such as a line of a wrong list."""
    return os.path.isfile(path)


def sample_name(path: Path) -> str:
    """Return what a sample is called that lies in a file: its name without the ending, :func:`printable`."""
    return printable(path.stem)


def _in_one_form(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def _caseless(name: str) -> str:
    return _in_one_form(_in_one_form(name).casefold())  # Unicode's canonical caseless matching, definition D145


_ALIKE: tuple[Callable[[str], str], ...] = (str, _in_one_form, _caseless)
"""From the strictest to the most lenient: what is the same for two names that belong together."""


class Names:
    """Files, found by their names.

    Args:
        paths: the files.
        of: what a file is called; by default its name without the ending.
    """

    def __init__(self, paths: Iterable[Path], of: Callable[[Path], str] = lambda path: path.stem) -> None:
        self.paths = list(paths)
        self._tables: list[dict[str, list[Path]]] = [{} for _ in _ALIKE]
        for path in self.paths:
            for table, key in zip(self._tables, _ALIKE, strict=True):
                table.setdefault(key(of(path)), []).append(path)

    def find(self, name: str) -> Path | None:
        """Return the file of this name, None where there is none.

        Raises:
            UserError: there are several, such as ``a.jpg`` and ``a.png``.
        """
        for table, key in zip(self._tables, _ALIKE, strict=True):
            if found := table.get(key(name)):
                return _only(found)
        return None


def pair(first: Sequence[Path], second: Sequence[Path], ending: str = "") -> list[tuple[Path | None, Path | None]]:
    """Pair the files of two folders by their names, each at most once.

    Args:
        first: files of one folder.
        second: files of another.
        ending: what all names of the other have behind those of the one, such as ``_L``.

    Returns:
        The pairs in the order of their names; None in the place of a partner that is missing.

    Raises:
        UserError: two files of one folder share a name, or belong to the same one of the other.
    """
    sides = [list(first), list(second)]
    found: list[tuple[Path | None, Path | None]] = []
    for level, key in enumerate(_ALIKE):
        tables: list[dict[str, list[Path]]] = [{}, {}]
        for paths, table, more in zip(sides, tables, ("", ending), strict=True):
            for path in paths:
                table.setdefault(key(path.stem.removesuffix(more)), []).append(path)
            if level == 0:  # two files of exactly one name are a mistake even without a partner
                for same in table.values():
                    _only(same)
        for name in tables[0].keys() & tables[1].keys():
            found.append((_only(tables[0].pop(name)), _only(tables[1].pop(name))))
        sides = [[path for same in table.values() for path in same] for table in tables]
    found += [(path, None) for path in sides[0]] + [(None, path) for path in sides[1]]
    return sorted(found, key=lambda each: next(path.stem for path in each if path))


def list_named(folder: Path) -> list[Path]:
    """Return the images of a folder, by name.

    Raises:
        UserError: the folder is missing or empty, or two of its images share a name, so that their samples would.
    """
    paths = list_images(folder)
    pair(paths, [])
    return paths


class FileFinder:
    """Looks for files at paths that somebody wrote down; what a folder holds is listed once."""

    def __init__(self) -> None:
        self._files: dict[Path, Names] = {}
        self._images: dict[Path, Names] = {}

    def find(self, path: Path) -> Path | None:
        """Return the file at a path, None where there is none.

        Raises:
            UserError: there are several whose names differ in nothing but case or Unicode form.
        """
        if is_file(path):
            return path
        if (folder := path.parent) not in self._files:
            there = sorted(folder.iterdir()) if os.path.isdir(folder) else ()
            self._files[folder] = Names(filter(is_file, there), lambda each: each.name)
        return self._files[folder].find(path.name)

    def find_image(self, path: Path) -> Path | None:
        """Return the image at a path, whatever its ending; None where there is none.

        Raises:
            UserError: there are several, but none at this very path.
        """
        if is_file(path):
            return path
        if (folder := path.parent) not in self._images:
            self._images[folder] = Names(folder / name for name in any_images(folder))
        return self._images[folder].find(path.stem)

    def find_below(self, root: Path, listed: str) -> Path | None:
        """Return the file that a line of a list names: below ``root``, whatever folders lead to it elsewhere.

        Args:
            root: the folder that names are relative to.
            listed: with slashes or backslashes; leading folders of the machine that made the list are left out.

        Raises:
            UserError: as :meth:`find`.
        """
        for text in dict.fromkeys((listed, listed.replace("\\", "/"))):
            parts = Path(text.lstrip("/")).parts
            for start in range(len(parts)):
                if (found := self.find(root.joinpath(*parts[start:]))) is not None:
                    return found
        return None


def _only(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        first, *others = sorted(paths)
        raise UserError(f"{first} and {' and '.join(path.name for path in others)} share a name; keep one of them.")
    return paths[0]
