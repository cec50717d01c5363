"""Runs of one row of the thesis, and their table."""

from __future__ import annotations

import csv
import io

import yaml
from rich.console import Console

from indexnet.report import markdown, terminal
from indexnet.run.config import compose, freeze
from indexnet.run.experiments.tables import load_experiment
from report_fabricated import record, write_run

THESIS = "thesis/table3_2_reconstruction"


ROW = "maxpool_unpool"  # printed: 29.33 dB


def write_thesis(runs, *overrides, setting="fashion_mnist-paper", config=None, name=ROW, metrics=None):
    """A finished run of the thesis table with the configuration that these overrides really give."""
    experiment_row = next(each for each in load_experiment(THESIS).rows if each.name == name)
    folder = write_run(runs, name, 0, record(metrics or {"psnr": 30.0}), name=THESIS, setting=setting)
    if config is None:
        asked = [f"experiments={THESIS}", *experiment_row.overrides, f"experiment.row={name}", *overrides]
        config = yaml.safe_dump(freeze(compose(asked)))
    (folder / "config.yaml").write_text(config, encoding="utf-8")


def measured(table, name=ROW):
    return next(line for line in table.rows if line.name == name).measured["psnr"]


def in_terminal(table, width=160):
    """What a terminal of this width shows, as one line."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    terminal.show(table, console)
    return " ".join(console.file.getvalue().split())


def read_csv(table):
    return list(csv.DictReader(io.StringIO(markdown.table_csv(table))))
