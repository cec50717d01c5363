"""Metrics of every task, as sums over images in float64; their facts are in :mod:`indexnet.core.metric_facts`."""

from indexnet.core.metric_facts import MetricInfo
from indexnet.metrics.base import PerImageMetric, SumMetric, create_metric, get_metric, list_metrics, register_metric
from indexnet.metrics.depth import DepthMetric, valid_pixels
from indexnet.metrics.image import MAE, PSNR, RMSE, SSIM
from indexnet.metrics.matting import MSE, SAD, Conn, Grad, Region, check_matting_options
from indexnet.metrics.matting_errors import Semantics
from indexnet.metrics.segmentation import ConfusionMetric

__all__ = [
    "MAE",
    "MSE",
    "PSNR",
    "RMSE",
    "SAD",
    "SSIM",
    "ConfusionMetric",
    "Conn",
    "DepthMetric",
    "Grad",
    "MetricInfo",
    "PerImageMetric",
    "Region",
    "Semantics",
    "SumMetric",
    "check_matting_options",
    "create_metric",
    "get_metric",
    "list_metrics",
    "register_metric",
    "valid_pixels",
]
