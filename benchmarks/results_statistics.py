"""What the page of measured results says of photographs that fall apart, and of batch statistics as the reason."""

from __future__ import annotations

from statistics import fmean

from results import Result

from indexnet.core.statistics import kendall_tau_b
from indexnet.report.numbers import fixed, signed
from indexnet.report.table import TableRow
from indexnet.run.run_sets import Run, read_per_image


def below_text(result: Result, metric: str, limit: float) -> str:
    """Say which rows have images below a limit, and how many with each seed, over all test sets."""
    counts = []
    for row in result.table.rows:
        by_seed = [sum(value < limit for value in _of_images(run, metric)) for run in row.done]
        if any(by_seed):
            counts.append(f"{row.short} {' and '.join(map(str, by_seed))}")
    return ", ".join(counts) or "none"


def _of_images(run: Run, metric: str) -> list[float]:
    tables = read_per_image(run)
    return [value for key, images in tables.items() if key.split("/")[-1] == metric for value in images.values()]


def statistics_text(result: Result) -> str:
    """Return what `batch_statistics.py` found: a table of PSNR by either statistics, tau with the published order."""
    main = result.table.main.metric
    rows = [row for row in result.table.rows if _by_statistics(result, row, "running")]
    head = ["Row", "running: mean", "worst photograph", "of the batch: mean", "worst photograph", "published mean"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    kinds = ("running", "batch")
    for row in rows:
        values = [_by_statistics(result, row, kind) for kind in kinds]
        numbers = [fixed(number, 2) for each in values for number in (fmean(each), min(each))]
        lines.append([f"{row.number}. {row.short}", *numbers, row.measured[main].printed])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    cited = [row for row in rows if row.measured[main].target is not None]
    targets = [row.measured[main].target or 0.0 for row in cited]
    running, batch = (kendall_tau_b(targets, [fmean(_by_statistics(result, r, kind)) for r in cited]) for kind in kinds)
    if running is None or batch is None:
        return table
    agreement = f"{fixed(running, 2)} by running statistics, {fixed(batch, 2)} by those of the batch"
    return f"{table}\n\nKendall's tau with the published order, over {len(cited)} rows: {agreement}."


def reestimated(result: Result, limit: float) -> str:
    """Say what statistics that were estimated anew over training batches change.

    The mean of a run, and how many photographs are below a limit.

    Raises:
        ValueError: that has not been measured.
    """
    runs = [run for run in result.statistics.values() if "reestimated" in run]
    changes = [fmean(run["reestimated"]) - fmean(run["running"]) for run in runs]
    below = [sum(value < limit for run in runs for value in run[kind]) for kind in ("running", "reestimated")]
    return (
        f"between {signed(min(changes), 2)} and {signed(max(changes), 2)} dB ({len(runs)} runs), and of {below[0]} "
        f"photographs below {limit:g} dB they leave {below[1]}"
    )


def fallen(result: Result, kind: str, limit: float) -> int:
    """Return how many photographs are below a limit by ``running`` statistics or by those of the ``batch``."""
    return sum(value < limit for row in result.table.rows for value in _by_statistics(result, row, kind))


def ahead_by_batch(result: Result, row: str) -> str:
    """Say how many of the other rows have a higher mean than a row by the statistics of batches."""
    means = {each.name: fmean(v) for each in result.table.rows if (v := _by_statistics(result, each, "batch"))}
    return f"{sum(mean > means[row] for mean in means.values())} of the {len(means) - 1}"


def _by_statistics(result: Result, row: TableRow, kind: str) -> list[float]:
    """Return the PSNR of the photographs of all measured seeds; they are as many for every seed."""
    return [value for key, run in result.statistics.items() if key.startswith(f"{row.name}/") for value in run[kind]]
