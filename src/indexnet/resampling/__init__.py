"""Coupled x2 downsampling and upsampling operators behind one contract.

:func:`create_resampling` builds the stages of one network; :func:`list_resampling` gives the facts of every operator.
"""

from indexnet.resampling.base import (
    Downsampled,
    OperatorInfo,
    Resampling,
    ResamplingStage,
    create_resampling,
    get_resampling,
    list_resampling,
    register_resampling,
)
from indexnet.resampling.carafe import Carafe
from indexnet.resampling.columns import fuse_columns, split_columns
from indexnet.resampling.deconv import Deconv
from indexnet.resampling.foreign.find import find_sites
from indexnet.resampling.foreign.plan import Plan, Site, load_plan
from indexnet.resampling.foreign.swap import Replaced, replace
from indexnet.resampling.holistic import HolisticMaxIndex
from indexnet.resampling.indexnet import IndexNet, IndexNetStage
from indexnet.resampling.interpolation import Bilinear, Nearest
from indexnet.resampling.max_unpool import MaxUnpool
from indexnet.resampling.pixel_shuffle import PixelShuffle
from indexnet.resampling.watch import watch_stages

__all__ = [
    "Bilinear",
    "Carafe",
    "Deconv",
    "Downsampled",
    "HolisticMaxIndex",
    "IndexNet",
    "IndexNetStage",
    "MaxUnpool",
    "Nearest",
    "OperatorInfo",
    "PixelShuffle",
    "Plan",
    "Replaced",
    "Resampling",
    "ResamplingStage",
    "Site",
    "create_resampling",
    "find_sites",
    "fuse_columns",
    "get_resampling",
    "list_resampling",
    "load_plan",
    "register_resampling",
    "replace",
    "split_columns",
    "watch_stages",
]
