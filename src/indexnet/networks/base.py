"""What every network is: a plain module over one resampling, found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from indexnet.core.registry import Registry
from indexnet.resampling.base import Resampling, ResamplingStage

if TYPE_CHECKING:
    from indexnet.networks.encoders.encoder import Encoder
    from indexnet.networks.encoders.mix_transformer import MixTransformer


@dataclass(frozen=True)
class NetworkInfo:
    """Facts about one network.

    Attributes:
        name: registry name.
        title: a person's name for it.
        paper: where it was published.
        description: its layers, in one or two sentences.
        tasks: the tasks it was made for.
    """

    name: str
    title: str
    paper: str
    description: str
    tasks: tuple[str, ...]


class Network(nn.Module, ABC):
    """A network for dense prediction: images (N, in_channels, H, W) to maps (N, out_channels, H, W), float.

    One that predicts at a lower resolution, (N, out_channels, ceil(H / reduction), ceil(W / reduction)), is trained at
    that, and its output interpolated to the image's size elsewhere, see :func:`run_whole`.

    Attributes:
        info: facts, one record per class.
        resampling: the coupled downsampling/upsampling stages that it runs on.
        encoder: the pre-trainable part, or None.
        in_channels: channels of the input.
        out_channels: channels of the output.
        reduction: how many times smaller the output is than the image; 1 for most.
        align_corners: how such an output is interpolated.
        size_multiple: height and width that published results use are multiples of this; 1 where any size does.
        takes_tiles: whether an image that needs too much memory may be run in tiles.
        spec: the name and the options that :func:`create_network` was given; empty where it was not called.
    """

    info: ClassVar[NetworkInfo]
    resampling: Resampling
    encoder: Encoder | MixTransformer | None
    in_channels: int
    out_channels: int
    reduction: int = 1
    align_corners: bool = False
    size_multiple: int = 1
    takes_tiles: bool = True
    spec: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""

    @property
    def notice(self) -> str:
        """What whoever uses the encoder's weights must know, such as the licence of those that it started from."""
        return str(getattr(getattr(self, "encoder", None), "notice", ""))

    def encoder_parameters(self) -> Iterator[Parameter]:
        """Parameters that a training with pre-trained weights gives the reduced learning rate; empty if none."""
        if self.encoder is not None:
            yield from self.encoder.parameters()

    def stage(self, index: int) -> ResamplingStage:
        """Return stage ``index`` of the resampling."""
        stage = self.resampling.stages[index]
        assert isinstance(stage, ResamplingStage)
        return stage


def run_whole(network: Network, image: Tensor) -> Tensor:
    """Run a network on images (N, C, H, W); an output of a lower resolution is interpolated bilinearly to (H, W)."""
    output: Tensor = network(image)
    if network.reduction == 1:
        return output
    return F.interpolate(output, size=image.shape[2:], mode="bilinear", align_corners=network.align_corners)


def at_output_size(target: Tensor, output: Tensor) -> Tensor:
    """Bring a target to the resolution of a network's output, for its loss; nothing is mixed.

    Args:
        target: labels (N, H, W), an integer type, or maps (N, K, H, W).
        output: (N, any, h, w).

    Returns:
        Of each h x w cell the value next to its middle; the target itself where the sizes agree.
    """
    if target.shape[-2:] == output.shape[-2:]:
        return target
    maps = target[:, None] if target.ndim == 3 else target
    small = F.interpolate(maps if maps.is_floating_point() else maps.float(), output.shape[-2:], mode="nearest-exact")
    return (small[:, 0] if target.ndim == 3 else small).to(target.dtype)


def run_padded(network: Network, image: Tensor) -> Tensor:
    """Run a network on images (N, C, H, W) of any size, by replicate padding to its ``size_multiple`` and cropping."""
    height, width = image.shape[-2:]
    bottom, right = -height % network.size_multiple, -width % network.size_multiple
    output = run_whole(network, F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image)
    return output[..., :height, :width]


NETWORKS: Registry[Network] = Registry("network", "indexnet.networks.architectures")
register_network = NETWORKS.register
get_network = NETWORKS.get


def create_network(name: str, **options: Any) -> Network:
    """Build a network.

    Args:
        name: registry name, see :func:`list_networks`.
        **options: the network's own options, plain values; ``resampling`` and ``encoder`` are names or mappings with
            ``name`` and options.

    Raises:
        UserError: unknown name or option, or parts that do not fit together.
    """
    network = NETWORKS.create(name, **options)
    network.spec = {"name": name, **options}
    return network


def list_networks() -> list[NetworkInfo]:
    """Facts of every registered network, by name."""
    return [network.info for network in NETWORKS.classes().values()]
