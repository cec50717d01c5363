"""Where an operator doubles in decoders with a feature pyramid and a fusion of several levels.

The pyramid (FPN) brings one map up level by level. The fusion (MFF) brings the map of every level to the finest one; an
operator does that step by step, by the guides of the levels between, which are those of the pyramid.
Source: Y. Dai's thesis (Adelaide, 2022), sections 3.6.3 and 3.6.4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.registry import did_you_mean
from indexnet.networks.encoders.encoder import Encoder, Level
from indexnet.networks.spec import Spec, build_resampling, split_spec, strides_encoder
from indexnet.resampling.base import Kept, Resampling, ResamplingStage, get_resampling

AUTO = "auto"
PLACES = {"none": (), "fpn": ("fpn",), "mff": ("mff",), "both": ("fpn", "mff")}

Interpolate = Callable[[Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Doubling:
    """What of a decoder an operator does.

    Attributes:
        fpn: whether it doubles in the pyramid.
        mff: whether it doubles in the fusion.
    """

    fpn: bool
    mff: bool

    @classmethod
    def at(cls, network: str, upsample_at: str, resampling: Spec) -> Doubling:
        """Read the option ``upsample_at``.

        Args:
            network: the network's name, for messages.
            upsample_at: ``none``, ``fpn``, ``mff`` or ``both``; ``auto``: none for bilinear, both for others.
            resampling: the specification of the operator.

        Raises:
            UserError: an unknown value, or an operator with weights whose upsampling would be used nowhere.
        """
        name, options = split_spec("resampling", resampling)
        if upsample_at == AUTO:
            upsample_at = "none" if name == "bilinear" else "both"
        if upsample_at not in PLACES:
            raise UserError(
                f"network.upsample_at={upsample_at!r} of {network} is not one of {', '.join((AUTO, *PLACES))}."
                f"{did_you_mean(upsample_at, (AUTO, *PLACES))}"
            )
        places = PLACES[upsample_at]
        pooled = options.get("pooling", "indexed" if name == "indexnet" else "") == "indexed"
        if not places and get_resampling(name).info.learned and not pooled:
            raise UserError(
                f"network.upsample_at=none leaves the upsampling of resampling={name} unused in {network}; give "
                f"network.upsample_at=both, fpn or mff, or resampling=bilinear."
            )
        return cls("fpn" in places, "mff" in places)

    def resampling(
        self, network: str, spec: Spec, encoder: Encoder, pyramid: Sequence[int], fused: Sequence[int]
    ) -> Resampling:
        """Build the stages for the last halvings of an encoder that strides.

        Args:
            network: the network's name, for messages.
            spec: the specification of the operator; unless its pooling is ``encoder`` the encoder's strides are taken
                away, and stages pool in their place.
            encoder: whose maps before those halvings guide.
            pyramid: width of the map that the pyramid doubles to each level, from the finest down.
            fused: width of the map that the fusion starts to double below each level, likewise.

        Raises:
            UserError: parts that do not fit together.
        """
        places = [[pyramid[k]] * self.fpn + list(fused[k:]) * self.mff for k in range(len(pyramid))]
        if not strides_encoder(spec):
            encoder.hand_over(len(pyramid))
        return build_resampling(network, spec, encoder.guide_channels[-len(pyramid) :], places, strides=True)

    def run(self, resampling: Resampling, levels: Sequence[Level], interpolate: Interpolate) -> Decoding:
        """Make the guides of one forward pass.

        Args:
            resampling: what :meth:`resampling` gave.
            levels: what the encoder left for the decoder.
            interpolate: what doubles where the operator does not.
        """
        guided = [level for level in levels if level.stage is not None]
        return Decoding(self, guided, [resampling.at_places(k, each) for k, each in enumerate(guided)], interpolate)


@dataclass(frozen=True)
class Decoding:
    """The doublings of one forward pass.

    Attributes:
        at: what the operator does.
        levels: the encoder's maps before the halvings that are undone, from the finest down.
        places: of each of them, what doubles at its places.
        interpolate: what doubles elsewhere.
    """

    at: Doubling
    levels: Sequence[Level]
    places: Sequence[Sequence[tuple[ResamplingStage, Kept]]]
    interpolate: Interpolate

    def rise(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Double the pyramid's map to a level, and return it with that level's skip."""
        if not self.at.fpn:
            return self.interpolate(x, self.levels[level].size), self.levels[level].skip
        stage, kept = self.places[level][0]
        return stage.up_and_skip(x, kept)

    def fuse(self, x: Tensor, level: int) -> Tensor:
        """Bring the map below a level to the finest one."""
        if not self.at.mff:
            return self.interpolate(x, self.levels[0].size)
        for step in reversed(range(level + 1)):
            stage, kept = self.places[step][self.at.fpn + level - step]
            x = stage.up(x, kept.guide, kept.size)
        return x
