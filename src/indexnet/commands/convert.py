"""``indexnet convert``: a checkpoint that another project released becomes one of this program."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexnet.core.console import busy, tell
from indexnet.core.paths import check_checkpoint

HELP = "convert a released checkpoint (.pth, .pth.tar) of index-network matting and others"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("input", type=Path, metavar="INPUT", help="a state dict, or a .pth.tar that holds one")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the .ckpt to write")
    parser.add_argument(
        "--family",
        help="family of the index networks, where the weights do not tell it: modelwise and shared look alike",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")


def main(args: argparse.Namespace) -> int:
    """Convert, then say what was recognised and the notice on the licence of the weights.

    Raises:
        UserError: the input is no such checkpoint, or the output exists.
    """
    check_checkpoint(args.input)
    from indexnet.networks.checkpoint import load_checkpoint
    from indexnet.networks.released.convert import convert

    with busy("converting"):
        convert(args.input, args.output, family=args.family, overwrite=args.overwrite)
    meta = load_checkpoint(args.output)["indexnet"]
    tell(f"wrote {args.output}")
    tell(f"recognised: {meta['task']['name']}, network {meta['network']['name']}")
    for line in _described(meta["network"]):
        tell(f"  {line}")
    if meta["notice"]:
        tell(f"notice: {meta['notice']}")
    return 0


def _described(options: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in options.items():
        if not prefix and key == "name":
            continue
        if isinstance(value, Mapping):
            lines += _described(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}: {value}")
    return lines
