"""Which sites of a plan are replaced, and whether the plan is this network's."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import did_you_mean
from indexnet.resampling.foreign.plan import CONV, LEAVE, POOL, POOLS, REPLACE, STRIDED, UPWARDS, Plan, Site

DOWNSAMPLING = (POOLS, STRIDED)
KINDS = {None: UPWARDS, POOLS: (*UPWARDS, POOL), STRIDED: (*UPWARDS, CONV)}
"""What is replaced with each ``downsampling``."""

Wanted = str | Sequence[str] | Callable[[Site], bool] | None


def check_plan(plan: Any, model: nn.Module) -> None:
    """Refuse a plan of another network.

    Raises:
        UserError: it is none, or names an owner or a guide that is not there, or an owner of another class.
    """
    if not isinstance(plan, Plan):
        raise UserError(f"plan must be what find_sites or load_plan returns, got {shown(plan)}.")
    modules = dict(model.named_modules())
    for site in plan.sites:
        owner = modules.get(site.owner)
        if owner is None or type(owner).__name__ != site.owner_type:
            there = "has none" if owner is None else f"has a {type(owner).__name__}"
            where = f"where the plan has {site.owner or 'the network'}, a {site.owner_type}, this one {there}"
            raise UserError(f"the plan is that of another network, {plan.network}: {where}; find the sites anew.")
        if (guide := site.guide) is not None and not guide.made:
            missing = [path for path in (guide.scope, guide.module or "") if path not in modules]
            if missing:
                raise UserError(
                    f"the plan is that of another network, {plan.network}: the guide of {site.id} is the {guide}, and "
                    f"this one has no {missing[0]}; find the sites anew."
                )


def select(plan: Plan, wanted: Wanted, downsampling: str | None) -> tuple[dict[str, Site], dict[str, str]]:
    """Choose among the sites of a plan.

    Args:
        plan: the plan.
        wanted: see ``sites`` of :func:`indexnet.resampling.replace`.
        downsampling: likewise.

    Returns:
        The chosen ones, and why each other is left, by their ids.

    Raises:
        UserError: what is wanted is not there, or cannot be replaced.
    """
    sites = {site.id: site for site in plan.sites}
    if wanted is None:
        verdicts, ids = (REPLACE, downsampling), plan.chosen
        keep = {key: site for key, site in sites.items() if (site.verdict in verdicts if ids is None else key in ids)}
        return keep, {key: _why_left(plan, site, downsampling) for key, site in sites.items() if key not in keep}
    offered = [key for key, site in sites.items() if site.verdict != LEAVE and site.kind in KINDS[downsampling]]
    if callable(wanted):
        keep = {key: sites[key] for key in offered if wanted(sites[key])}
    else:
        patterns = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
            raise UserError(f"sites must be an id or a pattern, a list of them, or a function, got {shown(wanted)}.")
        for pattern in patterns:
            if not any(matches(pattern, site) for site in sites.values()):
                guess = did_you_mean(pattern, [*sites, *(site.owner for site in sites.values())])
                raise UserError(f"sites: {shown(pattern)} names no site of the network.{guess} See find_sites.")
        # a pattern takes what can be replaced; an id means that one
        keep = {
            key: site
            for key, site in sites.items()
            if key in patterns or (key in offered and any(matches(each, site) for each in patterns))
        }
    for site in keep.values():
        if site.verdict == LEAVE:
            raise UserError(f"sites: {site.id} cannot be replaced: {site.why}.")
        if site.kind not in KINDS[downsampling]:
            need = POOLS if site.kind == POOL else STRIDED
            raise UserError(f"sites: {site.id} halves a map; add downsampling={need!r}, or leave it out.")
    return keep, {key: "not chosen" for key in sites if key not in keep}


def _why_left(plan: Plan, site: Site, downsampling: str | None) -> str:
    if site.verdict in DOWNSAMPLING and site.verdict != downsampling:
        return f"halves, and downsampling={downsampling}"
    return site.why if plan.chosen is None else "not chosen"


def matches(pattern: str, site: Site) -> bool:
    """Whether a pattern is one of a site's id or owner."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (site.id, site.owner))
