"""What a row of a report costs: which numbers, under which heads."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """A column of costs: a number of the records, and what its columns are called; "" in formats that leave it out.

    Attributes:
        key: field of :class:`indexnet.run.record.Record`, and column of the CSV file.
        page: head on the page.
        line: head in Markdown and the terminal, where one line is all.
        paper: head in LaTeX.
        printed: CSV column of the number that papers print; "" where they print none.
    """

    key: str
    page: str = ""
    line: str = ""
    paper: str = ""
    printed: str = ""


COSTS = (
    Cost("parameters", "Parameters", "Params", "Parameters", "params"),
    Cost("resampling_parameters"),
    Cost("paper_gflops", "GFLOPs", "GFLOPs", "GFLOPs", "gflops"),
    Cost("true_gmacs", "GMACs", "GMACs"),
    Cost("train_samples_per_s", "Training\nsamples/s", "samples/s", "Samples/s"),
    Cost("peak_memory_mb", "Peak MB"),
)
"""What a row costs: counted, then measured; see :func:`indexnet.report.fields.cost_text` for their form."""
