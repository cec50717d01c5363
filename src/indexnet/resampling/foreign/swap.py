"""Puts operators in the places of a network's own resampling, and takes them out again."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import did_you_mean, option_names
from indexnet.resampling.base import NONE, OPERATORS, ResamplingStage, WidthError
from indexnet.resampling.foreign.calls import Role, play, stop_playing
from indexnet.resampling.foreign.find import Finder, check_model
from indexnet.resampling.foreign.plan import LEAVE, REPLACE, UPSAMPLE, Plan, Site, Source
from indexnet.resampling.pooling import GuidedStage

Guide = str | Callable[..., Any] | None
KEEP, INPUT = "keep", "input"


@dataclass(frozen=True)
class Replaced:
    """What :func:`replace` did.

    Attributes:
        model: the network, changed in place.
        plan: its sites; ``plan.chosen`` are those that were replaced. Saved, it builds the same network again.
        stages: the new modules, by the ids of their sites.
        left: why each other site was left, by its id.
    """

    model: nn.Module
    plan: Plan
    stages: Mapping[str, ResamplingStage]
    left: Mapping[str, str]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Give the new parameters alone, such as for an optimizer's group with a learning rate of its own."""
        yield from nn.ModuleList(self.stages.values()).parameters()

    def undo(self) -> None:
        """Make the network what it was; the new modules and their weights leave it. A second time does nothing."""
        for module in list(self.model.modules()):
            stop_playing(module)

    def __str__(self) -> str:
        return str(self.plan)


def replace(
    model: nn.Module,
    operator: str | None = None,
    example: Any = None,
    *,
    plan: Plan | None = None,
    sites: str | Sequence[str] | Callable[[Site], bool] | None = None,
    guides: Guide | Mapping[str, Guide] = "auto",
    unguided: str | None = None,
    **options: Any,
) -> Replaced:
    """Put an operator in the place of a network's x2 interpolations, in the network itself.

    The keys of its state stay; new ones are ``<owner>.resampling_<k>.*``. Weights of operators start as the operator
    says. Replace before wrapping, compiling or scripting.

    Args:
        model: the network.
        operator: registry name, see :func:`indexnet.resampling.list_resampling`; default that of the plan.
        example: what the network is called with, see :func:`indexnet.resampling.find_sites`.
        plan: in the place of an example, what ``find_sites`` returned or ``Replaced.plan`` was.
        sites: ids, patterns such as ``decoder.*`` of ids or owners, or a function of a site; default those whose
            verdict is ``replace``, or what a plan has chosen.
        guides: for guided operators, ``auto``: those that were found; else, for all sites or by patterns of them, the
            path of a module whose output is to guide, or a function of the owner, its arguments and its named ones
            that returns the map.
        unguided: what becomes of a site without a guide under a guided operator: ``keep`` leaves it; ``input`` guides
            by the network's input, averaged to its size; or the name of a blind operator. Default ``keep``.
        **options: of the operator.

    Raises:
        UserError: nothing is replaced, the network is wrapped, compiled or scripted, a name or option is unknown, a
            named site or guide is not there or does not fit, or the plan is another network's.
    """
    check_model(model)
    if plan is None and example is None:
        raise UserError("replace needs an example of what the network is called with, or a plan.")
    finder = None if example is None else Finder(model, example)
    if plan is None:
        assert finder is not None
        plan = finder.plan
    else:
        check_plan(plan, model)
    if operator is None and plan.operator is None:
        raise UserError("replace needs the name of an operator: the plan has none.")
    if operator in (None, plan.operator):
        operator, options = plan.operator, {**plan.options, **options}
    job = _Job(model, plan, finder, str(operator), options, unguided or plan.unguided)
    return job.run(sites, guides)


def check_plan(plan: Plan, model: nn.Module) -> None:
    """Refuse a plan of another network.

    Raises:
        UserError: an owner that it names is not there, or is of another class.
    """
    modules = dict(model.named_modules())
    for site in plan.sites:
        owner = modules.get(site.owner)
        if owner is None or type(owner).__name__ != site.owner_type:
            there = "has none" if owner is None else f"has a {type(owner).__name__}"
            where = f"where the plan has {site.owner or 'the network'}, a {site.owner_type}, this one {there}"
            raise UserError(f"the plan is that of another network, {plan.network}: {where}; find the sites anew.")


class _Job:
    def __init__(
        self, model: nn.Module, plan: Plan, finder: Finder | None, operator: str, options: dict[str, Any], unguided: str
    ) -> None:
        self.model, self.plan, self.finder, self.operator, self.options = model, plan, finder, operator, options
        self.modules = dict(model.named_modules())
        self.cls = OPERATORS.checked(operator, _with_pooling(operator, options))
        self.unguided = unguided
        if operator == NONE:
            raise UserError("resampling='none' is the absence of an operator; name one, such as carafe or dysample.")
        self.blind: type[ResamplingStage] | None = None
        if unguided not in (KEEP, INPUT):
            self.blind = OPERATORS.checked(unguided, {})
            if self.blind.info.guided:
                raise UserError(f"unguided={unguided} is a guided operator itself; name a blind one, such as carafe.")
        self.left: dict[str, str] = {}
        self.functions: dict[str, Callable[..., Any]] = {}
        self.shared: dict[type, Mapping[str, nn.Module]] = {}

    def run(self, sites: Any, guides: Any) -> Replaced:
        chosen = self._select(sites)
        guided = self._with_guides(chosen, guides)
        stages = self._stages(guided, strict=sites is not None)
        if not stages:
            tried = guided if guided else {site.id for site in self.plan.sites if site.kind == UPSAMPLE}
            reasons = [f"{why} ({key})" for key, why in self.left.items() if key in tried]
            said = f": {'; '.join(reasons[:6])}" if reasons else ", and no site was found"
            raise UserError(f"nothing is replaced{said}; name sites, guides or another operator.")
        plan = dataclasses.replace(
            self.plan,
            sites=tuple(
                dataclasses.replace(
                    guided.get(site.id, site),
                    why=self.left.get(site.id, site.why) if site.id not in stages else site.why,
                )
                for site in self.plan.sites
            ),
            chosen=tuple(stages),
            operator=self.operator,
            options=self.options,
            unguided=self.unguided,
        )
        self._install({key: guided[key] for key in stages}, stages)
        return Replaced(self.model, plan, stages, self.left)

    def _select(self, wanted: Any) -> dict[str, Site]:
        sites = {site.id: site for site in self.plan.sites}
        if wanted is None:
            ids = self.plan.chosen
            keep = {
                key: site for key, site in sites.items() if (key in ids if ids is not None else site.verdict == REPLACE)
            }
            self.left = {key: site.why for key, site in sites.items() if key not in keep}
            return keep
        if callable(wanted):
            keep = {key: site for key, site in sites.items() if wanted(site)}
        else:
            patterns = [wanted] if isinstance(wanted, str) else list(wanted)
            for pattern in patterns:
                if not any(_matches(pattern, site) for site in sites.values()):
                    guess = did_you_mean(pattern, [*sites, *(site.owner for site in sites.values())])
                    raise UserError(f"sites: {shown(pattern)} names no site of the network.{guess} See find_sites.")
            # a pattern takes what can be replaced; an id means that one
            keep = {
                key: site
                for key, site in sites.items()
                if key in patterns
                or (site.verdict != LEAVE and site.kind == UPSAMPLE and any(_matches(each, site) for each in patterns))
            }
        for site in keep.values():
            if site.verdict == LEAVE:
                raise UserError(f"sites: {site.id} cannot be replaced: {site.why}.")
            if site.kind != UPSAMPLE:
                raise UserError(f"sites: {site.id} halves a map, and only upsampling is replaced.")
        self.left = {key: "not chosen" for key in sites if key not in keep}
        return keep

    def _with_guides(self, chosen: dict[str, Site], guides: Any) -> dict[str, Site]:
        """Return the chosen sites with the guides that were asked for."""
        if guides == "auto":
            return chosen
        if not self.cls.info.guided:
            raise UserError(f"guides: {self.operator} takes no guide; leave guides out or name a guided operator.")
        by_pattern = guides if isinstance(guides, Mapping) else {"*": guides}
        result = dict(chosen)
        for pattern, guide in by_pattern.items():
            fitting = [site for site in chosen.values() if _matches(pattern, site)]
            if not fitting:
                raise UserError(f"guides: {shown(pattern)} names no chosen site.{did_you_mean(pattern, chosen)}")
            for site in fitting:
                if guide != "auto":
                    result[site.id] = dataclasses.replace(site, guide=self._guide(site, guide))
        return result

    def _guide(self, site: Site, guide: Guide) -> Source | None:
        if guide is None:
            return None
        if self.finder is None:
            raise UserError("guides needs an example beside the plan, to see which maps there are.")
        if callable(guide):
            self.functions[site.id] = guide
            return self.finder.function_guide(site, guide)
        return self.finder.module_guide(site, guide)

    def _stages(self, sites: dict[str, Site], strict: bool) -> dict[str, ResamplingStage]:
        stages = {}
        for key, site in sites.items():
            cls: type[ResamplingStage] | None = self.cls
            options = self.options
            if self.cls.info.guided and not issubclass(self.cls, GuidedStage):
                raise UserError(
                    f"resampling {self.operator!r} needs what its own pooling saw, so it cannot replace upsampling "
                    "alone; name an operator that is guided by a map, or a blind one."
                )
            if self.cls.info.guided and site.guide is None:
                if self.unguided == INPUT:
                    if self.finder is None:
                        raise UserError("unguided=input needs an example beside the plan.")
                    site = sites[key] = dataclasses.replace(site, guide=self.finder.input_guide(site))
                else:
                    cls, options = self.blind, {}
            if cls is None:
                self.left[key] = "no map guides it"
                continue
            try:
                stages[key] = self._stage(cls, site, options)
            except WidthError as error:
                if strict:
                    raise UserError(f"resampling {cls.info.name!r}, site {key}: {error}") from error
                self.left[key] = str(error)
        return stages

    def _stage(self, cls: type[ResamplingStage], site: Site, options: Mapping[str, Any]) -> ResamplingStage:
        width = site.guide.channels if cls.info.guided and site.guide is not None else site.channels
        stage = cls(width, site.channels, **_with_pooling(cls.info.name, options))
        if hasattr(stage, "reduce"):  # what pools is not called here
            del stage.reduce
        if cls not in self.shared:
            self.shared[cls] = shared = stage.create_shared()
            for name, module in shared.items():
                stage.add_module(name, module)
        stage.shared = self.shared[cls]
        owner = self.modules[site.owner]
        like = next((each for part in (owner, self.model) for each in part.parameters()), None)
        if like is not None and like.is_floating_point():
            stage.to(like.device, like.dtype)
        return stage.train(owner.training)

    def _install(self, sites: dict[str, Site], stages: dict[str, ResamplingStage]) -> None:
        roles: dict[str, Role] = {}

        def role(path: str) -> Role:
            return roles.setdefault(path, Role(path))

        for site in self.plan.sites:
            if site.kind == UPSAMPLE:
                role(site.owner).is_owner = True
        for key, site in sites.items():
            mine = role(site.owner)
            mine.stages[site.call] = f"resampling_{site.call}"
            self.modules[site.owner].add_module(mine.stages[site.call], stages[key])
            if key in self.functions:
                mine.functions[site.call] = self.functions[key]
            elif site.guide is not None and stages[key].info.guided:
                mine.guides[site.call] = site.guide
                scope = role(site.guide.scope)
                scope.is_scope = True
                if site.guide.module is not None:
                    wanted = (site.guide.module, site.guide.call)
                    scope.keeps[wanted] = scope.keeps.get(wanted, 0) + site.times
                    role(site.guide.module).announces = True
        for path, each in roles.items():
            play(self.modules[path], each)


def _matches(pattern: str, site: Site) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (site.id, site.owner))


def _with_pooling(operator: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a stage that only upsamples: its pooling has no weights.

    Raises:
        UserError: a pooling is given, which nothing would use.
    """
    names = option_names(OPERATORS.get(operator), ("channels", "decoder_channels"))
    if "pooling" not in names:
        return dict(options)
    if options.get("pooling", "encoder") != "encoder":
        raise UserError(
            f"resampling {operator!r}: pooling={options['pooling']} has no use where only upsampling is replaced."
        )
    return {**options, "pooling": "encoder"}
