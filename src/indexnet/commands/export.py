"""``indexnet export``: a trained network as ONNX or torch.export file, or as a small checkpoint."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from indexnet.core.console import busy, tell
from indexnet.core.errors import UserError
from indexnet.core.paths import check_methods
from indexnet.inference.export import SUFFIXES, describe, export, require_onnx

HELP = "write a trained network as ONNX or torch.export file, checked against PyTorch, or as a small checkpoint"

_WEIGHTS = "weights"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a .ckpt that train or convert wrote")
    parser.add_argument(
        "--format",
        choices=[*SUFFIXES, _WEIGHTS],
        default="onnx",
        help="default: onnx; weights: a .ckpt in half precision, without what only training needs",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: beside CKPT, with the ending .onnx, .pt2 or .small.ckpt"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def main(args: argparse.Namespace) -> int:
    """Export, check, write, and say what the file takes and gives.

    Raises:
        UserError: a mistake in what was given, a missing package, or a file that would differ from PyTorch.
    """
    output: Path = args.output or args.checkpoint.with_suffix(SUFFIXES.get(args.format, ".small.ckpt"))
    if os.path.isdir(output):
        raise UserError(
            f"--output {output} is a folder, but the name of a file is needed, such as {output}/network.onnx."
        )
    if os.path.exists(output) and not args.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or another --output.")
    check_methods([args.checkpoint])
    if args.format == "onnx":
        require_onnx()
    from indexnet.core.files import atomic_write, prepare_file, sha256_file

    prepare_file(output)
    if args.format == _WEIGHTS:
        from indexnet.inference.export import small_checkpoint
        from indexnet.networks.checkpoint import load_checkpoint

        _refuse_itself(output, args.checkpoint)
        content = small_checkpoint(args.checkpoint)
        atomic_write(output, content)
        tell(f"wrote {output} ({len(content) / 1e6:.1f} MB), SHA-256 {sha256_file(output)}")
        if notice := load_checkpoint(output)["indexnet"]["notice"]:
            tell(f"notice: {notice}")
        return 0
    from indexnet.inference.loading import load_task
    from indexnet.networks.folding import fold_norms

    task, meta = load_task(args.checkpoint)
    if next(task.network.parameters(), None) is None:
        raise UserError(
            f"{args.checkpoint} is a method without a network, which cannot be exported; give a .ckpt file."
        )
    _refuse_itself(output, args.checkpoint)
    fold_norms(task.network)
    module = task.export_module()
    facts = describe(module, task, meta, sha256_file(args.checkpoint))
    with busy("exporting, and checking against PyTorch"):
        content, differences = export(module, args.format, facts)
    atomic_write(output, content)
    tell(f"wrote {output} ({len(content) / 1e6:.1f} MB, {args.format})")
    for kind in ("inputs", "outputs"):
        for entry in facts[kind]:
            tell(f"{kind[:-1]} {entry['name']}: float32 ({', '.join(map(str, entry['shape']))}), {entry['meaning']}")
    tell(f"height and width: {facts['sizes']}")
    for difference in differences:
        tell(f"checked against PyTorch, {difference}")
    if "notice" in facts:
        tell(f"notice: {facts['notice']}")
    return 0


def _refuse_itself(output: Path, checkpoint: Path) -> None:
    if os.path.exists(output) and output.samefile(checkpoint):
        raise UserError(f"--output {output} is the checkpoint itself; give another file.")
