"""What a person may have meant: sentences on overrides that cannot be read, on unknown keys and on unknown options.

Nothing here knows Hydra; :mod:`indexnet.run.config` hands over what that says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import yaml

from indexnet.core.errors import UserError, shown
from indexnet.core.paths import VARIABLE as FOLDERS
from indexnet.core.paths import conf_dir
from indexnet.core.registry import VARIABLE as PLUGINS
from indexnet.core.registry import nearest, unknown_name
from indexnet.core.schedules import SCHEDULES, schedule_options
from indexnet.run.experiments.experiment import hydra_value
from indexnet.run.schema import OPEN_GROUPS
from indexnet.run.trainer_options import REFUSED, refusal

_COMPLAINTS = {
    r"Ambiguous value for argument '(.*)'\s+1\. To": (
        "{} is a list of values; give -m to sweep over them, or one value; quotes keep a comma: 'KEY=\"A,B\"'."
    ),
    r"Sweep parameters '(.*)' requires --multirun": "{} stands for several values; give -m to try them, or one value.",
    r"force-add of config groups is not supported: '(.*)'": "{} is a config group; leave out the ++.",
    r"An item is already at '([^']+)'": "+{}: there is such a key already; leave out the +.",
    r"Could not delete from config\. '([^']+)'": "~{0}: {0} does not exist, so there is nothing to leave out.",
    r"Could not delete from config\. The value of '([^']+)'": (
        "~{0}: {0} has another value, so there is nothing to leave out."
    ),
    r"Cannot find primary config '(.*?)'\.": "--config-name {}: there is no such configuration; leave it out.",
    r"Primary config (?:directory not found.*?config directory|module) '(.*?)'": (
        "--config-path {}: there is no such folder; leave it out."
    ),
    r"Additional config directory '(.*?)' not found": (
        "--config-dir {}: there is no such folder; name one that holds experiments/ or config groups of your own."
    ),
}
_MEANT = {
    "lr": "optimizer.lr", "learning_rate": "optimizer.lr", "wd": "optimizer.weight_decay",
    "weight_decay": "optimizer.weight_decay", "optim": "optimizer", "scheduler": "schedule", "lr_scheduler": "schedule",
    "bs": "training.batch_size", "batch": "training.batch_size", "batchsize": "training.batch_size",
    "epoch": "training.epochs", "iterations": "training.steps", "iters": "training.steps", "step": "training.steps",
    "crop_size": "training.size", "image_size": "training.size", "img_size": "training.size", "crop": "training.size",
    "workers": "trainer.num_workers", "gpus": "trainer.devices", "gpu": "trainer.devices",
    "ngpus": "trainer.devices", "device": "trainer.accelerator", "nodes": "trainer.num_nodes",
    "amp": "trainer.precision", "fp16": "trainer.precision", "bf16": "trainer.precision",
    "fused": "trainer.fused_optimizer", "checkpointing": "trainer.checkpoint_activations",
    "grad_checkpointing": "trainer.checkpoint_activations", "gradient_checkpointing": "trainer.checkpoint_activations",
    "gradient_clip": "trainer.gradient_clip_val", "grad_clip": "trainer.gradient_clip_val",
    "model": "network", "arch": "network", "architecture": "network", "net": "network", "backbone": "encoder",
    "operator": "resampling", "op": "resampling", "upsampling": "resampling", "upsample": "resampling",
    "downsampling": "resampling", "dataset": "data", "root": "data.root", "data_dir": "paths.data",
    "data_root": "paths.data", "out": "paths.runs", "output": "paths.runs", "output_dir": "paths.runs",
    "save_dir": "paths.runs", "work_dir": "paths.runs", "log_dir": "paths.runs", "runs_dir": "paths.runs",
    "ckpt": "ckpt_path", "checkpoint": "ckpt_path", "weights": "ckpt_path", "init_from": "ckpt_path",
    "random_seed": "seed", "callback": "callbacks", "tag": "tags", "plugin": "plugins",
    "n_jobs": "hydra.launcher.n_jobs", "jobs": "hydra.launcher.n_jobs", "freeze": "training.freeze",
    "frozen": "training.freeze", "experiment_name": "sweep", "val_every": "training.validate_every",
}  # fmt: skip
"""What keys are called elsewhere, and here."""
_FAMILIES = ("hin", "m2o", "o2o_modelwise", "o2o_shared", "o2o_unshared")
_MEANT_OPTIONS = {
    "resampling": {
        **{name: f"resampling=indexnet resampling.family={name}" for name in _FAMILIES},
        **dict.fromkeys(("max", "maxpool", "max_pool", "unpool", "unpooling", "maxunpool"), "resampling=max_unpool"),
        **dict.fromkeys(("transposed_conv", "conv_transpose", "deconvolution"), "resampling=deconv"),
        **dict.fromkeys(("subpixel", "sub_pixel"), "resampling=pixel_shuffle"),
        **dict.fromkeys(("hmi", "max_index"), "resampling=holistic_max_index"),
    },
    "network": {"indexnet": "resampling=indexnet", "dim": "network=deep_matting", "unet": "network=matting_unet"},
    "budget": dict.fromkeys(("full", "none", "default"), "budget=paper")
    | dict.fromkeys(("tiny", "debug"), "budget=smoke"),
    "logger": {"tensorboard": "logger=default", "csv": "logger=default"},
    "schedule": {"none": "schedule=constant", "step": "schedule=multistep"},
    "debug": dict.fromkeys(("true", "default"), "debug=overfit"),
}
"""What options of groups are called elsewhere, or are a key of, and the override that is meant."""


def readable(word: str) -> str | None:
    """Return an override that Hydra's grammar cannot read as it is surely meant: its values in quotes of their own.

    So ``ckpt_path=runs/single/a/seed=0/last.ckpt``, ``data.root=~/Données`` and ``tags=[größer]`` can be given as they
    are. ``~/`` at the beginning is the home folder, which no shell puts in after an equals sign.

    Returns:
        None where its value has a structure of its own that is not right, as ``[1,2`` or ``interval(1,``.

    Raises:
        UserError: a list of values has an empty one.
    """
    match = re.fullmatch(r"((?:\+\+?)?[\w./@:-]+)=(.+)", word, re.DOTALL)
    if match is None:
        return None
    key, value = match[1], match[2].strip()
    listed = re.fullmatch(r"\[([^\[\]{}()'\"]*)\]", value)
    if not value or (not listed and re.match(r"[\[{'\"]|\w+\(", value)):
        return None
    parts = [value] if "${" in value else (listed[1] if listed else value).split(",")
    if not all(part.strip() for part in parts):
        raise UserError(
            f"{shown(word)[1:-1]}: a comma divides values, and beside one there is none; leave that comma out."
        )
    written = ",".join(_in_quotes(part.strip()) for part in parts)
    return f"{key}=[{written}]" if listed else f"{key}={written}"


def _in_quotes(value: str) -> str:
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
    return value if re.fullmatch(r"[A-Za-z0-9_./:%@+?*|$-]+", value) else hydra_value(value)


def unreadable(word: str) -> UserError:
    """Return the complaint about an override that cannot be read at all."""
    key = word.partition("=")[0]
    return UserError(
        f"{shown(word)[1:-1]} cannot be read as an override; the form is key=value, lists are [a,b], interval(a,b) "
        f"takes two numbers, and a value with brackets or quotes of its own goes in quotes: '{key[:80]}=\"VALUE\"'."
    )


def explain(error: Exception, overrides: Sequence[str], keys: Callable[[str], Sequence[str]]) -> UserError:
    """Turn Hydra's complaint about an override into one sentence with the nearest valid key.

    Args:
        error: what was raised.
        overrides: that were given.
        keys: returns the dotted keys that there could be in the place of an unknown one.
    """
    text = str(error)
    if isinstance(error, yaml.YAMLError):  # says the file and the line
        return UserError(f"a file of the configuration is not valid YAML: {' '.join(text.split())}.")
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        group, _, option = match[1].partition("/")
        options = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", text)
        known = [line.strip() for line in options[1].splitlines()] if options else []
        known = known or [file.stem for file in (conf_dir() / group).glob("*.yaml")]  # of a list, Hydra names none
        if group == "experiments":  # Hydra lists one level of folders
            from indexnet.run.experiments.tables import unknown_experiment

            return unknown_experiment(option)
        if "/" in option and group == "hydra":
            group, _, option = match[1].rpartition("/")
        if meant := _MEANT_OPTIONS.get(group, {}).get(option.lower()):
            return UserError(
                f"unknown {group} option {shown(option)}. Did you mean {meant}? Known: {', '.join(sorted(known))}."
            )
        own = (FOLDERS, PLUGINS) if group in OPEN_GROUPS else (FOLDERS,) if os.path.isdir(conf_dir() / group) else ()
        return unknown_name(f"{group or 'config group'} option", option, known, *(own if group else ()))
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_override(match[1], keys)
    if sentence := _override_complaint(text):
        return UserError(sentence)
    return UserError(_in_words(text.strip() or type(error).__name__, str(error.__cause__ or ""), overrides))


def _unknown_override(key: str, keys: Callable[[str], Sequence[str]]) -> UserError:
    if sentence := refusal(f"trainer.{key}" if key in REFUSED else key):
        return UserError(sentence)
    group = key.rpartition(".")[0]
    if key.startswith("hydra."):  # settings of the launcher or the sweeper
        known = keys(key)
        guess = nearest(key, known)
        hint = f"Did you mean {guess!r}?" if guess else f"{group} has {', '.join(known)}." if known else ""
        return UserError(f"unknown config key {key!r}. {hint or '`indexnet train --cfg hydra` shows every key.'}")
    if key == "data.root":
        return UserError("data.root: this data set reads no folder; choose one that does with data=NAME.")
    guess = nearest_key(key, [*keys(key), "hydra.launcher.n_jobs"])  # which tools for sweeps call by its last name
    hint = f" Did you mean {guess!r}?" if guess else " `indexnet train --cfg job` shows every key."
    return UserError(f"unknown config key {key!r}.{hint}")


def _override_complaint(text: str) -> str | None:
    """Return the sentence for a complaint of Hydra about the form of an override, None for any other."""
    for pattern, sentence in _COMPLAINTS.items():
        if match := re.search(pattern, text, re.DOTALL):
            return sentence.format(shown(match[1])[1:-1])
    return None


def _in_words(text: str, cause: str, words: Sequence[str]) -> str:
    """Return the sentence for any other complaint of Hydra about overrides, as far as its first line tells."""
    if match := re.search(r"Error merging override (\S+)", text):
        reason = cause.strip().splitlines()
        return f"{match[1]}: this key takes another kind of value{f' ({reason[0]})' if reason else ''}."
    if match := re.search(r"Error resolving interpolation '([^']+)'", text):
        said = next((shown(each)[1:-1] for each in words if match[1] in each), match[1])
        return f"{said}: {match[1]} cannot be resolved; name one of the options in conf/."
    first = text.strip().splitlines()[0]
    first = f"{first[:200]}..." if len(first) > 300 else first
    first = first if first.endswith((".", "?")) else f"{first}."
    named = [each for each in words if each.lstrip("+~").partition("=")[0] in first]
    said = "" if named or not words else ", ".join(shown(each)[1:-1] for each in words) + ": "
    return f"{said}the configuration cannot be composed: {first}"


def named_in_full(words: Sequence[str], complaint: str) -> list[str] | None:
    """Return overrides with what no file has, ``encoder=timm encoder.name=resnet50`` and ``+optimizer.eps=1e-6``.

    Args:
        words: overrides and flags.
        complaint: Hydra's, about the option or the key that it cannot find.

    Returns:
        None where it is no encoder and no optimizer, and no option of optimizers or schedules.
    """
    if match := re.search(r"Could not find '(encoder|optimizer)/([^']+)'", complaint):
        group, name = match.groups()
        full = [f"{group}=timm", f"{group}.name={name}"]
        found = [full if _reads(word) == (group, name) and name != "timm" else [word] for word in words]
    elif match := re.search(r"Could not override '((?:optimizer|schedule)\.\w+)'", complaint):
        from indexnet.tasks.optimizers import every_option

        options = {*every_option(), *(option for name in SCHEDULES for option in schedule_options(name))}
        meant = nearest(match[1].partition(".")[2], options)  # unknown ones are told from what the class takes
        found = [[f"+{word}" if meant and _reads(word)[0] == match[1] else word] for word in words]
    else:
        return None
    written = [word for part in found for word in part]
    return written if written != list(words) else None


def left_to_jobs(words: Sequence[str], complaint: str) -> list[str] | None:
    """Return overrides of a sweep in which what its own configuration has not, but a job's may have, is not checked.

    The sweep's own has none of what rows and comma lists choose: of ``rows=gate resampling.kernel=5`` not the operator.
    Freezing refuses what the job's operator, network or data set does not take.

    Args:
        words: overrides and flags.
        complaint: Hydra's, about the key that it cannot find.

    Returns:
        None where it is no option of what is chosen by name.
    """
    match = re.search(r"Could not override '(\w+)\.([\w.]+)'", complaint)
    key = "" if match is None else f"{match[1]}.{match[2]}"
    if match is None or match[1] not in OPEN_GROUPS or key == "data.root":
        return None
    written = [f"++{word}" if _reads(word)[0] == key else word for word in words]
    return written if written != list(words) else None


def _reads(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, value.strip("'\"")


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that is meant by an unknown one.

    The one that means the same, or has the same last name in another group; else one that is written alike: of its own
    group, then, where hardly a letter differs, of another.
    """
    group, _, name = key.rpartition(".")
    keys = [each for each in known if each != key and not key.startswith(f"{each}.")]
    ends = {each.rpartition(".")[2]: each for each in reversed(keys)}
    if (meant := _MEANT.get(name.lower())) in keys:
        return meant
    if name in ends:
        return ends[name]
    siblings = {each.rpartition(".")[2]: each for each in keys if each.rpartition(".")[0] == group}
    if guess := nearest(name, siblings):
        return siblings[guess]
    if guess := nearest(name, ends, 0.75):
        return ends[guess]
    return nearest(key, keys, 0.75)
