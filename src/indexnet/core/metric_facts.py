"""Facts about the metrics of this package, for those who only read results: nothing here needs torch."""

from __future__ import annotations

from typing import NamedTuple


class MetricInfo(NamedTuple):
    """Facts about one metric.

    Attributes:
        name: registry name.
        title: heading in a table.
        unit: unit, or empty for a bare number.
        higher_is_better: which way is better.
        task: the task whose tables print it; ``"image"`` for any task with an image as output.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    task: str

    @property
    def heading(self) -> str:
        """The title with the unit, where there is one."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


FACTS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("mae", "MAE", "", False, "image"),
        MetricInfo("rmse", "RMSE", "", False, "image"),
        MetricInfo("psnr", "PSNR", "dB", True, "image"),
        MetricInfo("ssim", "SSIM", "", True, "image"),
        MetricInfo("sad", "SAD", "thousands", False, "matting"),
        MetricInfo("mse", "MSE", "", False, "matting"),
        MetricInfo("grad", "Grad", "thousands", False, "matting"),
        MetricInfo("conn", "Conn", "thousands", False, "matting"),
        MetricInfo("sad_full", "SAD_f", "", False, "portrait"),
        MetricInfo("mse_full", "MSE_f", "", False, "portrait"),
        MetricInfo("grad_full", "Grad_f", "", False, "portrait"),
        MetricInfo("conn_full", "Conn_f", "", False, "portrait"),
        MetricInfo("trimap_miou", "trimap mIoU", "%", True, "portrait"),
        MetricInfo("miou", "mIoU", "%", True, "segmentation"),
        MetricInfo("pixel_accuracy", "pixel accuracy", "%", True, "segmentation"),
        MetricInfo("depth_rmse", "RMSE", "m", False, "depth"),
        MetricInfo("rel", "rel", "", False, "depth"),
        MetricInfo("log10", "log10", "", False, "depth"),
        MetricInfo("delta1", "delta1", "", True, "depth"),
        MetricInfo("delta2", "delta2", "", True, "depth"),
        MetricInfo("delta3", "delta3", "", True, "depth"),
    )
}

THROUGHPUT: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("ms_per_step", "ms/step", "", False, ""),
        MetricInfo("hours", "Training", "hours", False, ""),
        MetricInfo("images_per_second", "images/s", "", True, ""),
    )
}
"""Columns of tables that say how fast a run trained: no task measures them, the record of a run tells them."""

GREY = {
    "segmentation": "Grey pixels of the true classes have no label and do not count.",
    "depth": "Grey pixels of error maps have no measured depth and do not count.",
}
"""What grey pixels in a task's pictures are, where there are any."""
