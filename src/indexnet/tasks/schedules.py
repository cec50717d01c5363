"""Schedules as Lightning takes them; what they are is in :mod:`indexnet.core.schedules`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau

from indexnet.core.errors import UserError
from indexnet.core.schedules import TOTAL, Constant, MultiStep, OneCycle, Plateau, WarmedUp, create_schedule


class ValidatedPlateau(ReduceLROnPlateau):
    """Torch's, told apart from those that Lightning steps: :func:`step_plateau` does it at the end of a validation.

    Lightning would step it every so many batches or epochs, whether or not there has been a validation since.
    """


def with_schedule(
    optimizer: Optimizer, spec: Mapping[str, Any], watched: tuple[str, bool], trainer: Callable[[], pl.Trainer]
) -> Any:
    """Return an optimizer and its schedule as ``configure_optimizers`` returns them.

    Every schedule but ``plateau`` is stepped after each optimizer step. Their states are plain data, and a rate follows
    from the step alone, or (``multistep``, the warm-up of ``plateau``) from the rate before, which the state of the
    optimizer holds: training goes on from a checkpoint as if nothing had been.

    Args:
        optimizer: over its groups of parameters.
        spec: name and options, in optimizer steps; ``total_steps``: of the run.
        watched: what validation logs and a ``plateau`` follows, and whether higher is better.
        trainer: returns the Trainer, which is asked for the total where ``spec`` lacks it.

    Raises:
        UserError: no such schedule, options that it does not take, or a run that it does not suit.
    """
    total = spec.get(TOTAL)
    schedule = create_schedule({key: value for key, value in spec.items() if key != TOTAL})
    if total is None and (schedule.whole_run or isinstance(getattr(schedule, "warmup", 0), float)):
        total = trainer().estimated_stepping_batches
        if total == float("inf"):
            raise UserError(f"schedule={spec['name']} must know how long training is; give the Trainer max_steps=.")
    if isinstance(schedule, OneCycle):
        peaks = [group["lr"] for group in optimizer.param_groups]
        try:
            return _stepped(optimizer, OneCycleLR(optimizer, peaks, total_steps=total, **dataclasses.asdict(schedule)))
        except ValueError as error:
            raise UserError(f"schedule=onecycle cannot work: {str(error).rstrip('.')}.") from error
    assert isinstance(schedule, WarmedUp)
    warmup = schedule.warmup_steps(total or 0)
    if isinstance(schedule, Plateau):
        if not trainer().enable_validation:
            raise UserError("schedule=plateau follows the metric of a validation; give the Trainer validation batches.")
        options = {key: value for key, value in dataclasses.asdict(schedule).items() if not key.startswith("warmup")}
        mode: Any = "max" if watched[1] else "min"
        rises = LinearLR(optimizer, schedule.warmup_start, total_iters=warmup) if warmup else None
        lowers = {
            "scheduler": ValidatedPlateau(optimizer, mode, **options),
            "monitor": watched[0],
            "reduce_on_plateau": True,
            "strict": False,  # see there
        }
        return [optimizer], [*([{"scheduler": rises, "interval": "step"}] if rises else []), lowers]
    if isinstance(schedule, Constant) and not warmup:
        return optimizer
    if isinstance(schedule, MultiStep) and not warmup:
        return _stepped(
            optimizer, MultiStepLR(optimizer, [round(each) for each in schedule.milestones], schedule.gamma)
        )
    return _stepped(optimizer, LambdaLR(optimizer, lambda step: schedule.scale(step, total or float("inf"))))


def _stepped(optimizer: Optimizer, scheduler: Any) -> dict[str, Any]:
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def step_plateau(trainer: pl.Trainer) -> None:
    """Step the schedules that follow a metric, at the end of a validation while training.

    Raises:
        UserError: validation has not logged it.
    """
    if trainer.state.fn != "fit" or trainer.sanity_checking:
        return
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ValidatedPlateau):
            value = trainer.callback_metrics.get(str(config.monitor))
            if value is None:
                raise UserError(f"schedule=plateau follows {config.monitor}, which validation does not log.")
            config.scheduler.step(value)
