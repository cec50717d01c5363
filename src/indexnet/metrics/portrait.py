"""Errors of portraits: those of matting over the whole image, as Shen et al. (ECCV 2016) measure, and of trimaps.

Names that end in ``_full`` are the second set of numbers in tables of portrait matting: every pixel counts, and all
four errors are divided by the number of pixels (those of 600x800 by 480,000), without the factor 1,000 of the first.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from indexnet.core.conventions import TRIMAP_CLASSES, trimap_classes
from indexnet.core.metric_facts import FACTS
from indexnet.metrics.base import register_metric
from indexnet.metrics.matting import MSE, SAD, Conn, Grad
from indexnet.metrics.matting_errors import Semantics
from indexnet.metrics.segmentation import MeanIoU


@register_metric(*FACTS["sad_full"])
class SADFull(SAD):
    """Mean absolute difference over all pixels."""

    def __init__(self, semantics: Semantics = "matlab", **kwargs: Any) -> None:
        super().__init__(semantics, "image", **kwargs)


@register_metric(*FACTS["mse_full"])
class MSEFull(MSE):
    """Mean squared difference over all pixels."""

    def __init__(self, semantics: Semantics = "matlab", **kwargs: Any) -> None:
        super().__init__(semantics, "image", **kwargs)


@register_metric(*FACTS["grad_full"])
class GradFull(Grad):
    """Mean squared difference of the gradient magnitudes over all pixels."""

    def __init__(self, semantics: Semantics = "matlab", **kwargs: Any) -> None:
        super().__init__(semantics, "image", **kwargs)


@register_metric(*FACTS["conn_full"])
class ConnFull(Conn):
    """Mean difference of the connectedness over all pixels."""

    def __init__(self, semantics: Semantics = "matlab", **kwargs: Any) -> None:
        super().__init__(semantics, "image", **kwargs)


@register_metric(*FACTS["trimap_miou"])
class TrimapMeanIoU(MeanIoU):
    """Mean IoU of a predicted trimap's three classes, each from the pixels of all images."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(len(TRIMAP_CLASSES), **kwargs)

    def statistics(self, *args: Tensor) -> Tensor:
        """Count the confusions of every image.

        Args:
            *args: predicted and true trimap, (N, 1, H, W) in {0, 128/255, 1} each.

        Returns:
            (N, 9) float64.
        """
        return super().statistics(*(trimap_classes(trimap) for trimap in args))
