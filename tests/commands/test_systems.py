"""The page of systems against the counter and the registries."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from indexnet.commands.costs import row_costs
from indexnet.core.paths import experiments_dir
from indexnet.networks import count_costs, get_network, list_networks
from indexnet.run.config import compose, composing, to_plain
from indexnet.run.experiments.tables import load_experiment
from indexnet.run.freezing.checks import network_without_memory
from indexnet.run.freezing.settle import settle_network, without_sweep

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
SOURCES = ("tpami", "thesis", "official", "mmediting", "mindspore")  # folders of experiments that a source prints
QUICK = ("rows=b11`", "network=autoencoder`")


def lines():
    """Return what the page says is counted: the words of a command, parameters, and GFLOPs to three digits."""
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and re.fullmatch(r"[\d,]+", cells[3]):
            found.append((re.findall(r"`([^`]+)`", cells[1])[0].split(), cells[3], cells[4]))
    return found


def count(words):
    """Count what `indexnet train` and these words would train."""
    if words[0] == "-m":
        experiment = load_experiment(words[1].removeprefix("experiments="))
        (row,) = [row for row in experiment.base_rows if row.name == words[2].removeprefix("rows=")]
        costs = row_costs(experiment, row)
    else:
        config = settle_network(without_sweep(to_plain(compose(words))))
        network, side = network_without_memory(config), config["task"]["costs_size"]
        costs = count_costs(network, (network.in_channels, side, side))
    return f"{costs.parameters:,}", f"{costs.paper_gflops:.3f}"


def is_quick(words):
    return any(mark in f"{' '.join(words)}`" for mark in QUICK)


@pytest.mark.parametrize("chosen", ["some", pytest.param("others", marks=pytest.mark.long)])
def test_the_page_says_what_is_counted(chosen):
    wrong = []
    with composing():
        for words, parameters, gflops in lines():
            if is_quick(words) != (chosen == "some"):
                continue
            found = count(words)
            if found != (parameters, gflops):
                wrong.append((" ".join(words), found))
    assert wrong == []
    assert len(lines()) > 40


def test_no_network_and_no_table_is_forgotten():
    spans = set(re.findall(r"`([^`\n]+)`", PAGE))
    words = {word for span in spans for word in span.split()}
    for name in (info.name for info in list_networks() if get_network(info.name).__module__.startswith("indexnet.")):
        assert name in words or f"network={name}" in words, name
    tables = [str(file.relative_to(experiments_dir()).with_suffix("")) for file in experiments_dir().rglob("*.yaml")]
    for table in (table for table in tables if table.partition("/")[0] in SOURCES):
        named = words | {word.removeprefix("experiments=") for word in words}
        assert any(fnmatch.fnmatch(table, word) for word in named), f"{table} is not on docs/systems.md"
