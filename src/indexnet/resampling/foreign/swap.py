"""Puts operators in the places of a network's own resampling, and takes them out again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from indexnet.core.errors import UserError, shown
from indexnet.core.registry import did_you_mean, option_names
from indexnet.resampling.base import NONE, OPERATORS, ResamplingStage, WidthError
from indexnet.resampling.foreign.calls import Role, Use, play, stop_playing
from indexnet.resampling.foreign.find import Finder, check_model
from indexnet.resampling.foreign.plan import CONV, POOL, TRANSPOSED, UPWARDS, Plan, Site, Source, place
from indexnet.resampling.foreign.selection import DOWNSAMPLING, KINDS, Wanted, check_plan, matches, select
from indexnet.resampling.pooling import POOLINGS, GuidedStage, PooledStage

Guide = str | Callable[..., Any] | None
KEEP, INPUT, ENCODER = "keep", "input", "encoder"


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
    sites: Wanted = None,
    guides: Guide | Mapping[str, Guide] = "auto",
    downsampling: str | None = None,
    unguided: str | None = None,
    **options: Any,
) -> Replaced:
    """Put an operator in the place of a network's x2 interpolations, and of what halves, in the network itself.

    The keys of its state stay; new ones are ``<owner>.resampling_<k>.*``. Weights of operators start as the operator
    says. Replace before wrapping, compiling or scripting. A transposed convolution is replaced where it is named; its
    weights stay, without gradients, and a 1x1 convolution follows the operator where it changes the width.

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
        downsampling: what the operator halves: None: nothing; ``pools``: pools of cells of 2x2 and, as an
            approximation, of 3x3 with stride 2 and padding 1; ``strided``: convolutions with stride 2, which get stride
            1 and the same weights before the operator, but a first one with few inputs. A guided operator needs an
            upsampling of the same resolution for each, whose guide it then makes; others are left.
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
    if plan is not None:
        check_plan(plan, model)
    # a plan was made at two sizes; beside it the example only shows which maps there are
    finder = None if example is None else Finder(model, example, None if plan is None else example)
    if plan is None:
        assert finder is not None
        plan = finder.plan
    if operator is None and plan.operator is None:
        raise UserError("replace needs the name of an operator: the plan has none.")
    if operator in (None, plan.operator):
        operator, options = plan.operator, {**plan.options, **options}
    downsampling = downsampling or plan.downsampling
    if downsampling not in (None, *DOWNSAMPLING):
        guess = did_you_mean(downsampling, DOWNSAMPLING)
        raise UserError(f"downsampling must be None, pools or strided, got {shown(downsampling)}.{guess}")
    job = _Job(model, plan, finder, str(operator), options, unguided or plan.unguided, downsampling)
    return job.run(sites, guides)


class _Job:
    def __init__(
        self, model: nn.Module, plan: Plan, finder: Finder | None, operator: str, options: dict[str, Any],
        unguided: str, downsampling: str | None,
    ) -> None:  # fmt: skip
        self.model, self.plan, self.finder = model, plan, finder
        self.operator, self.options, self.unguided, self.downsampling = operator, options, unguided, downsampling
        self.modules = dict(model.named_modules())
        if operator == NONE:
            raise UserError("resampling='none' is the absence of an operator; name one, such as carafe or dysample.")
        self.cls = OPERATORS.checked(operator, options)
        if downsampling is None and options.get("pooling", ENCODER) != ENCODER:
            raise UserError(
                f"resampling {operator!r}: pooling={shown(options['pooling'])} has no use where only upsampling is "
                "replaced; add downsampling='pools', or leave it out."
            )
        if downsampling is not None and options.get("pooling") == ENCODER:
            raise UserError(f"resampling {operator!r}: pooling=encoder halves nothing; name another for downsampling.")
        self.blind: type[ResamplingStage] | None = None
        if unguided not in (KEEP, INPUT):
            if unguided == NONE or not isinstance(unguided, str):
                raise UserError(f"unguided must be keep, input or the name of a blind operator, got {shown(unguided)}.")
            self.blind = OPERATORS.checked(unguided, {})
            if self.blind.info.guided:
                raise UserError(f"unguided={unguided} is a guided operator itself; name a blind one, such as carafe.")
        self.kinds = KINDS[downsampling]
        self.left: dict[str, str] = {}
        self.stages: dict[str, ResamplingStage] = {}
        self.pairs: dict[str, str] = {}  # the upsampling of each downsampling
        self.functions: dict[str, Callable[..., Any]] = {}
        self.shared: dict[type, Mapping[str, nn.Module]] = {}

    def run(self, sites: Any, guides: Any) -> Replaced:
        chosen, self.left = select(self.plan, sites, self.downsampling)
        chosen = self._with_guides(chosen, guides)
        self._pair(chosen)
        for key in list(chosen):
            try:
                chosen[key] = self._build(chosen[key], chosen)
            except WidthError as error:
                if sites is not None:
                    raise UserError(f"resampling {self.operator!r}, site {key}: {error}") from error
                self.left[key] = str(error)
        for key, partner in self.pairs.items():
            if partner not in self.stages:
                self.left[key] = f"{partner} is left"
        done = {key: chosen[key] for key in chosen if key in self.stages or self.pairs.get(key) in self.stages}
        if not done:
            tried = chosen or {site.id: site for site in self.plan.sites if site.kind in self.kinds}
            reasons = [f"{self.left[key]} ({key})" for key in tried]
            said = f": {'; '.join(reasons[:6])}" if reasons else ", and no site was found"
            raise UserError(f"nothing is replaced{said}; name sites, guides or another operator.")
        plan = dataclasses.replace(
            self.plan,
            sites=tuple(
                dataclasses.replace(done.get(site.id, site), why=self.left.get(site.id, site.why))
                for site in self.plan.sites
            ),
            chosen=tuple(done),
            operator=self.operator,
            options=self.options,
            unguided=self.unguided,
            downsampling=self.downsampling,
        )
        self._install(done)
        return Replaced(self.model, plan, self.stages, self.left)

    def _with_guides(self, chosen: dict[str, Site], guides: Any) -> dict[str, Site]:
        """Return the chosen sites with the guides that were asked for."""
        if guides == "auto":
            return chosen
        if not self.cls.info.guided:
            raise UserError(f"guides: {self.operator} takes no guide; leave guides out or name a guided operator.")
        by_pattern = guides if isinstance(guides, Mapping) else {"*": guides}
        if not all(
            isinstance(key, str) and (isinstance(one, str | None) or callable(one)) for key, one in by_pattern.items()
        ):
            raise UserError(
                "guides must be auto, the path of a module, a function, or a dictionary of these by patterns of sites, "
                f"got {shown(guides)}."
            )
        result = dict(chosen)
        for pattern, guide in by_pattern.items():
            fitting = [site for site in chosen.values() if site.kind in UPWARDS and matches(pattern, site)]
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

    def _pair(self, chosen: Mapping[str, Site]) -> None:
        """Give each upsampling of a guided operator the last downsampling before it of the same resolution."""
        if not self.cls.info.guided:
            return
        waiting: dict[tuple[int, int], list[str]] = {}
        for site in chosen.values():
            if site.kind not in UPWARDS:
                waiting.setdefault(_before(site), []).append(site.id)
            elif waiting.get(site.out_size):
                self.pairs[waiting[site.out_size].pop()] = site.id

    def _build(self, site: Site, chosen: Mapping[str, Site]) -> Site:
        """Build the stage of a site, unless it is left; return the site with the guide that it gets."""
        if site.kind not in UPWARDS:
            if site.id not in self.pairs:
                self._build_down(site)
            return site
        partner = next((down for down, up in self.pairs.items() if up == site.id), None)
        if partner is not None:
            down = chosen[partner]
            self._add(site, self.cls(down.channels, site.channels, **self.options))
            return dataclasses.replace(site, guide=Source("", partner, 0, "", (), down.channels, made=True))
        if site.guide is not None and site.guide.made:  # as the plan has it, but what makes it is not replaced now
            site = dataclasses.replace(site, guide=None)
        cls: type[ResamplingStage] | None = self.cls
        if self.cls.info.guided and not issubclass(self.cls, GuidedStage):
            if self.downsampling is None:
                raise UserError(
                    f"resampling {self.operator!r} needs what its own pooling saw, so it cannot replace upsampling "
                    "alone; add downsampling='pools', or name an operator that is guided by a map, or a blind one."
                )
            self.left[site.id] = "no downsampling of its resolution is replaced"
            return site
        if self.cls.info.guided and site.guide is None:
            if self.unguided == INPUT:
                if self.finder is None:
                    raise UserError("unguided=input needs an example beside the plan.")
                site = dataclasses.replace(site, guide=self.finder.input_guide(site))
            else:
                cls = self.blind
        if cls is None:
            self.left[site.id] = "no map guides it"
            return site
        if cls.info.guided and site.guide is not None and site.guide.is_function and site.id not in self.functions:
            raise UserError(f"the plan has a function as the guide of {site.id}, but not which; give it in guides=.")
        options = self.options if cls is self.cls else {}
        if "pooling" in option_names(cls):
            options = {**options, "pooling": ENCODER}  # which has no weights
        guided = cls.info.guided and site.guide is not None
        stage = cls(site.guide.channels if guided and site.guide else site.channels, site.channels, **options)
        if hasattr(stage, "reduce"):  # what pools is not called here
            del stage.reduce
        self._add(site, stage)
        return site

    def _build_down(self, site: Site) -> None:
        """Build a stage that only halves."""
        stage = self.cls(site.channels, site.channels, **self.options)
        if isinstance(stage, PooledStage) and stage.pooling in POOLINGS:  # without the weights that upsample
            stage = OPERATORS.create("nearest", site.channels, pooling=stage.pooling)
        elif self.cls.info.guided:
            self.left[site.id] = "no upsampling of its resolution is replaced"
            return
        elif hasattr(stage, "expand"):
            del stage.expand
        self._add(site, stage)

    def _add(self, site: Site, stage: ResamplingStage) -> None:
        cls = type(stage)
        if cls not in self.shared:
            self.shared[cls] = stage.create_shared()
            for name, module in self.shared[cls].items():
                stage.add_module(name, module)
        stage.shared = self.shared[cls]
        owner = self.modules[site.owner]
        if site.kind == TRANSPOSED and getattr(owner, "out_channels", site.channels) != site.channels:
            stage.project = nn.Conv2d(site.channels, owner.out_channels, 1)
        like = next((each for part in (owner, self.model) for each in part.parameters()), None)
        if like is not None and like.is_floating_point():
            stage.to(like.device, like.dtype)
        self.stages[site.id] = stage.train(owner.training)

    def _install(self, sites: Mapping[str, Site]) -> None:
        roles: dict[str, Role] = {}

        def role(path: str) -> Role:
            return roles.setdefault(path, Role(path))

        for site in self.plan.sites:
            # all owners count, so that no call is counted by the owner around
            if site.kind in self.kinds and (site.kind not in (CONV, TRANSPOSED) or site.id in sites):
                role(site.owner).is_owner = True
        for key, site in sites.items():
            owner, call = self.modules[site.owner], (site.kind, site.call)
            if key in self.pairs:
                role(site.owner).uses[call] = Use(self.stages[self.pairs[key]], hands_on=True)
                continue
            use = Use(f"resampling_{place(site.kind, site.call)}")
            if site.kind == TRANSPOSED:
                use.idle = tuple(name for name, each in owner.named_parameters() if each.requires_grad)
            owner.add_module(str(use.stage), self.stages[key])
            role(site.owner).uses[call] = use
            if key in self.functions and site.guide is not None and not site.guide.made:
                use.function = self.functions[key]
            elif site.guide is not None and self.stages[key].info.guided:
                use.guide = site.guide
                scope = role(site.guide.scope)
                scope.is_scope = True
                if site.guide.module is not None:
                    wanted = (site.guide.module, site.guide.call)
                    scope.keeps[wanted] = scope.keeps.get(wanted, 0) + site.times
                    if not site.guide.made:
                        role(site.guide.module).announces = True
        for path, each in roles.items():
            play(self.modules[path], each)


def _before(site: Site) -> tuple[int, int]:
    """Return the size of the map that a downsampling halves; of a convolution, once its stride is taken away."""
    height, width = site.in_size if site.kind == POOL else (2 * site.out_size[0], 2 * site.out_size[1])
    return height // 2 * 2, width // 2 * 2
