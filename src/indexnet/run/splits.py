"""The data set of a run: how it is built, which splits the run is measured on, and how they are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError

if TYPE_CHECKING:
    from indexnet.data import Data, Dataset


def build_data(config: Mapping[str, Any]) -> Data:
    """Build the data set of a configuration; samples have the size of its training crops, if they have one."""
    from indexnet.core.registry import option_names
    from indexnet.data import create_data, get_data

    options = {**config["data"], "task": config["task"]["name"]}
    if "size" in option_names(get_data(options["name"])):
        options.setdefault("size", config["training"]["size"])
    return create_data(options.pop("name"), **options)


def measured_splits(data: Data, split: str) -> Mapping[str, Dataset]:
    """Return the splits, by name, that a run is measured on: for ``test`` the test splits, for ``validation`` that one.

    Raises:
        UserError: the data set has no validation split as it is configured, or files are missing.
    """
    if split == "test":
        return data.tests()
    validation = data.validation()
    if validation is None:
        raise UserError(
            f"split=validation, but data={data.name} has no validation split as it is configured; "
            f"{data.validation_remedy}."
        )
    return {"": validation}


def describe_splits(tests: Mapping[str, Dataset]) -> dict[str, Any]:
    """Describe test splits: how many samples and their fingerprint; of several splits also those of each."""
    from indexnet.data.base import digest

    parts = {name: {"count": len(data), "fingerprint": data.fingerprint()} for name, data in tests.items()}
    if "" in parts:
        return parts[""]
    return {"count": sum(len(data) for data in tests.values()), "fingerprint": digest(parts), "splits": parts}
