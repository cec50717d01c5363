"""What keeps the page to this machine and its files to who made them; gradio's own options are set in ``page``."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse

from indexnet.core.escape import visible
from indexnet.core.locks import exclusive, held
from indexnet.inference.app import ADDRESS

KEPT = 3600
"""Seconds that files are kept at most while the page runs."""

_PREFIX = "indexnet_app_"
_OVERHEAD = 1 << 16  # bytes that a request may have around the file that it carries
_MESSAGE = 1 << 20  # bytes of a request that carries no file: all of it is held in memory
_YOUNG = 60  # seconds in which a folder may not have got its lock yet

# What the page in the browser asks for. gradio serves more: a proxy, screen recordings, links to whole sessions.
_ROUTES = ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/gradio_api/info", "/gradio_api/upload",
           "/gradio_api/upload_progress", "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/cancel",
           "/gradio_api/reset", "/gradio_api/startup-events", "/gradio_api/theme.css")  # fmt: skip
_UNDER = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/", "/gradio_api/file=/")
_HEADERS = {
    # should the page ever name another host, the browser refuses to ask it
    "content-security-policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware: refuses other sites, other routes and large bodies, and adds headers to every answer.

    Args:
        app: what answers.
        limit: of a file that is uploaded, in bytes; its request may be 64 KB larger. Others may have 1 MB.
    """

    def __init__(self, app: Any, limit: int) -> None:
        self.app = app
        self.limit = limit + _OVERHEAD

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), text.encode()) for name, text in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        headers, path = Headers(scope=scope), scope["path"]
        upload = path == "/gradio_api/upload"
        limit = self.limit if upload else _MESSAGE
        known = path.isprintable() and (path in _ROUTES or path.startswith(_UNDER))
        if not _same_site(scope, headers):
            await PlainTextResponse("only the page itself may ask for this.", 403)(scope, receive, answer)
        elif not known:
            await PlainTextResponse("there is nothing here.", 404)(scope, receive, answer)
        elif int(headers.get("content-length") or 0) > limit:
            await PlainTextResponse(f"larger than the {limit} bytes allowed.", 413)(scope, receive, answer)
        else:
            await self.app(scope, _counted(receive, limit, upload), answer)


def _counted(receive: Any, limit: int, upload: bool) -> Any:
    """Count a body while it comes: its header may be missing, or may lie."""
    size, more = 0, True

    async def counted() -> Any:
        nonlocal size, more
        message = await receive()
        if message["type"] == "http.request":
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            problem = size > limit and f"larger than the maximum allowed size of {limit} bytes."
        else:  # the client has gone
            problem = upload and more and "broken off."
        if problem:  # gradio removes what it has got of an upload for this kind of error only
            raise MultiPartException(problem) if upload else HTTPException(413, problem)
        return message

    return counted


def _same_site(scope: Any, headers: Headers) -> bool:
    """Return whether a request comes from the page itself, or from no page at all."""
    if headers.get("origin", f"http://{headers.get('host')}") != f"http://{headers.get('host')}":
        return False
    opened = scope["path"] == "/" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return opened or headers.get("sec-fetch-site", "none") in ("none", "same-origin")


class Results:
    """Folders for results, a new one for each, with names of our own that nobody can guess.

    Whoever knows a file's path can fetch it, so that the path is the key; a client's word never becomes part of one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[str | None, list[Path]] = {}

    def create(self, session: str | None) -> Path:
        """Make a folder; ``session`` is what the client calls itself, and only what :meth:`remove` finds it by."""
        folder = self.root / secrets.token_hex(32)
        folder.mkdir(parents=True)
        self._made.setdefault(session, []).append(folder)
        return folder

    def remove(self, session: str | None) -> None:
        """Remove what was made for a session."""
        for folder in self._made.pop(session, []):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Give a temporary folder for all that the page is sent and makes, which only this user can enter.

    Folders of pages that were killed are removed first.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, or gone by now
            found = left.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _YOUNG and not held(left / "lock"):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        with exclusive(folder / "lock", "another page has this folder."):
            (folder / "files").mkdir()
            yield folder / "files"


def isolate(folder: Path) -> None:
    """Prepare the process, before gradio is imported: nothing of the environment opens the page to others.

    gradio takes from the environment what ``launch`` is not told: a public address, paths to serve, a reloader.

    Args:
        folder: for uploads and what gradio keeps.
    """
    for name in [name for name in os.environ if name.startswith(("GRADIO_", "SPACE"))]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_EXAMPLES_CACHE": str(folder),  # else one in the present folder, which is served too
        "GRADIO_TEMP_DIR": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    tempfile.tempdir = str(folder)
    for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own page whether it is there
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), ADDRESS]))


def plain_output() -> None:
    """Write control characters out, for the rest of the process: what gradio and its server log has clients' words."""

    def written(write: Callable[[str], int]) -> Callable[[str], int]:
        return lambda text: write(visible(text))

    for stream in (sys.stdout, sys.stderr):
        stream.write = written(stream.write)  # type: ignore[method-assign]


def stay_here() -> None:
    """Refuse, for the rest of the process, every connection to another machine, and every address but loopback."""

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = args[0]
        elif event in ("socket.bind", "socket.connect", "socket.sendto"):
            host = args[1][0] if isinstance(args[1], tuple) else ADDRESS  # a path of this machine
        else:
            return
        if host not in (ADDRESS, "localhost", None, ADDRESS.encode(), b"localhost"):
            raise PermissionError(f"the page asks no other machine for anything, not {host!r}")

    sys.addaudithook(refuse)


def sweep(folder: Path, age: float) -> None:
    """Remove files that were last written more than ``age`` seconds ago, and the folders that this leaves empty.

    gradio's own ``delete_cache`` leaves uploads that broke off, what its fields make, and folders.
    """
    limit = time.time() - age
    for place, _, names in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # just being written, or gone
            old = os.stat(place).st_mtime < limit
            for name in names:
                path = os.path.join(place, name)
                if os.lstat(path).st_mtime < limit:
                    os.remove(path)
            if old and place != str(folder):
                os.rmdir(place)  # fails where something is left
