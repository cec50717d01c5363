"""Every operator: what it does to one small map, its equation, what it costs, and where it came in measured tables."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import yaml
from pictures import figure, shape_map
from torch.nn import functional as F

from indexnet.resampling import OperatorInfo, create_resampling, get_resampling, list_resampling
from indexnet.run.record import Record

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results"
WIDTH, STEPS, SHOWN = 8, 60, 3  # channels; training steps of a picture; the seed of the map that is shown
COSTS = (64, 128)  # channels and side of the map that costs are counted for


def markdown(place: str) -> str:
    """Return a section for each operator, by name."""
    ranks = list(_ranks())
    own = [info for info in list_resampling() if get_resampling(info.name).__module__.startswith("indexnet.")]
    shown = shape_map(SHOWN)[0, 0]
    given = [figure(shown, "encoder map x"), figure(_pooled(shown[None, None])[0, 0], "decoder map d")]
    parts = [f'<div class="maps" markdown="0">{"".join(given)}</div>\n']
    for info in sorted(own, key=lambda info: info.name):
        parts.append(_section(info, [rank for rank in ranks if rank["operator"] == info.name], place))
    return "\n".join(parts)


def _pooled(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 2)


def _channels(x: torch.Tensor) -> torch.Tensor:
    sign = torch.tensor([1.0, -1.0]).repeat(WIDTH // 2).view(1, WIDTH, 1, 1)
    return sign * x + (1 - sign) / 2 * torch.linspace(0, 2, WIDTH).view(1, WIDTH, 1, 1)


def upsampled(name: str) -> torch.Tensor:
    """Return what an operator makes of the decoder map, (16, 16), after it has learned on other maps of the kind.

    The decoder map is the mean of each cell of the encoder map, whose channels are the shown one by other factors and
    shifts. Operators with weights are trained for a moment to give the encoder map back, on maps that are not shown.
    """
    torch.manual_seed(0)
    (stage,) = create_resampling(name, [WIDTH]).stages

    def upsample(x: torch.Tensor) -> torch.Tensor:
        down = stage.down(x)
        return stage.up(_pooled(x), down.guide, down.size)

    weights = list(stage.parameters())
    if weights:
        optimizer = torch.optim.Adam(weights, 0.01)
        seen = _channels(torch.cat([shape_map(seed) for seed in range(100, 132)]))
        for step in range(STEPS):
            x = seen[4 * (step % 8) : 4 * (step % 8) + 4]
            optimizer.zero_grad()
            F.mse_loss(upsample(x), x).backward()
            optimizer.step()
    stage.eval()
    with torch.no_grad():
        return upsample(_channels(shape_map(SHOWN)))[0, 0]


def _section(info: OperatorInfo, ranks: list[dict[str, str]], place: str) -> str:
    width, side = COSTS
    with torch.device("meta"):
        (stage,) = create_resampling(info.name, [width]).stages
    macs = {"true": stage.true_macs(side, side), "assembly": stage.assembly_macs(side, side)}
    yes = {True: "yes", False: "no"}
    facts = {
        "downsampling": info.downsampling,
        "guided": yes[info.guided],
        "decoder width": "that of the encoder" if info.equal_widths else "any",
        "parameters a stage": info.parameters,
        f"parameters, C = D = {width}": f"{sum(each.numel() for each in stage.parameters()):,}",
        f"multiply-adds, map of {width} x {side} x {side}": f"{macs['true'] / 1e6:,.1f} million in convolutions, "
        f"{macs['assembly'] / 1e6:,.1f} million in comparing and assembling kernels",
        "options": f"[`resampling={info.name}`](config.md#resampling-{info.name})",
        "source": info.paper,
    }
    rows = "\n".join(f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in facts.items())
    table = f"| | |\n|---|---|\n{rows}\n"
    picture = f'<div class="maps" markdown="0">{figure(upsampled(info.name), "up(d)")}</div>\n'
    measured = "\n".join(_place(rank) for rank in ranks)
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
    """Yield where operators came in the tables of the results page, by the first metric of each."""
    for result in yaml.safe_load((RESULTS / "results.yaml").read_text(encoding="utf-8"))["tables"]:
        path = RESULTS / result["name"] / "table.csv"
        if not path.exists():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        metric = next(key for key in rows[0] if key.endswith("_rank")).removesuffix("_rank")
        ranked = [row for row in rows if row[f"{metric}_rank"]]
        resampling = {
            row["row"]: _resampling(RESULTS / "runs" / result["experiment"] / result["set"] / row["row"])
            for row in ranked
        }
        if len({options["name"] for options in resampling.values()}) < 2:  # it compares something else
            continue
        for row in ranked:
            yield {
                "operator": str(resampling[row["row"]]["name"]),
                "taps": " with kernels of one tap" if resampling[row["row"]].get("k_up") == 1 else "",
                "report": Path(os.path.relpath(path.with_name("report.md"), DOCS)).as_posix(),
                "of": str(len(ranked)),
                "metric": metric,
                "table": result["experiment"],
                **{key: row[key] for key in ("label", "data", "seeds_finished")},
                **{key: row[f"{metric}_{key}"] for key in ("rank", "mean", "sd")},
            }


def _resampling(row: Path) -> Mapping[str, object]:
    records = (Record.read(run) for run in sorted(row.iterdir()))
    return next(record.resampling for record in records if record is not None)


def _place(rank: dict[str, str]) -> str:
    """Say in a line where an operator came."""
    spread = f" ± {float(rank['sd']):.4g}" if rank["sd"] else ""
    seeds = f"{rank['seeds_finished']} seed{'s' * (rank['seeds_finished'] != '1')}"
    row = f"`{rank['label']}`{rank['taps']}"
    return (
        f"- [{rank['table']}]({rank['report']}): {row} has `{rank['metric']}` {float(rank['mean']):.4g}"
        f"{spread} on {rank['data']} ({seeds}), place {rank['rank']} of {rank['of']}"
    )
