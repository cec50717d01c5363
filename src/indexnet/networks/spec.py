"""From plain data to the parts of a network: names, options, and which parts fit together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from indexnet.core.errors import UserError
from indexnet.resampling.base import NONE, Resampling, create_resampling, get_resampling

Spec = str | Mapping[str, Any]
"""How a part is named in a configuration: its registry name, or a mapping with ``name`` and its options."""


def split_spec(kind: str, spec: Spec) -> tuple[str, dict[str, Any]]:
    """Split the specification of a part into its name and its options.

    Raises:
        UserError: it is neither a name nor a mapping with a ``name``.
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        return spec["name"], {str(key): value for key, value in spec.items() if key != "name"}
    raise UserError(f"{kind} must be a name or a mapping with the key 'name' and options, got {spec!r}.")


def strides_encoder(spec: Spec) -> bool:
    """Whether the specification of a resampling leaves the halving to the encoder's own strides."""
    return split_spec("resampling", spec)[1].get("pooling") == "encoder"


def build_resampling(
    network: str,
    spec: Spec,
    channels: Sequence[int],
    decoder_channels: Sequence[int | Sequence[int]] | None = None,
    *,
    strides: bool = False,
    reduction: str | None = None,
) -> Resampling:
    """Build the resampling of a network from its specification.

    Args:
        network: the network's name, for messages.
        spec: name, or mapping with ``name`` and the operator's options.
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives, same order; default ``channels``; a list for a stage that serves
            several places.
        strides: whether the network's encoder can halve by itself (``pooling=encoder``).
        reduction: what index networks do here, unless told otherwise, where the decoder has half the encoder's width.

    Raises:
        UserError: parts that do not fit together.
    """
    name, options = split_spec("resampling", spec)
    if strides_encoder(spec) and not strides:
        raise UserError(
            f"network={network} cannot take resampling.pooling=encoder, because its encoder leaves every halving to "
            f"the resampling; give resampling.pooling=max, avg or conv."
        )
    own = inspect.signature(get_resampling(name)).parameters.get("reduction")
    if own is not None and own.default is None and options.get("reduction") is None:  # others mean something else by it
        options["reduction"] = reduction
    return create_resampling(name, channels, decoder_channels, **options)


def no_resampling(network: str, spec: Spec) -> Resampling:
    """Build the empty resampling of a network whose encoder strides and whose decoder interpolates.

    Raises:
        UserError: the specification names an operator.
    """
    name, _ = split_spec("resampling", spec)
    if name != NONE:
        raise UserError(
            f"network={network} halves by its encoder's strides and interpolates, so it cannot take resampling={name}; "
            f"give resampling=none, or network=matting_unet, which takes any."
        )
    return create_resampling(NONE, ())


def without_pretrained(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's options with ``encoder.pretrained`` switched off.

    For a network whose state dict is loaded anyway: building it must not look for ImageNet weights.
    """
    result = dict(options)
    if isinstance(result.get("encoder"), Mapping) and "pretrained" in result["encoder"]:
        result["encoder"] = {**result["encoder"], "pretrained": False}
    return result
