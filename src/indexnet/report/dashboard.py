"""``indexnet dashboard``: the W&B workspace and report of an experiment, as code: written to files, or published.

Panels over what ``logger=wandb`` logs. Needs wandb-workspaces; only what is published asks a server.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.core.escape import markdown
from indexnet.core.files import write_json
from indexnet.core.readers import DamagedFileError, read_json, read_mapping
from indexnet.report import relative, remarks
from indexnet.report.fields import expected
from indexnet.report.markdown import table_of
from indexnet.report.table import Table
from indexnet.run.experiments.experiment import Column, known_metrics
from indexnet.run.loggers.wandb_names import LOSS, RECORD, STEP, metric_key, picture_key, printed_key, setting_tag
from indexnet.run.run_sets import read_pictures

# untyped: its own types name what it exports at run time only
ws: Any = import_module("wandb_workspaces.workspaces")
wr: Any = import_module("wandb_workspaces.reports.v2")
expr: Any = import_module("wandb_workspaces.expr")

FILES = ("workspace.json", "report.json")
PUBLISHED = "published.json"
"""Which workspace and report the last ``--publish`` made; the next one replaces them."""

GROUP_BY = "JobType"
"""A row of the table; what is drawn of it is the mean over its seeds."""

COSTS = (("parameters", "Parameters"), ("paper_gflops", "GFLOPs"), ("train_samples_per_s", "Samples per second"))
"""Numbers of the record beside the metrics, with their headings."""

_USUAL_PICTURES = (("input", None), ("target", None), ("output", None), ("error", None), ("index", 0))
_MOST_RUNS = 500
_WIDTH, _HEIGHT = 12, 8  # of a panel, in the 24 columns of a report
_GROUPED = {"groupby": GROUP_BY, "groupby_aggfunc": "mean", "max_runs_to_show": _MOST_RUNS}


def write(table: Table, folder: Path, entity: str, project: str) -> tuple[Path, Path]:
    """Write ``workspace.json`` and ``report.json`` into a folder, after a round trip through the library.

    Raises:
        UserError: the library does not read back what it wrote.
    """
    with _quiet():
        made = create_workspace(table, entity, project), create_report(table, entity or "me", project)
        texts = [_checked(each) for each in made]
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"--output {folder} is a file; give a folder.")
    paths = folder / FILES[0], folder / FILES[1]
    for path, text in zip(paths, texts, strict=True):
        write_json(path, json.loads(text))
    return paths


def publish(table: Table, folder: Path, entity: str | None, project: str) -> dict[str, str]:
    """Save workspace and report on the server, in place of those that an earlier call saved.

    Args:
        table: the experiment and its runs.
        folder: with the written files; remembers what was saved.
        entity: user or team; None: who is logged in.
        project: their project.

    Returns:
        ``workspace`` and ``report`` -> address.

    Raises:
        UserError: nobody is logged in, the server cannot be reached or refuses.
    """
    import wandb

    kept = f"; the files are in {folder}."
    with _quiet():
        try:
            if not wandb.login(prompt=False, verify=True):
                raise UserError(f"--publish needs a W&B key, and `wandb login` asks for one{kept}")
            entity = entity or str(wandb.Api().default_entity)
            where = {"entity": entity, "project": project}
            before = _published(folder / PUBLISHED, where)
            workspace = create_workspace(table, entity, project)
            workspace._internal_id, workspace._internal_name = before.get("workspace", ("", ""))
            workspace.save()
            report = create_report(table, entity, project, online=True)
            report.id = before.get("report", "")
            report.save()
        except UserError:
            raise
        except Exception as error:  # what the library and its transport raise is not documented
            text = " ".join(str(error).split()).rstrip(".")
            why = "no answer" if "did not respond in time" in text else f"{type(error).__name__}: {text}"
            raise UserError(f"W&B did not take the dashboard of {entity or 'you'}/{project} ({why}){kept}") from error
        saved = {"workspace": [workspace._internal_id, workspace._internal_name], "report": report.id}
        write_json(folder / PUBLISHED, {**where, **saved})
        return {"workspace": str(workspace.url), "report": str(report.url)}


def _published(file: Path, where: Mapping[str, str]) -> dict[str, Any]:
    """Return what was saved at a place of the server; empty where nothing is.

    Raises:
        DamagedFileError: the file that says so is damaged.
    """
    try:
        before = read_mapping(file, read_json)
    except FileNotFoundError:
        return {}
    if not fits(before.get("workspace", ()), tuple[str, str] | tuple[()]) or not fits(before.get("report", ""), str):
        raise DamagedFileError(f"{file} does not say what was published; move it away to publish anew.")
    return before if {key: before.get(key) for key in where} == where else {}


def _checked(made: Any) -> str:
    """Return a workspace or report as JSON, once the library reads its own writing as the same thing."""
    model = made._to_model()  # the library has no public way to write without a server
    text = _text(model)
    again = type(made)._from_model(type(model).model_validate_json(text))
    if hasattr(made, "width"):
        again.width = made.width  # the one thing that the library does not read
    if _text(again._to_model()) != text:
        raise UserError(
            f"wandb-workspaces {version('wandb-workspaces')} does not read back the {type(made).__name__.lower()} that "
            "it wrote; install another version (0.4.13 is known to work)."
        )
    return text


def _text(model: Any) -> str:
    return str(model.model_dump_json(by_alias=True, exclude_none=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep wandb's own lines off the terminal."""
    before = os.environ.get("WANDB_SILENT")
    os.environ["WANDB_SILENT"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_SILENT"]
        else:
            os.environ["WANDB_SILENT"] = before


def create_workspace(table: Table, entity: str, project: str) -> Any:
    """Build the workspace: the runs by row, panels on metrics, costs, training, choices and pictures."""
    columns = _columns(table)
    about = wr.MarkdownPanel(markdown=_about(table))
    sections = (
        ("Measured and published", [*_bars(table), about]),
        ("Cost and quality", _costs(columns)),
        ("Training", [_loss()]),
        ("Choices", [_choices(table)]),
        ("Pictures", [_pictures(table)]),
    )
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{table.experiment.name}: {table.runs.name if table.runs else 'all data and budgets'}",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=_MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=_filter(table),
            groupby=[expr.Metric(GROUP_BY)],
            order=[
                expr.Ordering(expr.Summary(metric_key(column.metric)), ascending=not column.higher_is_better)
                for column in columns[:1]
            ],
            pinned_columns=_pinned(table, columns),
        ),
    )


def create_report(table: Table, entity: str, project: str, *, online: bool = False) -> Any:
    """Build the report: what the table is, its printed numbers, and a grid of panels for each of its blocks.

    Args:
        table: the experiment and its runs.
        entity: user or team.
        project: of the runs.
        online: name the project of the runs, which the library looks up on the server; otherwise they are those of the
            project that the report is saved in.
    """
    columns = _columns(table)
    where = {"entity": entity, "project": project} if online else {}
    blocks: list[Any] = [wr.MarkdownBlock(text=_about(table))]
    for block in table.blocks:
        label, rows = block.label, [row.name for row in block.rows]
        runset = wr.Runset(
            **where,
            name=label or "rows",
            filters=_filter(table, rows if label else ()),
            groupby=[GROUP_BY],
            order=[
                wr.OrderBy(wr.SummaryMetric(metric_key(each.metric)), not each.higher_is_better) for each in columns[:1]
            ],
            pinned_columns=_pinned(table, columns),
        )
        panels = [*_bars(table), *_costs(columns), _loss(), _choices(table), _pictures(table)]
        for number, panel in enumerate(panels[:-1]):
            x, y = number % 2 * _WIDTH, number // 2 * _HEIGHT
            panel.layout = wr.Layout(x=x, y=y, w=_WIDTH, h=_HEIGHT)
        panels[-1].layout = wr.Layout(x=0, y=(len(panels) + 1) // 2 * _HEIGHT, w=2 * _WIDTH, h=_HEIGHT)
        blocks += [wr.H2(label)] if label else []
        blocks.append(wr.PanelGrid(runsets=[runset], panels=panels))
    return wr.Report(
        entity=entity,
        project=project,
        title=table.experiment.title[:128],
        description=table.experiment.source,
        blocks=blocks,
        width="fluid",
    )


def _columns(table: Table) -> list[Column]:
    """The table's columns that runs are measured in; the rest is only printed, in some tables all of them."""
    return [column for column in table.columns if column.metric.rpartition("/")[2] in known_metrics()]


def _filter(table: Table, rows: Sequence[str] = ()) -> Any:
    """Select the experiment's runs, of one data set and budget where there are any, and of some rows."""
    # by fields of the run itself: paths into its configuration are written differently in different places
    found = [expr.Metric("Group") == table.experiment.name]
    if table.runs:
        found.append(expr.Tags().isin([setting_tag(table.runs.data, table.runs.budget)]))
    if rows:
        found.append(expr.Metric(GROUP_BY).isin(list(rows)))
    return expr.And(*found)


def _pinned(table: Table, columns: Iterable[Column]) -> list[str]:
    metrics = [f"summary:{key}" for column in columns for key in _pair(table, column)]
    return ["run:state", "config:seed.value", *metrics, *(f"summary:{RECORD}.{key}" for key, _ in COSTS)]


def _pair(table: Table, column: Column) -> list[str]:
    """Return the keys of a column: what was measured and, where there is such a thing, what was printed."""
    # printed numbers are logged under the metrics of the experiment file, also where another split stands in
    printed = [each.metric for each in table.experiment.columns if column.printed and each.printed == column.printed]
    return [metric_key(column.metric), *map(printed_key, printed)]


def _bars(table: Table) -> list[Any]:
    return [
        wr.BarPlot(
            title=f"{column.title}: {'measured and published' if column.printed else 'measured'}",
            metrics=_pair(table, column),
            groupby_rangefunc="stddev",
            max_bars_to_show=2 * len(table.rows),
            **_GROUPED,
        )
        for column in _columns(table)
    ]


def _costs(columns: Sequence[Column]) -> list[Any]:
    """Plots of the first column over what a row costs."""
    return [
        wr.ScatterPlot(
            title=f"{column.title} over {heading}",
            x=wr.SummaryMetric(f"{RECORD}.{key}"),
            y=wr.SummaryMetric(metric_key(column.metric)),
        )
        for column in columns[:1]
        for key, heading in COSTS
    ]


def _loss() -> Any:
    return wr.LinePlot(title="Training loss", x=STEP, y=[LOSS], log_y=True, groupby_rangefunc="minmax", **_GROUPED)


def _choices(table: Table) -> Any:
    """Lines over what the rows differ in, for index networks family, linearity and context, to the metrics."""
    axes = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key), display_name=key) for key in axes_of(table)]
    metrics = [
        wr.ParallelCoordinatesPlotColumn(
            metric=wr.SummaryMetric(metric_key(column.metric)),
            display_name=column.title,
            inverted=not column.higher_is_better,
        )
        for column in _columns(table)
    ]
    return wr.ParallelCoordinatesPlot(title="From choice to result", columns=[*axes, *metrics])


def axes_of(table: Table) -> list[str]:
    """Return the configuration keys that rows set, ``resampling.family`` before what else they choose.

    Where there are rows of index networks, the keys are theirs: other rows have no family.
    """
    index = ("resampling.family", "resampling.nonlinear", "resampling.context")
    rows = [[o.partition("=")[0].lstrip("+~") for o in row.overrides] for row in table.experiment.rows]
    if any(index[0] in keys for keys in rows):
        rows = [[*index, *(key for key in keys if key != "resampling")] for keys in rows if index[0] in keys]
    return list(dict.fromkeys(key if "." in key else f"{key}.name" for keys in rows for key in keys))


def _pictures(table: Table) -> Any:
    runs = [run for row in table.rows for run in row.done]
    kinds = dict.fromkeys((p.kind, p.stage) for run in runs for p in read_pictures(run)) or dict.fromkeys(
        _USUAL_PICTURES
    )
    keys = [picture_key(kind, stage) for kind, stage in sorted(kinds, key=lambda each: each[1] is not None)]
    return wr.MediaBrowser(title="Results and index maps", media_keys=keys, num_columns=4)


def _about(table: Table) -> str:
    """Write what the table is and what its paper printed, in Markdown."""
    experiment = table.experiment
    columns = [column for column in table.columns if column.printed]
    lines = [f"**{markdown(experiment.title)}**", "", f"Source: {markdown(experiment.source)}.", ""]
    if table.runs:
        lines += [f"The runs shown here: {markdown(table.runs.data)} at budget {markdown(table.runs.budget)}.", ""]
    if table.stand_in:
        stand_in = markdown(table.stand_in)
        lines += [f"Their test split is another; the published numbers beside them are those of {stand_in}.", ""]
    if experiment.notes:
        lines += [markdown(experiment.notes), ""]
    if columns:
        rows = [row for row in table.rows if row.printed]
        bounds = [column for column in columns if table.expects(column)]
        improved = [f for _, each in relative.groups(table)[:1] for f in each if f.kind == "printed"]
        heads = ["row", *(column.title for column in columns), *(f"{column.title} expected" for column in bounds)]
        heads += [f"{relative.heading(table)}: worst metric, published"] * len(improved)
        cells = [
            [
                f"{row.label} (cited)" if row.cited else row.label,
                *(row.measured[column.metric].printed for column in columns),
                *(expected(row.measured[column.metric]) for column in bounds),
                *(field.text(row) for field in improved),
            ]
            for row in rows
        ]
        lines.append(table_of(heads, cells, len(heads)))
        said = [remarks.relative(table), remarks.expected(table), remarks.speed(table), *remarks.cited(table)]
        lines += ["", *(f"* {markdown(text)}" for text in said if text)]
    return "\n".join(lines).strip() + "\n"
