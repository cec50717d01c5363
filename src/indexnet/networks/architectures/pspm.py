"""Portrait matting without a trimap: one encoder for a trimap and for alpha (thesis of Y. Dai, chapter 6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from indexnet.core.conventions import TRIMAP_CLASSES, UNKNOWN
from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, create_network, register_network
from indexnet.networks.encoders.encoder import RELEASED, Encoder, build_encoder
from indexnet.networks.layers import initialize_weights, resize_to
from indexnet.networks.portrait_parts import (
    AttentionDecoder,
    ConcatDecoder,
    DeepLabDecoder,
    FeatureModulation,
    Fusion,
    Maps,
    Prior,
    PyramidDecoder,
    trimap_prior,
)
from indexnet.networks.spec import Spec, build_resampling, split_spec
from indexnet.resampling.base import (
    NONE,
    Downsampled,
    Resampling,
    create_resampling,
    get_resampling,
)

Sharing = Literal["none", "cascade", "late", "fusion", "attention"]
Given = Literal["soft1", "soft3", "hard", "trimap", "unknown"]
ModulationKind = Literal["none", "shared", "per_task"]
Segmentation = Literal["deeplabv3plus", "pspnet"]

_HALVINGS = 4


@register_network
class PSPM(Network):
    """From an image alone to alpha and a trimap: parameter-sharing portrait matting.

    The code was never released, and the figures that show its layers are not in the text: this is a design consistent
    with the printed costs. Every printed number of parameters and GFLOPs of the thesis's Tables 6.3, 6.4 and 6.7 is met
    but one, the GFLOPs of feature modulation (6.5335, printed 6.54).

    The encoder runs at output stride 16 and every halving but the cascade's is the resampling's, after a whole unit.
    ``segmentation`` is the decoder to the scores of foreground, background and unknown. What shares with it:

    * ``cascade`` (rows B, B1, B2): nothing. A segmentation network, whose encoder strides, makes a trimap at full
      size, and the matting network of the index-network papers (``matting_unet`` over ``mobilenetv2_released``) gets it
      with the image. ``resampling`` is that of the matting network.
    * ``late`` (B3): the encoder is shared; the two decoders meet in the loss alone.
    * ``fusion`` (B4): so, and the soft trimap at 1/4 goes through three 5x5 convolutions to the encoder's last map.
    * ``attention`` (B5): so, and the matting decoder is a small one: maps at 1/16, 1/8 and 1/4 at 32 channels, summed,
      meet the soft trimap there.
    * ``none``: the segmentation network alone, in the place of whose alpha its soft trimap stands; with
      ``resampling=none`` its encoder strides (the cascade's), else stages halve (the shared encoder's).

    Matting decoders are 5x5 convolutions, batch normalisation and ReLU6, and the stages' ``up`` where the encoder was
    halved. In ``attention`` the two doublings inside the fusion are bilinear, as the printed costs suggest, where the
    operator has no weights and needs equal widths (``max_unpool``, ``haar``); any other operator does them, too.

    Args:
        encoder: name, or mapping with ``name`` and options of :func:`indexnet.networks.create_encoder`.
        resampling: name, or mapping with ``name`` and the operator's options.
        sharing: what the two decoders share, as in the list above.
        segmentation: ``deeplabv3plus`` or ``pspnet``.
        prior: what the matting side sees of the trimap: ``soft1`` P(foreground) + P(unknown) / 2, ``soft3`` the three
            probabilities, ``hard`` 1, 1/2 or 0; in a cascade also ``trimap``, the true one, a fourth channel of the
            input, or ``unknown``, everywhere (rows A1 and A2): no segmentation network then, and alpha alone comes out.
        prior_fusion: how ``attention`` fuses the soft trimap: ``add``, ``multiply`` or ``concat``; ``soft3`` needs the
            last.
        modulation: ``shared``: every unit's map is multiplied by weights of its channels, :class:`FeatureModulation`;
            ``per_task``: the maps that decoders take, by other weights for each; ``none``.

    Raises:
        UserError: an unknown value, or parts that do not fit.
    """

    info = NetworkInfo(
        name="pspm",
        title="PSPM (portrait matting by parameter sharing)",
        paper="Thesis of Y. Dai, chapter 6; Computer Graphics Forum 40(1), 2021; consistent with its published costs",
        description="MobileNetV2 at output stride 16, a decoder to a trimap and one to alpha; image alone in.",
        tasks=("portrait",),
    )

    def __init__(
        self,
        encoder: Spec = "mobilenetv2_100",
        resampling: Spec = "max_unpool",
        sharing: Sharing = "attention",
        segmentation: Segmentation = "deeplabv3plus",
        prior: Given = "soft1",
        prior_fusion: Fusion = "add",
        modulation: ModulationKind = "none",
    ) -> None:
        super().__init__()
        _check_options(sharing, segmentation, prior, prior_fusion, modulation)
        self.sharing, self.prior, self.prior_fusion, self.modulation = sharing, prior, prior_fusion, modulation
        self.in_channels = 4 if prior == "trimap" else 3
        self.out_channels = 1 if prior in ("trimap", "unknown") else 1 + len(TRIMAP_CLASSES)
        self.size_multiple = 32 if sharing == "cascade" else 16
        self.matting: nn.Module | None = None
        if sharing == "cascade":
            matting = self._matting_network(encoder, resampling, 6 if prior == "soft3" else 4)
            # not registered a second time: its weights are the matting network's
            vars(self)["resampling"] = matting.resampling
            self.matting = matting
            if self.out_channels == 1:
                assert matting.encoder is not None
                vars(self)["encoder"] = matting.encoder
                return
        strides = sharing == "cascade" or split_spec("resampling", resampling)[0] == NONE
        if strides and sharing not in ("cascade", "none"):
            raise UserError(
                f"network=pspm with network.sharing={sharing} leaves its halvings to the resampling, and "
                "resampling=none has none; give an operator, such as resampling=max_unpool."
            )
        self.encoder: Encoder = build_encoder(encoder, 3, 16, "stride" if strides else "stage")
        widths, halves = self.encoder.widths, self.encoder.halves
        self._halved = [unit for unit, halves_here in enumerate(halves) if halves_here]
        if len(self._halved) != _HALVINGS or self._halved[-1] == len(widths) - 1:
            raise UserError(
                f"network=pspm needs an encoder with layers at a sixteenth of the resolution, and "
                f"{self.encoder.name!r} has none; choose another one, such as mobilenetv2_100."
            )
        self._first_deep = self._halved[-1] + 1
        if sharing != "cascade":
            self.resampling = (
                create_resampling(NONE, ()) if strides else self._build_resampling(resampling, self.encoder)
            )
        self._low = self._halved[2] - 1 if strides else self._halved[1]  # the last map at 1/4
        low = widths[self._low]
        self.segmentation: nn.Module = (
            DeepLabDecoder(widths[-1], low) if segmentation == "deeplabv3plus" else PyramidDecoder(widths[-1])
        )
        initialize_weights(self.segmentation)
        self.modulators = nn.ModuleDict(
            {str(unit): FeatureModulation(widths[unit]) for unit in self._modulated()} if modulation != "none" else {}
        )
        if sharing in ("late", "fusion"):
            self.matting = ConcatDecoder(self.encoder, self._halved, self._prior_channels if sharing == "fusion" else 0)
        elif sharing == "attention":
            self.matting = AttentionDecoder(
                self.encoder, self._halved, self._prior_channels, prior_fusion, self._deep_width(resampling)
            )

    @property
    def _prior_channels(self) -> int:
        return 3 if self.prior == "soft3" else 1

    @property
    def _soft(self) -> Prior:
        assert self.prior != "trimap"
        assert self.prior != "unknown"
        return self.prior

    def _matting_network(self, encoder: Spec, resampling: Spec, in_channels: int) -> Network:
        """Build the cascade's second network."""
        if self.out_channels > 1:  # the encoder that was asked for is the segmentation network's
            _, options = split_spec("encoder", encoder)
            encoder = {"name": RELEASED, "pretrained": options.get("pretrained") is True}
            encoder["freeze_bn"] = options.get("freeze_bn", False)
        return create_network("matting_unet", encoder=encoder, resampling=resampling, in_channels=in_channels)

    def _deep_width(self, resampling: Spec) -> int:
        """Return the channels at which the attention's fusion doubles the last map; 0 where that is bilinear."""
        info = get_resampling(split_spec("resampling", resampling)[0]).info
        if not info.equal_widths:
            return self.encoder.stage_channels[2]
        return self.encoder.stage_channels[3] if info.learned else 0

    def _build_resampling(self, spec: Spec, encoder: Encoder) -> Resampling:
        widths = list(encoder.stage_channels)
        decoder_widths = list(widths)
        if self.sharing == "attention" and (deep := self._deep_width(spec)):
            decoder_widths[3] = deep
        return build_resampling(self.info.name, spec, widths, decoder_widths)

    def _modulated(self) -> list[int]:
        """Return the units whose maps are modulated: all, or those that decoders take."""
        if self.modulation == "shared":
            return list(range(len(self.encoder.widths)))
        units = {len(self.encoder.widths) - 1, self._low}
        if self.sharing != "none":
            units |= {self._halved[2], self._halved[3]}
        if self.sharing in ("late", "fusion"):
            units.add(self._first_deep)
        return sorted(units)

    def encoder_parameters(self) -> Iterator[Parameter]:
        """Parameters of the encoder; of a cascade, of both encoders."""
        yield from super().encoder_parameters()
        if self.sharing == "cascade" and self.out_channels > 1:
            assert isinstance(self.matting, Network)
            yield from self.matting.encoder_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Predict alpha, unclamped, and the scores of foreground, background and unknown.

        Args:
            x: images, normalised, (N, 3, H, W), float; with ``prior="trimap"`` the trimap as a fourth channel, in
                {0, 128/255, 1}. Height and width are multiples of :attr:`size_multiple`.

        Returns:
            (N, 4, H, W): alpha, then the scores; with ``prior`` trimap or unknown alpha alone, (N, 1, H, W).

        Raises:
            UserError: one image in training mode.
        """
        if self.prior == "trimap":
            assert self.matting is not None
            return self.matting(x)  # type: ignore[no-any-return]
        if self.prior == "unknown":
            assert self.matting is not None
            return self.matting(torch.cat([x, torch.full_like(x[:, :1], UNKNOWN / 255)], 1))  # type: ignore[no-any-return]
        for_trimap, for_alpha = self._encode(x)
        small = self.segmentation(for_trimap.deep, for_trimap.low)
        scores = resize_to(small, x)
        if self.sharing == "none":
            alpha = trimap_prior(scores, self._soft)
        elif self.sharing == "cascade":
            assert self.matting is not None
            alpha = self.matting(torch.cat([x, trimap_prior(scores, self._soft)], 1))
        else:
            assert self.matting is not None
            prior = None if self.sharing == "late" else trimap_prior(small, self._soft)
            alpha = self.matting(for_alpha, prior, self.stage)
        return torch.cat([alpha, scores], 1)

    def _encode(self, x: Tensor) -> tuple[Maps, Maps]:
        """Run the encoder; return what each decoder gets, which differs with ``modulation="per_task"`` alone."""
        both = self.modulation == "per_task"
        kept: tuple[list[Tensor], list[Tensor]] = ([], [])  # low, first deep, deep
        halved: tuple[list[Downsampled], list[Downsampled]] = ([], [])
        shared = self.encoder.downsampling == "stage"
        for unit, layers in enumerate(self.encoder.units):
            x = layers(x)
            weights: tuple[Tensor | float, Tensor | float] = (1.0, 1.0)
            if str(unit) in self.modulators:
                weights = self.modulators[str(unit)](x)
                if not both:
                    x, weights = x * weights[0], (1.0, 1.0)
            if unit in self._halved and shared:
                down = self.stage(self._halved.index(unit)).down(x)
                for kind, weight in enumerate(weights):
                    seen = down if not both else down._replace(skip=down.skip * weight)
                    halved[kind].append(seen)
                x = down.features
            low = unit == self._low
            if low or unit in (self._first_deep, len(self.encoder.units) - 1):
                for kind, weight in enumerate(weights):
                    kept[kind].append(x * weight if both else x)
        maps = [Maps(each[-1], each[1], each[0], down) for each, down in zip(kept, halved, strict=True)]
        return maps[0], maps[1]


def _check_options(sharing: str, segmentation: str, prior: str, prior_fusion: str, modulation: str) -> None:
    """Refuse values that there are not, and those that would do nothing.

    Raises:
        UserError: one is.
    """
    for name, value, known in (
        ("sharing", sharing, Sharing),
        ("segmentation", segmentation, Segmentation),
        ("prior", prior, Given),
        ("prior_fusion", prior_fusion, Fusion),
        ("modulation", modulation, ModulationKind),
    ):
        if value not in get_args(known):
            raise UserError(f"network.{name}={value!r} of pspm must be one of {', '.join(get_args(known))}.")
    if prior in ("trimap", "unknown") and sharing != "cascade":
        raise UserError(f"network.prior={prior} is for network.sharing=cascade; {sharing} predicts a trimap itself.")
    if sharing == "late" and prior != "soft1":
        raise UserError(f"network.prior={prior} does nothing with network.sharing=late; leave it out.")
    if sharing == "none" and prior == "soft3":
        raise UserError("network.prior=soft3 are three maps, and network.sharing=none gives one as alpha; give soft1.")
    if sharing != "attention" and prior_fusion != "add":
        raise UserError(f"network.prior_fusion={prior_fusion} is for network.sharing=attention; leave it out.")
    if sharing == "attention" and prior == "soft3" and prior_fusion != "concat":
        raise UserError("network.prior=soft3 are three maps, to concatenate: give network.prior_fusion=concat.")
    if sharing == "cascade" and modulation != "none":
        raise UserError(f"network.modulation={modulation} is for shared encoders; network.sharing=cascade has none.")
    if prior in ("trimap", "unknown") and segmentation != "deeplabv3plus":
        raise UserError(f"network.segmentation={segmentation} does nothing with network.prior={prior}; leave it out.")
