"""timm models opened at their strides: a chain of layer groups, cut where the resolution halves."""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from indexnet.core.errors import UserError
from indexnet.core.registry import did_you_mean
from indexnet.networks.layers import evaluating, run_on_meta

ADVICE = "such as mobilenetv2_100, mobilenetv1_100, resnet34, efficientnet_b0, vgg16_bn or mobilenetv2_released"
_PROBE = 64  # the size at which reductions are read off, on the meta device


def create_timm_model(name: str, in_channels: int, output_stride: int = 32, pretrained: bool = False) -> nn.Module:
    """Build a timm model with ``features_only``.

    Raises:
        UserError: no such model, or one without features or without this output stride.
    """
    import timm

    if not timm.is_model(name):
        hint = did_you_mean(name, ["mobilenetv1_fastdepth", "mobilenetv2_released", *timm.list_models()])
        raise UserError(
            f"unknown encoder {name!r}.{hint} Known: mobilenetv2_released, mobilenetv1_fastdepth and timm's "
            f"convolutional models."
        )
    options: dict[str, Any] = {"features_only": True, "in_chans": in_channels, "pretrained": pretrained}
    if output_stride != 32:
        options["output_stride"] = output_stride
    try:
        model = timm.create_model(name, **options)
    except (TypeError, AssertionError, NotImplementedError, ValueError, AttributeError) as error:
        if output_stride != 32:
            raise UserError(f"encoder {name!r} has no output stride {output_stride}; use output_stride=32.") from error
        raise UserError(f"encoder {name!r} gives no feature maps; choose another one, {ADVICE}.") from error
    assert isinstance(model, nn.Module)
    return model


def pretrained_state(name: str, encoder: str) -> dict[str, Tensor]:
    """Fetch timm's ImageNet weights for 3 input channels, from its cache or the network.

    Args:
        name: of the timm model.
        encoder: of the encoder that asks, for the message.

    Raises:
        UserError: they do not exist or cannot be reached.
    """
    try:
        with _offline_where_unreachable():
            return dict(create_timm_model(name, 3, pretrained=True).state_dict())
    except UserError:
        raise
    except Exception as error:  # whatever the hub's client raises: no network, no such file, no such weights
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")
        raise UserError(
            f"the ImageNet weights of encoder {encoder!r} cannot be reached ({reason}); give a file with "
            f"encoder.pretrained=PATH, or train from scratch with encoder.pretrained=false."
        ) from error


@contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """Keep the hub's client to its cache where its host has no address: it would retry for most of a minute."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    offline = constants.HF_HUB_OFFLINE
    if not offline and not getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def chain_of(model: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """Return the layers of a features-only model in the order in which they run.

    Raises:
        UserError: it does not run as a chain.
    """
    kind = type(model).__name__
    if kind in ("FeatureListNet", "FeatureDictNet"):
        return list(model.named_children())
    if kind in ("EfficientNetFeatures", "MobileNetV3Features") and getattr(model, "feature_hooks", None) is None:
        stem = [(key, layer) for key, layer in model.named_children() if key != "blocks"]
        blocks = model.get_submodule("blocks")
        return stem + [(f"blocks_{key}", layer) for key, layer in blocks.named_children()]
    raise UserError(
        f"encoder {name!r} cannot be opened at its strides: its features do not come from a chain of convolutional "
        f"layers that halve the resolution step by step (transformers work on one grid of patches); choose one that "
        f"does, {ADVICE}."
    )


@dataclass
class Unit:
    """A group of layers that run at one resolution.

    Attributes:
        layers: the layers by name, in order.
        width: channels of its output.
        halves: whether the resolution halves in it, or after it where a stage does it.
        is_closed: whether a pooling layer followed, so that no layer may be added.
        convolutions: of its largest layer; more than one means a stage.
    """

    layers: OrderedDict[str, nn.Module] = field(default_factory=OrderedDict)
    width: int = 0
    halves: bool = False
    is_closed: bool = False
    convolutions: int = 0


def _probe(layer: nn.Module, x: Tensor) -> Tensor | None:
    """Run a layer on the meta device (shapes only); None where it does not map one image map to another."""
    try:
        with evaluating(layer):
            y = run_on_meta(layer, x.shape)
    except (RuntimeError, TypeError, ValueError, AssertionError):
        return None
    return y if isinstance(y, Tensor) and y.ndim == 4 else None


def run_at_stride_one(layer: nn.Module) -> None:
    """Set stride-2 convolutions to stride 1, in place; pooling inside the layer (in a shortcut) falls away."""
    for child_name, child in list(layer.named_children()):
        if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and child.stride in (2, (2, 2)):
            setattr(layer, child_name, nn.Identity())
        else:
            run_at_stride_one(child)
    if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
        layer.stride = (1, 1)


def cut_units(chain: list[tuple[str, nn.Module]], name: str, in_channels: int, strided: bool) -> list[Unit]:
    """Group a chain of layers in units and, unless ``strided``, make every unit keep its resolution.

    A stage of timm (several convolutions) is a unit; single layers (a stem's convolution, norm and activation) join to
    one. Where a convolution halves, its unit runs at full size and is halved after its end, as in the matting network
    of the paper; a pooling layer of its own is left out and halved in its place.

    Raises:
        UserError: a layer divides the resolution by more than 2, or cannot run at stride 1.
    """
    units: list[Unit] = []
    x = torch.empty(1, in_channels, _PROBE, _PROBE, device="meta")
    for key, layer in chain:
        y = _probe(layer, x)
        reduction = 0 if y is None or x.shape[2] % y.shape[2] else x.shape[2] // y.shape[2]
        if y is None or reduction not in (1, 2) or y.shape[3] * reduction != x.shape[3]:
            fault = f"divides the resolution by {reduction}" if reduction > 2 else "gives no map of full or half size"
            raise UserError(
                f"encoder {name!r} cannot be opened at its strides: its layer {key!r} {fault} (patch embeddings of "
                f"transformers and unpadded convolutions do that), where a stage halves step by step; choose an "
                f"encoder {ADVICE}."
            )
        convolutions = sum(isinstance(part, nn.Conv2d) for part in layer.modules())
        pools = reduction == 2 and next(layer.parameters(), None) is None
        last = units[-1] if units else Unit(is_closed=True, halves=True)
        if pools:  # two halvings in a row: a unit without layers between them
            opens = strided or last.halves
        else:
            opens = last.is_closed or (
                convolutions > 0 and (convolutions > 1 or last.convolutions > 1 or (reduction == 2 and last.halves))
            )
        unit = Unit() if opens else last
        if opens:
            units.append(unit)
        if strided or not pools:
            unit.layers[key] = layer
        unit.width, unit.is_closed = y.shape[1], pools
        unit.halves = unit.halves or reduction == 2
        unit.convolutions = max(unit.convolutions, convolutions)
        if reduction == 2 and not pools and not strided:
            run_at_stride_one(layer)
            again = _probe(layer, x)
            if again is None or again.shape[2:] != x.shape[2:]:
                raise UserError(
                    f"encoder {name!r} cannot be opened at its strides: its layer {key!r} does not keep the size "
                    f"of a map at stride 1 (an even kernel); choose an encoder with odd kernels, {ADVICE}."
                )
        x = y
    return units


def same_names(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a timm state dict to the names of its features-only form, which joins some of their parts by ``_``."""
    by_plain_name = {key.replace(".", "_"): key for key in expected}
    plain = {key.replace(".", "_"): value for key, value in given.items()}
    return {key: plain[name] for name, key in by_plain_name.items() if name in plain}
