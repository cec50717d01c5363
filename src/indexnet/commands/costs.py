"""``indexnet costs EXPERIMENT``: printed parameters and GFLOPs beside counted ones. Needs no training and no memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from indexnet.core.console import output_console, say, tracked
from indexnet.core.conventions import COUNTING_RULES

if TYPE_CHECKING:
    from rich.table import Table

    from indexnet.networks import Costs
    from indexnet.run.experiments.experiment import Experiment, Row


HELP = "count the parameters and multiply-adds of an experiment's rows beside the published numbers"
DISAGREES = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "experiment", metavar="EXPERIMENT", help="an experiment, as in `indexnet list experiments`, or a sweep"
    )
    parser.add_argument("--runs", metavar="DIR", help="folder of the runs, where a sweep is found (default: runs)")
    parser.add_argument(
        "--rule", choices=COUNTING_RULES, default=COUNTING_RULES[0],
        help="what is counted as GFLOPs: papers (default), convolutions alone, as those on index networks do; "
        "assembly, with the comparing and assembling of neighbours, as those on FADE and SAPA do",
    )  # fmt: skip
    parser.epilog = "exit codes: 0 every published cost agrees but the declared exceptions; 1 some do not; 2 a mistake"


def main(args: argparse.Namespace) -> int:
    """Count and print.

    Returns:
        0 where every printed cost agrees at its printed precision, declared exceptions apart; otherwise 1.
    """
    from indexnet.core.paths import runs_folder
    from indexnet.run.experiments.tables import load_experiment

    experiment = load_experiment(args.experiment, runs_folder(args.runs))
    return show(experiment, count(experiment, rule=args.rule), args.rule)


def show(experiment: Experiment, lines: Sequence[Line], rule: str = COUNTING_RULES[0]) -> int:
    """Print the table and what is to be said of it; return the exit code."""
    console = output_console()
    console.print(table(experiment, lines, rule))
    for text in remarks(experiment, lines, rule):
        say(console, text)
    return 0 if all(line.is_fine for line in lines) else DISAGREES


class Cell(NamedTuple):
    """One printed cost and the counted one, written with the printed one's unit, sign and decimals.

    Attributes:
        printed: the cell as printed.
        counted: the counted value in the same form.
        is_exception: whether it is declared that the two differ.
    """

    printed: str
    counted: str
    is_exception: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the two are the same at the printed precision."""
        return self.printed.replace(" ", "").removeprefix("+") == self.counted.removeprefix("+")


class Line(NamedTuple):
    """The costs of one row.

    Attributes:
        row: the row, without what the table repeats.
        costs: what was counted; None for a pending row.
        cells: printed beside counted, of :data:`COST_CELLS` those that are printed.
        exception: why the row is known to disagree; "" where it should agree.
    """

    row: Row
    costs: Costs | None
    cells: Mapping[str, Cell]
    exception: str

    @property
    def agrees(self) -> bool | None:
        """Whether all printed costs agree; None where none are printed or the row is pending."""
        return all(cell.agrees for cell in self.cells.values()) if self.cells else None

    @property
    def is_fine(self) -> bool:
        """Whether every printed cost agrees or is declared not to."""
        return all(cell.agrees or cell.is_exception for cell in self.cells.values())


def count(
    experiment: Experiment,
    costs_of: Callable[[Experiment, Row], Costs] | None = None,
    rule: str = COUNTING_RULES[0],
) -> list[Line]:
    """Build every row's network without memory (on the meta device) and count it; repeated rows cost the same, once.

    Args:
        experiment: whose rows are counted.
        costs_of: counts one row; default :func:`row_costs`.
        rule: of :meth:`indexnet.networks.costs.Costs.gflops`.

    Raises:
        UserError: a row's configuration does not work out, or a printed cell cannot be read.
    """
    from indexnet.run.config import composing

    costs_of = costs_of or row_costs
    with composing():
        rows = tracked(experiment.base_rows, "counting", len(experiment.base_rows))
        counted = {row.name: None if row.runs_never else costs_of(experiment, row) for row in rows}
    reference = counted.get(experiment.reference) if experiment.reference else None
    return [_line(experiment, row, counted[row.name], reference, rule) for row in experiment.base_rows]


def row_costs(experiment: Experiment, row: Row) -> Costs:
    """Count one row for the input size and with the overrides that the table prints costs for."""
    from indexnet.core.registry import load_plugins
    from indexnet.networks import count_costs
    from indexnet.run.config import compose, to_plain
    from indexnet.run.experiments.experiment import key_of
    from indexnet.run.freezing.checks import check_open, network_without_memory
    from indexnet.run.freezing.settle import CHOSEN, own_options, settle_network, without_sweep

    overrides = [*experiment.composed_of(row, given=map(key_of, experiment.cost_overrides)), *experiment.cost_overrides]
    composed = compose(overrides)
    plain = without_sweep(to_plain(composed))  # not frozen: that composes the row twice more, and imports its task
    load_plugins(plain.get("plugins"))
    if any(word.lstrip("+~").startswith(("task.", "optimizer.", "schedule.")) for word in overrides):
        own = {group: own_options(group, plain[group]) for group in CHOSEN}
        check_open({**plain, **own})  # imports Lightning, so only where a row says something of these
    config = settle_network(plain)
    network = network_without_memory(config)
    side = config["task"]["costs_size"]
    return count_costs(network, experiment.cost_input or (network.in_channels, side, side))


def _line(experiment: Experiment, row: Row, costs: Costs | None, reference: Costs | None, rule: str) -> Line:
    from indexnet.core.errors import UserError
    from indexnet.run.experiments.experiment import COST_CELLS

    cells: dict[str, Cell] = {}
    exception = experiment.exceptions.get(row.base, "")
    declared = experiment.exception_cells.get(row.base, frozenset(COST_CELLS)) if exception else frozenset()
    for key in COST_CELLS:
        printed = row.printed.get(key, "")
        if costs is None or not printed or (key == "gflops" and rule != COUNTING_RULES[0]):
            continue
        value = float(costs.parameters) if key == "params" else costs.gflops(rule)
        if key == "params" and (printed.startswith("+") or row.printed.get("params_kind") == "delta"):
            if reference is None:
                raise UserError(
                    f"experiment {experiment.name}: row {row.name!r} publishes {printed} as an addition, but the file "
                    "names no baseline that it is added to."
                )
            value -= reference.parameters
        cells[key] = Cell(printed, as_printed(printed, value), key in declared)
    return Line(row, costs, cells, exception)


def as_printed(printed: str, value: float) -> str:
    """Write a value with the sign, decimals and unit of a printed one."""
    from indexnet.core.errors import UserError
    from indexnet.report.numbers import PRINTED, UNITS

    match = PRINTED.fullmatch(printed.strip())
    if match is None:
        raise UserError(
            f"the published cost {printed!r} cannot be read; it should look like 3.75M, +4.99K, +16 or 4.08."
        )
    plus, number, unit = match.groups()
    return f"{plus}{value / UNITS[unit]:.{len(number.partition('.')[2])}f}{unit}"


def table(experiment: Experiment, lines: Sequence[Line], rule: str = COUNTING_RULES[0]) -> Table:
    """Lay the costs out as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from indexnet.report.numbers import flops
    from indexnet.run.experiments.experiment import COST_CELLS

    size = experiment.cost_input
    where = f", input {'x'.join(map(str, size))}" if size else ""
    shown = Table(box=box.SIMPLE_HEAD, title=f"{experiment.title}{where}", title_justify="left", title_style="bold")
    shown.add_column("row", overflow="fold", min_width=8)
    if not any(line.row.printed.get(key) for line in lines for key in COST_CELLS):  # a table that no paper has
        for heading in ("parameters", "GFLOPs", "GMACs"):
            shown.add_column(heading, justify="right", no_wrap=True)
        for line in lines:
            costs = line.costs
            found = [f"{costs.parameters:,}", flops(costs.gflops(rule)), flops(costs.true_gmacs)] if costs else []
            shown.add_row(Text(line.row.label), *(found or ["", "", "pending"]))
        return shown
    for heading in ("params\npublished", "params\ncounted", "parameters\nexactly", "GFLOPs\npublished",
                    "GFLOPs\ncounted", "GMACs\ntrue"):  # fmt: skip
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("agrees")
    words = {True: ("yes", "green"), False: ("no", "red"), None: ("not published", "dim")}
    for line in lines:
        if line.costs is None:
            why = "pending" if line.row.pending else "cited"
            said = [line.row.printed.get(key, "") for key in COST_CELLS]
            shown.add_row(Text(line.row.label), said[0], "", "", said[1], "", "", Text(why, style="dim"))
            continue
        word, style = ("exception", "yellow") if line.agrees is False and line.is_fine else words[line.agrees]
        params = line.cells.get("params", Cell("", ""))
        gflops = line.cells.get("gflops", Cell("", flops(line.costs.gflops(rule))))
        exact = f"{line.costs.parameters:,}", flops(line.costs.true_gmacs)
        cells = [params.printed, params.counted, exact[0], gflops.printed, gflops.counted, exact[1]]
        shown.add_row(Text(line.row.label), *cells, Text(word, style=style))
    return shown


def remarks(experiment: Experiment, lines: Sequence[Line], rule: str = COUNTING_RULES[0]) -> list[str]:
    """Say in sentences how printed and counted costs compare, and by which rules they are counted."""
    printed = [line for line in lines if line.agrees is not None]
    agreed = sum(line.agrees is True for line in printed)
    texts = [
        f"{agreed} of {len(printed)} rows with published costs agree."
        if printed
        else "There are no published costs to compare with."
    ]
    reasons: set[str] = set()
    for line in printed:
        wrong = [cell for cell in line.cells.values() if not cell.agrees] or line.cells.values()
        both = "; ".join(f"published {cell.printed}, counted {cell.counted}" for cell in wrong)
        if line.exception and line.is_fine:
            known = "declared exception" if line.agrees is False else "declared as an exception, but agrees"
            why = "for the same reason" if line.exception in reasons else line.exception
            texts.append(f"{line.row.label} ({known}): {both}: {why}.")
            reasons.add(line.exception)
        elif line.agrees is False:
            texts.append(f"{line.row.label} disagrees: {both}.")
    texts += [f"{line.row.label}: pending, {line.row.pending}." for line in lines if line.row.pending]
    cited: dict[str, list[str]] = {}
    for row in (line.row for line in lines if line.row.cited):
        cited.setdefault(row.cited, []).append(row.label)
    texts += [f"{', '.join(labels)}: not counted, cited from {source}." for source, labels in cited.items()]
    if rule != COUNTING_RULES[0] and any("gflops" in line.row.printed for line in lines):
        texts.append(f"The GFLOPs that this table publishes follow --rule {COUNTING_RULES[0]}, and are not compared.")
    texts.append(_RULES[rule] + "; GMACs: what convolutions and linear layers really cost, over 1e9.")
    return texts


_RULES = {
    "papers": (
        "GFLOPs: multiply-adds of the convolutions over 1024^3, by the papers' rule, where a convolution that all "
        "channels share counts once, and a linear layer on tokens as often as there are tokens, not channels"
    ),
    "assembly": (
        "GFLOPs: multiply-adds of the convolutions and of comparing and assembling neighbours over 1e9, as the papers "
        "on FADE and SAPA count"
    ),
}
