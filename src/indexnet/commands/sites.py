"""``indexnet sites MODEL``: where a network of torchvision, timm or segmentation-models-pytorch resamples."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.console import output_console, say
from indexnet.core.errors import UserError, shown
from indexnet.core.files import prepare_file

if TYPE_CHECKING:
    from torch import nn


HELP = "show where a network of torchvision, timm or segmentation-models-pytorch resamples, and what can be replaced"
LARGEST = 4096
"""Side of an example: all maps of two runs are held."""
LIBRARIES = ("torchvision", "timm", "smp")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model", metavar="MODEL",
        help="a name of torchvision (fcn_resnet50), of timm (resnet50d) or of segmentation-models-pytorch (Unet); "
        "where several have it, timm:NAME",
    )  # fmt: skip
    parser.add_argument("--encoder", metavar="NAME", help="encoder of a network of segmentation-models-pytorch")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="side of the example image (128)")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the plan as JSON, for indexnet.resampling.replace"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def main(args: argparse.Namespace) -> int:
    """Build the network without weights, run it twice, print the table.

    Raises:
        UserError: no library has the network, or it does not take an image of this size.
    """
    if not 1 <= args.size <= LARGEST:
        raise UserError(f"--size {args.size} must be from 1 to {LARGEST} pixels.")
    if args.save is not None:
        if args.save.exists() and not args.overwrite:
            raise UserError(f"{args.save} exists; give --overwrite to replace it, or another name.")
        prepare_file(args.save)
    import torch

    from indexnet.resampling import find_sites
    from indexnet.resampling.foreign.find import ExampleError
    from indexnet.resampling.foreign.plan import OPTIONAL
    from indexnet.resampling.foreign.selection import DOWNSAMPLING

    model, image = create(args.model, args.encoder), torch.rand(1, 3, args.size, args.size)
    console = output_console()
    try:
        plan = find_sites(model, image)
    except ExampleError as error:
        if error.is_first:
            raise UserError(
                f"{args.model} does not take one image of {args.size}x{args.size}: {error.reason}; give another "
                "--size, or another network."
            ) from error
        plan = find_sites(model, image, image)
        say(console, f"{args.model} takes images of {args.size}x{args.size}, but not 32 pixels larger ones.")
    console.print(plan.table())
    counts = Counter(site.verdict for site in plan.sites)
    more = [f"{counts[each]} more with downsampling={each}" for each in DOWNSAMPLING if counts[each]]
    more += [f"{counts[OPTIONAL]} where sites names them"] if counts[OPTIONAL] else []
    said = f"indexnet.resampling.replace takes the {len(plan.default)} with the verdict replace"
    say(console, f"{', '.join([said, *more])}: docs/replace.md")
    if args.save is not None:
        plan.save(args.save)
    return 0


def create(name: str, encoder: str | None = None) -> nn.Module:
    """Build a network with random weights; of a detector, its backbone.

    Args:
        name: in one of the libraries, or ``library:name``.
        encoder: of a network of segmentation-models-pytorch; default that library's.

    Raises:
        UserError: no library that is installed has it, or it cannot be built.
    """
    from indexnet.core.registry import did_you_mean

    library, _, plain = name.rpartition(":")
    if library and library not in LIBRARIES:
        raise UserError(
            f"{library!r} is no library of networks; give one of {', '.join(LIBRARIES)}, such as timm:{plain}."
        )
    known: list[str] = []
    for each in LIBRARIES:
        if library in ("", each):
            names, build = _LIBRARIES[each]()
            known += names
            # timm's names may say which weights, which are not loaded here: resnet50.a1_in1k
            if plain in names or (each == "timm" and plain.partition(".")[0] in names):
                if encoder is not None and each != "smp":
                    raise UserError(
                        f"--encoder is for networks of segmentation-models-pytorch, and {name} is one of {each}."
                    )
                return _built(name, build, plain, encoder)
    missing = "" if "Unet" in known or library in LIBRARIES[:2] else " Those of smp need: pip install 'indexnet[zoo]'."
    raise UserError(f"no network {name!r} in {library or ', '.join(LIBRARIES)}.{did_you_mean(plain, known)}{missing}")


def _built(name: str, build: Callable[[str, str | None], Any], plain: str, encoder: str | None) -> nn.Module:
    try:
        model = build(plain, encoder)
    except (KeyError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = shown(" ".join(str(error).split()))
        raise UserError(f"{name} cannot be built: {reason}; give another network or --encoder.") from error
    is_detector = hasattr(model, "backbone") and hasattr(model, "transform")  # takes lists of images and resizes them
    result: nn.Module = model.backbone if is_detector else model
    return result


_Library = tuple[list[str], Callable[[str, str | None], Any]]


def _torchvision() -> _Library:
    from torchvision import models

    def build(name: str, encoder: str | None) -> Any:
        import inspect

        builder = models.get_model_builder(name)
        options = {"weights": None}
        # without it, networks for segmentation and detection download the weights of their backbone
        if "weights_backbone" in inspect.signature(builder).parameters:
            options["weights_backbone"] = None
        return builder(**options)

    return models.list_models(), build


def _timm() -> _Library:
    import timm

    return timm.list_models(), lambda name, encoder: timm.create_model(name, pretrained=False)


def _smp() -> _Library:
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        return [], lambda name, encoder: None
    names = [each.__name__ for each in smp.MODEL_ARCHITECTURES_MAPPING.values()]

    def build(name: str, encoder: str | None) -> Any:
        options = {} if encoder is None else {"encoder_name": encoder}
        return getattr(smp, name)(encoder_weights=None, **options)

    return names, build


_LIBRARIES: dict[str, Callable[[], _Library]] = {"torchvision": _torchvision, "timm": _timm, "smp": _smp}
