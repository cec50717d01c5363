"""The page of ``indexnet app``, in gradio: it asks no other machine for anything, and only this machine can open it."""

from __future__ import annotations

import functools
import html
import secrets
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.processing_utils
import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from indexnet.core.conventions import UNKNOWN
from indexnet.core.errors import UserError
from indexnet.data.io.images import SUFFIXES
from indexnet.inference.app import ADDRESS
from indexnet.inference.app.guard import KEPT, Guard, Results
from indexnet.inference.app.session import BRUSHES, CANVAS_SIDE, Cut, Session, Start, canvas, read_alone, read_guided
from indexnet.networks.tiled.memory import is_out_of_memory

_SESSIONS = 16  # whose results are held in memory
_TOAST = 12  # seconds that an error is shown
_STARTS: list[tuple[str, Start]] = [
    ("background", "background"),
    ("unknown", "unknown"),
    ("as in a mask", "mask"),
    ("as in a trimap", "trimap"),
]
_STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
.swatches { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .9rem; }
.swatches i { display: inline-block; width: .9em; height: .9em; border-radius: 50%; margin-right: .4em;
  vertical-align: -.08em; }
.note p { margin: 0; }
.how { margin: 0 0 .5rem; }
.drop .or, .drop .icon-wrap { display: none; }
.drop button .wrap { min-height: 0; padding-top: 1.25rem; font-size: .95rem; }
footer { display: none !important; }
/* the badge "Error" over a field; the sentence beside it says more */
[data-testid="status-tracker"]:has(> .error) { display: none !important; }
"""


def serve(session: Session, folder: Path, name: str, port: int, limit: int) -> Any:
    """Start the page in a thread of its own.

    Args:
        session: what does the work.
        folder: for results while the page runs; must be the one that ``guard.isolate`` was told.
        name: the checkpoint's.
        port: on 127.0.0.1.
        limit: of a file that is uploaded, in bytes.

    Returns:
        The page, a ``gradio.Blocks``; ``close()`` ends it.
    """
    page = build(session, folder, name, limit)
    page.queue(default_concurrency_limit=1, max_size=16, api_open=False)
    # it goes into the names of files, and would be one that lies readable beside gradio
    gradio.processing_utils.hash_seed = secrets.token_bytes(32)
    page.launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        max_file_size=limit,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        state_session_capacity=_SESSIONS,
        theme=_theme(),
        css=_STYLE,
        app_kwargs={
            "middleware": [
                # no other site's page may reach this one under a name of its own
                Middleware(TrustedHostMiddleware, allowed_hosts=[ADDRESS, "localhost"]),
                Middleware(Guard, limit=limit),
            ]
        },
    )
    return page


def build(session: Session, folder: Path, name: str, limit: int) -> Any:
    """Build the page, a ``gradio.Blocks``; arguments as for :func:`serve`."""
    title = f"indexnet: {session.task.name}"
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        device = next((str(p.device) for p in session.task.parameters()), "cpu")
        operator = "" if session.title == name else f" ({session.title})"
        gr.Markdown(
            f"## {'Cut an object out' if session.cuts_out else session.task.name.capitalize()}\n"
            f"`{name}`{operator} on {device}. Pictures stay on this machine; files up to {limit / 2**20:g} MB."
        )
        results = Results(folder)
        (_cut_out if session.cuts_out else _picture)(session, results)

        def leave(request: gr.Request) -> None:
            results.remove(request.session_hash)

        page.unload(leave)
    return page


def _theme() -> gr.themes.Base:
    """Return gradio's plain theme with the fonts that the system has."""
    return gr.themes.Default(
        font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
        font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
    )


def show_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what goes wrong in a function into one sentence in the page; a bug's traceback goes to the terminal."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            cause = error
            if isinstance(error, UserError):
                sentence = str(error)
            elif is_out_of_memory(error):
                sentence = "This picture is too large for the memory; make it smaller."
            elif isinstance(error, OSError) and error.strerror:
                sentence = f"A file could not be written ({error.strerror})."
            else:
                traceback.print_exc()
                sentence = "Something went wrong here; the terminal that runs indexnet app says what."
        if sentence.split(" ")[0].isalpha():  # else the name of a file
            sentence = sentence[:1].upper() + sentence[1:]
        sentence = html.escape(sentence, quote=False)
        raise gr.Error(sentence, duration=_TOAST, print_exception=False) from cause

    return call


def _drop(label: str, **options: Any) -> gr.File:
    """Build a field for a file, which is read by our own rules: browsers show neither TIFF nor 16 bits."""
    return gr.File(
        label=label, file_count="single", file_types=list(SUFFIXES), elem_classes="drop", **{"height": 110} | options
    )


def _cut_out(session: Session, results: Results) -> None:
    state = gr.State(None, time_to_live=KEPT)
    with gr.Row():
        with gr.Column(min_width=320):
            photo = _drop("1. Photograph" if session.guided else "Photograph", elem_id="photo")
            editor = gr.ImageEditor(
                label="2. Paint",
                type="numpy",
                image_mode="RGBA",
                format="png",  # colours must come back as they were painted
                sources=(),
                transforms=(),
                layers=gr.LayerOptions(disabled=True),
                brush=gr.Brush(colors=[colour for colour, _ in BRUSHES.values()], color_mode="fixed", default_size=24),
                buttons=[],
                height=480,
                canvas_size=(CANVAS_SIDE, CANVAS_SIDE),
                visible=False,
                elem_id="editor",
            )
            before = gr.Image(
                label="Photograph", interactive=False, format="png", buttons=[], visible=False, elem_id="before"
            )
            words = {"#16b450": "green", "#3264f0": "blue", "#e63232": "red"}
            gr.HTML(
                "<p class='how'>Paint on the photograph the object, its uncertain edge (hair, fur, glass) and what is "
                "not of it; or give a mask or a trimap, and mend it by painting.</p><div class='swatches'>"
                + "".join(
                    f"<span><i style='background:{colour}'></i>{words[colour]}: {kind}</span>"
                    for kind, (colour, _) in BRUSHES.items()
                )
                + "</div>",
                visible=session.guided,
            )
            start = gr.Radio(
                _STARTS, value="background", label="Unpainted pixels are", visible=session.guided, elem_id="start"
            )
            mask = _drop("Mask: white on the object, roughly", visible=False, elem_id="mask")
            band = gr.Number(
                0,
                label="Unknown band around the mask's edge, in pixels (0: chosen by the mask's size)",
                precision=0,
                minimum=0,
                visible=False,
                elem_id="band",
            )
            trimap = _drop("Trimap: white object, gray unknown", visible=False, elem_id="trimap")
            button = gr.Button("Cut out", variant="primary", elem_id="run")
        with gr.Column(min_width=320):
            note = gr.Markdown("The result appears here.", elem_classes="note", elem_id="note")
            shown: dict[str, Any] = {"interactive": False, "type": "filepath", "buttons": ["fullscreen"], "height": 480}
            with gr.Tabs():
                with gr.Tab("New background"):
                    composite = gr.Image(label="Before a new background", elem_id="composite", **shown)
                    with gr.Row():
                        colour = gr.ColorPicker("#3a6ea5", label="Colour", elem_id="colour", scale=1, min_width=120)
                        picture = _drop("or a picture", elem_id="picture", scale=3, min_width=240)
                    blur = gr.Checkbox(label="or the photograph's own, blurred", elem_id="blur")
                with gr.Tab("Alpha"):
                    alpha = gr.Image(label="Alpha: white is opaque", elem_id="alpha", **shown)
                with gr.Tab("Trimap"):
                    used = gr.Image(label="The trimap that was used", elem_id="used", **shown)
                with gr.Tab("Index maps"):
                    stage = gr.Radio(
                        [("0: full resolution", 0)] + [(f"{n}: 1/{2**n}", n) for n in range(1, session.stages)],
                        value=0,
                        label="Stage",
                        visible=session.stages > 0,
                        elem_id="stage",
                    )
                    index_map = gr.Image(
                        label="Learned indices: mean over channels, dark is low (picture shrunk to 640 pixels)",
                        visible=session.stages > 0,
                        elem_id="index_map",
                        **{**shown, "type": "numpy", "format": "png"},
                    )
                    if not session.stages:
                        gr.Markdown(f"{session.title} learns no indices, so there are no index maps to show.")
            gr.Markdown("Download, at the photograph's full size:", elem_classes="note")
            with gr.Row():
                downloads = {
                    key: gr.DownloadButton(label, interactive=False, min_width=120, size="md", elem_id=f"save_{key}")
                    for key, label in {
                        "alpha": "Alpha, 8 bit",
                        "alpha16": "Alpha, 16 bit",
                        "cutout": "Cut-out",
                        "composite": "New background",
                    }.items()
                }

    def painted(strokes: dict[str, Any] | None) -> Any:
        layers = (strokes or {}).get("layers") or []
        return layers[0] if layers else None

    @show_errors
    def read(file: str | None) -> Any:
        hidden = gr.update(value=None, visible=False)
        if file is None:
            return hidden, hidden
        picture = canvas(file)
        if not session.guided:
            return hidden, gr.update(value=picture, visible=True)
        return gr.update(value={"background": picture, "layers": [], "composite": picture}, visible=True), hidden

    def choose(kind: Start) -> tuple[Any, ...]:
        return gr.update(visible=kind == "mask"), gr.update(visible=kind == "mask"), gr.update(visible=kind == "trimap")

    def index_map_of(cut: Cut | None, number: int) -> Any:
        return cut.maps[number] if cut is not None and cut.maps else None

    @show_errors
    def work(
        file: str | None,
        strokes: dict[str, Any] | None,
        kind: Start,
        mask_file: str | None,
        width: int | None,
        trimap_file: str | None,
        hue: str,
        behind: str | None,
        blurred: bool,
        number: int,
        request: gr.Request,
    ) -> list[Any]:
        begun = time.monotonic()
        guide = {"mask": mask_file, "trimap": trimap_file}.get(kind)
        read = read_guided(file, kind, guide, width or None, painted(strokes)) if session.guided else read_alone(file)
        assert file is not None
        cut = session.cut(read, results.create(request.session_hash), Path(file).stem)
        composed = session.compose(cut, hue, behind, blurred)
        h, w = cut.alpha.shape
        unknown = "" if read.trimap is None else f", {np.mean(read.trimap == UNKNOWN):.0%} of them unknown"
        text = f"{w}x{h} pixels{unknown}: {time.monotonic() - begun:.1f} s."
        text = " ".join([*(f"**{remark}**" for remark in cut.remarks), text])
        saved = [gr.update(value=cut.files[key], interactive=True) for key in ("alpha", "alpha16", "cutout")]
        pictures = [composed, cut.files["alpha"], cut.files.get("trimap"), index_map_of(cut, number)]
        return [cut, text, *pictures, *saved, gr.update(value=composed, interactive=True)]

    @show_errors
    def compose(cut: Cut | None, hue: str, behind: str | None, blurred: bool) -> Any:
        if cut is None:
            return gr.skip(), gr.skip()
        path = session.compose(cut, hue, behind, blurred)
        return path, gr.update(value=path)

    # one at a time: they share the network and the memory
    one: dict[str, Any] = {"concurrency_id": "session", "concurrency_limit": 1}
    photo.change(read, photo, [editor, before], api_name="read", show_progress="minimal", **one)
    start.change(choose, start, [mask, band, trimap], api_visibility="private", show_progress="hidden")
    button.click(
        work,
        [photo, editor, start, mask, band, trimap, colour, picture, blur, stage],
        [state, note, composite, alpha, used, index_map, *downloads.values()],
        api_name="cut_out",
        show_progress_on=[composite, alpha, used, index_map],
        **one,
    )
    for event in (colour.input, picture.change, blur.input):
        event(
            compose,
            [state, colour, picture, blur],
            [composite, downloads["composite"]],
            api_visibility="private",
            trigger_mode="always_last",
            **one,
        )
    stage.change(index_map_of, [state, stage], index_map, api_visibility="private", show_progress="hidden")


def _picture(session: Session, results: Results) -> None:
    with gr.Row():
        with gr.Column(min_width=320):
            photo = _drop("Photograph", elem_id="photo")
            before = gr.Image(label="Photograph", interactive=False, format="png", buttons=[], elem_id="before")
            button = gr.Button("Run", variant="primary", elem_id="run")
        with gr.Column(min_width=320):
            after = gr.Image(label="Result", interactive=False, format="png", buttons=["fullscreen"], elem_id="after")
            save = gr.DownloadButton("Result as predict writes it (PNG)", interactive=False, elem_id="save")

    @show_errors
    def read(file: str | None) -> Any:
        return None if file is None else canvas(file)

    @show_errors
    def work(file: str | None, request: gr.Request) -> tuple[Any, Any]:
        picture, path = session.run(file, results.create(request.session_hash))
        return picture, gr.update(value=path, interactive=True)

    one: dict[str, Any] = {"concurrency_id": "session", "concurrency_limit": 1}
    photo.change(read, photo, before, api_name="read", show_progress="minimal", **one)
    button.click(work, photo, [after, save], api_name="run", show_progress_on=[after], **one)
