"""Data sets of every task, behind one contract and one registry."""

from indexnet._discover import import_modules
from indexnet.data.base import (
    IGNORE,
    Data,
    DataInfo,
    Dataset,
    Sample,
    create_data,
    get_data,
    list_data,
    register_data,
)

import_modules(__name__, __path__)

__all__ = [
    "IGNORE",
    "Data",
    "DataInfo",
    "Dataset",
    "Sample",
    "create_data",
    "get_data",
    "list_data",
    "register_data",
]
