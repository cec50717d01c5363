"""The page of measured results, docs/results/index.md: its template, and the numbers that it asks for, from records."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean

import jinja2
from results import FOLDER, Result, results

from indexnet.core.statistics import kendall_tau_b, sample_sd
from indexnet.report.numbers import count, fixed, signed, significant, spread
from indexnet.report.plots import Series, scatter
from indexnet.report.table import Block, Measurement, TableRow
from indexnet.run.experiments.experiment import Column

TEMPLATE, PAGE = FOLDER / "index.md.j2", FOLDER / "index.md"
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t for a central 95 %, by the number of seeds


def write_page() -> None:
    """Write the page and its figures."""
    PAGE.write_text(render(), encoding="utf-8")
    for name, figure in figures().items():
        (FOLDER / name).write_text(figure, encoding="utf-8")


def render() -> str:
    """Return the page: the template with the numbers of the records."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.globals.update(
        result=lambda name: _named()[name],
        table=table_text, agreement=agreement_text, facts=facts_text, answers=answers_text, mean=mean_text,
        delta=delta_text,
        ran=lambda name: bool(_named()[name].table.done),
        figure=figure_name,
    )  # fmt: skip
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render()


def figures() -> dict[str, str]:
    """Return quality against cost of every table as SVG files, by name."""
    found = {}
    for result in results():
        for block in result.table.blocks:
            rows = [row for row in block.rows if row.measured[result.table.main.metric].values]
            if len(rows) > 1:
                found[figure_name(result.name, block.label)] = _standalone(_scatter(result, block, rows))
    return found


def figure_name(name: str, block: str = "") -> str:
    """Return the file of the figure of a table's block, as the page links it."""
    return f"{name}/{block.replace(' ', '_') or 'quality'}.svg"


def _scatter(result: Result, block: Block, rows: Sequence[TableRow]) -> str:
    column = result.table.main
    points = []
    for row in rows:
        m = row.measured[column.metric]
        series = Series(row.number, row.short, list(m.values.values()), m.mean or 0.0, m.sd, m.best)
        points.append((series, row.cost("true_gmacs") or 1.0))
    return scatter(points, "GMACs", column.title, column.digits)


_STYLE = """<style>svg{--ink:#1d2330;--muted:#5b6472;--grid:#e3e6ea;--paper:#fff;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;
--c3:#cc79a7;--c4:#7a5c00;--c5:#3b8fc2;--c6:#a03070;--c7:#555;background:var(--paper);font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--ink:#e8eaee;--muted:#a3abb8;--grid:#333a45;--paper:#14181f;--c0:#56b4e9;
--c1:#f08a4b;--c2:#3ccf9e;--c3:#e6a3c9;--c4:#e0c060;--c5:#8fc7ea;--c6:#e07fb4;--c7:#bbb}}
text{fill:var(--ink)}.tick,.axis{fill:var(--muted)}.strong{font-weight:700}.grid{stroke:var(--grid)}
.disc{fill:var(--s)}.inside{fill:var(--paper);font-size:10px;font-weight:700}.sd{stroke:var(--s);stroke-width:2}
.front{fill:none;stroke:var(--muted);stroke-dasharray:4 4}</style>"""


def _standalone(svg: str) -> str:
    """Make a file of a figure of the report page: with the page's colours, for light and dark readers."""
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}\n'


@functools.cache
def _named() -> dict[str, Result]:
    return {result.name: result for result in results()}


def _interval(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float | None] | None:
    """Return the mean of paired differences over seeds and the half width of its 95 % interval (Student's t)."""
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    sd = sample_sd(differences)
    return fmean(differences), None if sd is None else _T95[len(seeds)] * sd / len(seeds) ** 0.5


def _difference(first: Mapping[int, float], second: Mapping[int, float], digits: int) -> str:
    found = _interval(first, second)
    if found is None:
        return ""
    mean, half = found
    return signed(mean, digits) + ("" if half is None else f" ± {fixed(half, digits)}")


def table_text(name: str, block: str = "", metrics: int = 2) -> str:
    """Return a table in Markdown: rows in published order, with differences to the baseline over seeds."""
    result = _named()[name]
    table = result.table
    columns = table.measured_columns[:metrics]
    (found,) = [each for each in table.blocks if each.label == block]
    rows = [row for row in found.rows if row.done]
    main = table.main
    published = table.prints(main)
    baseline = next((row for row in rows if row.base == table.experiment.reference), None)
    head = ["Row"]
    for column in columns:
        head.append(f"{column.title} {'↑' if column.higher_is_better else '↓'}")
        if column is main:
            head += [f"Δ {baseline.short}"] if baseline else []
            head += ["published"] if published else []
    head += ["Parameters", "GMACs", "Training samples/s"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        line = [row.short]
        for column in columns:
            m = row.measured[column.metric]
            line.append(f"{spread(m.mean, m.sd, column.digits)} {_sign(result, row, column)}".rstrip())
            if column is main:
                own, base = m.values, baseline.measured[column.metric].values if baseline else {}
                line += [_difference(own, base, column.digits) if row is not baseline else ""] if baseline else []
                line += [m.printed] if published else []
        speed = row.cost("train_samples_per_s")
        line += [count(row.cost("parameters")), significant(row.cost("true_gmacs") or 0.0)]
        line.append(significant(speed) if speed else "")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sign(result: Result, row: TableRow, column: Column) -> str:
    """★ for the best, ≈ for what images and seeds cannot tell from it, as the report found."""
    line = result.reported[row.name]
    if line[f"{column.metric}_rank"] == "1":
        return "★"
    return "≈" if line[f"{column.metric}_tied"] == "1" else ""


def agreement_text(name: str, block: str = "") -> str:
    """Say how the measured order agrees with the published one: Kendall's tau, of single seeds, and turned pairs."""
    result = _named()[name]
    column = result.table.main
    (found,) = [each for each in result.table.blocks if each.label == block]
    rows = [row for row in found.rows if row.done and row.measured[column.metric].target is not None]
    targets = [row.measured[column.metric].target or 0.0 for row in rows]
    means = [row.measured[column.metric].mean or 0.0 for row in rows]
    tau = kendall_tau_b(targets, means)
    if tau is None:
        return ""
    from scipy.stats import kendalltau

    p = float(kendalltau(targets, means).pvalue)
    seeds = sorted(set.intersection(*(set(row.measured[column.metric].values) for row in rows)))
    single = [kendall_tau_b(targets, [row.measured[column.metric].values[s] for row in rows]) or 0.0 for s in seeds]
    text = f"Kendall's tau with the published order of {column.title}: {fixed(tau, 2)} over {len(rows)} rows"
    text += f" (p = {significant(p, 1)}"
    text += f"; of single seeds {fixed(min(single), 2)} to {fixed(max(single), 2)})." if len(seeds) > 1 else ")."
    pairs = list(itertools.combinations(rows, 2))
    turned = [pair for pair in pairs if _turned(*pair, column) is not None]
    certain = [pair for pair in turned if _turned(*pair, column)]
    text += f" Of {len(pairs)} pairs, {len(turned)} are the other way round"
    if len(seeds) > 1:
        text += f", {len(certain)} of them beyond the spread of seeds"
        named = "; ".join(f"{_better(*pair, column).short} over {_worse(*pair, column).short}" for pair in certain)
        text += f": {named}" if named else ""
    return f"{text}."


def _better(a: TableRow, b: TableRow, column: Column) -> TableRow:
    sign = 1.0 if column.higher_is_better else -1.0
    return max(a, b, key=lambda row: sign * (row.measured[column.metric].mean or 0.0))


def _worse(a: TableRow, b: TableRow, column: Column) -> TableRow:
    return b if _better(a, b, column) is a else a


def _turned(a: TableRow, b: TableRow, column: Column) -> bool | None:
    """Whether two rows stand the other way round than published, for certain; None where they do not."""
    first, second = a.measured[column.metric], b.measured[column.metric]
    found = _interval(first.values, second.values)
    if found is None or first.target is None or second.target is None:
        return None
    mean, half = found
    if mean * (first.target - second.target) >= 0:
        return None
    return half is not None and abs(mean) > half


def facts_text(name: str) -> str:
    """Say in a line what was measured: data, steps, seeds, hardware, date, code revision, time."""
    records = [run.record for _, run in _named()[name].table.done_runs]
    one = records[0]
    train, test = one.data.train.count, one.test_count
    seeds = len({record.seed for record in records})
    dates = sorted({(record.finished or "")[:10] for record in records})
    hours = sum(record.wall_time_s or 0.0 for record in records) / 3600
    revisions = sorted({(record.git or "")[:7] for record in records})
    steps = sorted({record.steps or 0 for record in records})
    devices = sorted({str(record.device) for record in records})
    return (
        f"{train} training samples and {test} test images of `{one.data.name}`; {'/'.join(map(str, steps))} steps of "
        f"{one.training.get('batch_size')}; {len(records)} runs, {seeds} seed{'s' if seeds > 1 else ''}; "
        f"{', '.join(devices)}; torch {one.versions.get('torch')}; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; "
        f"code {', '.join(revisions)}; {fixed(hours, 1)} hours of run time."
    )


def mean_text(name: str, row: str, metric: str = "") -> str:
    """Return a cell: mean and spread over seeds."""
    found, column = _cells(name, metric, row)
    return spread(found[0].mean, found[0].sd, column.digits)


def delta_text(name: str, row: str, other: str, metric: str = "") -> str:
    """Return how far a row is from another: the mean difference over seeds, with its 95 % interval."""
    found, column = _cells(name, metric, row, other)
    return _difference(found[0].values, found[1].values, column.digits)


def _cells(name: str, metric: str, *rows: str) -> tuple[list[Measurement], Column]:
    table = _named()[name].table
    column = next(c for c in table.columns if c.metric == metric) if metric else table.main
    by_name = {row.name: row for row in table.rows}
    return [by_name[row].measured[column.metric] for row in rows], column


def answers_text() -> str:
    """Say for each table what is best, what is not told apart from it, and which of these is cheapest."""
    lines = [["Table", "Best", "Not told apart from it", "Fewest parameters of these", "Fewest GMACs of these"]]
    lines.append(["---"] * len(lines[0]))
    for result in results():
        column = result.table.main
        for block in result.table.blocks:
            rows = [row for row in block.rows if row.done]
            winners = [row for row in rows if _sign(result, row, column)]
            if len(rows) < 2 or not winners:
                continue
            best = next(row for row in winners if _sign(result, row, column) == "★")
            m = best.measured[column.metric]
            text = f"{best.short}, {column.title} {spread(m.mean, m.sd, column.digits)}"
            label = f"[{result.table.experiment.title}{f', {block.label}' if block.label else ''}](#{result.name})"
            others = ", ".join(row.short for row in winners if row is not best) or "none"
            lines.append([label, text, others, _cheapest(winners, "parameters"), _cheapest(winners, "true_gmacs")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cheapest(rows: Sequence[TableRow], key: str) -> str:
    priced = [(cost, row) for row in rows if (cost := row.cost(key)) is not None]
    cost, row = min(priced, key=lambda pair: pair[0])
    return f"{row.short}, {count(cost) if key == 'parameters' else significant(cost)}"
