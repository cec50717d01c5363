"""Encoders that hand out a pyramid of maps at 1/4, 1/8, 1/16 and 1/32 of the resolution, and halve by themselves."""

from __future__ import annotations

from pathlib import Path

from indexnet.core.errors import UserError
from indexnet.core.registry import check_options, did_you_mean
from indexnet.networks.encoders.mix_transformer import VARIANTS, MixTransformer, own_names
from indexnet.networks.encoders.weights import match_state, read_checkpoint, state_dict_of
from indexnet.networks.spec import Spec, split_spec


def create_pyramid(
    name: str, in_channels: int = 3, *, pretrained: bool | str | Path = False, drop_path: float = 0.1
) -> MixTransformer:
    """Build an encoder that hands out a pyramid.

    Args:
        name: ``mit_b0`` to ``mit_b5``, the Mix Transformers of SegFormer.
        in_channels: channels of the image; weights of those after the third start at zero.
        pretrained: False: random weights; a path: a state dict by the names of NVlabs, of the transformers library, or
            of the encoder itself. True is refused: no library here has these weights. On the meta device nothing is
            loaded.
        drop_path: rate of stochastic depth in the last block; it rises linearly from 0 in the first.

    Raises:
        UserError: unknown name, an impossible value, or weights that do not fit.
    """
    if name not in VARIANTS:
        raise UserError(
            f"{name!r} is no encoder that hands out a pyramid of maps.{did_you_mean(name, VARIANTS)} Known: "
            f"{', '.join(VARIANTS)}."
        )
    if not isinstance(pretrained, bool | str | Path):
        raise UserError(f"encoder.pretrained of {name} is false or the path of a file, got {pretrained!r}.")
    encoder = MixTransformer(name, in_channels, drop_path)
    if pretrained is False or any(parameter.is_meta for parameter in encoder.parameters()):
        return encoder
    if pretrained is True:
        raise UserError(
            f"encoder.pretrained=true: the ImageNet weights of {name} are NVIDIA's, for non-commercial use only, and "
            f"are not fetched for anybody; where you may use them, give their file with encoder.pretrained=PATH "
            f"(NVlabs' {name}.pth, or that of transformers' nvidia/{name.replace('_', '-')}), else "
            f"encoder.pretrained=false."
        )
    source = str(pretrained)
    renamed, notice = own_names(state_dict_of(read_checkpoint(source), source), source)
    encoder.load_state_dict(match_state(encoder.state_dict(), renamed, name, source))
    encoder.notice = notice
    return encoder


def build_pyramid(network: str, spec: Spec, in_channels: int) -> MixTransformer:
    """Build the encoder of a network from its specification; its options are those of :func:`create_pyramid`.

    Args:
        network: its name, for messages.
        spec: name, or mapping with ``name`` and options.
        in_channels: channels of the image.

    Raises:
        UserError: another kind of encoder, an option that belongs to the network, or is unknown.
    """
    name, options = split_spec("encoder", spec)
    if name not in VARIANTS:
        raise UserError(
            f"network={network} needs an encoder that hands out a pyramid of maps, and {name!r} is none; give encoder="
            f"one of {', '.join(VARIANTS)}."
        )
    check_options("encoder", create_pyramid, options, skip=("name", "in_channels"))
    return create_pyramid(name, in_channels, **options)


def list_pyramids() -> list[str]:
    """Names of the encoders that hand out a pyramid."""
    return list(VARIANTS)
