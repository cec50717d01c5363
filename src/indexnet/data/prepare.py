"""``indexnet data prepare``: composites by the published rule, and estimated foregrounds, written to disk once.

A file counts once it is whole and noted, with its checksum, in the folder's manifest. So a run that is killed goes on
where it stopped, a second one has nothing to do, and no folder holds composites over two lists of backgrounds.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from indexnet.core.console import error_console, say
from indexnet.core.errors import UserError
from indexnet.core.files import PART, DiskFullError, atomic_write, sha256_file
from indexnet.core.locks import exclusive
from indexnet.core.machine import cores
from indexnet.data.check import print_problems
from indexnet.data.io.cache import in_words
from indexnet.data.matting.compositing import MANIFEST
from indexnet.data.prepare_manifest import Manifest
from indexnet.data.prepare_outputs import Batch, Output

_PROBED = 4  # files that are made to tell how much room the others take
_SPARE = 1.1
_MOST_JOBS = 16


def prepare(batch: Batch, title: str, jobs: int | None = None) -> int:
    """Write what is not there yet, and print what was done.

    Args:
        batch: what to write.
        title: for messages.
        jobs: processes; None: one a core.

    Returns:
        0 all is there; 3 a part is; 2 nothing is.

    Raises:
        UserError: the folder holds other files, another command is writing there, or there is no room.
    """
    started = time.monotonic()
    Manifest(batch.folder).check(batch)  # before anything is written
    with exclusive(batch.folder / MANIFEST, f"another command is preparing {batch.folder}; wait until it is done."):
        manifest = Manifest(batch.folder)
        manifest.check(batch)
        outputs = manifest.begin(batch)
        todo = [output for output in outputs if not manifest.is_done(output)]
        if not todo:
            print(f"{title}: nothing to do, all {len(outputs)} files are in {batch.folder}.")
            return 0
        _remove_parts(batch)
        jobs = min(jobs or min(cores(), _MOST_JOBS), len(todo))
        with _workers(jobs) as submit:
            _check_room(batch.folder, todo, submit)
            problems, failed, written = _write_all(batch.folder, todo, manifest, submit, title)
    done = len(todo) - failed
    before = len(outputs) - len(todo)
    print(
        f"{title}: {batch.own} in {batch.folder}; {done} files ({in_words(written)}) written in "
        f"{time.monotonic() - started:.1f} s" + (f", {before} were there before." if before else ".")
    )
    if not problems:
        return 0
    print_problems(problems)
    print(f"{len(todo) - done} of {len(outputs)} files are missing; mend this, then the same command goes on.")
    return 3 if done or before else 2


def verify(batch: Batch, title: str) -> int:
    """Compare every file with its checksum and print what differs.

    Returns:
        0 every file is there and as it was written; 2 otherwise.

    Raises:
        UserError: the folder was not prepared, or from something else.
    """
    started = time.monotonic()
    manifest = Manifest(batch.folder)
    if manifest.made_of is None:
        raise UserError(f"{batch.folder} has not been prepared; the same command without --verify does that.")
    manifest.check(batch)
    files = list(dict.fromkeys([*(output.file for output in manifest.own(batch)), *manifest.files]))

    def compare(file: str) -> str:
        path = batch.folder / file
        if file not in manifest.files or not path.is_file():
            return f"{path} is missing; the same command without --verify writes it."
        if sha256_file(path) != manifest.files[file][1]:
            return f"{path} has changed; delete it, then the same command without --verify writes it again."
        return ""

    threads = ThreadPoolExecutor(min(8, cores()))
    try:
        said = _tracked(threads.map(compare, files), title, len(files))
        problems = [sentence for sentence in said if sentence]
    finally:
        threads.shutdown(cancel_futures=True)
    print_problems(problems)
    took = time.monotonic() - started
    if problems:
        print(f"{title}: {len(problems)} of {len(files)} files are not as written, found in {took:.1f} s.")
        return 2
    print(f"{title}: all {len(files)} files in {batch.folder} have their checksums ({took:.1f} s).")
    return 0


Submit = Callable[..., Future[Any]]


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[Submit]:
    """Give what runs a function in one of ``jobs`` processes, or for one job in a thread of this process.

    The processes are forked from a server that has imported this module and started no thread: one forked from here
    would hang where OpenMP has been used before.

    Raises:
        UserError: the system has ended one of them.
    """
    if jobs == 1:
        with ThreadPoolExecutor(1) as threads:
            try:
                yield threads.submit
            finally:
                threads.shutdown(cancel_futures=True)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(jobs, context, _start_worker)
    try:
        yield pool.submit
    except BrokenProcessPool as error:
        raise UserError(
            "a process was ended by the system, perhaps because memory ran out; the same command goes on, perhaps with "
            "fewer --jobs."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


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


def _check_room(folder: Path, todo: Sequence[Output], submit: Submit) -> None:
    """Refuse to start what the disk cannot hold: some files of each kind are made, and tell the size of the others.

    Raises:
        DiskFullError: it cannot.
    """
    kinds: dict[type, list[Output]] = {}
    for output in todo:
        kinds.setdefault(type(output), []).append(output)
    wanted = 0.0
    for outputs in kinds.values():
        spread = {int(at) for at in np.linspace(0, len(outputs) - 1, min(_PROBED, len(outputs)))}
        futures = [submit(_probe, outputs[at]) for at in sorted(spread)]
        probed = [found for future in futures if (found := future.result()) is not None]
        if probed:
            per_unit = sum(size for size, _ in probed) / sum(weight for _, weight in probed)
            wanted += per_unit * sum(_weight(output) for output in outputs)
    wanted *= _SPARE
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise DiskFullError(
            f"about {in_words(round(wanted))} are needed in {folder}, but {in_words(free)} are free; free some, or "
            "give output=DIR on another disk."
        )
    say(error_console(), f"{len(todo)} files, about {in_words(round(wanted))}, go to {folder}")


def _weight(output: Output) -> int:
    try:
        return output.weight()
    except (UserError, OSError):  # said when its turn comes
        return 0


def _probe(output: Output) -> tuple[int, int] | None:
    """Return the bytes and the weight of a file, None where it cannot be made."""
    try:
        return len(output.make()), output.weight()
    except (UserError, OSError):
        return None


def _write_all(
    folder: Path, todo: Sequence[Output], manifest: Manifest, submit: Submit, title: str
) -> tuple[list[str], int, int]:
    """Write files.

    Returns:
        What went wrong, each sentence once, in the order of the files; how many files that are; bytes that went well.

    Raises:
        DiskFullError: there is no room for the next one.
    """
    futures = {submit(_write, folder, output, output.file in manifest.files): output for output in todo}
    problems: dict[str, str] = {}
    written = 0
    for future in _tracked(as_completed(futures), title, len(todo)):
        output, result = futures[future], future.result()
        if isinstance(result, str):
            problems[output.file] = result
        else:
            manifest.add(output.file, *result)
            written += result[0]
    said = dict.fromkeys(problems[output.file] for output in todo if output.file in problems)
    return list(said), len(problems), written


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
        if path.exists() and not replaces:  # written just before a kill, or a person's
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
    if found == content or path.suffix != ".png":
        return found == content
    there = cv2.imdecode(np.frombuffer(found, np.uint8), cv2.IMREAD_UNCHANGED) if found else None
    ours = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return there is not None and ours is not None and np.array_equal(there, ours)


def _remove_parts(batch: Batch) -> None:
    """Remove what killed processes left half-written: hidden files named after ours, see ``indexnet.core.files``."""
    outputs = {batch.folder / output.file for output in batch.outputs}
    for folder in {path.parent for path in outputs}:
        for part in folder.glob(f".*{PART}") if folder.is_dir() else ():
            name, _, _ = part.name[1:].removesuffix(PART).rpartition(".")
            if folder / name in outputs:
                part.unlink(missing_ok=True)


def _tracked(items: Iterable[Any], title: str, total: int) -> Iterator[Any]:
    from rich.progress import track

    console = error_console()
    yield from track(items, title, total, console=console, transient=True, disable=not console.is_terminal)
