"""Batch normalisation folded into the convolutions before it, for networks that only predict."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from indexnet.resampling.fused.hidden import is_watched


def fold_norms(network: nn.Module) -> int:
    """Fold each batch normalisation that directly follows a convolution in an ``nn.Sequential`` into it, in place.

    Those with hooks stay. Outputs agree within rounding; the names in ``state_dict()`` change, so it is for networks
    that are not saved.

    Args:
        network: in eval mode.

    Returns:
        How many were folded.
    """
    places = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    folded = 0
    for sequence in [module for module in network.modules() if type(module) is nn.Sequential]:
        for (first, conv), (second, norm) in pairwise(list(sequence.named_children())):
            alone = places[conv] == places[norm] == places[sequence] and not conv.training and not norm.training
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats and alone:
                if is_watched(conv) or is_watched(norm):
                    continue
                setattr(sequence, first, fuse_conv_bn_eval(conv, norm))
                setattr(sequence, second, nn.Identity())
                folded += 1
    return folded
