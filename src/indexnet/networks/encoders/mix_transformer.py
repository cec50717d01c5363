"""Mix Transformer, the encoder of SegFormer: a pyramid of transformer blocks, without positional encoding.

Source: E. Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, NeurIPS 2021,
Section 3.1 and the table of its variants. Written from the paper; only the names in weights' files are those of others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexnet.core.errors import UserError


@dataclass(frozen=True)
class Variant:
    """What tells Mix Transformers apart.

    Attributes:
        widths: channels at 1/4, 1/8, 1/16 and 1/32 of the resolution.
        depths: blocks there.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


_WIDE = (64, 128, 320, 512)
VARIANTS = {
    "mit_b0": Variant((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": Variant(_WIDE, (2, 2, 2, 2)),
    "mit_b2": Variant(_WIDE, (3, 4, 6, 3)),
    "mit_b3": Variant(_WIDE, (3, 4, 18, 3)),
    "mit_b4": Variant(_WIDE, (3, 8, 27, 3)),
    "mit_b5": Variant(_WIDE, (3, 6, 40, 3)),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
RATIO = 4
SMALLEST = 32
"""Side of the smallest image, pixels: the first stage reduces a quarter of it by 8."""
_EPS = 1e-6  # of the norms of blocks and stages; those of embeddings and reductions have torch's 1e-5


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch of each image with a probability, and scales the others.

    Args:
        rate: the probability.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to the same shape."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention whose keys and values come from a map that a strided convolution has reduced.

    Args:
        width: channels C.
        heads: divides C; the logits are divided by the root of a head's width.
        reduction: kernel and stride of that convolution, after which a norm follows; 1: neither.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)  # keys over values
        self.project = nn.Linear(width, width)
        self.reduces = reduction > 1
        if self.reduces:
            self.reduce = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, H*W, C) of a map of ``size`` (H, W) to the same shape; the attention matrix is never kept."""
        n, _, width = x.shape
        source = x
        if self.reduces:
            source = self.norm(tokens_of(self.reduce(map_of(x, size))))
        query = self.query(x).reshape(n, -1, self.heads, width // self.heads).transpose(1, 2)
        both = self.key_value(source).reshape(n, -1, 2, self.heads, width // self.heads)
        key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(n, -1, width))  # type: ignore[no-any-return]


class MixFFN(nn.Module):
    """Linear layer to four times the width, depthwise 3x3 convolution with bias, GELU, linear layer back.

    Args:
        width: channels C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = RATIO * width
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, H*W, C) of a map of ``size`` (H, W) to the same shape."""
        x = tokens_of(self.depthwise(map_of(self.expand(x), size)))
        return self.contract(F.gelu(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward layer, each with a norm before it and a residual around it.

    Args:
        width: channels C.
        heads: see :class:`Attention`.
        reduction: see :class:`Attention`.
        drop: rate of :class:`DropPath` on both residual branches.

    Attributes:
        recomputed: see :func:`indexnet.networks.recompute.checkpoint_activations`.
    """

    recomputed = True

    def __init__(self, width: int, heads: int, reduction: int, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _EPS)
        self.attention = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, _EPS)
        self.ffn = MixFFN(width)
        self.drop = DropPath(drop)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, H*W, C) of a map of ``size`` (H, W) to the same shape."""
        x = x + self.drop(self.attention(self.norm1(x), size))
        return x + self.drop(self.ffn(self.norm2(x), size))  # type: ignore[no-any-return]


class PatchEmbedding(nn.Module):
    """Overlapping patches as tokens: a strided convolution and a norm.

    Args:
        in_channels: channels of the map.
        width: channels of the tokens.
        kernel: odd size of the convolution.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (N, C, H, W) to tokens (N, h*w, width) and (h, w), the size over the stride, rounded up."""
        x = self.project(x)
        return self.norm(tokens_of(x)), (x.shape[2], x.shape[3])


class Stage(nn.Module):
    """One resolution: patch embedding, blocks, norm.

    Args:
        embedding: see :class:`PatchEmbedding`.
        blocks: of the same width.
        width: channels.
    """

    def __init__(self, embedding: PatchEmbedding, blocks: list[Block], width: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, width, h, w)."""
        tokens, size = self.embedding(x)
        for block in self.blocks:
            tokens = block(tokens, size)
        return map_of(self.norm(tokens), size)


class MixTransformer(nn.Module):
    """An encoder that hands out a pyramid of four maps.

    Args:
        name: one of :data:`VARIANTS`.
        in_channels: channels of the image; the weights of those after the third start at zero.
        drop_path: rate of stochastic depth in the last block; it rises linearly from 0 in the first.

    Attributes:
        name: as given.
        in_channels: as given.
        strides: of the maps.
        widths: channels of the maps.
        notice: what whoever uses the weights that it started from must know, such as their licence; "": nothing.

    Raises:
        UserError: an impossible value.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, name: str, in_channels: int = 3, drop_path: float = 0.1) -> None:
        super().__init__()
        if isinstance(drop_path, bool) or not isinstance(drop_path, int | float) or not 0 <= drop_path < 1:
            raise UserError(f"encoder.drop_path must be a number from 0 to below 1, got {drop_path!r}.")
        variant = VARIANTS[name]
        self.name, self.in_channels, self.widths, self.notice = name, in_channels, variant.widths, ""
        total, done, before = sum(variant.depths), 0, in_channels
        stages = []
        for index, (width, depth) in enumerate(zip(variant.widths, variant.depths, strict=True)):
            embedding = PatchEmbedding(before, width, *((7, 4) if index == 0 else (3, 2)))
            rates = [drop_path * (done + block) / (total - 1) for block in range(depth)]
            blocks = [Block(width, HEADS[index], REDUCTIONS[index], rate) for rate in rates]
            stages.append(Stage(embedding, blocks, width))
            done, before = done + depth, width
        self.stages = nn.ModuleList(stages)
        self._initialise()

    def _initialise(self) -> None:
        """Draw linear layers from N(0, 0.02^2) cut at +-2, convolutions from N(0, 2 / fan-out); biases are zero."""
        for layer in self.modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.weight.is_meta:
                continue
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
            else:
                fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        first = self.get_submodule("stages.0.embedding.project").weight
        assert isinstance(first, Tensor)
        with torch.no_grad():
            first[:, 3:] = 0

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (N, in_channels, H, W), float, to maps (N, widths[i], H/strides[i], W/strides[i]), rounded up.

        Raises:
            UserError: images of less than 32 pixels a side.
        """
        if min(x.shape[2:]) < SMALLEST:
            raise UserError(
                f"encoder {self.name!r} needs images of at least {SMALLEST}x{SMALLEST} pixels, its total stride; got "
                f"{x.shape[3]}x{x.shape[2]}; give larger ones (in training, training.size)."
            )
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def tokens_of(x: Tensor) -> Tensor:
    """Turn a map (N, C, H, W) into tokens (N, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def map_of(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn tokens (N, H*W, C) into a map (N, C, H, W) of ``size`` (H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


NOTICE = (
    "The encoder started from Mix Transformer weights in the form in which NVIDIA gives them out, under a licence for "
    "non-commercial use (research or evaluation) only; if they are NVIDIA's, what is derived from them, this file and "
    "any training that starts from it, stays under that condition."
)

_LAYERS = {
    # NVlabs
    "norm1": "norm1", "attn.q": "attention.query", "attn.kv": "attention.key_value",
    "attn.proj": "attention.project", "attn.sr": "attention.reduce", "attn.norm": "attention.norm",
    "norm2": "norm2", "mlp.fc1": "ffn.expand", "mlp.dwconv.dwconv": "ffn.depthwise", "mlp.fc2": "ffn.contract",
    # transformers
    "layer_norm_1": "norm1", "attention.self.query": "attention.query", "attention.self.key": "attention.key",
    "attention.self.value": "attention.value", "attention.self.sr": "attention.reduce",
    "attention.self.layer_norm": "attention.norm", "attention.output.dense": "attention.project",
    "layer_norm_2": "norm2", "mlp.dense1": "ffn.expand", "mlp.dense2": "ffn.contract",
}  # fmt: skip
_EMBEDDING = {"proj": "project", "norm": "norm", "layer_norm": "norm"}
_NVLABS = re.compile(r"(?:backbone\.|encoder\.)?(?:patch_embed|block|norm)([1-4])(?:\.(.+))?\.(weight|bias)")
_TRANSFORMERS = re.compile(
    r"(?:segformer\.)?encoder\.(?:patch_embeddings|block|layer_norm)\.([0-3])(?:\.(.+))?\.(weight|bias)"
)


def own_names(given: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], str]:
    """Rename Mix Transformer weights to the names of :class:`MixTransformer`.

    Known are the names of NVlabs (``block1.0.attn.q.weight``), those of the transformers library
    (``segformer.encoder.block.0.0.attention.self.query.weight``, where keys and values are two layers) and the
    encoder's own. What belongs to none of its layers, a classifier or a decoder, is left out.

    Args:
        given: names to tensors.
        source: of them, for the message.

    Returns:
        The renamed tensors, and the notice that belongs to weights of such names.

    Raises:
        UserError: no name is known.
    """
    if own := {key: value for key, value in given.items() if re.match(r"stages\.[0-3]\.", key)}:
        return own, ""
    result: dict[str, Tensor] = {}
    for key, value in given.items():
        stage, layer, kind = -1, "", ""
        if match := _NVLABS.fullmatch(key):
            stage, layer, kind = int(match[1]) - 1, match[2] or "", match[3]
        elif match := _TRANSFORMERS.fullmatch(key):
            stage, layer, kind = int(match[1]), match[2] or "", match[3]
        if match is None:
            continue
        block, _, inner = layer.partition(".")
        if not layer:
            name = "norm"
        elif layer in _EMBEDDING:
            name = f"embedding.{_EMBEDDING[layer]}"
        elif block.isdecimal() and inner in _LAYERS:
            name = f"blocks.{block}.{_LAYERS[inner]}"
        else:
            continue
        result[f"stages.{stage}.{name}.{kind}"] = value
    if not result:
        raise UserError(
            f"{source} holds no Mix Transformer weights by the names of NVlabs or transformers (first name: "
            f"{next(iter(given), 'none')!r})."
        )
    for key in [key for key in result if ".attention.key." in key]:
        keys, other = result.pop(key), key.replace(".key.", ".value.")
        if other in result and keys.shape == result[other].shape != ():
            result[key.replace(".key.", ".key_value.")] = torch.cat([keys, result.pop(other)])
    return result, NOTICE
