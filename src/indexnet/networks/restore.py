"""Networks for weights that came from a file: checked before memory is asked for, and after the weights are in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from indexnet.core.annotations import Positive, check_part
from indexnet.core.errors import UserError
from indexnet.networks.base import Network, create_network, get_network
from indexnet.networks.encoders.encoder import encoder_factory
from indexnet.networks.encoders.weights import check_finite, check_kinds
from indexnet.networks.spec import split_spec
from indexnet.resampling.base import get_resampling

Build = Callable[[Mapping[str, Any]], Network]
"""Makes a network of its name and options."""

_COUNTS = {"in_channels": Positive, "out_channels": Positive, "classes": Positive}
_SPARE = 1000  # parameters beyond those of the file that a network may make and drop, such as a classifier's


def create_from_spec(spec: Mapping[str, Any]) -> Network:
    """Build a network of its name and options in one mapping."""
    options = dict(spec)
    return create_network(options.pop("name"), **options)


def check_spec(spec: Mapping[str, Any]) -> None:
    """Check a network's name and options, resampling and encoder included, by the signatures that take them.

    Raises:
        UserError: an unknown name or option, or a value of another type.
    """
    options = {key: value for key, value in spec.items() if key not in ("resampling", "encoder")}
    check_part("network", options, get_network(spec["name"]), ("resampling", "encoder"), _COUNTS)
    if spec.get("resampling") is not None:
        name, options = split_spec("resampling", spec["resampling"])
        check_part("resampling", {"name": name, **options}, get_resampling(name), ("channels", "decoder_channels"))
    if spec.get("encoder") is not None:
        name, options = split_spec("encoder", spec["encoder"])
        skip = ("name", "in_channels", "downsampling", "output_stride")
        check_part("encoder", {"name": name, **options}, encoder_factory(name), skip)


def build_without_memory(
    spec: Mapping[str, Any], build: Build = create_from_spec, at_most: int | None = None
) -> Network:
    """Build a network on the meta device, where weights have shapes and no values.

    Args:
        spec: its name and options.
        build: makes it.
        at_most: how many parameters (tensors) it may have; what asks for more is not built to its end.

    Raises:
        UserError: it cannot be built from its options, or has more.
    """
    try:
        with torch.device("meta"), _counted(spec["name"], at_most):
            return build(spec)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:  # a width of 10^20, for example
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"network={spec['name']} cannot be built from its options: {reason}.") from error


def restore_network(
    spec: Mapping[str, Any],
    state: Mapping[str, Tensor],
    source: object,
    *,
    build: Build = create_from_spec,
    strict: bool = True,
) -> Network:
    """Build a network and give it its weights, where they are those of such a network.

    Args:
        spec: its name and options, plain data from anywhere.
        state: its state dict, from anywhere.
        source: of both, for messages.
        build: makes it.
        strict: whether every weight must be there, and no other.

    Raises:
        UserError: the options cannot work or the weights do not fit, told before a network of that size is built; or
            a weight is not finite.
    """
    try:
        check_spec(spec)
        described = build_without_memory(spec, build, at_most=_SPARE + 4 * len(state))
    except UserError as error:
        raise UserError(f"{source} describes a network that cannot be built: {error}") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # nothing is copied, which is the point
        _load(described, state, source, spec["name"], strict)
    network = build(spec)
    load_state(network, state, source, spec["name"], strict=strict)
    return network


def load_state(
    network: Network, state: Mapping[str, Tensor], source: object, described: str, *, strict: bool = True
) -> None:
    """Give a network the weights of a file.

    Args:
        network: it gets them.
        state: its state dict, from anywhere.
        source: of the weights, for messages.
        described: the name of the network that they are for, according to the file.
        strict: whether every weight must be there, and no other.

    Raises:
        UserError: they do not fit, are numbers of another kind, or are not finite.
    """
    _load(network, state, source, described, strict)
    check_finite(network.state_dict(), source)


def _load(network: Network, state: Mapping[str, Tensor], source: object, described: str, strict: bool) -> None:
    check_kinds(network.state_dict(), state, source)
    try:
        network.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        fault = (str(error).splitlines()[1:] or [str(error)])[0].strip()
        fault = fault if len(fault) <= 160 else fault[:157] + "..."
        raise UserError(
            f"{source}: its weights do not fit the network {described!r} that it describes "
            f"({fault}); it was written by another version of this program or changed by hand."
        ) from error


@contextmanager
def _counted(name: str, at_most: int | None) -> Iterator[None]:
    """Count the parameters that are made while the block runs."""
    if at_most is None:
        yield
        return
    count = 0

    def count_one(module: nn.Module, key: str, parameter: Any) -> None:
        nonlocal count
        count += 1
        if count > at_most:
            raise UserError(f"network={name} would have more than {at_most} weights, and the file has far fewer.")

    hook = register_module_parameter_registration_hook(count_one)
    try:
        yield
    finally:
        hook.remove()
