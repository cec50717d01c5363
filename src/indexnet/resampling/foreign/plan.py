"""What was found in a network and what is done about it: sites and plans, as tables and as files."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from indexnet.core.annotations import Positive, fits
from indexnet.core.console import create_console
from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write
from indexnet.core.readers import DamagedFileError, read_json, read_mapping

_Record = TypeVar("_Record", "Plan", "Site", "Source")

FORMAT = 1
"""Of the files of plans."""

REPLACE, POOLS, STRIDED, OPTIONAL, LEAVE = "replace", "pools", "strided", "optional", "leave"
"""Verdicts: replaced unless ``sites`` says otherwise; with ``downsampling=pools``; with ``downsampling=strided``; only
where ``sites`` names it; never."""

UPSAMPLE, TRANSPOSED, POOL, CONV = "upsample", "transposed", "pool", "conv"
"""Kinds of sites: interpolations, transposed convolutions, pools, convolutions with a stride."""
UPWARDS = (UPSAMPLE, TRANSPOSED)
"""Those that enlarge."""


def site_id(owner: str, kind: str, index: int) -> str:
    """Return the id of a site: its owner and what :func:`place` gives."""
    return f"{owner}#{place(kind, index)}"


def place(kind: str, index: int) -> str:
    """Return the kind of a call, none for interpolations, and its number."""
    return f"{'' if kind == UPSAMPLE else kind}{index}"


@dataclass(frozen=True)
class Source:
    """Where a map comes from, said so that it is found again in every call of the network.

    Attributes:
        scope: path of the module in whose call it is looked for; empty: the network itself.
        module: path of the module that gives it as (a part of) its output; None: it is an argument of ``scope``;
            empty: a function of the call gives it.
        call: which of the module's calls within that of ``scope``, from 0; -1: the latest. Of arguments: the position,
            -1 where it is given by name.
        name: of the argument.
        keys: the way to it inside of lists, tuples and dictionaries.
        channels: C of the map.
        pooled: whether it is averaged down to the size that is wanted.
        made: whether it is a guide already, made by the downsampling ``module`` (its id).
    """

    scope: str
    module: str | None
    call: int
    name: str
    keys: tuple[str | int, ...]
    channels: Positive
    pooled: bool = False
    made: bool = False

    @property
    def is_function(self) -> bool:
        """Whether a function of a person's gives it, which no plan holds."""
        return self.module == "" and not self.made

    def __str__(self) -> str:
        if self.made:
            return f"made by {self.module} ({self.channels})"
        if self.is_function:
            return f"a function of the call of {self.scope or 'the network'} ({self.channels})"
        what = f"argument {self.name}" if self.module is None else f"output of {self.module}"
        what += "".join(f"[{key!r}]" for key in self.keys)
        if self.module is None:
            what += f" of {self.scope}" if self.scope else " of the network"
        elif self.call > 0:
            what += f", call {self.call}"
        return f"{what} ({self.channels})"


@dataclass(frozen=True)
class Site:
    """A place where a network resamples.

    Attributes:
        id: ``owner#k``; of others than interpolations ``owner#pool<k>``, ``owner#conv<k>``, ``owner#transposed<k>``.
        owner: path of the innermost module in whose forward the call stands; empty: the network itself.
        owner_type: its class.
        call: which of the owner's calls of this kind it is, from 0.
        kind: ``upsample``, ``transposed``, ``pool`` or ``conv``.
        in_size: (H, W) of the map in the example run.
        out_size: (H, W) of the result.
        channels: C of the map; of convolutions, of the result.
        how: the mode of an interpolation, with ``aligned`` where corners are; kernel and stride of the others.
        guide: the map at the result's size that a guided operator takes; None: there is none.
        verdict: ``replace``, ``pools``, ``strided``, ``optional`` or ``leave``.
        why: the reason.
        times: how often it is called in one pass.
    """

    id: str
    owner: str
    owner_type: str
    call: int
    kind: str
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    channels: Positive
    how: str
    guide: Source | None
    verdict: str
    why: str
    times: Positive = 1


@dataclass(frozen=True)
class Plan:
    """The sites of a network, and what :func:`indexnet.resampling.replace` did with them.

    Attributes:
        network: its class.
        sites: in the order of their calls.
        chosen: ids of the replaced ones; None: nothing has been replaced yet.
        operator: its name; None as well.
        options: of the operator.
        unguided: see :func:`indexnet.resampling.replace`.
        downsampling: likewise.
    """

    network: str
    sites: tuple[Site, ...]
    chosen: tuple[str, ...] | None = None
    operator: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unguided: str = "keep"
    downsampling: str | None = None

    def __getitem__(self, key: str) -> Site:
        for site in self.sites:
            if site.id == key:
                return site
        raise KeyError(key)

    @property
    def default(self) -> tuple[Site, ...]:
        """The sites that are replaced unless others are named."""
        return tuple(site for site in self.sites if site.verdict == REPLACE)

    def table(self) -> Any:
        """Return a rich table of the sites."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, title=f"Resampling in {self.network}", title_justify="left")
        for heading in ("site", "map", "how", "guide", "verdict"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "site")
        for site in self.sites:
            before, after = ("x".join(map(str, size)) for size in (site.in_size, site.out_size))
            guide = str(site.guide) if site.guide else "-"
            verdict = site.verdict if self.chosen is None else ("replaced" if site.id in self.chosen else "left")
            table.add_row(
                *map(
                    Text,
                    (site.id, f"{site.channels} of {before} -> {after}", site.how, guide, f"{verdict}: {site.why}"),
                )
            )
        return table

    def __str__(self) -> str:
        console = create_console(io.StringIO(), width=160)
        console.print(self.table())
        return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON.

        Raises:
            UserError: an option of the operator, or a guide, is nothing that JSON can hold, or the place cannot be
                written to.
        """
        for site in self.sites:
            if site.guide is not None and site.guide.is_function:
                raise UserError(
                    f"the guide of {site.id} is a function, which a file cannot hold; name a module in guides= instead."
                )
        try:
            text = json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1)
        except (TypeError, ValueError) as error:
            raise UserError(f"the plan's options cannot be written as JSON: {error}.") from error
        atomic_write(path, text + "\n")


def load_plan(path: str | Path) -> Plan:
    """Read what :meth:`Plan.save` wrote.

    Raises:
        UserError: the file cannot be read, or is no plan.
    """
    try:
        content = read_mapping(path, read_json)
    except FileNotFoundError:
        raise UserError(f"the plan {path} is not there; write one with plan.save.") from None
    except DamagedFileError as error:
        raise UserError(f"no plan can be read: {str(error).rstrip('.')}; write one with plan.save.") from error
    try:
        if content.pop("format") != FORMAT:
            raise ValueError
        sites = tuple(_site(each) for each in content.pop("sites"))
        plan = _typed(Plan, {**content, "sites": sites})
        if not {*(plan.chosen or ())} <= {site.id for site in sites}:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no plan of this version; find the sites anew and write it with plan.save."
        ) from error
    return plan


def _site(content: dict[str, Any]) -> Site:
    guide = content["guide"]
    site = _typed(Site, {**content, "guide": None if guide is None else _typed(Source, guide)})
    if site.id != site_id(site.owner, site.kind, site.call):
        raise ValueError
    return site


def _typed(cls: type[_Record], content: Mapping[str, Any]) -> _Record:
    """Build a dataclass of values as JSON has them.

    Raises:
        ValueError: a value has another type than its field.
        TypeError: a field is missing or unknown.
    """
    kept = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    for key, annotation in get_type_hints(cls, include_extras=True).items():
        if key not in ("sites", "guide") and key in kept and not fits(kept[key], annotation):
            raise ValueError(key)
    build: Any = cls
    result: _Record = build(**kept)
    return result
