"""``indexnet data prepare``: composites by the published rule, and estimated foregrounds, written to disk once.

A file counts once it is whole and noted, with its checksum, in the folder's manifest. So a run that is killed goes on
where it stopped, a second one has nothing to do, and no folder holds composites over two lists of backgrounds.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from indexnet.core.console import tracked
from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError, atomic_write, format_bytes, remove_parts, sha256_file
from indexnet.core.locks import exclusive
from indexnet.core.machine import cores
from indexnet.data import create_data, get_data, list_data
from indexnet.data.io.progress import in_threads
from indexnet.data.matting.composite_data import CompositeData
from indexnet.data.matting.foregrounds import Foreground, check_foregrounds
from indexnet.data.matting.manifest import MANIFEST, Manifest
from indexnet.data.matting.outputs import Batch, Output, colours_batch

_PROBED = 4  # files that are made to tell how much room the others take
_SPARE = 1.1
_MOST_JOBS = 16


@dataclass
class Prepared:
    """What a folder holds, and what has been done for that.

    Attributes:
        total: number of files that belong there.
        before: how many were there before.
        written: how many have been written.
        nbytes: of those.
        problems: why others could not be, each sentence once, in the order of the files.
    """

    total: int
    before: int
    written: int = 0
    nbytes: int = 0
    problems: list[str] = field(default_factory=list)


def find_batch(name: str, what: str, options: dict[str, Any], output: Path | None) -> Batch:
    """Ask the data set what to write.

    Args:
        name: of the data set.
        what: ``"test"``, ``"train"``, or ``"foregrounds"`` with estimated colours.
        options: of the data set.
        output: folder to write to; None: where the data set finds it later.

    Raises:
        UserError: it does not know such a thing, or cannot for the files that are there.
    """
    if not _is_able(name, what):
        able = [info.name for info in list_data() if _is_able(info.name, what)]
        own = "estimated foregrounds" if what == "foregrounds" else "composites"
        raise UserError(f"data set {name!r} has no {own} to prepare; these have: {', '.join(able)}.")
    data = create_data(name, **options)
    assert isinstance(data, CompositeData)
    if what != "foregrounds":
        return data.batch(what, output)
    if output is None:
        raise UserError("say where estimated foregrounds go: output=DIR.")
    return colours_batch(_all_foregrounds(data), output)


def _is_able(name: str, what: str) -> bool:
    """Return whether a data set has such a thing, whatever its files."""
    cls = get_data(name)
    return issubclass(cls, CompositeData) and (what == "foregrounds" or cls.paired)


def _all_foregrounds(data: CompositeData) -> list[Foreground]:
    """Return the foregrounds of both splits.

    Raises:
        UserError: there is none, files are missing, or two share a name.
    """
    found: dict[str, Foreground] = {}
    for split in ("train", "test"):
        for item in data.foregrounds(split):
            if found.setdefault(item.name, item) != item:
                raise UserError(f"{found[item.name].colour} and {item.colour} share a name; rename one of them.")
    check_foregrounds(data.name, list(found.values()))
    return list(found.values())


def prepare(batch: Batch, title: str, jobs: int | None, announce: Callable[[str], None]) -> Prepared:
    """Write what is not there yet.

    Args:
        batch: what to write.
        title: of the progress bar.
        jobs: processes; None: one a core.
        announce: is told, before the first file is written, how many there will be.

    Raises:
        UserError: the folder holds other files, another command is writing there, or there is no room.
    """
    folder = batch.folder
    _check_folder(batch, Manifest(folder))  # before anything is written
    with exclusive(folder / MANIFEST, f"another command is preparing {folder}; wait until it is done."):
        manifest = Manifest(folder)
        _check_folder(batch, manifest)
        trimaps = (output.file for output in batch.outputs if output.kind == "trimap")
        manifest.begin(batch.made_of, [file for file in trimaps if os.path.exists(folder / file)])
        outputs = _own(batch, manifest)
        todo = [output for output in outputs if not manifest.is_whole(output.file)]
        result = Prepared(len(outputs), len(outputs) - len(todo))
        if todo:
            _remove_parts(batch)
            with _workers(min(jobs or min(cores(), _MOST_JOBS), len(todo))) as executor:
                wanted, free = round(_SPARE * _estimate_bytes(todo, executor)), shutil.disk_usage(folder).free
                if wanted > free:
                    raise DiskFullError(
                        f"about {format_bytes(wanted)} are needed in {folder}, but {format_bytes(free)} are free; "
                        "free some, or give output=DIR on another disk."
                    )
                announce(f"{len(todo)} files, about {format_bytes(wanted)}, go to {folder}")
                _write_all(todo, manifest, executor, title, result)
    return result


def verify(batch: Batch, title: str) -> tuple[int, list[str]]:
    """Compare every file with its checksum.

    Args:
        batch: what was written.
        title: of the progress bar.

    Returns:
        The number of files, and what is wrong with them.

    Raises:
        UserError: the folder was not prepared, or from something else.
    """
    manifest = Manifest(batch.folder)
    if manifest.made_of is None:
        raise UserError(f"{batch.folder} has not been prepared; the same command without --verify does that.")
    _check_folder(batch, manifest)
    files = list(dict.fromkeys([*(output.file for output in _own(batch, manifest)), *manifest.files]))

    def compare(file: str) -> str:
        path = batch.folder / file
        if file not in manifest.files or not os.path.isfile(path):
            return f"{path} is missing; the same command without --verify writes it."
        if sha256_file(path) != manifest.files[file][1]:
            return f"{path} has changed; delete it, then the same command without --verify writes it again."
        return ""

    return len(files), [problem for problem in in_threads(compare, files, title) if problem]


def _own(batch: Batch, manifest: Manifest) -> list[Output]:
    """Return what belongs to the folder, whether it has been written or not."""
    kept = set(manifest.kept)
    return [output for output in batch.outputs if output.file not in kept]


def _check_folder(batch: Batch, manifest: Manifest) -> None:
    """Refuse to write a batch into a folder of other files.

    Raises:
        UserError: it was prepared from something else, or holds files of these names from elsewhere.
    """
    if manifest.made_of is None:
        for output in batch.outputs:
            path = batch.folder / output.file
            if output.kind not in ("copy", "trimap") and os.path.exists(path):
                raise UserError(
                    f"{path} exists and was not written by this command; give output=DIR for another folder."
                )
    elif manifest.made_of != batch.made_of:
        keys = sorted(manifest.made_of.keys() | batch.made_of.keys())
        other = [key for key in keys if manifest.made_of.get(key) != batch.made_of.get(key)]
        raise UserError(
            f"{batch.folder} was prepared with other values of {', '.join(other)}; remove it, or give output=DIR "
            "for another folder."
        )


@contextmanager
def _workers(jobs: int) -> Iterator[Executor]:
    """Give an executor of ``jobs`` processes, or for one job of one thread.

    The processes are forked from a server that has imported this module and started no thread: one forked from here
    would hang where OpenMP has been used before.

    Raises:
        UserError: the system has ended one of them.
    """
    executor: Executor
    if jobs == 1:
        executor = ThreadPoolExecutor(1)
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        executor = ProcessPoolExecutor(jobs, context, _start_worker)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise UserError(
            "a process was ended by the system, perhaps because memory ran out; the same command goes on, perhaps with "
            "fewer --jobs."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    command = multiprocessing.parent_process()
    assert command is not None

    def follow() -> None:
        command.join()  # the server would stay for the sake of its workers, and they for work
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command says what is interrupted
    os.environ["NUMBA_NUM_THREADS"] = "1"
    cv2.setNumThreads(0)


def _estimate_bytes(todo: Sequence[Output], executor: Executor) -> float:
    """Return about how many bytes files take: some of each kind are made, and tell the size of the others."""
    kinds: dict[str, list[Output]] = defaultdict(list)
    for output in todo:
        kinds[output.kind].append(output)
    total = 0.0
    for outputs in kinds.values():
        chosen = {int(at) for at in np.linspace(0, len(outputs) - 1, min(_PROBED, len(outputs)))}
        size, weight = map(sum, zip(*executor.map(_probe, [outputs[at] for at in sorted(chosen)]), strict=True))
        if weight:
            total += size / weight * sum(output.weight() for output in outputs)
    return total


def _probe(output: Output) -> tuple[int, int]:
    """Return the bytes and the weight of a file, 0 and 0 where it cannot be made."""
    try:
        return len(output.make()), output.weight()
    except (UserError, OSError):
        return 0, 0


def _write_all(todo: Sequence[Output], manifest: Manifest, executor: Executor, title: str, result: Prepared) -> None:
    """Write files, and note in ``result`` what went well or wrong.

    Raises:
        DiskFullError: there is no room for the next one.
    """
    futures = {executor.submit(_write, manifest.folder, it, it.file in manifest.files): it.file for it in todo}
    problems: dict[str, str] = {}
    for future in tracked(as_completed(futures), title, len(todo)):
        file, found = futures[future], future.result()
        if isinstance(found, str):
            problems[file] = found
        else:
            manifest.add(file, *found)
            result.written += 1
            result.nbytes += found[0]
    result.problems = list(dict.fromkeys(problems[output.file] for output in todo if output.file in problems))


def _write(folder: Path, output: Output, replaces: bool) -> tuple[int, str] | str:
    """Make a file and write it.

    Args:
        folder: the prepared folder.
        output: the file.
        replaces: whether what is there was written by an earlier command, and has been damaged since.

    Returns:
        Its bytes and SHA-256, or why it could not be made.

    Raises:
        DiskFullError: there is no room.
    """
    path = folder / output.file
    try:
        content = output.make()
        if os.path.exists(path) and not replaces:  # written just before a kill, or a person's
            if not _is_same(path, content):
                return f"{path} exists with other content; move it away, then the same command goes on."
            content = path.read_bytes()
        else:
            atomic_write(path, content)
    except DiskFullError:
        raise
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or path}: {error.strerror or error}."
    return len(content), hashlib.sha256(content).hexdigest()


def _is_same(path: Path, content: bytes) -> bool:
    """Return whether a file has this content, or, of a PNG, the same pixels."""
    found = path.read_bytes()
    if found == content or path.suffix != ".png" or not found:
        return found == content
    there, ours = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in (found, content))
    return there is not None and ours is not None and np.array_equal(there, ours)


def _remove_parts(batch: Batch) -> None:
    """Remove what killed processes left half-written: hidden files named after ours, see ``indexnet.core.files``."""
    paths = [batch.folder / output.file for output in batch.outputs]
    for folder in {path.parent for path in paths}:
        remove_parts(folder, [path.name for path in paths])
