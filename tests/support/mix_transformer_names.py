"""Weights of Mix Transformers by the names of others."""

from __future__ import annotations

import re

import torch


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
