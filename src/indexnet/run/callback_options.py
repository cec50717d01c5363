"""The group ``callbacks`` of a configuration: Lightning's callbacks, and a person's own, by import path."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from indexnet.core.annotations import check_value, option_types
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import check_options, did_you_mean
from indexnet.run.processes import killed_process

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from indexnet.run.checkpoints import Monitor
    from indexnet.run.schema import Config
    from indexnet.tasks import Task

TARGET = "_target_"
_INITIAL = 0.05  # share of the initial weights in an average that is no longer worth a remark
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
    "ProgressBar": "trainer.enable_progress_bar says whether there is one",
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
    from indexnet.data import Data, get_data

    validated, known = config.training.validate_every is not None, list(monitors(task))
    if config.test_checkpoint == "best" and not validated:
        raise UserError(
            "test_checkpoint=best is the checkpoint that is best in validation, and there is no validation; give "
            "training.validate_every=STEPS or a fraction of the run, 0.1."
        )
    data = get_data(config.data["name"])
    if validated and config.training.holdout == 0 and data.validation is Data.validation:
        raise no_validation(config.data["name"], data.validation_remedy)
    if config.trainer.monitor is not None:
        check_monitor("trainer.monitor", config.trainer.monitor, known, validated)
    check_callbacks(config.callbacks, known, validated)


def no_validation(data: str, remedy: str) -> UserError:
    """Return the complaint about a run without anything to validate on."""
    return UserError(
        f"training.holdout=0 leaves nothing to validate on: data={data} has no validation split as it is configured; "
        f"{remedy}, or give training.holdout a share, 0.1."
    )


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
            check_monitor(f"callbacks.{name}", str(watched), ("auto", *monitors), validated)


def check_monitor(key: str, monitor: str, monitors: Sequence[str], validated: bool) -> None:
    """Check that what is watched is one of ``monitors``.

    Raises:
        UserError: there is no validation, or nothing of that name.
    """
    if not validated:
        raise UserError(
            f"{key} goes by the validation, and there is none; give training.validate_every=STEPS or a fraction of the "
            "run, 0.1."
        )
    if monitor not in monitors:
        hint, known = did_you_mean(monitor, monitors), ", ".join(each for each in monitors if each != "auto")
        raise UserError(f"{key}: nobody logs {shown(monitor)}.{hint} Known: {known}.")


def create_callbacks(
    callbacks: Mapping[str, Any], monitor: Monitor | None, modes: Mapping[str, str]
) -> list[pl.Callback]:
    """Build the callbacks of a checked configuration.

    Args:
        callbacks: the group.
        monitor: what the best checkpoint goes by, and callbacks whose monitor is ``auto``.
        modes: which way is better, ``min`` or ``max``, for what validation logs.

    Raises:
        UserError: one cannot be built, or two would keep their state under one name.
    """
    built: list[pl.Callback] = []
    for name, options in callbacks.items():
        cls = _class_of(name, options)
        given = {key: value for key, value in options.items() if key != TARGET}
        if "monitor" in inspect.signature(cls).parameters and monitor is not None:
            if given.get("monitor", "auto") == "auto":
                given["monitor"] = monitor.key
            if given.get("mode", "auto") == "auto" and "mode" in inspect.signature(cls).parameters:
                given["mode"] = modes[given["monitor"]]
        try:
            built.append(cls(**given))
        except Exception as error:
            raise UserError(f"callbacks.{name} cannot be built: {_line(error)}.") from error
    names: dict[str, str] = {}
    for name, callback in zip(callbacks, built, strict=True):
        if (first := names.setdefault(callback.state_key, name)) != name and callback.state_dict():
            raise UserError(f"callbacks.{first} and callbacks.{name} are the same; leave one of them out.")
    return built


def without_monitors(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the callbacks that do not go by the validation."""
    return {
        name: options
        for name, options in callbacks.items()
        if "monitor" not in inspect.signature(_class_of(name, options)).parameters
    }


def without_validation(config: Config) -> dict[str, Any]:
    """Return a configuration without its validation, and without what goes by it, for a run that measures speed."""
    content = config.content
    return {
        **{key: value for key, value in content.items() if key != "test_checkpoint"},
        "training": {**content["training"], "validate_every": None},
        "callbacks": without_monitors(config.callbacks),
        "schedule": {"name": "constant"} if content["schedule"]["name"] == "plateau" else content["schedule"],
    }


def remarks(callbacks: Mapping[str, Any], steps: int) -> list[str]:
    """Return a line for each average of the weights that a run of so many steps is too short for."""
    found = []
    for name, options in callbacks.items():
        if str(options[TARGET]).endswith(".EMAWeightAveraging"):
            decay = float(options.get("decay", 0.999))
            if (share := decay**steps) > _INITIAL:
                found.append(
                    f"callbacks.{name}.decay={decay:g}: after {steps} steps {share:.0%} of the average are the initial "
                    f"weights; callbacks.{name}.decay={_INITIAL ** (1 / steps):.3g} leaves {_INITIAL:.0%}"
                )
    return found


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
        if killed_process(error):  # another process of the run is gone, which a callback was the first to notice
            raise
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
