"""The four-column layout of index networks, and the fused layout of this package.

The papers and the released code write an index network as four columns, one per position of a 2x2 cell, each a
convolution, or a convolution, batch normalisation, ReLU6 and a 1x1 convolution. This package computes all four at once.

===================  =============================================  ========================================
what                 four columns, J = 1..4                         fused
===================  =============================================  ========================================
first convolution    ``indexnetJ.0.weight`` (eC, C/groups, k, k)    ``first.weight`` (4eC, C/groups, k, k)
normalisation        ``indexnetJ.1.*`` (eC,)                        ``norm.*`` (4eC,)
second convolution   ``indexnetJ.3.weight`` (C, eC/groups, 1, 1)    ``second.weight`` (4C, eC/groups, 1, 1)
holistic, linear     ``indexnet.weight`` (4, C, k, k)               ``first.weight``, the same
holistic, nonlinear  ``indexnet.{0,1,3}.*``                         ``first.* norm.* second.*``, the same
===================  =============================================  ========================================

A linear column has only its first row. Output channels of the fused layout run over (channel, column), which is how
index maps are packed, except in nonlinear ``m2o`` networks: there over (column, channel), because the columns are the
groups of the second convolution; below, that is ``channels = 1``. A shared network is one with C = 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from indexnet.core.errors import UserError

_LAYERS = {"0": "first", "1": "norm", "3": "second"}
_NUMBERS = {name: number for number, name in _LAYERS.items()}
_COUNTER = "num_batches_tracked"


def fuse_columns(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state of one index network from the four-column layout into the fused one.

    Args:
        columns: entries named as in the released code, without the prefix of their stage (``index0.`` and so on).

    Returns:
        A state dict for :class:`indexnet.resampling.indexnet.IndexNetwork`.

    Raises:
        UserError: names or shapes that are not those of an index network.
    """
    if "indexnet.weight" in columns:
        return {"first.weight": columns["indexnet.weight"]}
    if "indexnet.0.weight" in columns:
        return {_fused_name(key, "indexnet."): value for key, value in columns.items()}
    if "indexnet1.0.weight" not in columns:
        raise UserError(
            "not the state of an index network: expected an entry 'indexnet1.0.weight', 'indexnet.0.weight' or "
            f"'indexnet.weight', found {', '.join(sorted(columns)[:4]) or 'nothing'}."
        )
    first, second = columns["indexnet1.0.weight"], columns.get("indexnet1.3.weight")
    channels = first.shape[0] if second is None else second.shape[0] if first.shape[1] == 1 else 1
    fused: dict[str, Tensor] = {}
    for name in [key.removeprefix("indexnet1.") for key in columns if key.startswith("indexnet1.")]:
        try:
            parts = [columns[f"indexnet{column}.{name}"] for column in (1, 2, 3, 4)]
        except KeyError as missing:
            raise UserError(f"the state of the index network has no entry {missing}.") from None
        key = _fused_name(f"indexnet1.{name}", "indexnet1.")
        if name.endswith(_COUNTER):
            fused[key] = torch.stack(parts).amax()
        else:
            grouped = [part.reshape(channels, -1, *part.shape[1:]) for part in parts]
            fused[key] = torch.cat(grouped, 1).reshape(-1, *parts[0].shape[1:])
    return fused


def split_columns(fused: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Turn the state of one index network from the fused layout into the four-column one.

    Args:
        fused: state dict of an :class:`indexnet.resampling.indexnet.IndexNetwork`.
        family: its family; the fused names alone do not tell.

    Returns:
        Entries named as in the released code, without the prefix of their stage.
    """
    if family == "hin":
        if "norm.weight" not in fused:
            return {"indexnet.weight": fused["first.weight"]}
        return {f"indexnet.{_column_name(key)}": value for key, value in fused.items()}
    columns: dict[str, Tensor] = {}
    first, second = fused["first.weight"], fused.get("second.weight")
    channels = 1 if second is not None and family == "m2o" else (first if second is None else second).shape[0] // 4
    for key, value in fused.items():
        if key.endswith(_COUNTER):
            parts = [value.clone() for _ in range(4)]
        else:
            grouped = value.reshape(channels, 4, -1, *value.shape[1:])
            parts = [grouped[:, column].reshape(-1, *value.shape[1:]) for column in range(4)]
        for column, part in enumerate(parts, 1):
            columns[f"indexnet{column}.{_column_name(key)}"] = part
    return columns


def _fused_name(key: str, prefix: str) -> str:
    number, _, rest = key.removeprefix(prefix).partition(".")
    if not key.startswith(prefix) or number not in _LAYERS:
        raise UserError(f"not the state of an index network: unexpected entry {key!r}.")
    return f"{_LAYERS[number]}.{rest}"


def _column_name(key: str) -> str:
    layer, _, rest = key.partition(".")
    return f"{_NUMBERS[layer]}.{rest}"
