"""Validation where a data set has no split for it: a share of the training split, by group, is held out."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from indexnet.core.annotations import fits
from indexnet.core.errors import UserError
from indexnet.data.base import Dataset, Sample, Subset, digest

_STREAM = 0x4E1D  # first word of the keys of random streams


class HeldOut(Subset):
    """One of the two parts of a training split.

    A sample of the training part is drawn from the caller's generator, as in the split. One of the validation part is
    drawn from (seed, name), so that it never changes; it is made as in training but for what
    :meth:`~indexnet.data.base.Dataset.for_validation` leaves out.

    Args:
        split: ``"train"`` or ``"validation"``.
        divided: the split that was divided.
        part: its samples on this side.
        share: of the samples that were to be held out.
        seed: of the division.
    """

    def __init__(self, split: str, divided: Dataset, part: Dataset, share: float, seed: int) -> None:
        super().__init__(part, np.arange(len(part)))
        self.split, self.divided, self.part, self.share, self.seed = split, divided, part, share, seed

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if self.split != "train":
            rng = np.random.default_rng((_STREAM, self.seed, zlib.crc32(self.name(index).encode())))
        return super().sample(index, rng)

    def fingerprint(self) -> str:
        """SHA-256 over the divided split's own, the share, the seed and the side."""
        return digest("held out", self.divided.fingerprint(), self.share, self.seed, self.split)


def hold_out(dataset: Dataset, share: float, seed: int = 0) -> tuple[HeldOut, HeldOut]:
    """Divide a training split: about a share of its samples is held out for validation, whole groups at a time.

    Which groups follows from the share, the seed, and the names and sizes of the groups alone. They are taken in the
    order of a hash of their names, as long as each brings the number of samples nearer to the share; so a group that is
    added moves few others. No sample of one side shares its group, such as a foreground, a video or the photograph that
    patches are cut from, with one of the other.

    Args:
        dataset: a training split.
        share: of its samples, 0 < share < 1.
        seed: another one holds out other groups; at least 0.

    Returns:
        The part to train on and the part to validate on, each of at least one group.

    Raises:
        UserError: ``share`` or ``seed`` is none, or all samples are of one group.
    """
    if not fits(share, float) or not 0 < share < 1:
        raise UserError(
            f"the share that is held out for validation must be a number between 0 and 1, such as 0.1; got {share!r}."
        )
    if not fits(seed, int) or seed < 0:
        raise UserError(f"the seed of what is held out for validation must be a whole number from 0 on; got {seed!r}.")
    groups = dataset.groups()
    if len(groups) < 2:
        raise UserError(
            f"all {len(dataset)} samples of the training split belong together ({next(iter(groups), 'none')}), so that "
            "none can be held out for validation; add others, or take a data set with a validation split."
        )
    held = _chosen(groups, share, seed)
    sides = {"train": [name for name in groups if name not in held], "validation": [n for n in groups if n in held]}
    training, validation = (
        HeldOut(
            split,
            dataset,
            dataset.subset(names) if split == "train" else dataset.subset(names).for_validation(),
            float(share),
            seed,
        )
        for split, names in sides.items()
    )
    return training, validation


def _chosen(groups: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Return the groups that are held out, at least one and not all."""

    def key(name: str) -> Any:
        return hashlib.sha256(f"{seed} {name}".encode()).digest()

    wanted, count = share * sum(groups.values()), 0
    held: set[str] = set()
    for name in sorted(groups, key=key):
        nearer = abs(count + groups[name] - wanted) < abs(count - wanted)
        if nearer and len(held) < len(groups) - 1:
            held.add(name)
            count += groups[name]
    return held or {min(groups, key=lambda name: (groups[name], key(name)))}
