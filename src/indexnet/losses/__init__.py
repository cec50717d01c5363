"""Losses that are more than a line, as plain functions of tensors; the others stand in their tasks."""

from indexnet.losses.affinity import affinity_loss
from indexnet.losses.depth import DEPTH_TERMS, depth_loss
from indexnet.losses.matting import MATTING_TERMS, matting_loss
from indexnet.losses.portrait import PORTRAIT_TERMS, portrait_loss
from indexnet.losses.terms import check_terms

__all__ = [
    "DEPTH_TERMS",
    "MATTING_TERMS",
    "PORTRAIT_TERMS",
    "affinity_loss",
    "check_terms",
    "depth_loss",
    "matting_loss",
    "portrait_loss",
]
