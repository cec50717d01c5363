"""The page of measured results, docs/results/index.md: its template, and the numbers that it asks for, from records."""

from __future__ import annotations

import functools
import itertools
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev

import jinja2
from results import FOLDER, Result, evaluations, results
from results_answers import GMACS, across_text, answers_text, with_mark
from results_methods import find_method, methods_text
from results_statistics import ahead_by_batch, below_text, fallen, reestimated, statistics_text
from scipy.stats import kendalltau

from indexnet.core.errors import UserError
from indexnet.core.statistics import Interval, kendall_tau_b, paired_difference, paired_interval
from indexnet.report.across import Contest
from indexnet.report.figures import looks
from indexnet.report.figures.axes import Series
from indexnet.report.figures.plots import scatter
from indexnet.report.numbers import count, fixed, signed, significant, spread
from indexnet.report.table import Block, Measurement, TableRow
from indexnet.run.experiments.experiment import Column

MOST_PAIRS = 10  # that stand the other way round and are named; more say only that the orders have little in common
TEMPLATE, PAGE = FOLDER / "index.md.j2", FOLDER / "index.md"


class UntrueError(Exception):
    """What a sentence of the template says is not what the records say."""


def write_page() -> None:
    """Write the page and its figures."""
    PAGE.write_text(render(), encoding="utf-8")
    for name, figure in figures().items():
        (FOLDER / name).write_text(figure, encoding="utf-8")


def render() -> str:
    """Return the page: the template with the numbers of the records.

    Raises:
        UserError: something that the template says in words is no longer true of the records.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    tables = {result.name: result for result in results()}
    ranking = [result for result in tables.values() if not result.is_check]
    named = {each.name: each for each in evaluations()}

    def of_table(say: Callable[..., object]) -> Callable[..., object]:
        return lambda name, *args, **options: say(tables[name], *args, **options)

    environment.globals.update(
        result=tables.get,
        table=of_table(table_text), agreement=of_table(agreement_text), facts=of_table(facts_text),
        mean=of_table(mean_text), delta=of_table(delta_text), more=of_table(more_text), slower=of_table(slower_text),
        below=of_table(below_text), published=of_table(published_text), holds=holds,
        number=of_table(number), first=of_table(lambda result, row: by_mean(result, row)[0].name == row),
        last=of_table(lambda result, row: by_mean(result, row)[-1].name == row),
        seeds=lambda name: len({run.record.seed for _, run in tables[name].table.done_runs}),
        method=lambda name, which, metric: find_method(named[name], which)["metrics"][metric],
        better=lambda name, row, other, of="", metric="": better(tables[name], row, tables[of or name], other, metric),
        ahead=lambda *pairs: ahead_text([(tables[name], row, other) for name, row, other in pairs]),
        answers=lambda: answers_text(ranking), across=lambda: across_text(ranking),
        figure=figure_name,
        figures={figure_name(result.name, block.label) for result, block, _ in _drawn(tables.values())},
        evaluation=named.get,
        methods=lambda name: methods_text(named[name]),
        statistics=of_table(statistics_text), reestimated=of_table(reestimated), fallen=of_table(fallen),
        ahead_by_batch=of_table(ahead_by_batch), beyond_chance=of_table(beyond_chance),
    )  # fmt: skip
    try:
        return environment.get_template(TEMPLATE.name).render()
    except UntrueError as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next(frame.lineno for frame in frames if frame.filename.endswith(TEMPLATE.name))
        raise UserError(
            f"{TEMPLATE}, line {line}: the records no longer say this; write its sentences anew."
        ) from error


def figures() -> dict[str, str]:
    """Return quality against cost of every table as SVG files, by name."""
    return {
        figure_name(result.name, block.label): _standalone(_scatter(result, block, rows))
        for result, block, rows in _drawn(results())
    }


def _drawn(tables: Iterable[Result]) -> list[tuple[Result, Block, list[TableRow]]]:
    """Return blocks of tables that have a figure, with its rows; a single row and a check have none."""
    found = []
    for result in (result for result in tables if not result.is_check):
        for block in result.table.blocks:
            rows = [row for row in block.rows if row.measured[result.table.main.metric].values]
            if len(rows) > 1:
                found.append((result, block, rows))
    return found


def figure_name(name: str, block: str = "") -> str:
    """Return the file of the figure of a table's block, as the page links it."""
    return f"{name}/{block.replace(' ', '_') or 'quality'}.svg"


def _scatter(result: Result, block: Block, rows: Sequence[TableRow]) -> str:
    """Draw quality against cost with the front that the answers name, as the report page does."""
    column, contest = result.table.main, Contest("", result.table, block)
    points = []
    for row in rows:
        if (cost := GMACS.value(row)) is None:
            continue
        m = row.measured[column.metric]
        points.append((Series(row.number, row.short, list(m.values.values()), m.mean or 0.0, m.sd, m.best), cost))
    front = [(GMACS.value(row) or 0.0, contest.measured(row).mean or 0.0) for row in contest.front(GMACS.value)]
    base = [row.number for row in rows if row is result.table.reference(row)]
    return scatter(points, "GMACs", column.title, column.digits, front, base)


def _standalone(figure: str) -> str:
    """Make a file of a figure of the report page: with that page's colours, for light and dark readers."""
    opening, rest = figure.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{_style()}</style>{rest}\n'


@functools.cache
def _style() -> str:
    """Return the colours of the report page and its rules for figures."""
    templates = jinja2.Environment(loader=jinja2.PackageLoader("indexnet.report"))
    colours, rules = (templates.get_template(name).render(looks=looks) for name in ("colours.css", "figures.css"))
    return f"{colours}\nsvg {{ font-family: system-ui, sans-serif; }}\n{rules}"


def _between(first: Measurement, second: Measurement) -> Interval | None:
    """Return the interval of a difference over the seeds that both have; None where fewer than two."""
    found = [{seed: {"all": value} for seed, value in m.values.items()} for m in (first, second)]
    return paired_interval(*found)


def _plus_minus(difference: float, bounds: tuple[float, float] | None, digits: int) -> str:
    text = signed(difference, digits)
    return text if bounds is None else f"{text} ± {fixed((bounds[1] - bounds[0]) / 2, digits)}"


def table_text(result: Result, block: str = "", metrics: int = 2, also: Mapping[str, str] | None = None) -> str:
    """Return a table in Markdown: rows in published order, with differences to the baseline over seeds.

    ``also`` has titles of metrics of the records that the table itself has not, less of which is better.
    """
    table = result.table
    columns = table.measured_columns[:metrics]
    (found,) = [each for each in table.blocks if each.label == block]
    rows = [row for row in found.rows if row.done]
    main = table.main
    published = table.prints(main)
    baseline = next((row for row in rows if row is table.reference(row)), None)
    head = ["Row"]
    for column in columns:
        head.append(f"{column.title} {'↑' if column.higher_is_better else '↓'}")
        if column is main:
            head += [f"Δ {baseline.short}"] if baseline else []
            head += ["published"] if published else []
    head += [*(f"{title} ↓" for title in (also or {}).values()), "Parameters", "GMACs", "Training samples/s"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        line = [f"{row.number}. {row.short}"]
        for column in columns:
            line.append(with_mark(result, row, column))
            if column is main:
                line += [_to_baseline(result, row, column)] if baseline else []
                line += [row.measured[column.metric].printed] if published else []
        line += [recorded_text(result, row.name, metric) for metric in also or ()]
        gmacs, speed = row.cost("true_gmacs"), row.cost("train_samples_per_s")
        line += [
            count(row.cost("parameters")),
            significant(gmacs) if gmacs else "",
            significant(speed) if speed else "",
        ]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def recorded_text(result: Result, row: str, metric: str) -> str:
    """Return the mean and spread over seeds of a metric that only the records have."""
    values = [run.record.metrics[metric] for run in _rows(result, row)[0].done]
    return spread(fmean(values), stdev(values) if len(values) > 1 else None, result.table.main.digits)


def _to_baseline(result: Result, row: TableRow, column: Column) -> str:
    """Write the difference to the baseline, of several seeds with its interval; ≈ where an interval contains 0."""
    difference, bounds = _difference(result, row, column)
    if difference is None:
        return ""
    text = _plus_minus(difference, _bounds(result, row, None, column), column.digits)
    return f"{text} ≈" if bounds and bounds[0] <= 0 <= bounds[1] else text


def _difference(result: Result, row: TableRow, column: Column) -> tuple[float | None, tuple[float, float] | None]:
    """Return the difference to the baseline and its interval, as the report found them; None for what it lacks."""
    line, name = result.reported[row.name], f"{column.metric}_minus_baseline"
    difference, low, high = (float(line[key]) if line[key] else None for key in (name, f"{name}_low", f"{name}_high"))
    return difference, None if low is None or high is None else (low, high)


def beyond_chance(result: Result, name: str, other: str = "") -> bool:
    """Say whether several seeds show that a row differs from another or the baseline, by the table's first metric."""
    (row,) = _rows(result, name)
    bounds = _bounds(result, row, _rows(result, other)[0] if other else None, result.table.main)
    return bounds is not None and not bounds[0] <= 0 <= bounds[1]


def _bounds(result: Result, row: TableRow, other: TableRow | None, column: Column) -> tuple[float, float] | None:
    """Return the 95 % interval of the difference to another row or the baseline; None with one seed in common.

    To the baseline it is that of the report, over images and seeds, to other rows over seeds alone.
    """
    baseline = result.table.reference(row)
    other = other or baseline
    if other is None:
        return None
    first, second = (each.measured[column.metric] for each in (row, other))
    if len(first.values.keys() & second.values.keys()) < 2:
        return None
    if other is baseline:
        return _difference(result, row, column)[1]
    if row is baseline:
        bounds = _difference(result, other, column)[1]
        return None if bounds is None else (-bounds[1], -bounds[0])
    held = _between(first, second)
    return None if held is None else (held.low, held.high)


def agreement_text(result: Result, block: str = "") -> str:
    """Say how the measured order agrees with the published one: Kendall's tau, of single seeds, and turned pairs."""
    column = result.table.main
    (found,) = [each for each in result.table.blocks if each.label == block]
    rows = [row for row in found.rows if row.done and row.measured[column.metric].target is not None]
    targets = [row.measured[column.metric].target or 0.0 for row in rows]
    means = [row.measured[column.metric].mean or 0.0 for row in rows]
    tau = kendall_tau_b(targets, means)
    if tau is None:
        return ""
    p = float(kendalltau(targets, means).pvalue)
    seeds = sorted(set.intersection(*(set(row.measured[column.metric].values) for row in rows)))
    single = [kendall_tau_b(targets, [row.measured[column.metric].values[s] for row in rows]) or 0.0 for s in seeds]
    text = f"Kendall's tau with the published order of {column.title}: {fixed(tau, 2)} over {len(rows)} rows"
    text += f" (p = {significant(p, 1)} for no relation at all"
    text += f"; of single seeds {fixed(min(single), 2)} to {fixed(max(single), 2)})." if len(seeds) > 1 else ")."
    pairs = list(itertools.combinations(rows, 2))
    turned = [found for a, b in pairs if (found := _turned(a, b, column))]
    text += f" Of {len(pairs)} pairs, {len(turned)} {'is' if len(turned) == 1 else 'are'} the other way round"
    text += f": {'; '.join(turned)}." if 0 < len(turned) <= MOST_PAIRS else "."
    return text


def _turned(a: TableRow, b: TableRow, column: Column) -> str:
    """Name a pair that stands the other way round than published, the better row first; "" for other pairs."""
    first, second = a.measured[column.metric], b.measured[column.metric]
    difference = paired_difference(first.values, second.values) or 0.0
    if difference * ((first.target or 0.0) - (second.target or 0.0)) >= 0:
        return ""
    better, worse = (a, b) if (difference > 0) == column.higher_is_better else (b, a)
    held = _between(first, second)
    certain = held is not None and not held.contains_zero
    return f"{better.short} over {worse.short}" + (" (beyond the spread of seeds)" if certain else "")


def facts_text(result: Result) -> str:
    """Say in a line what was measured: data, steps, seeds, hardware, date, code revision, time."""
    records = [run.record for _, run in result.table.done_runs]
    one = records[0]
    seeds = len({record.seed for record in records})
    dates = sorted({(record.finished or "")[:10] for record in records})
    hours = sum(record.wall_time_s or 0.0 for record in records) / 3600

    def each(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    tests = [record.test_counts for record in records]
    names = dict.fromkeys(name for counts in tests for name in counts if name)
    further = "".join(f", {each(counts.get(name) for counts in tests)} of `{name}`" for name in names)
    return (
        f"{each(r.data.train.count for r in records)} training samples and {each(counts[''] for counts in tests)} "
        f"test images of `{one.data.name}`{further}; {each(r.steps for r in records)} steps of "
        f"{each(r.training.get('batch_size') for r in records)}; {len(records)} of {result.runs} runs, {seeds} "
        f"seed{'s' * (seeds > 1)}; {each(r.device for r in records)}; "
        f"torch {each(r.versions.get('torch') for r in records)}; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; code {each((r.git or '')[:7] for r in records)}; "
        f"{fixed(hours, 1)} hours of run time."
    )


def mean_text(result: Result, row: str, metric: str = "", seed: int | None = None) -> str:
    """Return a cell: mean and spread over seeds; or the value of one seed."""
    (found,), column = _cells(result, metric, row)
    return spread(found.mean, found.sd, column.digits) if seed is None else fixed(found.values[seed], column.digits)


def delta_text(result: Result, row: str, other: str, metric: str = "", seed: int | None = None) -> str:
    """Return how far a row is from another over the seeds that both have, with its 95 % interval; or of one seed."""
    (first, second), column = _cells(result, metric, row, other)
    if seed is not None:
        return signed(first.values[seed] - second.values[seed], column.digits)
    difference = paired_difference(first.values, second.values)
    if difference is None:
        raise ValueError(f"{result.name}: {row} or {other} has not run.")
    return _plus_minus(difference, _bounds(result, *_rows(result, row, other), column), column.digits)


def more_text(result: Result, row: str, other: str) -> str:
    """Return how many parameters a row has more than another, exactly."""
    first, second = (each.cost("parameters") for each in _rows(result, row, other))
    return f"{round((first or 0.0) - (second or 0.0)):,}"


def slower_text(result: Result, row: str, other: str) -> str:
    """Return how many times as long a training sample takes in a row as in another, as measured."""
    first, second = (each.cost("train_samples_per_s") for each in _rows(result, row, other))
    return fixed(second / first, 1) if first and second else "?"


def holds(*facts: bool) -> str:
    """Stop a page that says what is not so; put before the sentences that say it.

    Raises:
        UntrueError: one of the facts is not true.
    """
    if not all(facts):
        raise UntrueError
    return ""


def ahead_text(pairs: Sequence[tuple[Result, str, str]]) -> str:
    """Say of rows that are ahead of others how many of them are so by more than chance.

    Raises:
        UntrueError: one is not ahead.
    """
    holds(*(better(result, row, result, other) for result, row, other in pairs))
    shown = sum(beyond_chance(*pair) for pair in pairs)
    return f"all {shown}" if shown == len(pairs) else f"{shown or 'none'} of {len(pairs)}"


def number(result: Result, row: str, metric: str = "") -> float:
    """Return the mean over seeds of the first metric, or of any that the records have."""
    return fmean(run.record.metrics[metric or result.table.main.metric] for run in _rows(result, row)[0].done)


def by_mean(result: Result, row: str) -> list[TableRow]:
    """Return the rows beside one, itself among them, best first."""
    (block,) = (block for block in result.table.blocks if row in {each.name for each in block.rows})
    return Contest("", result.table, block).rows


def published_text(result: Result, row: str) -> str:
    """Return the published value of a row."""
    return _rows(result, row)[0].measured[result.table.main.metric].printed


def better(result: Result, row: str, other_result: Result, other: str, metric: str = "") -> bool:
    """Say whether a row is better than one of another table over common seeds: by the first metric or another."""
    (first,), column = _cells(result, metric, row)
    (second,), _ = _cells(other_result, column.metric, other)
    difference = paired_difference(first.values, second.values) or 0.0
    return difference > 0 if column.higher_is_better else difference < 0


def _rows(result: Result, *rows: str) -> list[TableRow]:
    by_name = {row.name: row for row in result.table.rows}
    return [by_name[row] for row in rows]


def _cells(result: Result, metric: str, *rows: str) -> tuple[list[Measurement], Column]:
    table = result.table
    column = next(c for c in table.columns if c.metric == metric) if metric else table.main
    return [row.measured[column.metric] for row in _rows(result, *rows)], column
