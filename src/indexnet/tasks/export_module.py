"""A network as ``indexnet export`` writes it: what belongs to its use inside, inputs and outputs described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from indexnet.core.conventions import UNKNOWN
from indexnet.networks import Network
from indexnet.networks.base import run_whole
from indexnet.networks.imagenet import normalise


@dataclass(frozen=True)
class TensorInfo:
    """One input or output (batch, channels, height, width), float32.

    Attributes:
        name: in the file.
        channels: how many.
        meaning: what it holds, its unit and range.
        levels: the only values that an input takes, ascending; empty: any in [0, 1].
    """

    name: str
    channels: int
    meaning: str
    levels: tuple[float, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return name, shape, dtype and meaning as plain data."""
        shape = ["batch", self.channels, "height", "width"]
        return {"name": self.name, "shape": shape, "dtype": "float32", "meaning": self.meaning}


TRIMAP_INPUT = TensorInfo(
    "trimap",
    1,
    "0 background, 128/255 unknown, 1 foreground: an 8-bit trimap of 0, 128, 255 over 255",
    levels=(0.0, UNKNOWN / 255, 1.0),
)
"""What a network with a trimap takes beside the image."""


class ExportModule(nn.Module):
    """A network of one image with its normalisation and its limits, so that whoever runs the file cannot get it wrong.

    Args:
        network: in eval mode.
        name: of the output.
        meaning: of the output, in words.
        image: what the input shows, in words.
        normalised: whether the network gets images normalised by ImageNet's mean and deviation.
        low: the output is at least that; None: no limit.
        high: the output is at most that; None: no limit.

    Attributes:
        inputs: of ``forward``, in order.
        outputs: of ``forward``, in order; of several it returns a tuple.
        other_sizes: what to do with images of other sizes than the file takes, in words; "" where they are no use.
    """

    guides: int = 0  # channels of the network's input that are not the image's
    other_sizes: str = ""

    def __init__(
        self,
        network: Network,
        name: str = "output",
        meaning: str = "the output of the network",
        *,
        image: str = "image",
        normalised: bool = False,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.normalised, self.low, self.high = network, normalised, low, high
        channels = network.in_channels - self.guides
        colours = {1: "gray (luma, ITU-R BT.601)", 3: "RGB"}.get(channels, f"{channels} channels")
        self.inputs = [TensorInfo("image", channels, f"{image}, {colours}, in [0, 1], not normalised")]
        self.outputs = [TensorInfo(name, network.out_channels, meaning)]

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the output (N, K, H, W) of images (N, C, H, W) in [0, 1]."""
        output = run_whole(self.network, normalise(image) if self.normalised else image)
        return output if self.low is None and self.high is None else output.clamp(self.low, self.high)
