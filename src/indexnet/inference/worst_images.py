"""The images that a method did worst on, as pictures to look at beside an evaluation."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from indexnet.core.files import atomic_write
from indexnet.data.io.images import write_png
from indexnet.inference.evaluation import Row, Watch
from indexnet.tasks import Task
from indexnet.tasks.contact_sheet import Panel, contact_sheet, fit_side

SIDE = 512  # longest side of a picture, pixels
_SHEET = re.compile(r"\d{2,}\.png")
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 100rem; padding: 0 1rem; }
img { max-width: 100%; height: auto; display: block; }
figure { margin: .5rem 0 2.5rem; }
"""


@dataclass
class _Shown:
    """One image: what every method was given, and by method (score, its own pictures)."""

    name: str
    given: list[Panel]
    results: dict[int, tuple[float, list[Panel]]] = field(default_factory=dict)


class WorstImages:
    """Collects the worst images while methods are measured, without a second prediction.

    Args:
        task: of all methods; its first metric says what is worst.
        count: how many images to keep.
        captions: the methods' names; the first method decides which images are kept.
    """

    def __init__(self, task: Task, count: int, captions: Sequence[str]) -> None:
        self.task, self.count, self.captions = task, count, list(captions)
        self.metric = task.create_metrics()[task.metric_names[0]].info
        self._measured = self.metric.heading
        self.kept: list[_Shown] = []

    def watch(self, method: int) -> Watch:
        """Return what :func:`indexnet.inference.evaluation.evaluate` shows the images of a method to."""

        def see(row: Row, batch: Mapping[str, Any], prediction: Tensor) -> None:
            score = self._score(row)
            if method == 0:
                self._keep(row["name"], score, batch, prediction)
                return
            for shown in self.kept:
                if shown.name == row["name"]:
                    shown.results[method] = (score, self._pictures(batch, prediction)[1])

        return see

    def _score(self, row: Row) -> float:
        return next((row[key] for key in row if key.rpartition("/")[2] == self.metric.name), math.nan)

    def _badness(self, shown: _Shown) -> float:
        score = shown.results[0][0]
        return -score if self.metric.higher_is_better else score

    def _keep(self, name: str, score: float, batch: Mapping[str, Any], prediction: Tensor) -> None:
        if math.isnan(score):
            return
        shown = _Shown(name, [], {0: (score, [])})
        if len(self.kept) == self.count and self._badness(self.kept[-1]) >= self._badness(shown):
            return
        given, own = self._pictures(batch, prediction)
        self.kept.append(_Shown(name, given, {0: (score, own)}))
        self.kept.sort(key=self._badness, reverse=True)  # stable: of equals the first comes first
        del self.kept[self.count :]

    def _pictures(self, batch: Mapping[str, Any], prediction: Tensor) -> tuple[list[Panel], list[Panel]]:
        """Return what was given and what came of it, both small enough to be kept."""
        given: list[Panel] = []
        own: list[Panel] = []
        for picture in self.task.pictures(prediction, batch):
            if picture.kind != "legend":
                place = own if picture.kind in ("output", "error") else given
                place.append(Panel(picture.caption, fit_side(picture.image, SIDE)))
        return given, own

    def write(self, folder: Path, title: str) -> Path:
        """Write ``worst.html`` and a sheet per image in ``worst/``, the worst first; return the page's path."""
        parts = [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Worst images: {html.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>Worst images: {html.escape(title)}</h1>",
            f"<p>By {html.escape(self._measured)} of <q>{html.escape(self.captions[0])}</q>, the worst first. "
            f"Errors: black is none, {html.escape(self.task.difference_scale)}.</p>",
        ]
        for rank, shown in enumerate(self.kept, start=1):
            file = f"{rank:02d}.png"
            write_png(folder / "worst" / file, contact_sheet(self._rows(shown), SIDE), overwrite=True)
            name = html.escape(shown.name)
            scores = "; ".join(f"<q>{html.escape(self.captions[m])}</q> {s:.4g}" for m, (s, _) in shown.results.items())
            parts.append(f"<h2>{rank}. {name}</h2><p>{html.escape(self._measured)}: {scores}</p>")
            parts.append(f"<figure><img src='worst/{file}' alt='{name}: input, results and errors'></figure>")
        for old in (folder / "worst").glob("*.png"):  # of an evaluation that this one replaces
            if _SHEET.fullmatch(old.name) and int(old.stem) > len(self.kept):
                old.unlink()
        page = folder / "worst.html"
        atomic_write(page, "\n".join([*parts, "</body></html>"]) + "\n")
        return page

    def _rows(self, shown: _Shown) -> list[list[Panel]]:
        if len(self.captions) == 1:
            return [shown.given + shown.results[0][1]]
        rows = [shown.given]
        for method, (score, panels) in shown.results.items():
            words = f"{self.captions[method]}: {self._measured} {score:.4g}"
            rows.append([Panel(words if i == 0 else panel.caption, panel.image) for i, panel in enumerate(panels)])
        return rows
