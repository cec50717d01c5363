"""RMat: robust matting with a Mix Transformer, a convolution branch and a decoder that assembles local features."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError
from indexnet.networks.base import Network, NetworkInfo, register_network
from indexnet.networks.encoders.mix_transformer import MixTransformer
from indexnet.networks.encoders.pyramid import build_pyramid
from indexnet.networks.layers import conv_bn
from indexnet.networks.spec import Spec, build_upsampling

WIDTH = 256
NARROW = 64
LOCAL = (32, 64, 256)
"""Widths of the convolution branch at 1/2, 1/4 and 1/8 of the resolution."""


@register_network
class RMat(Network):
    """RMat (Dai, Price, Zhang, Shen, CVPR 2022; thesis, chapter 5), as far as its printed costs determine it.

    **The layers are not the authors': they released no code, and their text names no widths.** This is one design of
    many that meets every printed number: the parameters of all twelve models (Tables 5.2, 5.3) and both GFLOPs (Table
    5.7), the latter by the rule of :class:`indexnet.networks.costs.Costs`, which counts linear layers on tokens as the
    paper's tool does.

    A Mix Transformer gives maps at 1/4, 1/8, 1/16 and 1/32, which skips bring to 256 channels. From the lowest up: a
    decoder block, x2, plus the skip of that resolution and the local features; at 1/4 local feature assembly, a block
    to 64 channels, x2, plus local features; x2; two blocks, and a 3x3 convolution with bias. Alpha is not clamped.
    Local features are those of three strided 3x3 convolutions on the input, each projected without activation.

    Every x2 is a stage of the resampling, guided by the map at the resolution that it comes to: the skip, at 1/2 the
    local features. Where there is none, at full resolution and, without ``lskip``, at 1/2, an operator that needs a
    guide gets a 3x3 convolution of the input (which stays as drawn for those that take the place of a maximum, for no
    gradient comes through it); others, such as the bilinear interpolation of the printed costs, add nothing.

    Rows of Table 5.2: B1 ``decoder=mlp, lskip=false``; B2 ``conv`` likewise; B3 ``conv``; B4 ``conv, tskip=mlpconv``;
    B5 ``mlpdw``; B6 ``mlpdw, mlpconv``; B7 to B10 are B3 to B6 on ``mit_b2``. M3 and M7 (Table 5.3) are B3 and B7 with
    ``lfa``.

    Args:
        encoder: ``mit_b0`` to ``mit_b5``, or a mapping with ``name`` and options of
            :func:`indexnet.networks.create_pyramid`.
        resampling: name, or mapping with ``name`` and the operator's options; its pooling is not used.
        decoder: what a block is: ``conv``, a 3x3 convolution; ``mlp``, a 1x1 convolution; ``mlpdw``, a 1x1 and a
            depthwise 3x3 convolution; then batch normalisation and ReLU.
        tskip: how the encoder's maps come to 256 channels: ``mlp``, a linear layer; ``mlpconv``, that and a 3x3
            convolution with batch normalisation, or with ``decoder=mlpdw`` the 3x3 convolution alone.
        lskip: whether local features are added.
        lfa: whether features are assembled at 1/4, see :class:`LocalFeatureAssembly`.
        in_channels: channels of the input: RGB and trimap.
        out_channels: channels of the output.

    Raises:
        UserError: an unknown value, or parts that do not fit.
    """

    info = NetworkInfo(
        name="rmat",
        title="RMat",
        paper="Y. Dai et al., Boosting Robustness of Image Matting with Context Assembling and Strong Data "
        "Augmentation, CVPR 2022; thesis, chapter 5",
        description="Mix Transformer pyramid, convolution branch, decoder with local feature assembly; a design that "
        "meets the published costs, not the authors' layer list.",
        tasks=("matting",),
    )

    size_multiple = 32
    upsamples_only = True
    takes_tiles = False  # its encoder attends to the whole image
    encoder: MixTransformer

    def __init__(
        self,
        encoder: Spec = "mit_b1",
        resampling: Spec = "bilinear",
        decoder: Literal["conv", "mlp", "mlpdw"] = "conv",
        tskip: Literal["mlp", "mlpconv"] = "mlp",
        lskip: bool = True,
        lfa: bool = True,
        in_channels: int = 4,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        for option, value, choices in (
            ("decoder", decoder, ("conv", "mlp", "mlpdw")),
            ("tskip", tskip, ("mlp", "mlpconv")),
            ("lskip", lskip, (True, False)),
            ("lfa", lfa, (True, False)),
        ):
            if not any(value == choice and type(value) is type(choice) for choice in choices):
                raise UserError(f"{option} of rmat is {' or '.join(map(repr, choices))}, got {value!r}.")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.encoder = build_pyramid(self.info.name, encoder, in_channels)
        widths = (NARROW, NARROW, WIDTH, WIDTH, WIDTH)
        self.resampling = build_upsampling(self.info.name, resampling, widths)

        self.skips = nn.ModuleList(_skip(width, tskip, decoder) for width in self.encoder.widths)
        self.local: nn.ModuleList | None = None
        if lskip:
            before = (in_channels, *LOCAL)
            self.local = nn.ModuleList(
                conv_bn(narrow, wide, 3, 2, activation=nn.ReLU) for narrow, wide in zip(before, LOCAL, strict=False)
            )
            self.projections = nn.ModuleList(
                conv_bn(given, wanted, kernel, activation=nn.Identity)
                for given, wanted, kernel in zip(LOCAL, (NARROW, WIDTH, WIDTH), (1, 3, 1), strict=True)
            )
        self.guides = nn.ModuleList()  # at full resolution, and at 1/2 where nothing else is
        if self.resampling.info.guided:
            for stride in (1,) if lskip else (1, 2):
                self.guides.append(conv_bn(in_channels, NARROW, 3, stride, activation=nn.ReLU))
            self.guides.requires_grad_(not self.stage(0).takes_maxima)  # which no gradient comes through
        self.assembly = LocalFeatureAssembly(WIDTH) if lfa else None
        self.blocks = nn.ModuleList(
            _block(decoder, given, wanted)
            for given, wanted in ((WIDTH, WIDTH),) * 3 + ((WIDTH, NARROW), (NARROW, NARROW), (NARROW, NARROW))
        )
        self.head = nn.Conv2d(NARROW, out_channels, 3, padding=1)
        _initialise(self.skips, self.local, getattr(self, "projections", None), self.guides, self.assembly)
        _initialise(self.blocks, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Predict (N, out_channels, H, W), unclamped, from (N, in_channels, H, W), float, of 32 pixels a side or more.

        Height and width are multiples of 32 in published results; others work, too.

        Raises:
            UserError: smaller images, or one image of 32x32 in training mode.
        """
        if self.training and x.shape[0] == 1 and max(x.shape[2:]) <= self.size_multiple:
            raise UserError(
                "network rmat cannot train on a batch of one image of 32x32 pixels, for batch normalisation at 1/32 "
                "would see one value; give more of training.size or training.batch_size."
            )
        image = x
        skips = [skip(each) for skip, each in zip(self.skips, self.encoder(x), strict=True)]
        local = self._local_features(image)
        y = skips.pop()
        for index in (2, 1, 0):  # to 1/16, 1/8, 1/4
            skip = skips.pop()
            y = self._up(index + 2, self.blocks[2 - index](y), skip, fuses=True)
            if index < 2 and local:
                y = y + local[index + 1]
        if self.assembly is not None:
            y = self.assembly(skip, y)
        y = self.blocks[3](y)
        if local:
            y = self._up(1, y, local[0], fuses=True)
        else:
            y = self._up(1, y, self.guides[1](image) if self.guides else image[..., ::2, ::2])
        y = self._up(0, y, self.guides[0](image) if self.guides else image)
        return self.head(self.blocks[5](self.blocks[4](y)))  # type: ignore[no-any-return]

    def _up(self, index: int, x: Tensor, guide: Tensor, fuses: bool = False) -> Tensor:
        """Double a map by a stage, to the size of its guide, and add that where it is a skip."""
        stage = self.stage(index)
        down = stage.pass_through(x, guide)
        if not fuses:
            return stage.up(x, down.guide, down.size)
        x, skip = stage.up_and_skip(x, down)
        return x + skip

    def _local_features(self, x: Tensor) -> list[Tensor]:
        """Return the projected maps of the convolution branch at 1/2, 1/4 and 1/8; none without it."""
        found = []
        for index, layer in enumerate(self.local or ()):
            x = layer(x)
            found.append(self.projections[index](x))
        return found


class MapNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LocalFeatureAssembly(nn.Module):
    """A transformer block that reads the decoder's map with the attention of low-level features to themselves.

    ``y = x + project(attention(q(low), k(low), v(x)))``, ``y + ffn(y)``; a norm before either, which low-level features
    and decoder map share in the first. Keys and values come from maps that convolutions of their own have reduced. All
    linear layers are 1x1 convolutions: so the paper's tool must have counted them. The attention matrix is never kept.

    Args:
        width: channels C of both maps.
        heads: divides C.
        reduction: kernel and stride of the convolutions that reduce; 1: there are none.
        ratio: hidden width of the feed-forward layer over C.
    """

    def __init__(self, width: int, heads: int = 8, reduction: int = 2, ratio: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.ffn_norm = MapNorm(width, 1e-6), MapNorm(width, 1e-6)
        self.query, self.key, self.value, self.project = (nn.Conv2d(width, width, 1) for _ in range(4))
        self.reduce_key, self.reduce_value = (
            nn.Sequential(nn.Conv2d(width, width, reduction, reduction), MapNorm(width))
            if reduction > 1
            else nn.Identity()
            for _ in range(2)
        )
        self.ffn = nn.Sequential(nn.Conv2d(width, ratio * width, 1), nn.GELU(), nn.Conv2d(ratio * width, width, 1))

    def forward(self, low: Tensor, x: Tensor) -> Tensor:
        """Assemble (N, C, H, W).

        Args:
            low: low-level features, (N, C, H, W), at least as large as the reduction.
            x: the decoder's map, likewise.
        """
        features, values = self.norm(low), self.norm(x)
        query, key = self.query(features), self.key(self.reduce_key(features))
        value = self.value(self.reduce_value(values))
        mixed = F.scaled_dot_product_attention(self._tokens(query), self._tokens(key), self._tokens(value))
        x = x + self.project(mixed.transpose(2, 3).reshape(x.shape))
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]

    def _tokens(self, x: Tensor) -> Tensor:
        """Turn a map (N, C, H, W) into (N, heads, H*W, C/heads)."""
        return x.reshape(x.shape[0], self.heads, x.shape[1] // self.heads, -1).transpose(2, 3)


def _block(kind: str, given: int, wanted: int) -> nn.Module:
    if kind != "mlpdw":
        return conv_bn(given, wanted, 3 if kind == "conv" else 1, bias=True, activation=nn.ReLU)
    return nn.Sequential(nn.Conv2d(given, wanted, 1), *conv_bn(wanted, wanted, 3, groups=wanted, activation=nn.ReLU))


def _skip(given: int, kind: str, decoder: str) -> nn.Module:
    if kind == "mlp":
        return nn.Conv2d(given, WIDTH, 1)
    linear = [] if decoder == "mlpdw" else [nn.Conv2d(given, WIDTH, 1)]
    before = WIDTH if linear else given
    return nn.Sequential(*linear, *conv_bn(before, WIDTH, 3, activation=nn.Identity))


def _initialise(*modules: nn.Module | None) -> None:
    """Draw convolutions as Xavier and Glorot do, biases zero."""
    for module in modules:
        for layer in module.modules() if module is not None else ():
            if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
