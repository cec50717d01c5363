"""Weights for encoders."""

from __future__ import annotations

import re

import torch
from torch import nn

from indexnet.networks import create_encoder

FASTDEPTH, RELEASED = "mobilenetv1_fastdepth", "mobilenetv2_released"
# layouts that number blocks through: what comes before the number, and something that is not the encoder's
NUMBERED = {
    "csail": ("features.", "classifier.1.weight"),
    "imagenet": ("module.model.", "module.fc.weight"),
    "fastdepth": ("conv", "decode_conv1.0.0.weight"),
}


def random_state(module: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }


def layout(name: str, form: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights in one of the layouts that an encoder knows, and what the encoder must hold."""
    state = random_state(create_encoder(name, 3))
    if form == "own":
        return state, state
    if form == "released":
        return {f"module.{key.replace('units.', 'layer')}": value for key, value in state.items()}, state
    if form in NUMBERED:
        prefix, other = NUMBERED[form]
        blocks = [re.match(r"units\.0(?=\.\d\.\w+$)|units\.\d\.\d", key)[0] for key in state]
        numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
        named = {
            f"{prefix}{numbers[block]}{key.removeprefix(block)}": value
            for block, (key, value) in zip(blocks, state.items(), strict=True)
        }
        return named | {other: torch.zeros(2, 2)}, state
    import timm
    from torchvision.models import mobilenet_v2

    timm_name = {FASTDEPTH: "mobilenetv1_100", RELEASED: "mobilenetv2_100"}[name]
    named = random_state(timm.create_model(timm_name) if form == "timm" else mobilenet_v2(weights=None))
    others = ("features.18", "conv_head", "bn2", "classifier")
    values = [value for key, value in named.items() if not key.startswith(others)]
    return named, dict(zip(state, values, strict=True))  # all layouts run through the layers in the same order


def by_nvlabs(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a Mix Transformer's state dict by the names of NVlabs, with a classifier that no encoder has."""
    names = {"attention.query": "attn.q", "attention.key_value": "attn.kv", "attention.project": "attn.proj",
             "attention.reduce": "attn.sr", "attention.norm": "attn.norm", "ffn.expand": "mlp.fc1",
             "ffn.depthwise": "mlp.dwconv.dwconv", "ffn.contract": "mlp.fc2"}  # fmt: skip
    named = {}
    for key, value in state.items():
        stage, rest = int(key[7]) + 1, key[9:]
        for ours, theirs in names.items():
            rest = rest.replace(ours, theirs)
        rest = re.sub(r"^embedding\.project", f"patch_embed{stage}.proj", rest)
        rest = re.sub(r"^embedding", f"patch_embed{stage}", rest)
        rest = re.sub(r"^blocks", f"block{stage}", rest)
        named[re.sub(r"^norm", f"norm{stage}", rest)] = value
    return named | {"head.weight": torch.zeros(3, 2), "head.bias": torch.zeros(3)}
