"""Network specifications: plain data that builds a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from indexnet.core.errors import UserError

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
