"""The page under attack: one running page, reached by raw requests as by anyone on the machine or any site's script."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest

from commands_support import WATCH, matting_checkpoint, photograph, save_image, trimap
from indexnet.commands.app import free_port

if find_spec("gradio") is None:
    pytest.skip("gradio is not installed", allow_module_level=True)

import httpx

LIMIT = 1 << 20
# what a careless or hostile environment would open the page with
OPEN = {
    "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_ROOT_PATH": "/elsewhere", "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_MCP_SERVER": "True",
    "GRADIO_NUM_WORKERS": "1", "GRADIO_VIBE_MODE": "1",
    "GRADIO_PROFILING": "1", "GRADIO_LOCAL_DEV_MODE": "1", "SYSTEM": "spaces", "SPACE_ID": "a/b",
}  # fmt: skip


class Page:
    """A running page and the folder around it, all of which the test made."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.scratch = root, root / "addresses", root / "tmp"
        for folder in ("site", "tmp", "home", "victim", "tmp/victim"):
            (root / folder).mkdir()
            (root / folder / "cat_alpha.png").write_bytes(b"precious")
        save_image(root / "victim" / "private.png", photograph(40, 52, 1))
        os.symlink(root / "victim", root / "tmp" / "link")
        (root / "site" / "sitecustomize.py").write_text(WATCH.format(log=str(self.log)))
        self.port = free_port(0)
        self.address = f"http://127.0.0.1:{self.port}"
        checkpoint = matting_checkpoint(root / "m.ckpt", {"name": "indexnet", "family": "hin"})
        here = {"PYTHONPATH": f"{root / 'site'}:{os.environ.get('PYTHONPATH', '')}", "TMPDIR": str(self.scratch)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "indexnet", "app", str(checkpoint), f"--port={self.port}", "--max-upload=1MB"],
            env=os.environ | OPEN | here | {"HOME": str(root / "home")},
            cwd=root / "home",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        line = self.process.stdout.readline()
        assert self.address in line, line + self.process.stdout.read()
        self.client = httpx.Client(base_url=self.address, timeout=60)
        functions = self.client.get("/config").json()["dependencies"]
        self.functions = {each["api_name"]: each["id"] for each in functions}
        self.unload = next(each["id"] for each in functions if each["targets"][0][1] == "unload")

    @property
    def files(self) -> Path:
        """The page's own folder, found from outside."""
        return next(self.scratch.glob("indexnet_app_*/files"))

    def upload(self, name: str, data: bytes) -> str:
        return self.client.post("/gradio_api/upload", files={"files": (name, data)}).json()[0]

    def call(self, function: int, data: list, session: str) -> dict:
        """Run a function of the page; returns what it answers."""
        body = {"fn_index": function, "data": data, "session_hash": session}
        self.client.post("/gradio_api/queue/join", json=body).raise_for_status()
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
            for line in answer.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError("no answer")

    def cut(self, photo: str, known: str, session: str, colour: str = "#3a6ea5") -> dict:
        file, layer = {"meta": {"_type": "gradio.FileData"}}, {"background": None, "layers": [], "composite": None}
        data = [file | {"path": photo}, layer, "trimap", None, 0, file | {"path": known}, colour, None, False, 0]
        return self.call(self.functions["cut_out"], data, session)

    def outside(self) -> dict[str, bytes]:
        """All files but the page's own."""
        found = {}
        for place, _, names in os.walk(self.root):
            if "indexnet_app_" not in place:
                paths = [Path(place, name) for name in names]
                found |= {str(path): path.read_bytes() if path.exists() else b"gone" for path in paths}
        return {name: data for name, data in found.items() if name != str(self.log) and "__pycache__" not in name}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    served = Page(tmp_path_factory.mktemp("page"))
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.kill()
        served.process.wait()


@pytest.fixture(scope="module")
def pictures(page):
    save_image(page.root / "cat.png", photograph(40, 52))
    save_image(page.root / "known.png", trimap(40, 52))
    return [page.upload(name, (page.root / name).read_bytes()) for name in ("cat.png", "known.png")]


def served_paths(answer: dict) -> list[str]:
    """All files that an answer names."""
    found = []

    def look(value):
        if isinstance(value, dict):
            found.extend(filter(None, [value.get("path")]))
            [look(each) for each in value.values()]
        elif isinstance(value, list):
            [look(each) for each in value]

    look(answer["output"].get("data", []))
    return [path for path in found if isinstance(path, str)]


@pytest.mark.long
def test_the_clients_word_for_its_session_is_no_path(page, pictures):
    root = page.root
    before = page.outside()
    hashes = [
        str(root / "victim"), f"{root / 'victim'}/", "../../victim", "../../../victim", "../victim", "../../link", "..",
        ".", "/", "~", "victim\0", "C:\\victim", str(page.scratch), str(page.files), "con", "a/../../../../victim",
    ]  # fmt: skip
    for session in hashes:
        answer = page.cut(*pictures, session)
        assert answer["success"], answer
        for path in served_paths(answer):
            assert Path(path).resolve().is_relative_to(page.files)
        page.call(page.unload, [], session)  # what gradio calls when the tab is closed
        with (
            contextlib.suppress(httpx.ReadTimeout),
            page.client.stream("GET", f"/gradio_api/heartbeat/{quote(session, safe='')}", timeout=0.2) as beat,
        ):
            next(beat.iter_bytes(), b"")
    assert page.outside() == before
    assert pictures[0].startswith(str(page.files))
    assert Path(pictures[0]).exists()


@pytest.mark.long
def test_no_file_is_read_but_the_pages_own(page, pictures):
    private = str(page.root / "victim" / "private.png")
    wanted = [
        private, f"{page.files}/../../../victim/private.png", "/etc/passwd", "/proc/self/environ",
        str(page.root / "m.ckpt"), str(page.scratch / "link" / "private.png"), "http://127.0.0.1:1/x.png",
        "file:///etc/passwd", "//etc/passwd",
        "/tmp/\x1b]0;title\x07\x1b[31m.png",
    ]  # fmt: skip
    for path in wanted:
        for asked in (quote(path), quote(path, safe="")):
            assert page.client.get(f"/gradio_api/file={asked}").status_code in (403, 404), path
        assert not page.cut(path, pictures[1], "reader")["success"], path
        answer = page.cut(*pictures, "reader", colour=path)  # a colour that names a picture
        assert not answer["success"]
        assert not served_paths(answer)
    for route in (
        "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/vibe-code", "/monitoring",
        "/gradio_api/deep_link?session_hash=reader", "/gradio_api/profiling/traces", "/gradio_api/mcp/",
        "/gradio_api/dev/reload", "/gradio_api/runs", "/static/../../../etc/passwd",
        "/gradio_api/custom_component/x/client/y/z", "/assets/%2e%2e/%2e%2e/hash_seed.txt", "/docs", "/openapi.json",
    ):  # fmt: skip
        assert page.client.get(route).status_code in (403, 404), route
    for route in ("process_recording", "component_server"):
        assert page.client.post(f"/gradio_api/{route}", files={"video": b"x"}).status_code == 404
    assert page.client.post("/gradio_api/run/cut_out", json={"data": []}).status_code == 404


@pytest.mark.long
def test_a_session_cannot_find_what_another_made(page, pictures):
    mine = page.cut(*pictures, "mine")
    theirs = page.cut(*pictures, "theirs")
    results = {Path(path) for path in served_paths(mine) if "cat_" in path}
    assert len({path.name for path in results}) == 5
    assert not results & {Path(path) for path in served_paths(theirs)}
    for path in results:  # a path is a key: 256 random bits of our own, or of gradio's hash with our seed
        assert any(
            len(part) == 64 and set(part) <= set("0123456789abcdef") for part in path.relative_to(page.files).parts
        )
        assert "mine" not in path.parts
        for guess in (path.parent.parent, path.parent, page.files / "mine" / path.name, page.files / path.name):
            assert page.client.get(f"/gradio_api/file={guess}").status_code in (403, 404)
    assert page.files.parent.stat().st_mode & 0o077 == 0  # nobody else on the machine can look into it
    page.call(page.unload, [], "mine")
    assert not any(path.exists() for path in results)
    assert all(Path(path).exists() for path in served_paths(theirs))


@pytest.mark.long
def test_other_sites_and_names_are_refused(page):
    home, other = page.address, "http://evil.example"
    own = {"origin": home, "sec-fetch-site": "same-origin"}
    upload = {"method": "POST", "url": "/gradio_api/upload"}
    call = {"fn_index": page.unload, "data": [], "session_hash": "a"}
    join = {"method": "POST", "url": "/gradio_api/queue/join", "json": call}
    rebound = f"evil.example:{page.port}"
    assert page.client.request(**upload, files={"files": b"x"}, headers=own).status_code == 200
    for headers in (
        {"origin": other}, {"origin": "null"}, {"origin": "http://localhost:8888"},
        {"origin": f"http://127.0.0.1:{page.port + 1}"}, {"origin": f"https://127.0.0.1:{page.port}"},
        {"origin": f"{home}.evil.example"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
        {"host": "evil.example"}, {"host": rebound}, {"host": rebound, "origin": f"http://{rebound}"},
        {"host": f"127.0.0.1.evil.example:{page.port}"}, {"host": ""},
    ):  # fmt: skip
        count = len(list(page.files.rglob("*")))
        for request in (upload | {"files": {"files": b"from elsewhere"}}, join, {"method": "GET", "url": "/config"}):
            answer = page.client.request(**request, headers=headers)
            assert answer.status_code in (400, 403), (headers, answer.text)
            assert answer.headers.get("access-control-allow-origin") != other
        assert len(list(page.files.rglob("*"))) == count
    asked = {"origin": other, "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in page.client.options("/gradio_api/upload", headers=asked).headers
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    first = page.client.get("/", headers=link)  # a link to the page may be followed; it cannot be framed
    assert first.status_code == 200
    assert "frame-ancestors 'none'" in first.headers["content-security-policy"]
    assert first.headers["x-content-type-options"] == "nosniff"
    assert page.client.get("/config", headers=link).status_code == 403
    assert "elsewhere" not in first.text
    for address in {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1"}:
        with pytest.raises(OSError):  # noqa: PT011  (refused, or no route)
            socket.create_connection((address, page.port), 2).close()


def part(name: str, data: bytes, file: bool = True) -> bytes:
    which = f'name="files"; filename="{name}"' if file else f'name="{name}"'
    return f"--B\r\nContent-Disposition: form-data; {which}\r\n\r\n".encode() + data + b"\r\n"


@pytest.mark.long
def test_the_limit_holds_for_raw_requests(page):
    form = {"content-type": "multipart/form-data; boundary=B"}
    big, end = b"x" * (LIMIT + 1), b"--B--\r\n"
    half = b"y" * (LIMIT // 2)

    def chunked(data):
        yield from (data[start : start + 50_000] for start in range(0, len(data), 50_000))

    def left():
        return {path.name for path in page.files.rglob("*") if path.is_file()}

    before = left()
    for body in (
        part("a.png", big) + end,
        part("a.png", half) + part("b.png", half) + part("c.png", half) + end,
        b"".join(part(f"{number}.png", b"z" * 2000) for number in range(999)) + end,
        part("field", big + half, file=False) + end,  # held in memory, were it not for the limit
    ):
        for content in (body, chunked(body)):
            assert page.client.post("/gradio_api/upload", content=content, headers=form).status_code == 413
    for content in (b'"' + big + half + b'"', chunked(b'"' + big + half + b'"')):
        answer = page.client.post(
            "/gradio_api/queue/join", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 413)
    many = b"".join(part(f"{number}.png", b"") for number in range(1001)) + end
    assert page.client.post("/gradio_api/upload", content=many, headers=form).status_code == 400
    # one that promises little and sends much, one that breaks off, and one with nonsense for a length
    for length, data in (("10", part("a.png", big)), ("900000", part("a.png", half)), ("-5", b""), ("x", b"")):
        with socket.create_connection(("127.0.0.1", page.port), 10) as raw:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nContent-Length: {length}\r\n"
            raw.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=B\r\n\r\n")
            with contextlib.suppress(OSError):
                raw.sendall(data)
            time.sleep(0.2)
    deadline = time.monotonic() + 20
    while left() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left() <= before


@pytest.mark.long
def test_at_the_end_nothing_is_left_and_nobody_else_was_asked(page, pictures):
    slow = threading.Event()

    def body():
        yield part("slow.png", b"x" * 1000)
        slow.wait(10)

    def send():
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(
                f"{page.address}/gradio_api/upload",
                content=body(),
                headers={"content-type": "multipart/form-data; boundary=B"},
            )

    thread = threading.Thread(target=send)
    thread.start()
    assert Path(pictures[0]).exists()
    assert not page.cut("/tmp/\x1b]0;title\x07\x1b[31m.png", pictures[1], "leaver")["success"]
    page.process.send_signal(signal.SIGINT)
    assert page.process.wait(60) == 0  # though an upload is under way
    slow.set()
    thread.join()
    assert not list(page.scratch.glob("indexnet_app_*"))
    said = page.process.stdout.read()
    assert "public URL" not in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)  # though clients' words are in it
    assert "title" in said
    assert not (page.root / "home" / ".gradio").exists()
    asked = {line for line in page.log.read_text().split("\n") if line}
    allowed = {f"socket.{what} {where}" for what in ("bind", "connect", "getaddrinfo") for where in
               ("127.0.0.1", "local", "localhost", "None")}  # fmt: skip
    # a name server, for the address that a client gave for a picture: asked for, refused, and so never connected to
    assert asked <= allowed | {"socket.getaddrinfo b'dns.google'"}
