"""Metrics of every task: computed per image in float64, then averaged."""

from indexnet.metrics.base import (
    MetricInfo,
    PerImageMetric,
    create_metric,
    get_metric,
    list_metrics,
    register_metric,
)
from indexnet.metrics.image import MAE, PSNR, RMSE, SSIM
from indexnet.metrics.matting import MSE, SAD

__all__ = [
    "MAE",
    "MSE",
    "PSNR",
    "RMSE",
    "SAD",
    "SSIM",
    "MetricInfo",
    "PerImageMetric",
    "create_metric",
    "get_metric",
    "list_metrics",
    "register_metric",
]
