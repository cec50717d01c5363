"""Denoising networks: DnCNN, which halves nothing, and its SegNet-like form with three halvings."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.layers import conv_bn
from indexnet.networks.spec import Spec, build_resampling, split_spec, strides_encoder
from indexnet.resampling.base import NONE, create_resampling

# PyTorch's own initialisation stays in both networks: batch normalisation makes the scale of all but the last
# convolution irrelevant, and with the fan-out rule of the matting network the last one, of few outputs, would start
# with residuals far larger than any noise.


@register_network
class DnCNN(Network):
    """DnCNN (Zhang et al., TIP 2017): 3x3 convolutions at full resolution that predict the noise.

    A convolution with bias and ReLU, ``depth - 2`` convolutions without bias, each with batch normalisation and ReLU,
    and a convolution without bias. It halves nothing, so it takes no resampling.

    Args:
        resampling: ``none``, or the mapping ``{"name": "none"}``.
        in_channels: channels of the image and of the output.
        depth: convolutions; 17 in the paper for a known noise level.
        width: channels between them.
        residual: the layers predict the noise, which is subtracted from the input; else they predict the image.

    Raises:
        UserError: a resampling is given, or a value that cannot work.
    """

    info = NetworkInfo(
        name="dncnn",
        title="DnCNN",
        paper="Zhang et al., Beyond a Gaussian Denoiser (TIP 2017); Index Networks (TPAMI 2020), Table 5",
        description="17 3x3 convolutions at full resolution, residual output; halves nothing (resampling=none).",
        tasks=("denoising",),
    )
    encoder = None

    def __init__(
        self,
        resampling: Spec = NONE,
        in_channels: int = 1,
        depth: int = 17,
        width: int = 64,
        residual: bool = True,
    ) -> None:
        super().__init__()
        name, options = split_spec("resampling", resampling)
        if name != NONE:
            raise UserError(
                f"network=dncnn halves nothing and cannot take resampling={name}; give resampling=none, or "
                f"network=dncnn_segnet, which has three stages."
            )
        if depth < 2:
            raise UserError(f"depth of dncnn must be at least 2, got {depth}.")
        if width < 1:
            raise UserError(f"width of dncnn must be at least 1, got {width}.")
        _check_residual(self.info.name, residual)
        self.in_channels = self.out_channels = in_channels
        self.residual = residual
        self.resampling = create_resampling(name, (), **options)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += conv_bn(width, width, 3, activation=nn.ReLU)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, in_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Denoise images (N, in_channels, H, W), float, of any size; the output is not clamped."""
        y: Tensor = self.head(self.layers(x))
        return x - y if self.residual else y


def _check_residual(network: str, residual: object) -> None:
    if not isinstance(residual, bool):
        raise UserError(f"residual of {network} must be true or false, got {residual!r}.")


_layer = partial(conv_bn, kernel=3, bias=True, activation=nn.ReLU)


@register_network
class DnCNNSegNet(Network):
    """DnCNN as an encoder-decoder (Lu et al., TPAMI 2020): 17 3x3 convolutions, three halvings and doublings.

    The encoder has 2, 2 and 3 convolutions before its halvings and 2 after the last, of 64, 128, 256 and 512 channels;
    the decoder comes back to 256 channels, doubles, and has 2 convolutions after each doubling, the first to half the
    width where the next doubling is narrower. All have a bias, batch normalisation and ReLU. A convolution with bias
    ends the network.

    Args:
        resampling: name, or mapping with ``name`` and the operator's options. With ``pooling=encoder`` the last
            convolution before each halving has stride 2.
        in_channels: channels of the image and of the output.
        residual: the layers predict the noise, which is subtracted from the input; else they predict the image.
        base_channels: channels at full resolution, of which the other layers have 2, 4 and 8 times as many; 64 in the
            paper.

    Raises:
        UserError: parts that do not fit, or a value that cannot work.
    """

    info = NetworkInfo(
        name="dncnn_segnet",
        title="DnCNN-SegNet",
        paper="Index Networks (TPAMI 2020), Table 5",
        description="17 3x3 convolutions with three halvings (64, 128, 256 channels), residual output, no skips.",
        tasks=("denoising",),
    )
    encoder = None

    def __init__(
        self,
        resampling: Spec = "max_unpool",
        in_channels: int = 1,
        residual: bool = True,
        base_channels: int = 64,
    ) -> None:
        super().__init__()
        if base_channels < 1:
            raise UserError(f"base_channels of dncnn_segnet must be at least 1, got {base_channels}.")
        _check_residual(self.info.name, residual)
        self.in_channels = self.out_channels = in_channels
        self.residual = residual
        first, second, third = widths = (base_channels, 2 * base_channels, 4 * base_channels)
        widest = 8 * base_channels
        self.resampling = build_resampling(self.info.name, resampling, widths, strides=True)
        stride = 2 if strides_encoder(resampling) else 1
        # What runs before the strided convolution is apart from it, because the size before the stride is needed.
        self.contracting = nn.ModuleList(
            [
                _layer(in_channels, first),
                _layer(first, second),
                nn.Sequential(_layer(second, third), _layer(third, third)),
            ]
        )
        self.halving = nn.ModuleList(_layer(width, width, stride=stride) for width in widths)
        self.bottom = nn.Sequential(_layer(third, widest), _layer(widest, widest), _layer(widest, third))
        self.expanding = nn.ModuleList(
            nn.Sequential(_layer(wide, narrow), _layer(narrow, narrow))
            for wide, narrow in zip(widths, (first, *widths), strict=False)
        )
        self.head = nn.Conv2d(first, in_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Denoise images (N, in_channels, H, W), float, unclamped; any size of 5 pixels or more."""
        y: Tensor = x
        levels = []
        for index, (layers, last) in enumerate(zip(self.contracting, self.halving, strict=True)):
            stage = self.stage(index)
            y = layers(y)
            down = stage.pass_through(last(y), y) if stage.strided else stage.down(last(y))
            levels.append((down.guide, down.size))
            y = down.features
        y = self.bottom(y)
        for index in reversed(range(len(levels))):
            y = self.expanding[index](self.stage(index).up(y, *levels[index]))
        y = self.head(y)
        return x - y if self.residual else y
