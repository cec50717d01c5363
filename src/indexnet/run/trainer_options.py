"""The arguments of Lightning's Trainer: which the group ``trainer`` passes on, which the run itself decides, and why.

One table for the checks of keys, for the run and for docs/trainer.md. Nothing here needs Lightning before a run does.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from indexnet.core.annotations import Rule
from indexnet.core.errors import UserError, shown
from indexnet.core.registry import did_you_mean

Precision = Literal[
    "32-true", "16-mixed", "bf16-mixed", "64-true", "bf16-true", "16-true", 32, "32", 16, "16", "bf16", 64, "64"
]
"""Lightning's names and their aliases, but for those of NVIDIA's transformer engine, which replaces layers."""

Devices = (
    Literal["auto", -1]
    | Annotated[int, Rule("a number of devices", lambda value: value > 0)]
    | Annotated[
        Sequence[Annotated[int, Rule("", lambda value: value >= 0)]],
        Rule("a list of different GPUs such as [0,1]", lambda value: 0 < len(value) == len(set(value))),
    ]
    | Annotated[str, Rule('a text such as "0,1"', lambda value: re.fullmatch(r"-1|[1-9]\d*|\d+(,\d+)*,?", value))]
)
"""How many devices of this machine, or which of its GPUs."""

PASSED: dict[str, str] = {
    "accelerator": "`auto` (a GPU where there is one), `cpu`, `gpu` or `cuda`. Metrics are summed in float64, which "
    "`mps` and `tpu` do not have",
    "strategy": "`auto`, `ddp`, `ddp_find_unused_parameters_true` or `ddp_find_unused_parameters_false`; `auto` is one "
    "that resumes exactly",
    "devices": "a number, `auto` or `-1` (all GPUs of this machine), or which GPUs: `[0,1]` or `'\"0,1\"'`",
    "num_nodes": "machines of a cluster",
    "precision": "Lightning's names and aliases: `32`, `16-mixed`, `bf16-mixed`, `bf16`, `64`, ...; not `bf16-true` "
    "and `16-true`, which round test images and targets too, nor `transformer-engine`, which replaces layers",
    "log_every_n_steps": "optimizer steps between two rows of the loggers; `auto`: a hundredth of the run, at most 50",
    "enable_progress_bar": "`auto`: in a terminal only",
    "enable_model_summary": "prints Lightning's table of modules",
    "accumulate_grad_batches": "batches summed before an optimizer step; `training.batch_size` stays the global batch",
    "gradient_clip_val": "`null` clips nothing",
    "gradient_clip_algorithm": "`norm` or `value`",
    "deterministic": "`true` or `warn`: what torch cannot do deterministically is refused, or warned of",
    "benchmark": "lets cuDNN try its algorithms",
    "inference_mode": "while it validates and tests; `false`: `torch.no_grad`",
    "profiler": "`simple`, `advanced` or `pytorch`; writes into `profiler/` of the run's folder",
    "detect_anomaly": "stops where a gradient becomes NaN; slow",
    "sync_batchnorm": "on several GPUs",
}
"""Arguments that are passed on, and what there is to say of them here."""

REFUSED: dict[str, str] = {
    "logger": "loggers go on where a killed run was, so the run makes them; choose with logger=default|none|wandb",
    "callbacks": "callbacks are a config group of their own; give callbacks=NAME",
    "fast_dev_run": "it would leave no checkpoint and no record; give budget=smoke, a whole run in seconds",
    "max_epochs": "a run is one stream of optimizer steps; give training.epochs or training.steps",
    "min_epochs": "a run is one stream of optimizer steps; give training.epochs or training.steps",
    "max_steps": "give training.steps",
    "min_steps": "give training.steps",
    "max_time": "a run that ends by the clock ends elsewhere each time; give training.steps, or stop the command and "
    "give it again later: it goes on",
    "limit_train_batches": "a run is one stream of optimizer steps, and its record counts them; give training.steps or "
    "budget.max_steps",
    "limit_val_batches": "it counts batches of each device, so the number of devices would change the number; give "
    "budget.max_test=IMAGES, which caps validation too, or a smaller training.holdout",
    "limit_test_batches": "it counts batches of each device, so the number of devices would change the number; give "
    "budget.max_test=IMAGES",
    "limit_predict_batches": "a run predicts nothing; `indexnet predict` takes the files that you name",
    "overfit_batches": "give debug=overfit",
    "val_check_interval": "give training.validate_every, in steps or as a fraction of the run",
    "check_val_every_n_epoch": "a run is one stream of optimizer steps; give training.validate_every, in steps or as a "
    "fraction of the run",
    "num_sanity_val_steps": "a resumed run would do them again; budget=smoke tries everything in seconds",
    "enable_checkpointing": "a run always writes its own checkpoint; give trainer.checkpoint_every",
    "use_distributed_sampler": "the run shares the samples out itself, the same ones on any number of devices",
    "barebones": "it would leave no checkpoint and no record; `indexnet bench` and `indexnet plan` measure speed",
    "plugins": "the run brings its own, which writes checkpoints whole or not at all; a module of yours that "
    "registers parts is named by plugins=[MODULE]",
    "reload_dataloaders_every_n_epochs": "the run has one loader, whose batches follow from seed and step",
    "default_root_dir": "results go to the run's folder; give paths.runs=DIR",
    "enable_autolog_hparams": "the whole configuration is logged, and stands in config.yaml",
    "model_registry": "models are uploaded by no run; checkpoints are in the run's folder",
}
"""Arguments that the run decides itself: the reason, and what to give instead."""

OWN: dict[str, str] = {
    "channels_last": "memory format of network and batches",
    "compile": "`torch.compile` of the network while it trains; where that cannot be, the run says why and goes on "
    "without",
    "fused_optimizer": "all parameters in one go, for `adam`, `adamw` and `sgd`; for others a sentence says that it "
    "does nothing",
    "checkpoint_activations": "what is inside the network's parts is computed again in the backward pass instead of "
    "kept: less memory, more time, the same numbers",
    "num_workers": "processes of a loader; `auto`: none on two cores or fewer, else up to 8",
    "checkpoint_every": "optimizer steps between two checkpoints; `auto`: a minute, longer where one takes long",
    "monitor": "metric of the validation that the best checkpoint goes by; `null`: the task's first",
    "timeout": "seconds without the end of a batch in any process of a run of several, after which it counts as hung "
    "and ends; longer than the longest test image, write of a checkpoint and start take",
}
"""Keys of the group ``trainer`` that are none of Lightning's."""

RENAMED = {
    "accumulate": "accumulate_grad_batches",
    "gradient_clip": "gradient_clip_val",
    "progress_bar": "enable_progress_bar",
}
"""Names of earlier versions, and Lightning's."""

_PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
_SHARDED = "its checkpoints are parts of a model that only it can read, and those of a run are plain data"
_STARTS = "it starts processes of its own, which nobody would watch, end and resume"
_UNFIT_STRATEGIES = {
    r"ddp_(spawn|fork|notebook).*": _STARTS,
    r"(fsdp|deepspeed|model_parallel|xla_fsdp).*": _SHARDED,
    r"single_device": "it is what trainer.devices=1 does",
    r".*(xla|tpu).*": "metrics are summed in float64, which a TPU does not have",
}
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
_UNFIT_ACCELERATORS = ("mps", "tpu", "hpu")


def refusal(key: str) -> str | None:
    """Return the sentence for a key of the group ``trainer`` that was renamed or that the run decides; None for others.

    And for one of a callback that is not chosen.

    Args:
        key: dotted, ``trainer.max_epochs``.
    """
    group, _, name = key.partition(".")
    if group == "callbacks":
        name = name.partition(".")[0]
        own = f"'+callbacks.{name}={{_target_: IMPORT.PATH}}'"
        return f"callbacks.{name} is not chosen; give callbacks={name} too, or for one of your own {own}."
    if group != "trainer":
        return None
    if name in RENAMED:
        return f"{key} has Lightning's name now: give trainer.{RENAMED[name]}."
    return f"{key} is decided by the run itself: {REFUSED[name]}." if name in REFUSED else None


def with_present_names(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group ``trainer`` as an earlier version may have frozen it, under the names of this one."""
    return {RENAMED.get(key, key): value for key, value in trainer.items()}


def with_trainer(
    config: Mapping[str, Any], change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return a configuration with its group ``trainer`` changed, where it has one."""
    return {**config, "trainer": change(config["trainer"])} if isinstance(config.get("trainer"), Mapping) else config


def with_first_names(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a frozen group ``trainer`` as it is hashed: by its keys' first names, and how many devices, not which."""
    first = {new: old for old, new in RENAMED.items()}
    named = {first.get(key, key): value for key, value in trainer.items()}
    return named | {"devices": device_count(named["devices"])} if "devices" in named else named


def device_count(devices: int | str | Sequence[int]) -> int:
    """Return how many devices a settled ``trainer.devices`` means."""
    assert not isinstance(devices, str)
    return devices if isinstance(devices, int) else len(devices)


def settle_trainer(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group ``trainer`` of a checked configuration, one spelling for each value and ``auto`` counted.

    Raises:
        UserError: an accelerator or a strategy that breaks what a run promises, or options that do not go together.
    """
    found = dict(trainer)
    found["precision"] = _PRECISIONS.get(str(found["precision"]), found["precision"])
    if found["precision"] in ("bf16-true", "16-true"):
        mixed = str(found["precision"]).replace("true", "mixed")
        raise UserError(
            f"trainer.precision={found['precision']} is refused: test images and targets would be rounded, too, and "
            f"metrics wrong; give trainer.precision={mixed}."
        )
    found["accelerator"] = _settle_accelerator(found["accelerator"])
    found["devices"] = _settle_devices(found["devices"], found["accelerator"])
    strategy = found.get("strategy", "auto")
    if strategy not in _STRATEGIES:
        why = next((why for name, why in _UNFIT_STRATEGIES.items() if re.fullmatch(name, strategy)), None)
        if why is None:
            why = f"no such strategy.{did_you_mean(strategy, _STRATEGIES)}".rstrip(".")
        raise UserError(f"trainer.strategy={shown(strategy)[1:-1]} is refused: {why}; give {', '.join(_STRATEGIES)}.")
    if found.get("gradient_clip_algorithm", "norm") != "norm" and found["gradient_clip_val"] is None:
        raise UserError(
            f"trainer.gradient_clip_algorithm={found['gradient_clip_algorithm']} says how gradients are clipped, and "
            "trainer.gradient_clip_val=null clips none; give trainer.gradient_clip_val=NUMBER."
        )
    return found


def _settle_accelerator(accelerator: str) -> str:
    if accelerator in _UNFIT_ACCELERATORS:
        raise UserError(
            f"trainer.accelerator={accelerator} is refused: metrics are summed in float64, which it does not have; "
            "give trainer.accelerator=cpu."
        )
    if accelerator not in _ACCELERATORS:
        hint = did_you_mean(accelerator, _ACCELERATORS)
        raise UserError(f"trainer.accelerator={shown(accelerator)} must be auto, cpu, gpu or cuda.{hint}")
    return "gpu" if accelerator == "cuda" else accelerator


def _settle_devices(devices: int | str | Sequence[int], accelerator: str) -> int | list[int]:
    if isinstance(devices, str) and devices != "auto":
        devices = [int(each) for each in devices.split(",") if each] if "," in devices else int(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    if accelerator == "cpu" and devices != "auto":
        raise UserError(
            f"trainer.devices={_text(devices)} chooses GPUs, and trainer.accelerator=cpu uses none; give the number of "
            "processes, trainer.devices=2 for example."
        )
    if not isinstance(devices, int | str):
        return list(devices)
    import torch

    gpus = 0 if accelerator == "cpu" else torch.cuda.device_count()
    if devices == -1 and not gpus:
        raise UserError("trainer.devices=-1 means all GPUs, and this machine shows none; give trainer.devices=1.")
    return max(1, gpus)


def _text(devices: int | str | Sequence[int]) -> str:
    return str(devices).replace(" ", "")


def check_gpus(devices: int | str | Sequence[int], accelerator: str, gpus: int) -> None:
    """Check that a machine has the GPUs that are asked for.

    Args:
        devices: as settled.
        accelerator: ``cpu`` or ``gpu``.
        gpus: how many there are.

    Raises:
        UserError: it does not.
    """
    if accelerator == "cpu" and isinstance(devices, int):
        return
    assert not isinstance(devices, str)
    most = devices if isinstance(devices, int) else max(devices) + 1
    if not gpus:
        raise UserError(
            f"trainer.devices={_text(devices)} but this machine has no GPU; give trainer.accelerator=cpu and a number "
            "of processes, trainer.devices=1 for example."
        )
    if most > gpus:
        has = f"this machine has {gpus} GPU{'s' if gpus > 1 else ''}"
        numbered = "" if isinstance(devices, int) else ", numbered from 0"
        raise UserError(
            f"trainer.devices={_text(devices)} but {has}{numbered}; "
            f"give trainer.devices={gpus}, or trainer.accelerator=cpu for processes on the CPU."
        )


def check_strategy(strategy: str, accelerator: str, processes: int) -> None:
    """Check that a strategy resumes exactly.

    Raises:
        UserError: it does not.
    """
    if strategy in ("ddp", "ddp_find_unused_parameters_false") and accelerator == "cpu" and processes > 2:
        raise UserError(
            f"trainer.strategy={strategy} is refused on more than two processes on the CPU: it adds gradients up in "
            "another order after its first step, so a run that was killed would not go on exactly; give "
            "trainer.strategy=auto."
        )


def lightning_arguments(
    trainer: Mapping[str, Any], *, accelerator: str, processes: int, log_interval: int, folder: Path
) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that a settled group ``trainer`` says.

    Args:
        trainer: every key of the group.
        accelerator: ``cpu`` or ``gpu``.
        processes: of the run, on all machines.
        log_interval: optimizer steps between two logged ones where the group says ``auto``.
        folder: of the run.
    """
    found = {key: trainer[key] for key in PASSED}
    strategy: Any = trainer["strategy"]
    if processes == 1:
        strategy = "auto"  # DDP of one process is none
    else:
        from pytorch_lightning.strategies import DDPStrategy

        # DDP otherwise regroups gradients after its first step, and a resumed run would add up three in another order
        unused = strategy == "auto" and accelerator == "cpu" and processes > 2
        unused |= strategy == "ddp_find_unused_parameters_true"
        # ours ends the run with a sentence; torch's would end one in which a process rightly waits long for the others,
        # whose share of an evaluation takes longer
        patience = datetime.timedelta(days=7, seconds=trainer["timeout"])
        strategy = DDPStrategy(find_unused_parameters=unused, timeout=patience)
    every, bar = trainer["log_every_n_steps"], trainer["enable_progress_bar"]
    return found | {
        "accelerator": accelerator,
        "strategy": strategy,
        "log_every_n_steps": log_interval if every == "auto" else every,
        "enable_progress_bar": sys.stderr.isatty() if bar == "auto" else bar,
        "sync_batchnorm": trainer["sync_batchnorm"] and processes > 1,
        "profiler": _profiler(trainer["profiler"], folder / "profiler"),
    }


def _profiler(name: str | None, folder: Path) -> Any:
    """Return Lightning's profiler, told to write a file: what it says otherwise goes to a log that nobody reads."""
    from pytorch_lightning import profilers

    if name is None:
        profiler = profilers.PassThroughProfiler()
        nothing = contextlib.nullcontext()
        # its own makes sixty context managers a step
        profiler.profile = lambda action_name: nothing  # type: ignore[method-assign, assignment, return-value]
        return profiler
    kinds = {
        "simple": profilers.SimpleProfiler,
        "advanced": profilers.AdvancedProfiler,
        "pytorch": profilers.PyTorchProfiler,
    }
    return kinds[name](dirpath=folder, filename=name)


def does_nothing(trainer: Mapping[str, Any], processes: int) -> list[str]:
    """Return a line for each option that has no effect in a run of one process."""
    several = {"sync_batchnorm": (False, "true"), "strategy": ("auto", trainer["strategy"])}
    return [
        f"trainer.{key}={text} does nothing on one device"
        for key, (default, text) in several.items()
        if processes == 1 and trainer[key] != default
    ]


def table() -> str:
    """Return the Markdown table of docs/trainer.md: every argument of Lightning's Trainer, and our own keys."""
    lines = ["| argument | | |", "|---|---|---|"]
    lines += [f"| `{name}` | passed on | {text} |" for name, text in PASSED.items()]
    lines += [f"| `{name}` | refused | {text} |" for name, text in REFUSED.items()]
    lines += [f"| `{name}` | our own | {text} |" for name, text in OWN.items()]
    return "\n".join(lines) + "\n"
