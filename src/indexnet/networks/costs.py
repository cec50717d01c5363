"""Parameters and multiply-adds of a network, by the papers' counting rule and in truth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from torch import Tensor, nn

from indexnet.core.conventions import COUNTING_RULES
from indexnet.core.errors import UserError, shown
from indexnet.networks.base import Network
from indexnet.networks.layers import evaluating, run_on_meta
from indexnet.resampling.watch import watch_stages


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        parameters: learnable numbers, all of them (shared ones once).
        resampling_parameters: those of the resampling.
        paper_macs: multiply-adds by the papers' rule: convolutions, without bias and without the batch axis, so that a
            convolution that all channels share counts once; and linear layers as their tool counts them, the numbers
            of the output times the second axis of the input: on tokens (N, L, C) that is L, not C.
        true_macs: multiply-adds that convolutions and linear layers really cost for one image. The two products of an
            attention are in neither.
        assembly_macs: ``true_macs``, and those of comparing and assembling neighbours in the resampling, as the papers
            on FADE and SAPA count.
    """

    parameters: int
    resampling_parameters: int
    paper_macs: int
    true_macs: int
    assembly_macs: int

    @property
    def paper_gflops(self) -> float:
        """Multiply-adds by the papers' rule over 1024**3, the unit in which the papers print "GFLOPs"."""
        return self.paper_macs / 1024**3

    def gflops(self, rule: str = COUNTING_RULES[0]) -> float:
        """Count by a rule, in the unit in which its papers print "GFLOPs".

        Args:
            rule: ``papers``, those on index networks: :attr:`paper_macs` over 1024**3; ``assembly``, those on FADE and
                SAPA: :attr:`assembly_macs` over 1e9.

        Raises:
            UserError: another rule.
        """
        if rule not in COUNTING_RULES:
            raise UserError(f"the rule of counting is {' or '.join(map(repr, COUNTING_RULES))}, got {shown(rule)}.")
        return self.paper_gflops if rule == COUNTING_RULES[0] else self.assembly_macs / 1e9

    @property
    def true_gmacs(self) -> float:
        """True multiply-adds over 1e9."""
        return self.true_macs / 1e9


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)


def count_costs(network: Network, input_size: tuple[int, int, int] | None = None) -> Costs:
    """Count a network's parameters and multiply-adds for one image.

    The forward pass runs on the meta device (shapes only), whatever device the network is on; build the network under
    ``torch.device("meta")`` to need no memory either. Convolutions and linear layers outside the resampling are counted
    as they run, the stages by their own formulas.

    Args:
        network: the network, in either mode; it is not changed.
        input_size: (C, H, W) of the image; default (its input channels, 224, 224), as the papers.
    """
    size = input_size or (network.in_channels, 224, 224)
    paper = true = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal paper, true
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if isinstance(layer, nn.Linear):
            paper += output.numel() * inputs[0].shape[1]
            true += weight.numel() * (output.numel() // output.shape[-1])
        else:
            macs = weight.numel() * math.prod(output.shape[2:])
            paper, true = paper + macs, true + macs

    in_stages = set(network.resampling.modules())
    counted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in in_stages]
    handles = [layer.register_forward_hook(count) for layer in counted]
    try:
        with evaluating(network), watch_stages(network.resampling) as seen:
            run_on_meta(network, (1, *size))
    finally:
        for handle in handles:
            handle.remove()

    assembly = true
    for index, results in enumerate(seen):
        stages = network.resampling.stages_at(index)
        repeated = network.resampling.places[index][1:] if len(stages) == 1 else ()
        for result, stage in product(results, stages):
            paper += stage.paper_macs(*result.size)
            true += stage.true_macs(*result.size)
            assembly += stage.true_macs(*result.size) + stage.assembly_macs(*result.size)
            assembly += sum(stage.repeated_macs(*result.size, width) for width in repeated)
    return Costs(
        parameters=_count(network.parameters()),
        resampling_parameters=_count(network.resampling.parameters()),
        paper_macs=paper,
        true_macs=true,
        assembly_macs=assembly,
    )
