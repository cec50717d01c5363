"""Learning-rate schedules by name: their options, and the rate that they give at every step. Nothing here needs torch.

A schedule is plain data, ``{"name": "cosine", "warmup": 500}``. Where a person writes it, some options count in epochs
(:attr:`Schedule.in_epochs`); :func:`in_steps` makes optimizer steps of them.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from indexnet.core.annotations import Rule, fits, in_words, option_types
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import did_you_mean, unknown_name

TOTAL = "total_steps"
"""Key beside a schedule's options, once it is in steps: optimizer steps of the run."""

Factor = Annotated[float, Rule("a number from 0 to 1", lambda value: 0 <= value <= 1)]
Share = Annotated[float, Rule("a number between 0 and 1", lambda value: 0 < value < 1)]
Start = Annotated[float, Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)]
Positive = Annotated[float, Rule("a positive number", lambda value: value > 0)]
NonNegative = Annotated[float, Rule("a number of at least 0", lambda value: value >= 0)]
Count = Annotated[int, Rule("an integer of at least 0", lambda value: value >= 0)]
Epochs = Annotated[Sequence[float], Rule("a list of epochs", lambda value: True)]
Warmup = Annotated[
    float,
    Rule(
        "a number of optimizer steps, or a fraction of the run below 1",
        lambda value: value >= 0 and (isinstance(value, int) or value < 1),
    ),
]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes while a network is trained; the fields are the options."""

    in_epochs: ClassVar[tuple[str, ...]] = ()  # options that a person gives in epochs
    whole_run: ClassVar[bool] = False  # whether it needs to know how long the run is
    validates: ClassVar[bool] = False  # whether it needs validation while training


@dataclass(frozen=True, kw_only=True)
class WarmedUp(Schedule):
    """A schedule that may begin with a linear warm-up.

    Attributes:
        warmup: optimizer steps as an integer, or a fraction of the run below 1; 0: none.
        warmup_start: factor on the learning rate at the first step of the warm-up.
    """

    warmup: Warmup = 0
    warmup_start: Start = 0.01

    def scale(self, step: int, total: float) -> float:
        """Return the factor on the learning rate.

        Args:
            step: optimizer steps that are done, from 0.
            total: optimizer steps of the run; infinite where nobody knows.
        """
        warm = self.warmup_steps(total)
        rise = min(1.0, step / warm) if warm else 1.0
        progress = (step - warm) / (total - warm) if total > warm else 1.0
        return (self.warmup_start + (1 - self.warmup_start) * rise) * self.shape(step, min(1.0, max(0.0, progress)))

    def shape(self, step: int, progress: float) -> float:
        """Return that factor without the warm-up's.

        Args:
            step: optimizer steps that are done, from 0.
            progress: from 0 where the warm-up ends to 1 at the end of the run.
        """
        return 1.0

    def warmup_steps(self, total: float) -> int:
        """Return the optimizer steps of the warm-up in a run of so many."""
        return self.warmup if isinstance(self.warmup, int) else round(self.warmup * total)


@dataclass(frozen=True, kw_only=True)
class Constant(WarmedUp):
    """The learning rate stays as it is."""


@dataclass(frozen=True, kw_only=True)
class MultiStep(WarmedUp):
    """Times `gamma` at each of the `milestones`, which are epochs.

    Attributes:
        milestones: epochs, counted from 0, at which the rate drops.
        gamma: factor on the rate.
    """

    milestones: Epochs
    gamma: Positive

    in_epochs = ("milestones",)

    def shape(self, step: int, progress: float) -> float:
        return float(self.gamma ** bisect_right(sorted(self.milestones), step))


@dataclass(frozen=True, kw_only=True)
class Step(WarmedUp):
    """Times `gamma` every `step_size` epochs.

    Attributes:
        step_size: epochs between two drops.
        gamma: factor on the rate.
    """

    step_size: Positive
    gamma: Positive

    in_epochs = ("step_size",)

    def shape(self, step: int, progress: float) -> float:
        return float(self.gamma ** math.floor(step / self.step_size + 1e-9))


@dataclass(frozen=True, kw_only=True)
class Cosine(WarmedUp):
    """Half a cosine from the end of the warm-up to the end of the run, where `end_factor` of the rate is left.

    Attributes:
        end_factor: factor on the learning rate where the run ends.
    """

    end_factor: Factor = 0.0

    whole_run = True

    def shape(self, step: int, progress: float) -> float:
        return self.end_factor + (1 - self.end_factor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class Poly(WarmedUp):
    """The rest of the run to the power of `power` (1: linear), down to `end_factor` of the rate.

    Attributes:
        power: 1 falls in a line, below 1 later, above 1 sooner.
        end_factor: factor on the learning rate where the run ends.
    """

    power: Positive = 0.9
    end_factor: Factor = 0.0

    whole_run = True

    def shape(self, step: int, progress: float) -> float:
        return float(self.end_factor + (1 - self.end_factor) * (1 - progress) ** self.power)


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """torch's `OneCycleLR`: up to the learning rate in `pct_start` of the run, its warm-up, and down to almost nothing.

    Attributes:
        pct_start: fraction of the run in which the rate rises.
        anneal_strategy: along a cosine or a line.
        div_factor: the run starts at the rate over this.
        final_div_factor: and ends at that over this.
        three_phase: down as fast as up, then a third phase to the end.
        cycle_momentum: move momentum (Adam's first beta) against the rate, torch's default; else it stays as given.
        base_momentum: the lowest momentum then.
        max_momentum: the highest.
    """

    pct_start: Share = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    div_factor: Positive = 25.0
    final_div_factor: Positive = 10000.0
    three_phase: bool = False
    cycle_momentum: bool = False
    base_momentum: Factor = 0.85
    max_momentum: Factor = 0.95

    whole_run = True


@dataclass(frozen=True, kw_only=True)
class Plateau(WarmedUp):
    """torch's `ReduceLROnPlateau`: times `factor` after `patience` validations without a better first metric.

    Attributes:
        factor: on the rate, at each drop.
        patience: validations without improvement that are borne.
        threshold: what counts as an improvement.
        threshold_mode: of the best value (``rel``) or in its unit (``abs``).
        cooldown: validations after a drop before the next ones count.
        min_lr: the lowest rate.
        eps: smaller drops are left out.
    """

    factor: Share = 0.1
    patience: Count = 10
    threshold: NonNegative = 0.0001
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Count = 0
    min_lr: NonNegative = 0.0
    eps: NonNegative = 1e-8

    validates = True


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "multistep": MultiStep,
    "step": Step,
    "cosine": Cosine,
    "poly": Poly,
    "onecycle": OneCycle,
    "plateau": Plateau,
}


def get_schedule(name: str) -> type[Schedule]:
    """Return the schedule of that name.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    return SCHEDULES[name]


def schedule_options(name: str) -> tuple[str, ...]:
    """Return the names of a schedule's options."""
    return tuple(each.name for each in dataclasses.fields(get_schedule(name)))


def create_schedule(spec: Mapping[str, Any]) -> Schedule:
    """Build a schedule from its plain description, ``{"name": "cosine", "warmup": 500}``.

    Raises:
        UserError: there is none of that name, an option is unknown, missing or of another type.
    """
    name = spec["name"]
    cls, known = get_schedule(name), schedule_options(name)
    options = {key: value for key, value in spec.items() if key != "name"}
    types = option_types(cls)
    for key, value in options.items():
        if key not in known:
            raise UserError(
                f"schedule {name!r} has no option {key!r}.{did_you_mean(key, known)} Its options: {', '.join(known)}."
            )
        if not fits(value, types[key]):
            raise UserError(f"schedule.{key}={shown(value)} must be {in_words(types[key])}.")
    for each in dataclasses.fields(cls):
        if each.name not in options and each.default is dataclasses.MISSING:
            raise UserError(f"schedule.{each.name} is missing; schedule={name} needs it.")
    return cls(**options)


def check_length(spec: Mapping[str, Any], steps: int | None, epochs: int | None) -> None:
    """Check that a schedule, as a person writes it, is not longer than the run.

    Args:
        spec: its plain description.
        steps: optimizer steps of the run, whatever a budget makes of them; None where they are not known.
        epochs: of the run, likewise.

    Raises:
        UserError: it is, or it counts in epochs that are not given.
    """
    schedule, name = create_schedule(spec), spec["name"]
    if steps == 0:  # nothing is trained
        return
    if schedule.in_epochs and epochs is None:
        raise UserError(f"schedule={name} counts in epochs; give training.epochs, or schedule=constant.")
    late: list[Any] = []
    if isinstance(schedule, MultiStep) and epochs is not None:
        late = [each for each in schedule.milestones if each >= epochs]
    if isinstance(schedule, Step) and epochs is not None and schedule.step_size >= epochs:
        late = [schedule.step_size]
    if late:
        key = "milestones" if isinstance(schedule, MultiStep) else "step_size"
        raise UserError(
            f"schedule.{key}={shown(spec[key])} is longer than the run: with training.epochs={epochs} the learning "
            f"rate does not come to epoch {late[0]:g}; give smaller ones, or schedule=constant."
        )
    if isinstance(schedule, WarmedUp) and steps is not None and schedule.warmup > steps:
        raise UserError(
            f"schedule.warmup={schedule.warmup} is longer than the run, which has {steps} steps; give fewer, or a "
            "fraction of the run such as schedule.warmup=0.1."
        )


def in_steps(spec: Mapping[str, Any], steps: int, planned: int, epochs: int | None) -> dict[str, Any]:
    """Return a schedule in optimizer steps, with those of the run as ``total_steps``.

    Args:
        spec: as a person writes it, in epochs where it counts in them.
        steps: optimizer steps of the run.
        planned: what they would be without a budget; a warm-up shrinks with the run, as milestones do.
        epochs: of the run, where it has some.

    Raises:
        UserError: the schedule is longer than the run.
    """
    check_length(spec, planned, epochs)
    found, schedule = {**spec, TOTAL: steps}, create_schedule(spec)
    if epochs is not None:
        if isinstance(schedule, MultiStep):
            found["milestones"] = [round(steps * epoch / epochs) for epoch in schedule.milestones]
        elif isinstance(schedule, Step):
            found["step_size"] = steps * schedule.step_size / epochs
    if isinstance(schedule, WarmedUp) and schedule.warmup:
        warmup = schedule.warmup_steps(planned)
        found["warmup"] = warmup if steps == planned else max(1, round(warmup * steps / planned))
    return found
