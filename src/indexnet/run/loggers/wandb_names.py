"""What a W&B run logs under which name; read by the reports, which know nothing of W&B or torch."""

from __future__ import annotations

STEP = "trainer/global_step"
"""The x axis of everything that is logged: optimizer steps, counted from 0."""

LOSS = "train/loss"
PER_IMAGE = "per_image"
"""A table: a line per test image, a column per metric."""

RECORD = "record"
"""The run's record, in the summary; ``record.json`` is uploaded too."""


def metric_key(metric: str) -> str:
    """Return the name of a test metric: ``test/psnr``, ``test/bsd68/psnr``."""
    return f"test/{metric}"


def validation_key(metric: str) -> str:
    """Return the name of a metric on the validation split while training goes on: ``val/psnr``."""
    return f"val/{metric}"


def printed_key(cell: str) -> str:
    """Return the name of a printed number of the run's row: ``printed/psnr``, ``printed/params``."""
    return f"printed/{cell}"


def picture_key(kind: str, stage: int | None = None) -> str:
    """Return the name of the pictures of one kind: ``pictures/output``, ``pictures/index/stage0``."""
    return f"pictures/{kind}" if stage is None else f"pictures/{kind}/stage{stage}"


def setting_tag(data: str, budget: str) -> str:
    """Return the tag of all runs on one data set at one budget, ``scenes-small``, as their folder is called."""
    return f"{data}-{budget}"
