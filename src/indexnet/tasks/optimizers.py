"""Optimizers by name, over groups of parameters with rates and decays of their own."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, did_you_mean, option_names
from indexnet.networks import Network

NO_DECAY = "no_decay_norms_and_biases"
GROUPING = ("name", "encoder_lr_multiplier", NO_DECAY)
"""Keys of an optimizer's description that are no options of its class."""

_TORCH: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in (
        torch.optim.Adadelta, torch.optim.Adafactor, torch.optim.Adagrad, torch.optim.Adam, torch.optim.Adamax,
        torch.optim.AdamW, torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop,
        torch.optim.Rprop, torch.optim.SGD,
    )
}  # fmt: skip
_UNFIT = {
    "lbfgs": "evaluates a batch several times a step and knows no groups of parameters",
    "sparseadam": "is for sparse gradients",
    "adahessian": "needs second derivatives, which the training step does not keep",
}


def _timm() -> Any:
    return importlib.import_module("timm.optim")  # which takes its time


@functools.cache
def list_optimizers() -> dict[str, str]:
    """Return every optimizer by name and what it is: torch's classes in lower case, then what timm adds."""
    found = {name: f"torch.optim.{cls.__name__}" for name, cls in _TORCH.items()}
    for name in _timm().list_optimizers():
        info = _timm().get_optimizer_info(name)
        if (
            name not in found and name not in _UNFIT and not isinstance(info.opt_class, str)
        ):  # those need a GPU's library
            found[name] = f"timm: {info.description}"
    return found


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the class of an optimizer: torch's where torch has one of that name, else timm's.

    Raises:
        UserError: there is none of that name, or one that cannot be used here.
    """
    if name in _TORCH:
        return _TORCH[name]
    if name in _UNFIT:
        raise UserError(f"optimizer={name} cannot be used here: it {_UNFIT[name]}; choose another, such as adamw.")
    if name not in list_optimizers():
        hint = did_you_mean(name, list_optimizers())
        raise UserError(f"unknown optimizer {shown(name)}.{hint} All of them: indexnet list optimizers.")
    cls: type[Optimizer] = _timm().get_optimizer_class(name, bind_defaults=False)
    return cls


def create_optimizer(spec: Mapping[str, Any], groups: list[dict[str, Any]]) -> Optimizer:
    """Build an optimizer.

    Args:
        spec: ``{"name": ..., "lr": ..., options}``. A name of torch's is its class with its defaults; one of timm's is
            what ``timm.optim.create_optimizer_v2`` makes of it: no weight decay and momentum 0.9 unless given.
        groups: of parameters, see :func:`parameter_groups`.

    Raises:
        UserError: an unknown optimizer, or options that it does not take.
    """
    name = spec["name"]
    cls = optimizer_class(name)
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    options = {key: value for key, value in options.items() if key not in GROUPING}
    check_options(f"optimizer {name!r}", cls, options, ("params",))
    if spec.get(NO_DECAY) and "weight_decay" not in optimizer_options(name):
        raise UserError(f"optimizer.{NO_DECAY}=true, but optimizer={name} has no weight decay; leave it out.")
    try:
        if name in _TORCH:
            return cls(groups, **options)
        optimizer: Optimizer = _timm().create_optimizer_v2(groups, opt=name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # the last: fused and foreach
        raise UserError(f"optimizer={name} does not take these options: {error}.") from error
    return optimizer


def parameter_groups(network: Network, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups of a network's parameters: those of the encoder last, each without and then with no decay.

    Args:
        network: whose parameters are optimized.
        spec: ``lr``; ``encoder_lr_multiplier`` scales it for the encoder, which is a group of its own unless that is 1;
            with ``no_decay_norms_and_biases`` all parameters of one dimension (the scales and shifts of norms, biases)
            are in groups without weight decay.

    Returns:
        Groups as torch's optimizers take them, without frozen parameters and empty groups, always in the same order.
    """
    multiplier, rate = spec.get("encoder_lr_multiplier", 1.0), spec["lr"]
    encoder = {id(parameter) for parameter in network.encoder_parameters()} if multiplier != 1 else set()
    groups: list[dict[str, Any]] = []
    for inside, lr in ((False, rate), (True, rate * multiplier)):
        trained = ((name, each) for name, each in network.named_parameters() if each.requires_grad)
        part = [(name, each) for name, each in trained if (id(each) in encoder) is inside]
        spared = {name for name, each in part if spec.get(NO_DECAY) and (each.ndim <= 1 or name.endswith(".bias"))}
        groups.append({"params": [each for name, each in part if name not in spared], "lr": lr})
        groups.append({"params": [each for name, each in part if name in spared], "lr": lr, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def optimizer_options(name: str) -> list[str]:
    """Return the names of an optimizer's options.

    Raises:
        UserError: there is no such optimizer.
    """
    return option_names(optimizer_class(name), ("params",))


@functools.cache
def every_option() -> frozenset[str]:
    """Return the names of the options that any optimizer has."""
    return frozenset(option for name in list_optimizers() for option in optimizer_options(name))
