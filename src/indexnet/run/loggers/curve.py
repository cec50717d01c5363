"""The learning curve: a row per logged step, in ``csv/metrics.csv`` and, up to its step, in every checkpoint."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from torch import Tensor

from indexnet.core.files import atomic_write, disk_full_as_sentence
from indexnet.run.loggers.wandb_names import LOSS

Row = Mapping[str, Any]


class CurveLogger(Logger):
    """Writes every row into the file at once. What counts is kept here: the file may be damaged meanwhile, or go.

    Args:
        file: of the rows.
        rows: what earlier tries have logged; the file is made of them.
        writes: False in all processes of a run but the first.

    Attributes:
        rows: all that has been logged.

    Raises:
        DiskFullError: there is no room.
    """

    def __init__(self, file: Path, rows: Iterable[Row] = (), *, writes: bool = True) -> None:
        super().__init__()
        self.file, self.rows, self.writes = file, list(rows), writes
        self._columns = sorted({key for row in self.rows for key in row})
        if self.rows:
            atomic_write(file, self.text())

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.file.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: they stand in ``config.yaml``."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row.

        Raises:
            DiskFullError: there is no room.
        """
        if not self.writes:
            return
        row = {key: value.item() if isinstance(value, Tensor) else value for key, value in metrics.items()}
        row["step"] = len(self.rows) if step is None else step
        self.rows.append(row)
        new = row.keys() - set(self._columns)
        if new or not self.file.is_file():
            self._columns = sorted({*self._columns, *new})
            atomic_write(self.file, self.text())
            return
        with disk_full_as_sentence(self.file), self.file.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def finalize(self, status: str) -> None:
        """Write the whole file."""
        if self.rows and self.writes:
            atomic_write(self.file, self.text())

    def text(self) -> str:
        """Return what the file holds, unless somebody else has written to it."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a text as :meth:`CurveLogger.text` makes it."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def known_from(rows: Sequence[Row], start: int, every: int) -> int | None:
    """Return the step from which a curve is known without a gap; None where it is from its beginning.

    Args:
        rows: of the curve.
        start: optimizer steps that are done.
        every: optimizer steps between two logged losses.
    """
    there = {int(row["step"]) for row in rows if row.get(LOSS) not in (None, "")}
    missing = [step for step in range(every - 1, start, every) if step not in there]
    return missing[-1] + 1 if missing else None
