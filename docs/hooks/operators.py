"""Every operator: what it does to one small map, its equation, what it costs, and where it came in measured tables."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from pictures import figure, shape_map
from torch.nn import functional as F

from indexnet.resampling import OperatorInfo, create_resampling, get_resampling, list_resampling
from indexnet.resampling.indexnet import FAMILIES

DOCS = Path(__file__).parents[1]
WIDTH, STEPS, SHOWN = 8, 60, 3  # channels; training steps of a picture; the seed of the map that is shown
COSTS = (64, 128)  # channels and side of the map that costs are counted for


def markdown(place: str) -> str:
    """Return a section for each operator, by name."""
    ranks = list(_ranks())
    own = [info for info in list_resampling() if get_resampling(info.name).__module__.startswith("indexnet.")]
    shown = shape_map(SHOWN)[0, 0]
    given = [figure(shown, "encoder map x"), figure(_halved(shown[None, None])[0, 0], "decoder map d")]
    parts = [f'<div class="maps" markdown="0">{"".join(given)}</div>\n']
    for info in sorted(own, key=lambda info: info.name):
        parts.append(_section(info, [rank for rank in ranks if rank["operator"] == info.name], place))
    return "\n".join(parts)


def _halved(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 2)


def _channels(x: torch.Tensor) -> torch.Tensor:
    sign = torch.tensor([1.0, -1.0]).repeat(WIDTH // 2).view(1, WIDTH, 1, 1)
    return sign * x + (1 - sign) / 2 * torch.linspace(0, 2, WIDTH).view(1, WIDTH, 1, 1)


def doubled(name: str) -> torch.Tensor:
    """Return what an operator makes of the decoder map, (16, 16), after it has learned on other maps of the kind.

    The decoder map is the mean of each cell of the encoder map, whose channels are the shown one by other factors and
    shifts. Operators with weights are trained for a moment to give the encoder map back, on maps that are not shown.
    """
    torch.manual_seed(0)
    (stage,) = create_resampling(name, [WIDTH]).stages

    def double(x: torch.Tensor) -> torch.Tensor:
        down = stage.down(x)
        return stage.up(_halved(x), down.guide, down.size)

    weights = list(stage.parameters())
    if weights:
        optimizer = torch.optim.Adam(weights, 0.01)
        seen = _channels(torch.cat([shape_map(seed) for seed in range(100, 132)]))
        for step in range(STEPS):
            x = seen[4 * (step % 8) : 4 * (step % 8) + 4]
            optimizer.zero_grad()
            F.mse_loss(double(x), x).backward()
            optimizer.step()
    stage.eval()
    with torch.no_grad():
        return double(_channels(shape_map(SHOWN)))[0, 0]


def _section(info: OperatorInfo, ranks: list[dict[str, str]], place: str) -> str:
    width, side = COSTS
    with torch.device("meta"):
        (stage,) = create_resampling(info.name, [width]).stages
    macs = {"true": stage.true_macs(side, side), "assembly": stage.assembly_macs(side, side)}
    yes = {True: "yes", False: "no"}
    facts = {
        "halves by": info.downsampling,
        "guided": yes[info.guided],
        "widths of encoder and decoder": "equal" if info.equal_widths else "any",
        "parameters a stage": info.parameters,
        f"parameters, C = D = {width}": f"{sum(each.numel() for each in stage.parameters()):,}",
        f"multiply-adds, map of {width} x {side} x {side}": f"{macs['true'] / 1e6:,.1f} million in convolutions, "
        f"{macs['assembly'] / 1e6:,.1f} million to compare and assemble",
        "options": f"[`resampling={info.name}`](config.md#resampling-{info.name})",
        "source": info.paper,
    }
    rows = "\n".join(f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in facts.items())
    table = f"| | |\n|---|---|\n{rows}\n"
    picture = f'<div class="maps" markdown="0">{figure(doubled(info.name), "up(d)")}</div>\n'
    measured = "\n".join(
        f"- [{rank['table']}]({rank['report']}): `{rank['row']}` is {rank['rank']} of {rank['of']} by "
        f"`{rank['metric']}` ({rank['data']}, {rank['seeds']} seed{'s' * (rank['seeds'] != '1')})"
        for rank in ranks
    )
    heading = f"### {info.name}\n\n{info.title}.\n"
    return "\n".join(
        [
            heading,
            picture,
            f"```{{.text .equation}}\n{info.equation}\n```\n",
            table,
            f"Measured:\n\n{measured}\n" if measured else "",
        ]
    )


def _ranks() -> Iterator[dict[str, str]]:
    """Yield where operators came in the tables of the results, by the first metric of each table."""
    for path in sorted((DOCS / "results").rglob("table.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = [key for key in (rows[0] if rows else ()) if key.endswith("_rank") and "/rank" not in key]
        if not columns or "experiment" in rows[0]:  # of several tables side by side
            continue
        ranked = [row for row in rows if row[columns[0]]]
        for row in ranked:
            if operator := _operator_of(row["row"]):
                yield {
                    "operator": operator,
                    "table": path.parent.relative_to(DOCS / "results").as_posix(),
                    "report": Path(os.path.relpath(path.parent / "report.md", DOCS)).as_posix(),
                    "row": row["row"],
                    "rank": row[columns[0]],
                    "of": str(len(ranked)),
                    "metric": columns[0].removesuffix("_rank"),
                    "data": row["data"],
                    "seeds": row["seeds_finished"],
                }


def _operator_of(row: str) -> str | None:
    if row in FAMILIES or row.startswith("indexnet"):
        return "indexnet"
    return row if row in {info.name for info in list_resampling()} else None
