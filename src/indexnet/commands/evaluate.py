"""``indexnet evaluate``: one or several checkpoints, or classical methods, on the test split of a data set."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import tell, warn
from indexnet.core.errors import UserError
from indexnet.inference.methods import (
    add_method_arguments,
    default_folder,
    describe,
    prepare,
    set_scale,
    source_of,
    split_words,
)

if TYPE_CHECKING:
    from indexnet.inference.evaluation import Scores


HELP = "evaluate checkpoints on a test set; data=NAME and data.OPTION=VALUE choose another than its own"
SCHEMA = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_method_arguments(parser, "for evaluation.json and tables (default: evaluations/... beside CKPT)")
    parser.add_argument(
        "--gallery",
        type=int,
        metavar="N",
        help="show the N images that the first method did worst in worst.html (matting 8, else 0)",
    )
    parser.add_argument(
        "--save-predictions",
        "--save-alphas",
        type=Path,
        metavar="DIR",
        help="also write every prediction to DIR/NAME.png, as predict does; of several methods to DIR/METHOD/NAME.png",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="S",
        help="matting: shrink images (bicubic) and trimaps (nearest) by S before the network and enlarge alpha "
        "(bicubic) after it, as 0.5; errors are measured at full size",
    )


def main(args: argparse.Namespace) -> int:
    """Evaluate, print a table, and write ``evaluation.json`` and ``per_image.csv``.

    Several methods also give ``table.csv`` and ``table.md``; a gallery gives ``worst.html`` and ``worst/``; predictions
    go to ``--save-predictions``. Without ``--output`` results go to ``evaluations/<checkpoint>/<data and its options>``
    beside the checkpoint; of several methods, or of a classical one, to ``evaluations/<methods>/<data and its
    options>`` here.

    Returns:
        0 all images were evaluated; 3 some could not be, each named on stderr and left out of the means.

    Raises:
        UserError: a mistake in what was given, or no image could be evaluated.
    """
    if args.gallery is not None and args.gallery < 0:
        raise UserError(f"--gallery {args.gallery} must be 0 or more.")
    paths, words = split_words(args.words)
    setup = prepare(paths, words, args)
    set_scale(setup.methods, args.scale)
    from indexnet.core.files import atomic_write, prepare_folder, write_json
    from indexnet.core.machine import device_name
    from indexnet.inference.comparison_table import (
        cells_json,
        compare_scores,
        interval_note,
        print_comparison,
        print_single,
        table_markdown,
        table_rows,
    )
    from indexnet.inference.evaluation import evaluate
    from indexnet.inference.saved_predictions import SavedPredictions
    from indexnet.inference.worst_images import WorstImages
    from indexnet.run import record as records
    from indexnet.run.loader import describe_splits

    methods, several = setup.methods, len(setup.methods) > 1
    scaled = {} if args.scale == 1 else {"scale": args.scale}
    folder = args.output or default_folder(paths, setup.name, setup.overrides | scaled)
    result_file = folder / "evaluation.json"
    if os.path.exists(result_file) and not args.overwrite:
        raise UserError(f"{result_file} exists; give --overwrite to replace it, or another --output.")
    count = sum(setup.counts.values())
    kept = args.save_predictions
    saved = kept and SavedPredictions(kept, methods, setup.tests, setup.counts, args.overwrite)
    prepare_folder(folder, "worst")
    task = methods[0].task
    shown = args.gallery if args.gallery is not None else task.worst_shown
    gallery = WorstImages(task, shown, [method.caption for method in methods])
    started, begun = records.now(), time.monotonic()
    found: list[Scores] = []
    took: list[float] = []
    for number, method in enumerate(methods):
        start = time.monotonic()
        watches = [each.watch(number) for each in (gallery if shown else None, saved) if each]
        title = method.caption if several else ""
        scores = evaluate(method.task.to(setup.device), setup.tests, setup.counts, title=title, watches=watches)
        method.task.to("cpu")
        took.append(time.monotonic() - start)
        found.append(scores)
        if not scores.rows:
            who = f" by {method.caption}" if several else ""
            raise UserError(f"none of the {count} images of {setup.name} could be evaluated{who}; see above.")
    if not set.intersection(*(scores.names for scores in found)):
        raise UserError("no image could be evaluated by every method; the reasons stand above.")
    total = time.monotonic() - begun
    comparison = compare_scores([(m.caption, source_of(m), scores) for m, scores in zip(methods, found, strict=True)])
    described = [
        {
            **describe(method),
            "test_count": len(scores.rows),
            "failed": [{"name": who, "error": why} for who, why in scores.failed],
            **cells_json(line),
            "memory": args.memory,
            "tiled": method.task.tiled,
            **({"scale": args.scale} if method.task.scales else {}),
            "wall_time_s": round(seconds, 2),
        }
        for method, scores, line, seconds in zip(methods, found, comparison.lines, took, strict=True)
    ]
    result: dict[str, Any] = {"schema": SCHEMA}
    result |= {"methods": described, "test_count": comparison.images} if several else described[0]
    result |= {
        "data": {"name": setup.name, "options": setup.options, "split": "test", **describe_splits(setup.tests)},
        "limit": args.limit,
        "groups": comparison.groups,
        "note": interval_note(comparison.images, comparison.groups),
        "device": device_name(setup.device),
        "versions": records.versions(),
        "git": records.git_revision(),
        "started": started,
        "wall_time_s": round(total, 2),
    }
    title = setup.title + "".join(f", {key} {value:g}" for key, value in scaled.items())
    rows = [row for scores in found for row in scores.rows]
    if several:
        rows = [{"method": m.caption, **row} for m, s in zip(methods, found, strict=True) for row in s.rows]
        records.write_rows(folder / "table.csv", table_rows(comparison))
        atomic_write(folder / "table.md", table_markdown(title, comparison))
    records.write_rows(folder / "per_image.csv", rows)
    page = gallery.write(folder, f"{'; '.join(m.caption for m in methods)} on {title}") if shown else None
    write_json(result_file, result)
    if several:
        print_comparison(title, comparison)
    else:
        print_single(f"{methods[0].source.name} on {title}", found[0])
    tell(f"{comparison.images} of {count} images in {total:.1f} s on {setup.device}; written to {folder}")
    for method in methods:
        if tiles := method.task.tiled:
            tell(f"{method.caption}: {tiles} images ran in tiles, --memory {args.memory}")
    if saved:
        tell(f"{saved.written} predictions written to {kept}")
    if page is not None:
        tell(f"the worst images: {page}")
    failed = {who for scores in found for who, _ in scores.failed}
    if failed:
        names = ", ".join(sorted(failed))
        warn(f"not evaluated, for the reasons above, and left out of the means: {names}")
    return 3 if failed else 0
