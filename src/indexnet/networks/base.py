"""What every network is: a plain module over one resampling, found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor, nn
from torch.nn import Parameter

from indexnet.core.errors import UserError
from indexnet.core.registry import option_names
from indexnet.networks.spec import Spec, split_spec, strides_encoder
from indexnet.resampling.base import Resampling, ResamplingStage, create_resampling, get_resampling

if TYPE_CHECKING:
    from indexnet.networks.encoders.encoder import Encoder


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

    Attributes:
        info: facts, one record per class.
        resampling: the coupled downsampling/upsampling stages that it runs on.
        encoder: the pre-trainable part, or None.
        in_channels: channels of the input.
        out_channels: channels of the output.
        size_multiple: height and width that published results use are multiples of this; 1 where any size does.
    """

    info: ClassVar[NetworkInfo]
    resampling: Resampling
    encoder: Encoder | None
    in_channels: int
    out_channels: int
    size_multiple: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""

    def encoder_parameters(self) -> Iterator[Parameter]:
        """Parameters that a training with pre-trained weights gives the reduced learning rate; empty if none."""
        if self.encoder is not None:
            yield from self.encoder.parameters()

    @property
    def freeze_bn(self) -> bool:
        """Whether the encoder's batch normalisation keeps its running statistics, also under ``train()``."""
        return self.encoder is not None and self.encoder.freeze_bn

    @freeze_bn.setter
    def freeze_bn(self, value: bool) -> None:
        if self.encoder is None:
            if value:
                raise UserError(f"network {self.info.name!r} has no encoder whose batch normalisation could be frozen.")
            return
        self.encoder.freeze_bn = value
        self.encoder.train(self.encoder.training)

    def stage(self, index: int) -> ResamplingStage:
        """Return stage ``index`` of the resampling."""
        stage = self.resampling.stages[index]
        assert isinstance(stage, ResamplingStage)
        return stage


def build_resampling(
    network: str,
    spec: Spec,
    channels: Sequence[int],
    decoder_channels: Sequence[int] | None = None,
    *,
    strides: bool = False,
    reduction: str | None = None,
) -> Resampling:
    """Build the resampling of a network from its specification.

    Args:
        network: the network's name, for messages.
        spec: name, or mapping with ``name`` and the operator's options.
        channels: encoder width at each stage, from full resolution down.
        decoder_channels: widths that ``up`` receives, same order; default ``channels``.
        strides: whether the network's encoder can halve by itself (``pooling=encoder``).
        reduction: what index networks do here, unless told otherwise, where the decoder has half the encoder's width.

    Raises:
        UserError: parts that do not fit together.
    """
    name, options = split_spec("resampling", spec)
    if strides_encoder(spec) and not strides:
        raise UserError(
            f"network={network} cannot take resampling.pooling=encoder, because its encoder leaves every halving to "
            f"the resampling; give resampling.pooling=max, avg or conv."
        )
    if options.get("reduction") is None and "reduction" in option_names(get_resampling(name)):
        options["reduction"] = reduction
    return create_resampling(name, channels, decoder_channels, **options)


_REGISTRY: dict[str, type[Network]] = {}
_N = TypeVar("_N", bound=type[Network])


def register_network(cls: _N) -> _N:
    """Class decorator: make a :class:`Network` known under ``cls.info.name``."""
    name = cls.info.name
    if name in _REGISTRY:
        raise RuntimeError(f"network {name!r} is registered twice")
    _REGISTRY[name] = cls
    return cls


def get_network(name: str) -> type[Network]:
    """Return the class registered as ``name``.

    Raises:
        UserError: the name is unknown; the message lists the nearest.
    """
    from indexnet.core.registry import unknown_name

    if name not in _REGISTRY:
        raise unknown_name("network", name, _REGISTRY)
    return _REGISTRY[name]


def create_network(name: str, **options: Any) -> Network:
    """Build a network.

    Args:
        name: registry name, see :func:`list_networks`.
        **options: the network's own options, plain values; ``resampling`` and ``encoder`` are names or mappings with
            ``name`` and options.

    Raises:
        UserError: unknown name or option, or parts that do not fit together.
    """
    from indexnet.core.registry import check_options

    cls = get_network(name)
    check_options(f"network {name!r}", cls, options)
    return cls(**options)


def list_networks() -> list[NetworkInfo]:
    """Facts of every registered network, by name."""
    return [_REGISTRY[name].info for name in sorted(_REGISTRY)]


def without_pretrained(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's options with ``encoder.pretrained`` switched off.

    For a network whose state dict is loaded anyway: building it must not look for ImageNet weights.
    """
    result = dict(options)
    if isinstance(result.get("encoder"), Mapping) and "pretrained" in result["encoder"]:
        result["encoder"] = {**result["encoder"], "pretrained": False}
    return result
