"""What several networks share: layers, and ways to run a network or a part of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from indexnet.core.errors import UserError
from indexnet.resampling.pooling import CellMeans


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    activation: type[nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    """Convolution that at stride 1 keeps the size (odd kernels), batch normalisation, activation."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias),
        nn.BatchNorm2d(out_channels),
        activation(inplace=True),
    )


def separable_conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    dilation: int = 1,
    activation: type[nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    """Depthwise and 1x1 convolution, each as :func:`conv_bn`."""
    return nn.Sequential(
        *conv_bn(
            in_channels, in_channels, kernel, stride, dilation=dilation, groups=in_channels, activation=activation
        ),
        *conv_bn(in_channels, out_channels, activation=activation),
    )


ASPP_RATES = {32: (2, 4, 8), 16: (6, 12, 18)}
"""Dilations of the branches by output stride."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3+), with depthwise-separable branches as in the released matting code.

    A 1x1 branch, one dilated branch per rate, a globally pooled branch; concatenation, 1x1 projection, dropout 0.5.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        rates: dilation of the 3x3 branches.
        hidden: channels of each branch.
        activation: after every batch normalisation.
        separable: whether dilated branches are depthwise and 1x1 convolutions, or dense ones.

    Attributes:
        whole_image: tiled inference runs this module once, on the whole image, for it looks at all of it.
    """

    whole_image = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int],
        hidden: int = 256,
        activation: type[nn.Module] = nn.ReLU6,
        separable: bool = True,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn(in_channels, hidden, activation=activation)])
        layer = separable_conv_bn if separable else conv_bn
        self.branches.extend(layer(in_channels, hidden, 3, dilation=rate, activation=activation) for rate in rates)
        self.pooled = conv_bn(in_channels, hidden, activation=activation)
        self.project = conv_bn(hidden * (len(rates) + 2), out_channels, activation=activation)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w).

        Raises:
            UserError: one image in training mode: the pooled branch normalises over the batch alone.
        """
        check_batch(self, x)
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        features = [branch(x) for branch in self.branches]
        return self.dropout(self.project(torch.cat([*features, pooled], dim=1)))  # type: ignore[no-any-return]


def pyramid_means() -> nn.ModuleList:
    """Means over 1, 2, 3 and 6 cells a side (Zhao et al., Pyramid Scene Parsing Network, CVPR 2017)."""
    return nn.ModuleList(CellMeans(cells) for cells in (1, 2, 3, 6))


def check_batch(module: nn.Module, x: Tensor) -> None:
    """Refuse what the normalisation of a globally pooled branch cannot do.

    Raises:
        UserError: one image in training mode: one value of each channel is left.
    """
    if module.training and x.shape[0] == 1:
        raise UserError(
            "the network cannot train on a batch of one image per device and step, because its globally pooled branch "
            "normalises over the batch; give at least two: raise training.batch_size (or budget.max_batch_size) or "
            "lower trainer.devices or trainer.accumulate_grad_batches (or, where the network has that option, "
            "network.context=none)."
        )


LEAK = 0.01
"""Slope of the leaky ReLU of :class:`ResidualBlock`, PyTorch's default."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside a shortcut; leaky ReLU after the first and after the sum.

    The shortcut is a 1x1 convolution with batch normalisation where the stride or the width changes, else the input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the shortcut, and unless told otherwise of the first convolution.
        first_stride: of the first convolution; 1 where a resampling halves what it gives, see :meth:`join`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, first_stride: int | None = None) -> None:
        super().__init__()
        first_stride = stride if first_stride is None else first_stride
        self.first = conv_bn(in_channels, out_channels, 3, first_stride, activation=nn.LeakyReLU)
        self.second = conv_bn(out_channels, out_channels, 3, activation=nn.Identity)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv_bn(in_channels, out_channels, 1, stride, activation=nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        return self.join(self.first(x), x)

    def join(self, inner: Tensor, x: Tensor) -> Tensor:
        """Return the block's output from what ``first`` gave, brought to the output's size, and its input."""
        return F.leaky_relu(self.second(inner) + self.shortcut(x), LEAK, inplace=True)


class Head(nn.Sequential):
    """Convolution to the output's channels, normalisation, activation, and one more convolution, without bias.

    Where there is one channel, the kernel of the last layer starts with a sum that is not negative: its signs are
    turned if they are drawn otherwise. Alpha is not negative, nor is what comes from the activation, so that a
    negative kernel has to turn round first, and short trainings end with an alpha of zero everywhere. The published
    networks leave it to the seed.

    Args:
        in_channels: of the map (N, in_channels, H, W).
        out_channels: of the output (N, out_channels, H, W).
        kernel: side of both kernels, odd.
        activation: of the first layer.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, activation: type[nn.Module] = nn.ReLU6
    ) -> None:
        super().__init__(
            conv_bn(in_channels, out_channels, kernel, activation=activation),
            nn.Conv2d(out_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        )

    @torch.no_grad()
    def turn_signs(self) -> None:
        """Turn the signs of the last kernel where it is one and its sum is negative."""
        last = self[1]
        assert isinstance(last, nn.Conv2d)
        weight = last.weight
        if weight.shape[0] == 1 and not weight.is_meta and weight.sum() < 0:
            weight.neg_()


def initialize_xavier(*modules: nn.Module) -> None:
    """Draw every convolution of some modules from Xavier's normal distribution with the gain of leaky ReLU.

    The initialisation of the released A2U code, but for :class:`Head`; there are no biases. On the meta device there is
    nothing to draw.
    """
    for layer in chain.from_iterable(module.modules() for module in modules):
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain("leaky_relu", LEAK))
    _turn_heads(modules)


def initialize_weights(*modules: nn.Module) -> None:
    """Draw every convolution of some modules from N(0, 2 / (kh * kw * out_channels)); norms become the identity.

    The initialisation of the released matting code (He, fan-out, groups ignored), but for :class:`Head`; biases become
    zero. On the meta device there is nothing to draw, and PyTorch takes longer over it there than over everything else.
    """
    for layer in chain.from_iterable(module.modules() for module in modules):
        if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d) or layer.weight.is_meta:
            continue
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        else:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    _turn_heads(modules)


def _turn_heads(modules: Iterable[nn.Module]) -> None:
    for head in chain.from_iterable(module.modules() for module in modules):
        if isinstance(head, Head):
            head.turn_signs()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode while the block runs; afterwards each of its parts has its own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _ShapesOnly(TorchFunctionMode):
    """On the meta device, gives a map of the right shape where PyTorch takes hundreds of small steps to find it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and args[0].is_meta and not kwargs["training"]:  # in training it checks the batch
            return torch.empty_like(args[0])
        if func is F.hardtanh and args[0].is_meta:  # ReLU6
            return args[0] if kwargs["inplace"] else torch.empty_like(args[0])
        if func is F.scaled_dot_product_attention and args[0].is_meta:  # no kernel keeps the matrix, but this one would
            return args[0].new_empty(*args[0].shape[:-1], args[2].shape[-1])
        if func is F.grid_sample and args[0].is_meta:
            return args[0].new_empty(*args[0].shape[:2], *args[1].shape[1:-1])
        return func(*args, **kwargs)


def run_on_meta(module: nn.Module, size: Sequence[int], watch: AbstractContextManager[Any] | None = None) -> Any:
    """Run a module on the meta device, wherever it is: shapes only, nothing is computed and nothing allocated.

    Args:
        module: its mode is what it is.
        size: shape of its input, which has the dtype of its parameters.
        watch: entered for the pass alone, after the parameters have been brought to the meta device.
    """
    state = {key: value.to("meta") for key, value in chain(module.named_parameters(), module.named_buffers())}
    parameter = next(module.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    with torch.no_grad(), watch or nullcontext(), _ShapesOnly():
        return functional_call(module, state, (torch.empty(size, device="meta", dtype=dtype),))


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate (N, C, h, w) bilinearly, corners aligned, to the height and width of another map."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def check_odd(network: str, kernel: int) -> None:
    """Refuse a kernel of a decoder that would not keep the size.

    Raises:
        UserError: it is even or not positive.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"decoder_kernel of {network} must be odd and positive, got {kernel}.")
