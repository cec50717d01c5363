"""The parts of a network by name: which there are, and how some of them are kept as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import nn

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import did_you_mean


def is_in(name: str, part: str) -> bool:
    """Whether a weight belongs to a part: ``encoder.conv.weight`` to ``encoder``, and not to ``enc``."""
    return name == part or name.startswith(f"{part}.")


def check_part_name(part: str, names: Collection[str], key: str, owner: str) -> None:
    """Check that there is a part of that name.

    Args:
        part: its name.
        names: of all weights.
        key: the setting that names it, for the message.
        owner: whose parts they are, for the message.

    Raises:
        UserError: there is none.
    """
    if any(is_in(name, part) for name in names):
        return
    words = [name.split(".") for name in names]
    every = dict.fromkeys(".".join(each[: end + 1]) for each in words for end in range(len(each)))
    top = dict.fromkeys(each[0] for each in words)
    hint = did_you_mean(part, [name for name in every if name.count(".") <= part.count(".")])
    raise UserError(f"{key}: {owner} has no part {shown(part)}.{hint} Its largest parts: {', '.join(top)}.")


def check_frozen_parts(network: nn.Module, parts: Sequence[str]) -> None:
    """Check that parts which are not to be trained are there, and that something is left to train.

    Raises:
        UserError: an unknown part, or all parameters are in these parts.
    """
    names = [name for name, _ in network.named_parameters()]
    for part in parts:
        check_part_name(part, names, "training.freeze", "the network")
    if parts and all(any(is_in(name, part) for part in parts) for name in names):
        raise UserError(f"training.freeze=[{','.join(parts)}] leaves nothing to train; name fewer parts.")


def freeze_parts(network: nn.Module, parts: Iterable[str]) -> None:
    """Take the gradients of parts away; they are in evaluation mode until the next ``train()``."""
    for part in parts:
        for name, parameter in network.named_parameters():
            if is_in(name, part):
                parameter.requires_grad_(False)
    parts_in_evaluation(network, parts)


def parts_in_evaluation(network: nn.Module, parts: Iterable[str]) -> None:
    """Let parts compute what they do in use: norms by the statistics that they have and keep, nothing dropped."""
    for part in parts:
        for name, layer in network.named_modules():
            if is_in(name, part):
                layer.eval()
