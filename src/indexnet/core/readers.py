"""Text that somebody left behind, read without trust: UTF-8, limits on size, depth and growth, the file is named."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from indexnet.core.errors import UserError

MAX_BYTES = 64 * 2**20
"""What a text file may be large at most where its reader says nothing else."""

MAX_YAML_BYTES = 2 * 2**20
"""The same for YAML, of which a megabyte takes seconds."""

MAX_DEPTH = 100
"""How deep lists and mappings may stand inside each other in JSON and YAML."""

MAX_NODES = 1_000_000
"""How many values a YAML file may come to once its aliases are written out."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML has it: five times as fast


class DamagedFileError(UserError):
    """A file is there and cannot be what it should be; the sentence names it."""


def read_text(path: str | Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file; a byte order mark at its start is dropped.

    Args:
        path: the file; links are followed.
        max_bytes: the largest size in bytes that is read.

    Raises:
        FileNotFoundError: there is nothing of this name (a link that leads nowhere is something: DamagedFileError).
        DamagedFileError: it is no file, is larger, cannot be read, or is no UTF-8.
    """
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DamagedFileError(f"{path} is a {'folder' if stat.S_ISDIR(found.st_mode) else 'device'}, not a file.")
        if found.st_size > max_bytes:
            raise DamagedFileError(
                f"{path} has {found.st_size} bytes; a file of this kind has at most {max_bytes}, so it is not one."
            )
        data = path.read_bytes()
    except DamagedFileError:
        raise
    except FileNotFoundError:
        if path.is_symlink():
            raise DamagedFileError(f"{path} is a link that leads nowhere.") from None
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError:  # a NUL in its name
        raise DamagedFileError(f"{str(path)!r} is no name of a file.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path} is not UTF-8 text (byte {error.start} is {data[error.start]:#04x}).") from error


def read_json(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file as plain data.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: :func:`read_text` refuses it, it is not JSON, or it is nested deeper than :data:`MAX_DEPTH`.
    """
    return parse_json(read_text(path, max_bytes=max_bytes), str(path))


def parse_json(text: str, source: str) -> Any:
    """Return what JSON text says; ``source`` names where it stood, for the sentence.

    Raises:
        DamagedFileError: it is not JSON, or it is nested deeper than :data:`MAX_DEPTH`.
    """
    try:
        value = json.loads(text)
    except ValueError as error:  # JSONDecodeError, or an integer of more digits than Python converts
        raise DamagedFileError(f"{source} is not valid JSON: {error}.") from error
    except RecursionError:
        raise _too_deep(source) from None
    check_nesting(value, source)
    return value


def read_yaml(path: str | Path, *, max_bytes: int = MAX_YAML_BYTES) -> Any:
    """Read a YAML file as plain data.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: :func:`read_text` refuses it, it is not YAML, is nested deeper than :data:`MAX_DEPTH`,
            contains itself, or comes to more than :data:`MAX_NODES` values.
    """
    return parse_yaml(read_text(path, max_bytes=max_bytes), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return what YAML text says; ``source`` names where it stood, for the sentence.

    Raises:
        DamagedFileError: as :func:`read_yaml`.
    """
    with yaml_mistakes(source):
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            check_nesting(node, source)  # before it is built: merged mappings (`<<`) are written out while it is
            return loader.construct_document(node)
        finally:
            loader.dispose()


@contextlib.contextmanager
def yaml_mistakes(source: str) -> Iterator[None]:
    """Turn what a YAML library raises over a text into a sentence that names where the text stood.

    Raises:
        DamagedFileError: in place of it.
    """
    try:
        yield
    except yaml.YAMLError as error:
        raise DamagedFileError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from error
    except RecursionError:
        raise _too_deep(source) from None
    except DamagedFileError:
        raise
    except (ValueError, TypeError, OverflowError, AttributeError, KeyError) as error:  # 2024-02-31, a list as key
        raise DamagedFileError(f"{source} is not valid YAML: {error}.") from error


def plain_value(text: str) -> Any:
    """Return what a text means as YAML; as it stands where it means nothing there, as only Hydra can read it."""
    try:
        return parse_yaml(text, text)
    except DamagedFileError:
        return text


def read_mapping(path: str | Path, read: Callable[[str | Path], Any] = read_yaml) -> dict[str, Any]:
    """Read a file that holds one mapping whose keys are text, with :func:`read_yaml` or :func:`read_json`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: ``read`` refuses it, or it holds something else.
    """
    value = read(path)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        what = (
            "nothing" if value is None else f"a {type(value).__name__}" if not isinstance(value, dict) else "other keys"
        )
        raise DamagedFileError(f"{path} holds {what}; expected a mapping whose keys are text.")
    return value


def read_csv(path: str | Path, *, max_bytes: int = MAX_BYTES) -> list[dict[str, str]]:
    """Read a table with a header line; a short line's missing cells are empty.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: :func:`read_text` refuses it, it has a line with more cells than its header, or is no CSV.
    """
    lines = csv.DictReader(io.StringIO(read_text(path, max_bytes=max_bytes), newline=""), restval="")
    found: list[dict[str, str]] = []
    try:
        for line in lines:
            if None in line:
                raise DamagedFileError(f"{path}, line {lines.line_num}: it has more cells than the header.")
            found.append(line)
    except csv.Error as error:
        raise DamagedFileError(f"{path}, line {lines.line_num}: it is no CSV: {error}.") from error
    return found


def check_nesting(value: Any, source: str) -> None:
    """Refuse plain data that are nested too deep or grow too large; aliases count as often as they are used.

    Raises:
        DamagedFileError: they are deeper than :data:`MAX_DEPTH`, contain themselves, or come to more than
            :data:`MAX_NODES` values.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: Any, depth: int) -> int:
        children = _children(node)
        if children is None:
            return 1
        if id(node) in sizes and depth < MAX_DEPTH:
            return sizes[id(node)]
        if id(node) in inside or depth >= MAX_DEPTH:
            raise _too_deep(source)
        inside.add(id(node))
        sizes[id(node)] = total = 1 + sum(size(child, depth + 1) for child in children)
        inside.remove(id(node))
        return total

    if size(value, 0) > MAX_NODES:
        raise DamagedFileError(f"{source} comes to more than {MAX_NODES} values; a file of this kind has far fewer.")


def _children(node: Any) -> list[Any] | None:
    """Return what stands in a value of JSON or in a node of YAML; None where it holds nothing else."""
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    found = node.value if isinstance(node, yaml.SequenceNode) else node
    return list(found) if isinstance(found, list | tuple | set | frozenset) else None


def _too_deep(source: str) -> DamagedFileError:
    return DamagedFileError(f"{source} is nested more than {MAX_DEPTH} deep or contains itself.")
