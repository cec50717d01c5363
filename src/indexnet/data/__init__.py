"""Data sets of every task, behind one contract and one registry."""

from indexnet.data import alphamatting as _alphamatting  # noqa: F401  these imports register
from indexnet.data import idx as _idx  # noqa: F401
from indexnet.data import photos as _photos  # noqa: F401
from indexnet.data import scenes as _scenes  # noqa: F401
from indexnet.data.base import (
    Data,
    DataInfo,
    Dataset,
    Sample,
    create_data,
    get_data,
    list_data,
    register_data,
)

__all__ = [
    "Data",
    "DataInfo",
    "Dataset",
    "Sample",
    "create_data",
    "get_data",
    "list_data",
    "register_data",
]
