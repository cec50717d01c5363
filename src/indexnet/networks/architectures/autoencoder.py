"""A small autoencoder for image reconstruction: what a resampling keeps of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.layers import conv_bn
from indexnet.networks.spec import Spec, build_resampling

_layer = partial(conv_bn, kernel=3, activation=nn.ReLU)


@register_network
class Autoencoder(Network):
    """Convolutional autoencoder without skip connections (the thesis' image reconstruction, Tables 3.2 and 4.1).

    One 3x3 convolution, batch normalisation and ReLU before each halving and one after the last; the mirror image of it
    with doublings; a 3x3 convolution to the image, without an activation. The thesis prints no layer list, so layers
    and widths are a free choice here: only differences between resamplings can be compared with its tables.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options.
        widths: channels of the maps that are halved, from full resolution down.
        in_channels: channels of the image and of its reconstruction.

    Raises:
        UserError: no widths, or parts that do not fit.
    """

    info = NetworkInfo(
        name="autoencoder",
        title="Reconstruction autoencoder",
        paper="Y. Dai, thesis, Tables 3.2 and 4.1 (layers and widths are a free choice: none are published)",
        description="3x3 conv-BN-ReLU, a halving and a doubling per entry of widths, no skip connections.",
        tasks=("reconstruction",),
    )
    encoder = None

    def __init__(
        self, resampling: Spec = "max_unpool", widths: Sequence[int] = (32, 64, 128), in_channels: int = 1
    ) -> None:
        super().__init__()
        widths = tuple(int(width) for width in widths)
        if not widths or min(widths) < 1:
            raise UserError(f"widths of autoencoder must be one or more positive integers, got {list(widths)}.")
        self.in_channels = self.out_channels = in_channels
        self.resampling = build_resampling(self.info.name, resampling, widths)
        self.contracting = nn.ModuleList(_layer(c, d) for c, d in zip((in_channels, *widths), widths, strict=False))
        self.bottom = _layer(widths[-1], widths[-1])
        self.expanding = nn.ModuleList(_layer(width, widths[max(stage - 1, 0)]) for stage, width in enumerate(widths))
        self.head = nn.Conv2d(widths[0], in_channels, 3, padding=1)
        # PyTorch's own initialisation stays: the matting network's fan-out rule makes a head of one channel start with
        # outputs far outside [0, 1], which costs 6 to 8 dB after 300 steps on MNIST.

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images (N, in_channels, H, W), float; any size that leaves 2 pixels before each halving."""
        levels = []
        for stage, layer in enumerate(self.contracting):
            down = self.stage(stage).down(layer(x))
            levels.append((down.guide, down.size))
            x = down.features
        x = self.bottom(x)
        for stage in reversed(range(len(levels))):
            guide, size = levels[stage]
            x = self.expanding[stage](self.stage(stage).up(x, guide, size))
        return self.head(x)  # type: ignore[no-any-return]
