"""Encoders whose halvings a resampling takes over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from indexnet.core.errors import UserError
from indexnet.core.registry import check_options
from indexnet.networks.encoders import mobilenetv1_fastdepth, mobilenetv2_released, timm_chain
from indexnet.networks.encoders.weights import match_state, read_checkpoint, state_dict_of
from indexnet.networks.layers import initialize_weights
from indexnet.networks.spec import Spec, split_spec
from indexnet.resampling.base import ResamplingStage

RELEASED = "mobilenetv2_released"
FASTDEPTH = "mobilenetv1_fastdepth"


class Level(NamedTuple):
    """What one unit of an encoder leaves for the decoder.

    Attributes:
        skip: the map to fuse, (N, C, H, W): the unit's output, or what the stage after it gives as skip.
        guide: what that stage's ``up`` needs.
        size: (H, W) of ``skip``.
        stage: index of the stage after the unit, or None.
    """

    skip: Tensor
    guide: Tensor | None
    size: tuple[int, int]
    stage: int | None


class Encoder(nn.Module):
    """A chain of units, each at one resolution.

    Args:
        name: the name it was created by.
        units: groups of layers, in order.
        widths: channels of each unit's output.
        halves: whether the resolution halves after each unit (``downsampling="stage"``) or in it (``"stride"``).
        in_channels: channels of the image.
        downsampling: who halves.
        output_stride: the total reduction.
        freeze_bn: whether batch normalisation keeps its running statistics, also under ``train()``. Scale and shift
            (the affine parameters) stay trainable, as in the released code's parameter groups.
        width: the width factor, 1 for timm models.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[nn.Module],
        widths: Sequence[int],
        halves: Sequence[bool],
        *,
        in_channels: int,
        downsampling: Literal["stage", "stride"],
        output_stride: int = 32,
        freeze_bn: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.units = nn.ModuleList(units)
        self.widths = tuple(widths)
        self.halves = tuple(halves)
        self.in_channels = in_channels
        self.downsampling = downsampling
        self.output_stride = output_stride
        self.freeze_bn = freeze_bn
        self.width = width
        self.train()

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Widths of the maps that stages halve, from full resolution down."""
        return tuple(width for width, halves in zip(self.widths, self.halves, strict=True) if halves)

    def units_at(self, reduction: int) -> list[int]:
        """Return the units whose maps have 1/``reduction`` of the input's resolution, in order, where it strides."""
        found, reached = [], 1
        for unit, halves in enumerate(self.halves):
            reached *= 2 if halves else 1
            if reached == reduction:
                found.append(unit)
        return found

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode; frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def forward(self, x: Tensor, stages: Sequence[nn.Module] | nn.ModuleList = ()) -> tuple[Tensor, list[Level]]:
        """Run the units, with a stage after each unit that is halved.

        Args:
            x: images, (N, in_channels, H, W).
            stages: one :class:`ResamplingStage` per entry of :attr:`stage_channels`; for an encoder that strides, none
                or as many that let its maps pass through.

        Returns:
            What comes out at the end, and what every unit leaves for a decoder.
        """
        levels: list[Level] = []
        index = 0
        for unit, halves in zip(self.units, self.halves, strict=True):
            before, x = x, unit(x)
            if halves and (stages or self.downsampling == "stage"):
                stage = stages[index]
                assert isinstance(stage, ResamplingStage)
                down = stage.down(x) if self.downsampling == "stage" else stage.pass_through(x, before)
                levels.append(Level(down.skip, down.guide, down.size, index))
                x = down.features
                index += 1
            else:
                levels.append(Level(x, None, (x.shape[2], x.shape[3]), None))
        return x, levels


def create_encoder(
    name: str,
    in_channels: int = 3,
    downsampling: Literal["stage", "stride"] = "stage",
    *,
    width: float = 1.0,
    pretrained: bool | str | Path = False,
    freeze_bn: bool = False,
    output_stride: int = 32,
) -> Encoder:
    """Build an encoder.

    Args:
        name: ``mobilenetv2_released`` (the variant of the released matting code), ``mobilenetv1_fastdepth`` (that of
            FastDepth, which halves after whole blocks), or any timm model whose features come from a chain of
            convolutional layers, such as ``mobilenetv2_100``, ``resnet34``, ``vgg16_bn``.
        in_channels: channels of the image.
        downsampling: ``"stage"``: every halving is left to a :class:`ResamplingStage`, the strided convolutions run at
            stride 1; ``"stride"``: the encoder halves by itself, as its authors built it.
        width: width factor, for the first two; timm's names carry theirs (``mobilenetv2_140``).
        pretrained: False: random weights; True: ImageNet weights through timm; a path: a state dict by the model's own
            names (for ``mobilenetv2_released`` also those of the CSAIL file and torchvision, for
            ``mobilenetv1_fastdepth`` those of timm and FastDepth). Input channels beyond the weights' own start at
            zero. On the meta device nothing is loaded.
        freeze_bn: keep the running statistics of batch normalisation, also under ``train()``; its affine parameters
            stay trainable.
        output_stride: the total reduction, 32 or 16 (the last halving is left out, what follows is dilated by 2).

    Raises:
        UserError: unknown name, an encoder that cannot be opened at its strides, weights that cannot be reached or do
            not fit, or a width or output stride that it does not have.
    """
    if downsampling not in ("stage", "stride"):
        raise UserError(f"downsampling of an encoder is 'stage' or 'stride', got {downsampling!r}.")
    if output_stride not in (32, 16):
        raise UserError(f"output_stride of an encoder is 32 or 16, got {output_stride!r}.")
    if not isinstance(pretrained, bool | str | Path):
        raise UserError(f"encoder.pretrained is true, false or the path of a file, got {pretrained!r}.")
    build = {RELEASED: _create_released, FASTDEPTH: _create_fastdepth}.get(name, _create_timm)
    return build(name, in_channels, downsampling, float(width), pretrained, freeze_bn, output_stride)


def build_encoder(
    spec: Spec, in_channels: int, output_stride: int = 32, downsampling: Literal["stage", "stride"] = "stage"
) -> Encoder:
    """Build the encoder of a network from its specification; its options are those of :func:`create_encoder`.

    Raises:
        UserError: an option that belongs to the network, or is unknown.
    """
    name, options = split_spec("encoder", spec)
    check_options("encoder", create_encoder, options, skip=("name", "in_channels", "downsampling", "output_stride"))
    return create_encoder(name, in_channels, downsampling, output_stride=output_stride, **options)


def list_encoders() -> list[str]:
    """Names of encoders that are known to work; every other timm model that is a chain of convolutions does, too."""
    timm_names = "efficientnet_b0 mobilenetv1_100 mobilenetv2_100 mobilenetv2_140 resnet34 resnet50 vgg11_bn vgg16_bn"
    return [FASTDEPTH, RELEASED, *timm_names.split()]


def _create_released(
    name: str,
    in_channels: int,
    downsampling: Literal["stage", "stride"],
    width: float,
    pretrained: bool | str | Path,
    freeze_bn: bool,
    output_stride: int,
) -> Encoder:
    if width < 0.0625:  # int(16 * width) is the narrowest layer
        raise UserError(f"encoder.width of {name!r} must be at least 0.0625, got {width}.")
    layers, widths, halves = mobilenetv2_released.released_layers(
        in_channels, width, output_stride, strided=downsampling == "stride"
    )
    encoder = Encoder(
        name,
        layers,
        widths,
        halves,
        in_channels=in_channels,
        downsampling=downsampling,
        output_stride=output_stride,
        freeze_bn=freeze_bn,
        width=width,
    )
    initialize_weights(encoder)
    _load(
        encoder, pretrained, "mobilenetv2_100", mobilenetv2_released.imagenet_state, mobilenetv2_released.released_names
    )
    return encoder


def _create_fastdepth(
    name: str,
    in_channels: int,
    downsampling: Literal["stage", "stride"],
    width: float,
    pretrained: bool | str | Path,
    freeze_bn: bool,
    output_stride: int,
) -> Encoder:
    if width < 0.03125:  # int(32 * width) is the narrowest layer
        raise UserError(f"encoder.width of {name!r} must be at least 0.03125, got {width}.")
    if output_stride != 32:
        raise UserError(f"encoder {name!r} has no output stride {output_stride}; use output_stride=32.")
    units, widths, halves = mobilenetv1_fastdepth.fastdepth_units(in_channels, width, strided=downsampling == "stride")
    encoder = Encoder(
        name,
        units,
        widths,
        halves,
        in_channels=in_channels,
        downsampling=downsampling,
        freeze_bn=freeze_bn,
        width=width,
    )
    initialize_weights(encoder)
    _load(
        encoder,
        pretrained,
        "mobilenetv1_100",
        mobilenetv1_fastdepth.imagenet_state,
        mobilenetv1_fastdepth.encoder_names,
    )
    return encoder


def _load(
    encoder: Encoder,
    pretrained: bool | str | Path,
    model: str,
    imagenet_state: Callable[[float], dict[str, Tensor]],
    own_names: Callable[[dict[str, Tensor], str], dict[str, Tensor]],
) -> None:
    """Load an encoder of this package: nothing, the ImageNet weights of a timm model, or a file.

    Args:
        encoder: its first parameter is that of the convolution on the image.
        pretrained: see :func:`create_encoder`.
        model: the timm model.
        imagenet_state: gives that model's weights, for a width factor.
        own_names: renames a state dict to the encoder's names; takes it and what to call it in messages.
    """
    if pretrained is False or _is_meta(encoder):
        return
    if pretrained is True:
        source, given = f"timm's {model}", imagenet_state(encoder.width)
    else:
        source = str(pretrained)
        given = state_dict_of(read_checkpoint(source), source)
    expected = encoder.state_dict()
    first = next(iter(expected))
    encoder.load_state_dict(match_state(expected, own_names(given, source), first, encoder.name, source))


def _create_timm(
    name: str,
    in_channels: int,
    downsampling: Literal["stage", "stride"],
    width: float,
    pretrained: bool | str | Path,
    freeze_bn: bool,
    output_stride: int,
) -> Encoder:
    if width != 1.0:
        raise UserError(
            f"encoder.width is an option of {RELEASED!r} and {FASTDEPTH!r}; timm's names carry the width "
            f"(mobilenetv2_050, mobilenetv2_140), so leave it at 1 for {name!r}."
        )
    model = timm_chain.create_timm_model(name, in_channels, output_stride)
    chain = timm_chain.chain_of(model, name)
    if pretrained is not False and not _is_meta(model):
        source = f"timm's {name}" if pretrained is True else str(pretrained)
        expected = model.state_dict()
        given = (
            timm_chain.pretrained_state(name, name)
            if pretrained is True
            else state_dict_of(read_checkpoint(source), source)
        )
        given = timm_chain.same_names(expected, given)
        model.load_state_dict(match_state(expected, given, next(iter(expected)), name, source))
    units = timm_chain.cut_units(chain, name, in_channels, strided=downsampling == "stride")
    reduction = 2 ** sum(unit.halves for unit in units)
    if reduction != output_stride:
        raise UserError(
            f"encoder {name!r} divides the resolution by {reduction}, output_stride={output_stride} was asked for; "
            f"choose an encoder of that stride, {timm_chain.ADVICE}."
        )
    return Encoder(
        name,
        [nn.Sequential(unit.layers) for unit in units],
        [unit.width for unit in units],
        [unit.halves for unit in units],
        in_channels=in_channels,
        downsampling=downsampling,
        output_stride=output_stride,
        freeze_bn=freeze_bn,
    )


def _is_meta(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters())
