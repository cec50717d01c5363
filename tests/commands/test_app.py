from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from commands_support import (
    WATCH,
    autoencoder_checkpoint,
    matting_checkpoint,
    photograph,
    read,
    save_image,
    trimap,
)
from indexnet.cli import main
from indexnet.commands import app
from indexnet.commands.app import free_port
from indexnet.core.errors import UserError
from indexnet.data.io.masks import trimap_from_mask
from indexnet.data.matting.cutouts import Blur, on_background
from indexnet.inference.app import ADDRESS
from indexnet.inference.app.session import BRUSHES, CANVAS_SIDE, Session, canvas, paint, read_guided
from indexnet.inference.loading import load_task
from indexnet.networks.checkpoint import load_network
from indexnet.networks.tiled.matting_protocol import infer_alpha, to_uint8
from report_browser import EXECUTABLE, browser

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("app") / "m.ckpt", {"name": "indexnet", "family": "hin"})


@pytest.fixture(scope="module")
def session(checkpoint):
    return Session(*load_task(checkpoint))


@pytest.fixture
def files(tmp_path):
    save_image(tmp_path / "cat.png", photograph(40, 52))
    save_image(tmp_path / "known.png", trimap(40, 52))
    mask = np.zeros((40, 52), np.uint8)
    mask[10:30, 12:40] = 255
    save_image(tmp_path / "mask.png", mask)
    return tmp_path


def strokes(height, width, **places):
    """RGBA of painted rows, ``foreground=slice(...)``."""
    layer = np.zeros((height, width, 4), np.uint8)
    for name, rows in places.items():
        colour = BRUSHES[name][0]
        layer[rows] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)] + [255]
    return layer


def test_the_result_is_what_predict_writes(session, checkpoint, files):
    photo = read_guided(files / "cat.png", "trimap", files / "known.png")
    cut = session.cut(photo, files / "out", "cat")
    network, _ = load_network(checkpoint)
    levels = infer_alpha(network, photograph(40, 52), trimap(40, 52))
    assert np.array_equal(read(cut.files["alpha"]), to_uint8(levels))
    wide = read(cut.files["alpha16"])
    assert np.abs(wide / 257.0 - levels).max() <= 0.5 / 257 + 1e-4
    assert len(np.unique(wide)) > len(np.unique(read(cut.files["alpha"])))
    assert np.array_equal(read(cut.files["trimap"]), trimap(40, 52))
    cutout = read(cut.files["cutout"])
    assert np.array_equal(cutout[..., 3], np.rint(levels).astype(np.uint8))
    assert np.array_equal(cutout[:, -5:, :3], photograph(40, 52)[:, -5:])  # where it is opaque, its own colours
    red = read(session.compose(cut, "rgba(254.7, 0, 0.2, 1)", None))
    assert (red[:, :5] == [255, 0, 0]).all()
    save_image(files / "behind.png", np.full((9, 30, 3), 77, np.uint8))
    assert (read(session.compose(cut, "#ffffff", files / "behind.png"))[:, :5] == 77).all()
    wanted = on_background(cut.image, cut.alpha, Blur(), cut.colours)
    assert np.array_equal(read(session.compose(cut, "#ffffff", files / "behind.png", blur=True)), wanted)


def test_index_maps_of_every_stage(session, files, tmp_path):
    assert session.stages == 5
    cut = session.cut(read_guided(files / "cat.png", "trimap", files / "known.png"), tmp_path, "cat")
    assert len(cut.maps) == 5
    assert all(shown.dtype == np.uint8 and shown.std() > 0 for shown in cut.maps)
    plain = Session(*load_task(matting_checkpoint(tmp_path / "plain.ckpt", "deconv")))
    assert plain.stages == 0
    assert plain.cut(read_guided(files / "cat.png", "trimap", files / "known.png"), tmp_path, "cat").maps == []


def test_a_photograph_larger_than_what_index_maps_are_made_of(session, tmp_path):
    save_image(tmp_path / "wide.png", photograph(90, 1300))
    known = np.zeros((90, 1300), np.uint8)
    known[40, 1] = 128  # gone in the smaller picture
    save_image(tmp_path / "known.png", known)
    cut = session.cut(read_guided(tmp_path / "wide.png", "trimap", tmp_path / "known.png"), tmp_path, "wide")
    assert cut.maps[0].shape[1] == 640
    assert cut.alpha.shape == (90, 1300)
    assert canvas(tmp_path / "wide.png").shape == (round(90 * CANVAS_SIDE / 1300), CANVAS_SIDE, 3)


def test_strokes_become_a_trimap(files):
    layer = strokes(40, 52, foreground=slice(0, 10), unknown=slice(10, 20))
    for start, rest in (("background", 0), ("unknown", 128)):
        made = read_guided(files / "cat.png", start, strokes=layer).trimap
        assert (made[:10] == 255).all()
        assert (made[10:20] == 128).all()
        assert (made[20:] == rest).all()
    mended = read_guided(files / "cat.png", "trimap", files / "known.png", strokes=strokes(40, 52, background=slice(5)))
    assert (mended.trimap[:5] == 0).all()
    assert np.array_equal(mended.trimap[5:], trimap(40, 52)[5:])


def test_strokes_of_another_size_and_soft_rims():
    layer = strokes(20, 30, foreground=slice(5, 10))
    layer[10] = [*layer[9, 0, :3], 127]  # less than half opaque
    layer[4] = layer[5] * [[1, 1, 1, 0]] + [0, 12, 9, 200]  # a rim's colour is a little off
    made = paint(np.zeros((40, 60), np.uint8), layer)
    assert (made[8:20] == 255).all()
    assert (made[:8] == 0).all()
    assert (made[20:] == 0).all()
    with pytest.raises(UserError, match=r"30x20.*do not fit the photograph .50x50"):
        paint(np.zeros((50, 50), np.uint8), layer)


def test_a_mask_with_a_band(files):
    mask = read(files / "mask.png") > 0
    for band in (None, 3):
        made = read_guided(files / "cat.png", "mask", files / "mask.png", band)
        assert np.array_equal(made.trimap, trimap_from_mask(mask, band))


def test_every_mistake_is_one_sentence_without_folders(files):
    save_image(files / "small.png", trimap(10, 52))
    save_image(files / "colour.png", photograph(40, 52))
    whole = (files / "cat.png").read_bytes()
    (files / "cut.png").write_bytes(whole[: len(whole) // 2])
    (files / "text.png").write_bytes(b"no image")
    nothing = np.zeros((40, 52, 4), np.uint8)
    cases = [
        ((None, "background"), "no photograph yet"),
        (("cat.png", "background", None, None, nothing), "nothing is marked yet"),
        (("cat.png", "unknown"), "nothing is marked yet"),
        (("cat.png", "mask"), "no mask yet"),
        (("cat.png", "trimap"), "no trimap yet"),
        (("cat.png", "trimap", "small.png"), "cat.png is 52x40 pixels but its trimap small.png is 52x10"),
        (("cat.png", "trimap", "colour.png"), "colour.png is a colour image"),
        (("cut.png", "trimap", "known.png"), "cut.png cannot be read as an image"),
        (("text.png", "trimap", "known.png"), "text.png cannot be read as an image"),
        (("cat.png", "mask", "mask.png", -1), "at least 1 pixel wide"),
    ]
    for (photo, start, *more), sentence in cases:
        guide = files / more[0] if more and more[0] else None
        with pytest.raises(UserError) as caught:
            read_guided(files / photo if photo else None, start, guide, *more[1:])
        assert sentence in str(caught.value)
        assert "/" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^text\.png cannot be read"):
        canvas(files / "text.png")


def test_a_trimap_without_unknown_pixels_is_the_result_and_said(session, files):
    layer = strokes(40, 52, foreground=slice(0, 10))
    photo = read_guided(files / "cat.png", "background", strokes=layer)
    assert "no unknown pixels" in photo.remarks[0]
    cut = session.cut(photo, files, "cat")
    assert np.array_equal(read(cut.files["alpha"]), photo.trimap)
    assert cut.maps == []
    everything = read_guided(files / "cat.png", "unknown", strokes=strokes(40, 52, unknown=slice(0, 2)))
    assert "Every pixel is unknown" in everything.remarks[0]


def test_other_tasks_give_a_picture(tmp_path):
    session = Session(*load_task(autoencoder_checkpoint(tmp_path / "a.ckpt", channels=3)))
    save_image(tmp_path / "cat.png", photograph(32, 48))
    view, path = session.run(tmp_path / "cat.png", tmp_path / "out")
    assert view.shape == (32, 48, 3)
    assert np.array_equal(read(path), view)
    with pytest.raises(UserError, match="no photograph yet"):
        session.run(None, tmp_path)


def test_mistakes_in_the_command_end_it(checkpoint, tmp_path, mistake):
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        mistake(main(["app", str(checkpoint), "--port", str(port)]), f"--port {port} cannot be used")
    mistake(main(["app", str(checkpoint), "--port", "70000"]), "is no port")
    for size in ("20", "0MB", "auto", "-3MB"):
        code = main(["app", str(checkpoint), f"--max-upload={size}", "--port", "0"])
        mistake(code, "must be a size such as 20MB")
    mistake(main(["app", str(tmp_path / "none.ckpt"), "--port", "0"]), "none.ckpt")
    assert free_port(0) > 0


def test_no_option_opens_the_page_to_others():
    assert ADDRESS == "127.0.0.1"
    parser = argparse.ArgumentParser()
    app.configure(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    assert options == {"-h", "--help", "--port", "--max-upload", "--device", "--memory"}


@pytest.mark.long
def test_the_page_tells_mistakes_and_hides_bugs(session, tmp_path, capsys):
    import gradio

    from indexnet.inference.app.page import build, show_errors

    page = build(session, tmp_path, "m.ckpt", 2**20)
    assert page.title == "indexnet: matting"
    labels = [block.label for block in page.blocks.values() if hasattr(block, "label")]
    assert {"1. Photograph", "2. Paint", "Stage", "Alpha, 16 bit"} <= set(labels)

    def fails(error):
        raise error

    for error, sentence in (
        (UserError("the mask is <b>empty</b>."), "The mask is &lt;b&gt;empty&lt;/b&gt;."),
        (UserError("cat.png is broken."), "cat.png is broken."),
        (MemoryError(), "This picture is too large for the memory; make it smaller."),
    ):
        with pytest.raises(gradio.Error) as caught:
            show_errors(fails)(error)
        assert caught.value.message == sentence
        assert not caught.value.print_exception
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(gradio.Error, match="Something went wrong"):
        show_errors(fails)(KeyError("secret"))
    assert "secret" in capsys.readouterr().err


@pytest.fixture
def served(checkpoint, tmp_path):
    """The command in a process of its own: (address, file of the addresses that it asked for, process)."""
    log = tmp_path / "addresses"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    port, scratch = free_port(0), tmp_path / "scratch"
    scratch.mkdir()
    paths = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "TMPDIR": str(scratch)}
    words = ["app", str(checkpoint), "--port", str(port), "--max-upload", "1MB", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "indexnet", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, line + process.stdout.read()
        yield f"http://127.0.0.1:{port}", log, process, scratch
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.long
def test_the_page_end_to_end(served, files, checkpoint, tmp_path):
    import httpx
    from gradio_client import Client, handle_file

    address, log, process, scratch = served
    client = Client(address, verbose=False, download_files=str(tmp_path / "got"))

    def cut(photo, start="trimap", known="known.png", **more):
        layer = {"background": None, "layers": [], "composite": None}
        words = [photo and handle_file(str(files / photo)), layer, start, None, 0, handle_file(str(files / known))]
        return client.predict(*words, "#3a6ea5", None, False, 0, api_name="/cut_out", **more)

    note, composite, alpha, used, index_map, *saved = cut("cat.png")
    assert note.startswith("52x40 pixels")
    assert np.array_equal(read(used), trimap(40, 52))
    network, _ = load_network(checkpoint)
    expected = to_uint8(infer_alpha(network, photograph(40, 52), trimap(40, 52)))
    assert np.array_equal(read(alpha), expected)
    assert (read(composite)[:, :5] == [0x3A, 0x6E, 0xA5]).all()
    assert read(index_map).std() > 0
    paths = [each["value"] if isinstance(each, dict) else each for each in saved]
    with Image.open(paths[1]) as wide, Image.open(paths[2]) as cutout:
        assert wide.mode == "I;16"
        assert cutout.mode == "RGBA"
    (files / "bad.png").write_bytes(b"no image")
    with pytest.raises(Exception, match=r"^bad\.png cannot be read as an image"):
        cut("bad.png")
    save_image(files / "small.png", trimap(10, 52))
    with pytest.raises(Exception, match=r"cat\.png is 52x40 pixels but its trimap small\.png is 52x10"):
        cut("cat.png", known="small.png")
    with pytest.raises(Exception, match="There is no photograph yet"):
        cut(None)
    rng = np.random.default_rng(0)
    save_image(files / "huge.png", rng.integers(0, 256, (700, 700, 3), dtype=np.uint8))
    with pytest.raises(Exception, match="exceed"):
        cut("huge.png")

    policy = httpx.get(address).headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert httpx.get(address, headers={"host": "evil.example"}).status_code == 400
    client.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stdout.read() == ""  # no traceback, of nothing above
    assert not list(scratch.glob("indexnet_app_*"))
    asked = set(log.read_text().split("\n")) - {""}
    assert asked <= {f"socket.{what} {where}" for what in ("bind", "connect", "getaddrinfo") for where in
                     ("127.0.0.1", "local", "localhost", "None")}, asked  # fmt: skip
    assert "socket.bind 127.0.0.1" in asked


class _Address(str):
    def as_uri(self):
        return str(self)


# badges over fields, which hide what is under them
BADGES = """[...document.querySelectorAll('[data-testid=status-tracker] .error')]
    .filter(e => e.getClientRects().length).map(e => e.outerHTML)"""

TOASTS = "[...document.querySelectorAll('.toast-body')].map(e => e.innerText).join(' | ')"


@pytest.mark.long
@pytest.mark.skipif(EXECUTABLE is None, reason="there is no Chromium")
def test_the_page_in_a_browser(served, files, tmp_path):
    address, _, process, _ = served
    (files / "bad.png").write_bytes(b"no image")
    save_image(files / "huge.png", np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8))

    def wait(expression, seconds=60):
        end, toasts = time.monotonic() + seconds, {}
        while not tab.evaluate(expression):
            toasts[tab.evaluate(TOASTS)] = None  # they are gone after some seconds
            assert time.monotonic() < end, f"{expression}: {[*toasts]}, {tab.evaluate('document.body.innerText')}"
            time.sleep(0.1)

    def drop(field, name):
        selector = f"#{field} input[type=file]"
        wait(f"!!document.querySelector('{selector}')")
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        node = tab.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(files / name)])

    def upload(field, name):
        drop(field, name)  # the field then shows the stem and the suffix as two lines
        shown = f"document.querySelector('#{field}').innerText.replace(/\\s/g, '')"
        wait(f"{shown}.includes({json.dumps(name)}) && !{shown}.includes('Uploading')")

    def paint():
        """Draw a stroke across the photograph."""
        # the canvas is there before the photograph is on it, and loses what is painted until then
        wait("document.querySelector('#editor [aria-label=Pan]')?.disabled === false")
        box = "document.querySelector('#editor canvas').getBoundingClientRect()"
        place = json.loads(tab.evaluate(f"JSON.stringify({box})"))
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        moves = [("mouseMoved", step) for step in range(-20, 21, 4)]
        for kind, dx in (("mousePressed", -20), *moves, ("mouseReleased", 20)):
            tab.call("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y, button="left", buttons=1, clickCount=1)

    def told(sentence):
        wait(f"document.body.innerText.includes({json.dumps(sentence)})")
        assert tab.evaluate(BADGES) == []

    def narrow(width):
        assert tab.evaluate("document.documentElement.scrollWidth") <= width

    with browser(tmp_path / "profile") as tab:
        for scheme, width in (("light", 1280), ("dark", 390)):
            tab.open(_Address(address), width=width, scheme=scheme)
            wait("!!document.querySelector('#photo input[type=file]')")
            end = time.monotonic() + 60
            while not any("heartbeat" in url for url in tab.requests()):  # before, gradio loses what is dropped
                assert tab.evaluate("true")
                assert time.monotonic() < end
                time.sleep(0.1)
            time.sleep(1)
            narrow(width)
            if scheme == "light":
                drop("photo", "huge.png")  # refused, and in nobody's way
                told("exceed the maximum allowed size of 1.0 Mb")
                upload("photo", "bad.png")
                told("bad.png cannot be read as an image")
                assert not tab.evaluate("!!document.querySelector('#editor canvas')")
                tab.evaluate("document.querySelector('#photo [aria-label=Clear]').click()")
            upload("photo", "cat.png")
            wait("!!document.querySelector('#editor canvas')")
            if scheme == "light":
                paint()
                tab.evaluate("document.querySelector('#run').click()")
                wait("document.querySelector('#composite img')?.naturalWidth === 52")
                told("0% of them unknown")
            tab.evaluate("document.querySelector('#start input[value=trimap]').click()")
            upload("trimap", "known.png")
            tab.evaluate("document.querySelector('#run').click()")
            wait("document.querySelector('#composite img')?.naturalWidth === 52")
            narrow(width)
            if scheme == "dark":
                upload("picture", "bad.png")
                told("bad.png cannot be read as an image")
            assert "Traceback" not in tab.evaluate("document.body.innerText")
            assert [url for url in tab.requests() if not url.startswith((address, f"blob:{address}"))] == []
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0  # though the page is open
        assert process.stdout.read() == ""
