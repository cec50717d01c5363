"""Encoders whose halvings a resampling takes over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from indexnet.core.errors import UserError
from indexnet.core.registry import check_options
from indexnet.networks.encoders import mobilenetv1_fastdepth, mobilenetv2_released, timm_chain
from indexnet.networks.encoders.pyramid import create_pyramid, list_pyramids
from indexnet.networks.encoders.weights import match_state, read_checkpoint, state_dict_of
from indexnet.networks.layers import initialize_weights
from indexnet.networks.spec import Spec, split_spec
from indexnet.resampling.base import ResamplingStage

RELEASED = "mobilenetv2_released"
FASTDEPTH = "mobilenetv1_fastdepth"
_OWN = {RELEASED: mobilenetv2_released, FASTDEPTH: mobilenetv1_fastdepth}  # all others are timm's


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

    @property
    def guide_channels(self) -> tuple[int, ...]:
        """Widths of the maps that guides are made of, likewise: where the encoder strides, those before a halving."""
        if self.downsampling == "stage":
            return self.stage_channels
        before = (self.in_channels, *self.widths)
        return tuple(width for width, halves in zip(before, self.halves, strict=False) if halves)

    def units_at(self, reduction: int) -> list[int]:
        """Return the units whose maps have 1/``reduction`` of the input's resolution, in order, where it strides."""
        found, reached = [], 1
        for unit, halves in enumerate(self.halves):
            reached *= 2 if halves else 1
            if reached == reduction:
                found.append(unit)
        return found

    def hand_over(self, count: int) -> None:
        """Leave the last halvings of an encoder that strides to stages, each of which halves before the unit that did.

        Args:
            count: how many; the strided convolutions (and the pooling) of their units run at stride 1 from now on.
        """
        for unit in self.halving_units()[-count:] if count else ():
            timm_chain.run_at_stride_one(self.units[unit])

    def halving_units(self) -> list[int]:
        """Return the units that halve, or after which a stage does."""
        return [unit for unit, halves in enumerate(self.halves) if halves]

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
            stages: one :class:`ResamplingStage` per entry of :attr:`stage_channels`; for an encoder that strides, none,
                or one for each of its last halvings: those that let its maps pass through, or those that halve in its
                place (see :meth:`hand_over`).

        Returns:
            What comes out at the end, and what every unit leaves for a decoder.
        """
        levels: list[Level] = []
        index = len(stages) - sum(self.halves)  # of the stage; below 0 the encoder halves without one
        for unit, halves in zip(self.units, self.halves, strict=True):
            if not halves or (self.downsampling == "stride" and index < 0):
                x = unit(x)
                levels.append(Level(x, None, (x.shape[2], x.shape[3]), None))
                index += halves
                continue
            stage = stages[max(index, 0)]
            assert isinstance(stage, ResamplingStage)
            if self.downsampling == "stage":
                down = stage.down(unit(x))
                x = down.features
            elif stage.strided:
                down = stage.pass_through(unit(x), x)
                x = down.features
            else:
                down = stage.down(x)
                x = unit(down.features)
            levels.append(Level(down.skip, down.guide, down.size, index))
            index += 1
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
    _refuse_pyramid(name)
    if downsampling not in ("stage", "stride"):
        raise UserError(f"downsampling of an encoder is 'stage' or 'stride', got {downsampling!r}.")
    if output_stride not in (32, 16):
        raise UserError(f"output_stride of an encoder is 32 or 16, got {output_stride!r}.")
    if not isinstance(pretrained, bool | str | Path):
        raise UserError(f"encoder.pretrained is true, false or the path of a file, got {pretrained!r}.")
    width, strided, own = float(width), downsampling == "stride", _OWN.get(name)
    if own is not None:
        if width < 1 / own.NARROWEST:
            raise UserError(f"encoder.width of {name!r} must be at least {1 / own.NARROWEST}, got {width}.")
        units, widths, halves = own.build_units(in_channels, width, output_stride, strided)
    elif width != 1.0:
        raise UserError(
            f"encoder.width is an option of {RELEASED!r} and {FASTDEPTH!r}; timm's names carry the width "
            f"(mobilenetv2_050, mobilenetv2_140), so leave it at 1 for {name!r}."
        )
    else:
        units, widths, halves = _timm_units(name, in_channels, pretrained, output_stride, strided)
    encoder = Encoder(
        name,
        units,
        widths,
        halves,
        in_channels=in_channels,
        downsampling=downsampling,
        output_stride=output_stride,
        freeze_bn=freeze_bn,
        width=width,
    )
    if own is not None:
        initialize_weights(encoder)
        load_pretrained(encoder, name, pretrained, own.TIMM_NAME, partial(own.imagenet_state, width), own.own_names)
    return encoder


def build_encoder(
    spec: Spec, in_channels: int, output_stride: int = 32, downsampling: Literal["stage", "stride"] = "stage"
) -> Encoder:
    """Build the encoder of a network from its specification; its options are those of :func:`create_encoder`.

    Raises:
        UserError: an option that belongs to the network, or is unknown.
    """
    name, options = split_spec("encoder", spec)
    _refuse_pyramid(name)  # before its options, which are others
    check_options("encoder", create_encoder, options, skip=("name", "in_channels", "downsampling", "output_stride"))
    return create_encoder(name, in_channels, downsampling, output_stride=output_stride, **options)


def _refuse_pyramid(name: str) -> None:
    if name in list_pyramids():
        raise UserError(
            f"encoder {name!r} cannot be opened at its strides: it hands out a pyramid of maps, and divides by 4 at "
            f"once; network=rmat takes it, others an encoder {timm_chain.ADVICE}."
        )


def encoder_factory(name: object) -> Callable[..., nn.Module]:
    """Return what builds the encoder of that name: :func:`create_encoder`, or that of another kind."""
    return create_pyramid if name in list_pyramids() else create_encoder


def list_encoders() -> list[str]:
    """Names of encoders that are known to work; every other timm model that is a chain of convolutions does, too."""
    timm_names = "efficientnet_b0 mobilenetv1_100 mobilenetv2_100 mobilenetv2_140 resnet34 resnet50 vgg11_bn vgg16_bn"
    return [FASTDEPTH, RELEASED, *timm_names.split()]


def _timm_units(
    name: str, in_channels: int, pretrained: bool | str | Path, output_stride: int, strided: bool
) -> tuple[list[nn.Sequential], list[int], list[bool]]:
    """Build the units of a timm model, with its weights; their widths, and which of them halves."""
    model = timm_chain.create_timm_model(name, in_channels, output_stride)
    chain = timm_chain.chain_of(model, name)
    fetch = partial(timm_chain.pretrained_state, name, name)
    load_pretrained(
        model, name, pretrained, name, fetch, lambda given, _: timm_chain.same_names(model.state_dict(), given)
    )
    units = timm_chain.cut_units(chain, name, in_channels, strided)
    reduction = 2 ** sum(unit.halves for unit in units)
    if reduction != output_stride:
        raise UserError(
            f"encoder {name!r} divides the resolution by {reduction}, output_stride={output_stride} was asked for; "
            f"choose an encoder of that stride, {timm_chain.ADVICE}."
        )
    return (
        [nn.Sequential(unit.layers) for unit in units],
        [unit.width for unit in units],
        [unit.halves for unit in units],
    )


def load_pretrained(
    module: nn.Module,
    name: str,
    pretrained: bool | str | Path,
    timm_name: str,
    fetch: Callable[[], dict[str, Tensor]],
    own_names: Callable[[dict[str, Tensor], str], dict[str, Tensor]],
) -> None:
    """Load an encoder or its timm model: nothing, ImageNet weights, or a file.

    Args:
        module: its first parameter is that of the convolution on the image.
        name: of the encoder.
        pretrained: see :func:`create_encoder`.
        timm_name: of the timm model whose weights ``fetch`` gives.
        fetch: gives ImageNet weights.
        own_names: renames a state dict to the module's names; takes it and what to call it in messages.
    """
    if pretrained is False or any(parameter.is_meta for parameter in module.parameters()):
        return
    if pretrained is True:
        source, given = f"timm's {timm_name}", fetch()
    else:
        source = str(pretrained)
        given = state_dict_of(read_checkpoint(source), source)
    module.load_state_dict(match_state(module.state_dict(), own_names(given, source), name, source))
