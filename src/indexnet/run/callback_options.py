"""The group ``callbacks`` of a configuration: Lightning's callbacks, and a person's own, by import path."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from indexnet.core.annotations import option_types
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, did_you_mean
from indexnet.run.schema import check_value

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from indexnet.run.checkpoints import Monitor
    from indexnet.run.schema import Config
    from indexnet.tasks import Task

TARGET = "_target_"
REFUSED: dict[str, str] = {
    "ModelCheckpoint": "a run writes its own checkpoints, last.ckpt and with training.validate_every best.ckpt",
    "OnExceptionCheckpoint": "a run writes its own checkpoints (trainer.checkpoint_every)",
    "BatchSizeFinder": "it would change training.batch_size, which the record states",
    "LearningRateFinder": "it would change optimizer.lr, which the record states; search for it with "
    "hydra/sweeper=optuna",
    "GradientAccumulationScheduler": "it would change the global batch; give trainer.accumulate_grad_batches",
    "StochasticWeightAveraging": "it changes the learning rate by epochs, and a run has one; callbacks=ema "
    "averages the weights",
    "Timer": "a run that ends by the clock cannot be repeated; give training.steps",
    "ProgressBar": "trainer.progress_bar says whether there is one",
}
"""Callbacks that would break a promise of a run, subclasses included: the reason, and what to do instead."""


def monitors(task: Task) -> dict[str, Literal["min", "max"]]:
    """Return what the validation of a task logs, ``val/psnr``, and which way is better; its first metric first."""
    metrics = task.create_metrics()
    return {f"val/{name}": "max" if metric.higher_is_better else "min" for name, metric in metrics.items()}


def check_validation(config: Config, task: Task) -> None:
    """Check what goes by the validation: best checkpoint, monitor and callbacks.

    Raises:
        UserError: there is no validation, or it does not log what is watched.
    """
    validated, known = config.training.validate_every is not None, list(monitors(task))
    if config.test_checkpoint == "best" and not validated:
        raise UserError(
            "test_checkpoint=best is the checkpoint that is best in validation, and there is no validation; give "
            "training.validate_every=STEPS or a fraction of the run, 0.1."
        )
    if config.trainer.monitor is not None:
        check_monitor("trainer.monitor", config.trainer.monitor, known, validated)
    check_callbacks(config.callbacks, known, validated)


def check_callbacks(callbacks: Mapping[str, Any], monitors: Sequence[str], validated: bool) -> None:
    """Check the group ``callbacks``: that classes exist, take their options, and watch what is logged.

    Args:
        callbacks: options by name, each with the import path of its class as ``_target_``.
        monitors: what validation logs, ``val/psnr``.
        validated: whether there is validation while training.

    Raises:
        UserError: one cannot be used.
    """
    for name, options in callbacks.items():
        cls = _class_of(name, options)
        given = {key: value for key, value in options.items() if key != TARGET}
        types, parameters = option_types(cls), inspect.signature(cls).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            check_options(f"callback {name!r}", cls, given)
        for key, value in given.items():
            if key in types and not (value == "auto" and key in ("monitor", "mode")):
                check_value(f"callbacks.{name}.{key}", value, types[key])
        for key, parameter in parameters.items():
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and parameter.default is parameter.empty and key not in given and key != "monitor":
                raise UserError(f"callback {name!r} needs the option {key!r}; give callbacks.{name}.{key}=VALUE.")
        watched = given.get("monitor", "auto" if "monitor" in parameters else None)
        if watched is not None:
            check_monitor(f"callbacks.{name}", str(watched), ("auto", *monitors, "train/loss"), validated)


def check_monitor(key: str, monitor: str, monitors: Sequence[str], validated: bool) -> None:
    """Check that what is watched is one of ``monitors``.

    Raises:
        UserError: there is no validation, or nothing of that name.
    """
    if not validated and not monitor.startswith("train/"):
        raise UserError(
            f"{key} goes by the validation, and there is none; give training.validate_every=STEPS or a fraction of the "
            "run, 0.1."
        )
    if monitor not in monitors:
        hint, known = did_you_mean(monitor, monitors), ", ".join(each for each in monitors if each != "auto")
        raise UserError(f"{key}: nobody logs {shown(monitor)}.{hint} Known: {known}.")


def create_callbacks(callbacks: Mapping[str, Any], monitor: Monitor | None) -> list[pl.Callback]:
    """Build the callbacks of a checked configuration; ``auto`` takes what the best checkpoint goes by."""
    built = []
    for name, options in callbacks.items():
        cls = _class_of(name, options)
        given = {key: value for key, value in options.items() if key != TARGET}
        if "monitor" in inspect.signature(cls).parameters and monitor is not None:
            own = given.get("monitor", "auto") == "auto"
            for key, value in (("monitor", monitor.key), ("mode", monitor.mode)):
                if given.get(key, "auto" if own else None) == "auto":
                    given[key] = value
        try:
            built.append(cls(**given))
        except Exception as error:
            raise UserError(f"callbacks.{name} cannot be built: {_line(error)}.") from error
    return built


@contextmanager
def named_callbacks(callbacks: Mapping[str, Any], built: Sequence[pl.Callback]) -> Iterator[None]:
    """Name the callback whose error ends the run, in one sentence.

    Raises:
        UserError: one of them has raised something.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for frame, line in traceback.walk_tb(error.__traceback__):
            for name, callback in zip(callbacks, built, strict=True):
                if frame.f_locals.get("self") is callback:
                    where = f"{frame.f_code.co_filename}, line {line}"
                    raise UserError(f"callbacks.{name} failed: {_line(error)} ({where}).") from error
        raise


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")


def _class_of(name: str, options: Any) -> type[Any]:
    """Return the class of a callback.

    Raises:
        UserError: it is named wrongly, is no callback, or would break a promise.
    """
    import pytorch_lightning as pl

    target = options.get(TARGET) if isinstance(options, Mapping) else None
    if not isinstance(target, str):
        raise UserError(
            f"callbacks.{name}={shown(options)} names no class; give callbacks.{name}.{TARGET}=IMPORT.PATH, or one of "
            "conf/callbacks by callbacks=NAME."
        )
    module, _, attribute = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = [each for each in dir(pl.callbacks) if each[:1].isupper()] if module.endswith("callbacks") else []
        raise UserError(
            f"callbacks.{name}.{TARGET}={target} is not found ({_line(error)}).{did_you_mean(attribute, known)}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, pl.Callback)):
        raise UserError(f"callbacks.{name}.{TARGET}={target} is no pytorch_lightning.Callback.")
    for base in cls.__mro__:
        if base.__name__ in REFUSED and base.__module__.startswith("pytorch_lightning"):
            raise UserError(f"callbacks.{name}: {base.__name__} is refused: {REFUSED[base.__name__]}.")
    return cls
