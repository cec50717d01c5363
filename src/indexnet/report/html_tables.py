"""The tables of the page: results, costs, seeds, what is missing, runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from indexnet.report import plots, remarks
from indexnet.report.numbers import fixed, signed, significant
from indexnet.report.table import Measurement, Table, TableRow

if TYPE_CHECKING:
    from indexnet.run.tables import Column

_COSTS = (("params", "parameters", "Parameters"), ("gflops", "paper_gflops", "GFLOPs"))
_OTHER_COSTS = (
    ("true_gmacs", "GMACs"),
    ("train_samples_per_s", "Training<br>samples/s"),
    ("peak_memory_mb", "Peak MB"),
)
_SAID = {"★": "best", "≈": "not told apart from the best"}


def code(text: str) -> str:
    """Escape text; parts between backticks become code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def badge(number: int) -> str:
    """Write a row's number in its colour."""
    colour = (number - 1) % plots.COLOURS
    return f'<span class="badge" style="--s:var(--c{colour})">{number}</span>'


class _Head:
    """A head of two lines: titles over groups of columns, and what each column is."""

    def __init__(self, first: str) -> None:
        self.top = [f'<th class="row" scope="col" rowspan="2">{first}</th>']
        self.sub: list[str] = []
        self.columns = 1

    def single(self, title: str, css: str = "") -> None:
        """Add a column without a group; ``title`` is markup."""
        self.top.append(f'<th class="{css}" scope="col" rowspan="2">{title}</th>')
        self.columns += 1

    def group(self, title: str, names: Sequence[str]) -> None:
        """Add columns under one title; all are markup."""
        self.top.append(f'<th class="start" scope="colgroup" colspan="{len(names)}">{title}</th>')
        for index, name in enumerate(names):
            self.sub.append(f'<th class="{"" if index else "start"}" scope="col">{name}</th>')
        self.columns += len(names)

    def lines(self) -> str:
        """Write the head; one line where there are no groups."""
        if not self.sub:
            return f"<tr>{''.join(self.top)}</tr>".replace(' rowspan="2"', "")
        return f"<tr>{''.join(self.top)}</tr><tr>{''.join(self.sub)}</tr>"


def _scroll(label: str, head: str, body: str) -> str:
    """Put a table into a box of its own that scrolls sideways."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead>{head}</thead>\n'
        f"{body}</table></div>"
    )


def _bodies(table: Table, rows: Iterable[TableRow], columns: int, lines: dict[str, str]) -> str:
    """Write one body per block; ``lines`` are the cells of each row behind its name."""
    bodies = []
    for block, part in table.by_block(rows):
        written = [
            f'<tr{" class=pending" if row.pending else ""}><th scope="row">{badge(row.number)}{escape(row.short)}</th>'
            f"{lines[row.name]}</tr>"
            for row in part
        ]
        if block.label:
            head = f'<th class="block" scope="rowgroup" colspan="{columns}"><span>{escape(block.label)}</span></th>'
            written.insert(0, f"<tr>{head}</tr>")
        bodies.append("<tbody>\n" + "\n".join(written) + "\n</tbody>\n")
    return "".join(bodies)


# --- results -----------------------------------------------------------------------------------------------------


def results(table: Table) -> str:
    """Write the section of measured and printed metrics; rows without runs and single seeds are folded away."""
    head = _Head("Row")
    for column in table.columns:
        title, heads = f"{escape(column.title)} {remarks.arrow(column)}", _heads(table, column)
        if len(heads) == 1 and not table.has_printed:
            head.single(title)
        else:
            head.group(title, heads)
    head.single("Seeds<br>run", "text")
    lines = {row.name: _line(table, row) for row in table.shown}
    notes = [f'<li class="warning">{escape(text)}</li>' for text in table.warnings]
    notes += [f"<li>{escape(text)}</li>" for text in remarks.legend(table, costs=False)]
    notes += [f"<li>{escape(text)}</li>" for text in remarks.notes(table) if text not in table.warnings]
    return (
        f'<section aria-labelledby="results"><h2 id="results">Results</h2>'
        f'<p class="hint">Rows in the order of the source. {_origin(table)}</p>'
        + _scroll("Results", head.lines(), _bodies(table, table.shown, head.columns, lines))
        + _folded(table)
        + _seeds(table)
        + f'<ul class="notes">{"".join(notes)}</ul></section>'
    )


def _origin(table: Table) -> str:
    if table.runs is None:
        return "Nothing is measured yet."
    data, budget = escape(table.runs.data), escape(table.runs.budget)
    return f"Measured on <strong>{data}</strong> at budget <strong>{budget}</strong>."


def _heads(table: Table, column: Column) -> list[str]:
    printed = table.prints(column)
    heads = [escape(remarks.printed_head(table)).replace(", ", ":<br>")] if printed else []
    heads.append("measured:<br>" + escape(table.setting) if table.has_printed else "measured")
    heads += ["best seed"] if table.names_best_seeds and column is table.main else []
    return [*heads, "difference"] if table.comparable and printed else heads


def _line(table: Table, row: TableRow) -> str:
    cells = []
    for column in table.columns:
        m, printed = row.measured[column.metric], table.prints(column)
        first = " start" if table.has_printed or table.names_best_seeds else ""
        if printed:
            cells.append(f'<td class="printed{first}">{escape(m.printed)}</td>')
            first = ""
        cells.append(_measured(m, column.digits, first))
        if table.names_best_seeds and column is table.main:
            cells.append(f"<td>{remarks.best_seed(m, column.digits)}</td>")
        if table.comparable and printed:
            cells.append(f"<td>{signed(m.difference, column.digits)}</td>")
    return "".join(cells) + f'<td class="text">{escape(_state(table, row))}</td>'


def _state(table: Table, row: TableRow) -> str:
    return row.state(len(table.seeds)).replace(" seeds", "").replace(" seed", "")


def _measured(m: Measurement, digits: int, css: str) -> str:
    if m.mean is None:
        return f'<td class="{css.strip()}"></td>'
    spread = f' <span class="sd">± {fixed(m.sd, digits)}</span>' if m.sd is not None else ""
    seeds = "; ".join(f"seed {seed}: {fixed(value, digits)}" for seed, value in sorted(m.values.items()))
    said = f"rank {m.rank}; {seeds}" if m.rank is not None else seeds
    if m.interval is not None:
        what = "mean of the images' own numbers minus the best's" if m.pooled else "minus the best"
        said += f"; {what}: 95 % interval {_interval(m, digits)}"
    sign = remarks.mark(m).strip()
    spoken = f' role="img" aria-label="{_SAID[sign]}"' if sign else ""
    best = "best" if m.best else ""
    return (
        f'<td class="{best}{css}" title="{escape(said)}">{fixed(m.mean, digits)}{spread}'
        f'<span class="sign"{spoken}>{sign}</span></td>'
    )


def _interval(m: Measurement, digits: int) -> str:
    return f"{signed(m.interval.low, digits)} to {signed(m.interval.high, digits)}" if m.interval is not None else ""


def _folded(table: Table) -> str:
    """Write the rows without runs with their printed cells, closed."""
    if not table.folded:
        return ""
    columns = [column for column in table.columns if any(row.measured[column.metric].printed for row in table.folded)]
    costs = [(key, title) for key, _, title in _COSTS if any(row.printed.get(key) for row in table.folded)]
    head = _Head("Row")
    for title in (*(f"{escape(c.title)} {remarks.arrow(c)}" for c in columns), *(title for _, title in costs)):
        head.single(f"{title}<br>printed")
    head.single("Seeds<br>run", "text")
    lines = {
        row.name: "".join(f'<td class="printed">{escape(row.measured[c.metric].printed)}</td>' for c in columns)
        + "".join(f'<td class="printed">{escape(row.printed.get(key, ""))}</td>' for key, _ in costs)
        + f'<td class="text">{escape(_state(table, row))}</td>'
        for row in table.folded
    }
    body = _bodies(table, table.folded, head.columns, lines)
    said = f"{remarks.folded(table)}: names and printed numbers"
    return f"<details><summary>{said}</summary>{_scroll('Rows without runs', head.lines(), body)}</details>"


def _seeds(table: Table) -> str:
    """Write every seed's numbers and the intervals of the differences to the best, closed."""
    rows = [row for row in table.shown if row.done]
    columns = [c for c in table.columns if any(row.measured[c.metric].values for row in rows)]
    compared = any(row.measured[c.metric].interval for row in rows for c in columns)
    if not columns or not (len(table.seeds) > 1 or compared):
        return ""
    head = _Head("Row")
    for column in columns:
        names = [f"seed {seed}" for seed in table.seeds]
        head.group(
            f"{escape(column.title)} {remarks.arrow(column)}", [*names, *(["minus the best"] if compared else [])]
        )
    lines = {}
    for row in rows:
        cells = []
        for column in columns:
            m = row.measured[column.metric]
            for index, seed in enumerate(table.seeds):
                text = fixed(m.values.get(seed), column.digits)
                best = table.names_best_seeds and seed == m.best_seed and len(m.values) > 1
                css = "" if index else "start"
                cells.append(f'<td class="{css}">{f"<strong>{text} ●</strong>" if best else text}</td>')
            cells += [f"<td>{_interval(m, column.digits)}</td>"] if compared else []
        lines[row.name] = "".join(cells)
    what = [" ● is the best seed of a row." if table.names_best_seeds else ""]
    what.append(
        " The last column of a metric is the 95 % interval of the difference to the best row." if compared else ""
    )
    body = _bodies(table, rows, head.columns, lines)
    return (
        "<details><summary>Seed by seed</summary>"
        f'<p class="hint">{"".join(what).strip()}</p>{_scroll("Seed by seed", head.lines(), body)}</details>'
    )


# --- costs -------------------------------------------------------------------------------------------------------


def costs(table: Table) -> str:
    """Write the table of counted, measured and printed costs; "" where there are none."""
    if not any(row.done for row in table.shown) and not any(table.prints_cost(key) for key, *_ in _COSTS):
        return ""
    head = _Head("Row")
    for key, _, title in _COSTS:
        if table.prints_cost(key):
            head.group(title, ("printed", "counted"))
        else:
            head.single(title)
    for _, title in _OTHER_COSTS:
        head.single(title)
    lines = {}
    for row in table.shown:
        cells = []
        for printed, key, _ in _COSTS:
            text = remarks.parameters(table, row) if key == "parameters" else remarks.cost_text(row, key)
            if table.prints_cost(printed):
                cells.append(f'<td class="printed start">{escape(row.printed.get(printed, ""))}</td><td>{text}</td>')
            else:
                cells.append(f"<td>{text}</td>")
        cells += [f"<td>{remarks.cost_text(row, key)}</td>" for key, _ in _OTHER_COSTS]
        lines[row.name] = "".join(cells)
    return _scroll("Costs", head.lines(), _bodies(table, table.shown, head.columns, lines))


# --- what is missing, and runs -----------------------------------------------------------------------------------


def missing(table: Table) -> str:
    """Write the section of what the table lacks, and why; "" where it is complete or nothing is measured."""
    said, problems = remarks.missing(table), remarks.problems(table)
    if not said:
        return ""
    items = "".join(f"<li>{code(text)}</li>" for text in (*said, remarks.status_hint(table)))
    listed = ""
    if problems:
        lines = "".join(
            f'<tr><th scope="row">{escape(label)}</th><td class="text">{seeds}</td><td class="text">{status}</td>'
            f'<td class="reason">{escape(reason)}</td></tr>'
            for label, seeds, status, reason in problems
        )
        heads = _heads_line((("Row", "row"), ("Seeds", "text"), ("Status", "text"), ("Reason", "text")))
        listed = _scroll("Runs without a result", heads, f"<tbody>{lines}</tbody>")
    return (
        '<section aria-labelledby="missing"><h2 id="missing">What is missing</h2>'
        f'<ul class="notes">{items}</ul>{listed}</section>'
    )


def runs(table: Table) -> str:
    """Write the section of finished runs, closed; "" where there are none."""
    finished = [(row, run) for row in table.rows for run in row.done]
    if not finished:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{badge(row.number)}{escape(row.label)}</th><td>{run.seed}</td>'
        f"<td>{escape(str(run.record.steps or ''))}</td><td>{_plain(run.record.number('wall_time_s'))}</td>"
        f"<td>{_plain(run.record.number('train_samples_per_s'))}</td><td>{_plain(run.record.number('peak_memory_mb'))}</td>"
        f'<td class="text">{escape(run.record.device or "")}</td>'
        f'<td class="text"><code>{escape((run.record.git or "")[:10])}</code></td></tr>'
        for row, run in finished
    )
    heads = _heads_line(
        (
            *(("Row", "row"), ("Seed", ""), ("Steps", ""), ("Seconds", ""), ("Samples/s", ""), ("Peak MB", "")),
            *(("Device", "text"), ("Revision", "text")),
        )
    )
    listed = _scroll("Finished runs", heads, f"<tbody>{lines}</tbody>")
    return (
        '<section aria-labelledby="runs"><h2 id="runs">Runs</h2>'
        f"<details><summary>All {len(finished)} finished runs</summary>{listed}</details></section>"
    )


def _plain(value: float | None) -> str:
    return "" if value is None else significant(value)


def _heads_line(names: Iterable[tuple[str, str]]) -> str:
    return "<tr>" + "".join(f'<th class="{css}" scope="col">{name}</th>' for name, css in names) + "</tr>"
