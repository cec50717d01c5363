"""Weights from files: read without running code, checked key by key, widened to the network's input channels."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.paths import check_checkpoint

DAMAGES = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, OSError, TypeError),
    *(AssertionError, OverflowError, MemoryError, zipfile.BadZipFile, struct.error, SafetensorError),
)
"""What PyTorch raises of a file that is none of its own, or damaged."""
Kind = tuple[tuple[int, ...], str]
"""What must agree of two weights: their shape, and what numbers they are."""
_NESTED = ("state_dict", "model_state_dict", "model")


def _numpy_scalar_types() -> list[Any]:
    # Checkpoints of training scripts carry measures as numpy scalars, which hold plain numbers and run no code. Old
    # files name the function by the module it had before numpy 2.
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [(scalar, name) for name in names] + [
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "u1", "?")},
    ]


def load_tensors(path: Path) -> Any:
    """Read a PyTorch file onto the CPU, tensors and plain values only (``weights_only=True``).

    Raises:
        pickle.UnpicklingError: it holds something else; or any other of :data:`DAMAGES` of a file that is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # PyTorch compresses nothing: what is compressed could fill the memory
            if any(each.file_size > each.compress_size for each in archive.infolist()):
                raise ValueError("a compressed archive")
    with torch.serialization.safe_globals(_numpy_scalar_types()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols of files that are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(path: str | Path) -> Any:
    """Read a PyTorch or safetensors file onto the CPU, tensors and plain values only (``weights_only=True``).

    Raises:
        UserError: there is no such file, or it is not a file of tensors.
    """
    path = Path(path)
    check_checkpoint(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return load_tensors(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}.") from error
    except DAMAGES as error:
        # torch's own words are kept back: they advise to load the file without this safeguard
        raise UserError(
            f"{path} is not a readable file of weights: a PyTorch or safetensors file of tensors and plain values is "
            "expected; give another with encoder.pretrained=PATH."
        ) from error


def state_dict_of(content: Any, source: str) -> dict[str, Tensor]:
    """Return the tensors of a state dict, also of one inside a checkpoint, without ``module.`` before the names.

    Raises:
        UserError: there is no state dict in it.
    """
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise UserError(
            f"{source} holds a {type(content).__name__}, where a state dict (names to tensors) was expected."
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{source} holds no tensors by name, where a state dict was expected.")
    if all(key.startswith("module.") for key in tensors):  # saved from DataParallel
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def adapt_input(weight: Tensor, in_channels: int) -> Tensor:
    """Fit the first convolution of an RGB network, (K, 3, kh, kw), to ``in_channels`` inputs.

    Further channels start at zero, so that the network first computes what it computed on RGB; one channel gets the
    sum over RGB, the response to a grey image.

    Raises:
        UserError: two input channels.
    """
    if in_channels == weight.shape[1]:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    if in_channels < weight.shape[1]:
        raise UserError(
            f"weights for {weight.shape[1]} input channels cannot serve {in_channels}; give pretrained=false."
        )
    extra = weight.new_zeros(weight.shape[0], in_channels - weight.shape[1], *weight.shape[2:])
    return torch.cat([weight, extra], dim=1)


def match_state(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str, source: str
) -> dict[str, Tensor]:
    """Check a state dict against the one that is expected and fit its first convolution.

    Args:
        expected: the module's own state dict; its first entry is the weight of the convolution on the image.
        given: tensors by the same names; more of them (a classifier) are left out.
        what: the module's name, for the message.
        source: where ``given`` comes from, for the message.

    Returns:
        Exactly the expected names. Counters of seen batches may be absent, they are kept as they are.

    Raises:
        UserError: names are missing or shapes differ, the message tells how many and shows the first; or values are no
            real numbers, or not finite.
    """
    result = {key: given.get(key, own) for key, own in expected.items()}
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    first = next(iter(expected))
    wide, own = result[first], expected[first]
    if wide.ndim == 4 and wide.shape[0] == own.shape[0] and wide.shape[2:] == own.shape[2:]:
        result[first] = adapt_input(wide, own.shape[1])
    shapes = [
        f"{key} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
        for key, value in result.items()
        if value.shape != expected[key].shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(expected)} tensors are missing (first: {missing[0]})")
    if shapes:
        problems.append(f"{len(shapes)} have another shape (first: {shapes[0]})")
    if problems:
        raise UserError(
            f"{source} does not hold the weights of encoder {what!r}: {' and '.join(problems)}; "
            f"give the file of the same model and width, or pretrained=false."
        )
    used = {key: value for key, value in given.items() if key in expected}
    check_kinds(expected, used, source)
    check_finite(used, source)
    return result


def check_kinds(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: object) -> None:
    """Check that weights are tensors of real numbers where those are expected, each stored in full.

    Raises:
        UserError: they are not.
    """
    for key, value in state.items():
        if key.endswith("_extra_state"):  # what a module of a plugin keeps beside its weights
            continue
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(f"{source}: its weight {key} is no plain tensor; copy or train it again.")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(
                f"{source}: its weight {key} is larger than what the file holds of it; the file is damaged."
            )
        own = expected.get(key)
        if own is not None and number_kind(own) != number_kind(value):
            raise UserError(
                f"{source}: its weight {key} holds {number_kind(value)}, where {number_kind(own)} are expected; the "
                "file is damaged or was changed by hand."
            )


def check_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Check that weights are numbers.

    Raises:
        UserError: one is NaN or infinite.
    """
    for key, value in state.items():
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"{source}: its weight {key} is not finite (NaN or infinite): its training diverged, or the file is "
                "damaged; use another one."
            )


def number_kind(tensor: Tensor) -> str:
    """Say what numbers a tensor holds, whatever their width."""
    if tensor.dtype == torch.bool:
        return "truth values"
    return "complex numbers" if tensor.is_complex() else "real numbers" if tensor.is_floating_point() else "integers"


def weight_kinds(state: Mapping[str, Tensor]) -> dict[str, Kind]:
    """Return of every weight of a state dict, on any device, what must agree where it takes another's place."""
    return {key: (tuple(value.shape), number_kind(value)) for key, value in state.items()}
