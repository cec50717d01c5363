"""Data sets of every task, from files to samples, behind one contract and one registry."""

from indexnet.core.conventions import IGNORE
from indexnet.data.base import Data, DataInfo, Dataset, Sample, create_data, get_data, list_data, register_data

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
