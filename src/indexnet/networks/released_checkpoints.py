"""State dicts of the released matting code (poppinace/indexnet_matting): recognised, renamed, and given a network.

Two networks are known: the one with index networks, of any family, and the baseline with max unpooling (B11). Names are
those of the release, ``layerN`` (encoder), ``indexN`` (index networks), ``dconv_pp`` (ASPP), ``decoder_layerN``,
``pred``.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.files import prepare_file, sha256_file
from indexnet.networks.base import Network
from indexnet.networks.checkpoint import (
    FOREIGN_OBJECTS,
    ReleasedError,
    checkpoint_content,
    checkpoint_meta,
    load_checkpoint,
    network_state,
    save_checkpoint,
)
from indexnet.networks.encoders.weights import check_kinds, read_checkpoint, state_dict_of
from indexnet.networks.restore import build_without_memory, restore_network
from indexnet.resampling.columns import fuse_columns
from indexnet.resampling.indexnet import FAMILIES

NOTICE = (
    "Converted from a checkpoint of the released index-network matting code. Its authors give those weights for "
    "non-commercial research only, and what is derived from them, this file and any training that starts from it, "
    "stays under that condition; ask the authors before any other use."
)

# Synchronised batch normalisation of the released code leaves its own counters in the state dict.
_JUNK = re.compile(r".*\._(tmp_running_mean|tmp_running_var|running_iter|moving_average_fraction)$")
_INDEXED_LAYERS = (0, 2, 3, 4, 6)
_RENAMED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"layer(\d)", r"encoder.units.\1"),
    (r"dconv_pp\.aspp(\d)\.atrous_conv", lambda match: f"context.branches.{int(match[1]) - 1}"),
    (r"dconv_pp\.global_avg_pool\.(\d)", lambda match: f"context.pooled.{int(match[1]) - 1}"),
    (r"dconv_pp\.bottleneck_conv", "context.project"),
    (r"decoder_layer(\d)\.dconv", r"decoder.\1"),
    (r"pred", "head"),
)


def from_released(state_dict: Mapping[str, Any], family: str | None = None) -> Network:
    """Build the network of a released state dict, with its weights, in evaluation mode.

    Args:
        state_dict: names to tensors as the released code saves them; names may start with ``module.``, and it may be a
            whole checkpoint with the key ``state_dict`` (optimizer state and counters are left out).
        family: family of the index networks. Only needed where modelwise and shared ones cannot be told apart: both
            have the same names and shapes; without it, equal values at all stages mean ``o2o_modelwise``.

    Returns:
        A ``matting_unet``; its output equals that of the released code (output stride 16 is recognised for index
        networks by the missing ``index6``; a max-unpooling network is taken to have 32, its weights do not tell).

    Raises:
        UserError: it is not a state dict of a released matting network, or contradicts ``family``.
    """
    return _build(state_dict, family, "the state dict")[0]


def convert(
    input_path: str | Path, output_path: str | Path, family: str | None = None, overwrite: bool = False
) -> None:
    """Write a released checkpoint as one of this package, atomically.

    Args:
        input_path: a file of ``torch.save``: a state dict, or a checkpoint that holds one.
        output_path: the file to write.
        family: see :func:`from_released`.
        overwrite: whether an existing output may be replaced.

    Raises:
        UserError: the output exists, or the input cannot be read or is not a released matting checkpoint.
    """
    source, target = Path(input_path), Path(output_path)
    if os.path.isdir(target):
        raise UserError(f"the output {target} is a folder; give the name of the file to write, such as a .ckpt in it.")
    if os.path.exists(target) and not overwrite:
        raise UserError(f"{target} exists; choose another output or give --overwrite.")
    prepare_file(target)
    content = _converted(source, _read(source), family)
    save_checkpoint(target, content["indexnet"], network_state(content))


def load_any(path: str | Path, family: str | None = None) -> dict[str, Any]:
    """Read a checkpoint of this package or of the released code; returns what ``load_checkpoint`` returns.

    Args:
        path: the file.
        family: that of the network which the weights are for; says which of two families a released file holds whose
            weights are the same for both.

    Raises:
        UserError: it is neither, or cannot be read.
    """
    path = Path(path)
    try:
        return load_checkpoint(path)
    except ReleasedError:
        content = _read(path)
        found = _recognise(_clean(content, str(path)), None, str(path))["resampling"].get("family")
        alike = (found, family) == ("o2o_modelwise", "o2o_shared")
        return _converted(path, content, family if alike else None)


def _converted(source: Path, content: Any, family: str | None) -> dict[str, Any]:
    network, options = _build(content, family, str(source))
    meta = checkpoint_meta(
        task={"name": "matting"},
        network={"name": network.info.name, **options},
        config={},
        notice=NOTICE,
        source=f"{source.name}, sha256 {sha256_file(source)}",
    )
    return checkpoint_content(meta, network.state_dict())


def recognise_released(state_dict: Mapping[str, Any], family: str | None = None) -> dict[str, Any]:
    """Return the options of ``matting_unet`` that a released state dict was made with.

    Args:
        state_dict: see :func:`from_released`.
        family: see :func:`from_released`.

    Raises:
        UserError: see :func:`from_released`.
    """
    return _recognise(_clean(state_dict, "the state dict"), family, "the state dict")


def _read(path: Path) -> Any:
    """Read the input. What PyTorch says of a file that it refuses, to load it unsafely, is never passed on."""
    try:
        return read_checkpoint(path)
    except UserError as error:
        cause = error.__cause__
        if cause is None:
            raise
    if isinstance(cause, OSError):
        reason = f"cannot be read ({cause.strerror or type(cause).__name__})"
    elif isinstance(cause, pickle.UnpicklingError) and FOREIGN_OBJECTS.search(str(cause)):
        reason = "holds Python objects beside tensors and is not opened, because loading such a file can run code"
    else:
        reason = "is no complete checkpoint file (damaged, cut off or something else)"
    raise UserError(f"{path} {reason}; give a .pth.tar or a state dict of the released matting code.") from cause


def _build(content: Any, family: str | None, source: str) -> tuple[Network, dict[str, Any]]:
    state = _clean(content, source)
    options = _recognise(state, family, source)
    renamed = _rename(state, options, source)
    spec = {"name": "matting_unet", **options}
    try:
        expected = build_without_memory(spec).state_dict()
    except UserError as error:
        raise UserError(f"{source} looks like a released matting network, but {error}") from error
    for key in expected:  # files of very old PyTorch have no counters of batches
        if key.endswith("num_batches_tracked"):
            renamed.setdefault(key, torch.tensor(0))
    missing, extra = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
    shapes = [key for key in expected if key in renamed and renamed[key].shape != expected[key].shape]
    if missing or extra or shapes:
        faults = [
            f"{len(keys)} tensors {what} (first: {keys[0]})"
            for keys, what in ((missing, "are missing"), (extra, "are unknown"), (shapes, "have another shape"))
            if keys
        ]
        raise UserError(f"{source} looks like a released matting network, but {' and '.join(faults)}.")
    return restore_network(spec, renamed, source).eval(), options


def _clean(content: Any, source: str) -> dict[str, Tensor]:
    state = {key: value for key, value in state_dict_of(content, source).items() if not _JUNK.fullmatch(key)}
    first, context = state.get("layer0.0.weight"), state.get("dconv_pp.bottleneck_conv.0.weight")
    if first is None or first.ndim != 4 or "layer7.0.conv.0.weight" not in state or "pred.1.weight" not in state:
        raise UserError(
            f"{source} is not a checkpoint of the released matting code: it has no entries 'layer0.0.weight', "
            f"'layer7...' and 'pred...' (its first name is {next(iter(state), 'none')!r})."
        )
    check_kinds({}, state, source)
    if context is None:
        raise UserError(f"{source} is a matting network without ASPP ('dconv_pp.aspp...'), which cannot be converted.")
    return state


def _recognise(state: Mapping[str, Tensor], family: str | None, source: str) -> dict[str, Any]:
    if family is not None and family not in FAMILIES:
        raise UserError(f"family is one of {', '.join(FAMILIES)}, got {family!r}.")
    first, last = _weight(state, "layer0.0.weight", source), _weight(state, "layer7.0.conv.6.weight", source)
    head = _weight(state, "pred.1.weight", source)
    resampling: dict[str, Any] = {"name": "max_unpool"}
    output_stride = 32
    stages = [layer for layer in _INDEXED_LAYERS if any(key.startswith(f"index{layer}.") for key in state)]
    if stages:
        output_stride = 32 if 6 in stages else 16
        resampling = {"name": "indexnet", **_index_options(state, stages, family, source)}
    elif family is not None:
        raise UserError(f"{source} has no index networks (it unpools with max-pooling indices); leave family out.")
    width = round(last.shape[0] / 320, 2)
    return {
        "encoder": {"name": "mobilenetv2_released", "width": width, "pretrained": False, "freeze_bn": False},
        "resampling": resampling,
        "fusion": "concat",
        "context": "aspp",
        "output_stride": output_stride,
        "decoder_kernel": head.shape[-1],
        "in_channels": first.shape[1],
        "out_channels": head.shape[0],
    }


def _weight(state: Mapping[str, Tensor], key: str, source: str) -> Tensor:
    """Return the weight of a convolution that the options are read from."""
    weight = state.get(key)
    if weight is None or weight.ndim != 4 or 0 in weight.shape:
        fault = "is missing" if weight is None else f"has the shape {tuple(weight.shape)}"
        raise UserError(
            f"{source} looks like a released matting network, but its entry {key!r} {fault}; the file is damaged."
        )
    return weight


def _index_options(state: Mapping[str, Tensor], stages: list[int], family: str | None, source: str) -> dict[str, Any]:
    layer = _INDEXED_LAYERS[0]
    if stages[0] != layer:
        raise UserError(f"{source} has index networks, but no entries 'index{layer}...'; the file is damaged.")
    channels = _weight(state, f"layer{layer}.0.weight", source).shape[0]
    kinds = [kind for kind in ("indexnet", "indexnet.0", "indexnet1.0") if f"index{layer}.{kind}.weight" in state]
    if len(kinds) != 1:
        raise UserError(f"{source} has entries 'index{layer}...' that are not those of an index network.")
    weight = _weight(state, f"index{layer}.{kinds[0]}.weight", source)
    nonlinear = kinds == ["indexnet.0"] or f"index{layer}.indexnet1.3.weight" in state
    hidden, inputs, size = weight.shape[0], weight.shape[1], weight.shape[-1]
    expansion = 2
    if kinds != ["indexnet1.0"]:
        found = "hin"
    elif inputs == channels:
        found, expansion = "m2o", hidden // channels
    elif hidden % channels == 0:
        found, expansion = "o2o_unshared", hidden // channels
    else:
        found, expansion = "o2o_modelwise" if _stages_equal(state, stages) else "o2o_shared", hidden
    if family not in (None, found):
        if found != "o2o_modelwise" or family != "o2o_shared":  # equal weights may have been trained apart: as said
            raise UserError(f"{source} holds index networks of the family {found}, not {family}; leave family out.")
        found = family
    expansion = expansion if nonlinear else 2
    return {"family": found, "nonlinear": nonlinear, "context": size == 4, "expansion": expansion}


def _stages_equal(state: Mapping[str, Tensor], stages: list[int]) -> bool:
    first, *others = ({k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"index{n}.")} for n in stages)
    return all(
        other.keys() == first.keys() and all(torch.equal(value, first[key]) for key, value in other.items())
        for other in others
    )


def _rename(state: Mapping[str, Tensor], options: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    indexed: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"index(\d)\.(.+)", key):
            indexed.setdefault(int(match[1]), {})[match[2]] = value
            continue
        for pattern, replacement in _RENAMED:
            key = re.sub(rf"^{pattern}(?=\.)", replacement, key)
        renamed[key] = value
    modelwise = options["resampling"].get("family") == "o2o_modelwise"
    for stage, layer in enumerate(sorted(indexed)):
        prefix = "resampling.network." if modelwise else f"resampling.stages.{stage}.network."
        try:
            fused = fuse_columns(indexed[layer])
        except UserError as error:
            raise UserError(f"{source}, entries 'index{layer}...': {error}") from error
        except (RuntimeError, IndexError) as error:
            raise UserError(
                f"{source} has entries 'index{layer}...' of shapes that do not fit each other; the file is damaged."
            ) from error
        renamed.update({prefix + key: value for key, value in fused.items()})
    return renamed
