"""Pseudo labels of matting: what a network itself says of an image that it sees turned or with other channels.

Source: Dai et al., "Boosting Robustness of Image Matting with Context Assembling and Strong Data Augmentation", CVPR
2022, section 5.3, for images that were changed so that no alpha explains them any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from indexnet.core.conventions import unknown_mask
from indexnet.networks import Network
from indexnet.networks.layers import evaluating
from indexnet.networks.tiled.matting_protocol import prepare_input
from indexnet.networks.tiled.memory import as_written


@dataclass(frozen=True)
class View:
    """How the network looks at an image once more.

    Attributes:
        quarters: turns by 90 degrees.
        order: of the colour channels.
    """

    quarters: int = 0
    order: tuple[int, int, int] = (0, 1, 2)

    def of(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H, W) as they are seen; of images, C = 3, with their channels in the order."""
        ordered = maps[:, list(self.order)] if maps.shape[1] == 3 else maps
        return torch.rot90(ordered, self.quarters, (2, 3))

    def back(self, prediction: Tensor) -> Tensor:
        """Return what was predicted, (N, 1, H, W), the way the image lies."""
        return torch.rot90(prediction, -self.quarters, (2, 3))


def draw_view(square: bool = True) -> View:
    """Draw a turn by 90, 180 or 270 degrees (only 180 where images are not square) or, as often, a shuffle of channels.

    From torch's random numbers on the CPU, which follow from (seed, step, process) in a run.
    """
    if torch.rand(()) < 0.5:
        return View(quarters=int(torch.randint(1, 4, ())) if square else 2)
    first, second, third = torch.randperm(3).tolist()
    return View(order=(first, second, third))


@torch.no_grad()
def predict_labels(
    network: Network, image: Tensor, trimap: Tensor, alpha: Tensor, views: Sequence[View] | None = None
) -> Tensor:
    """Predict the alpha of images that have none.

    The network is in evaluation mode for that, in full precision and without gradient; afterwards each of its parts has
    its own mode again.

    Args:
        network: as the step before has left it.
        image: (N, 3, H, W) in [0, 1].
        trimap: (N, 1, H, W) in {0, 128/255, 1}.
        alpha: (N, 1, H, W) in [0, 1], true where the trimap is known.
        views: of each image; None: they are drawn, see :func:`draw_view`.

    Returns:
        (N, 1, H, W) in [0, 1]: the prediction where the trimap is unknown, else ``alpha``.
    """
    square = image.shape[2] == image.shape[3]
    views = [draw_view(square) for _ in image] if views is None else views
    found = []
    with (
        evaluating(network),
        torch.autocast(image.device.type, enabled=False),  # whose cache would keep the gradient out
        as_written(network),
    ):
        for number, view in enumerate(views):
            seen = view.of(image[number : number + 1]), view.of(trimap[number : number + 1])
            found.append(view.back(network(prepare_input(*seen))))
    labels = torch.cat(found).to(alpha.dtype).clamp(0, 1)
    return torch.where(unknown_mask(trimap), labels, alpha)
