"""Some steps of training, taken as a run takes them: with its trainer, callbacks, loggers and loader."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl

from indexnet.core.errors import UserError
from indexnet.core.machine import keep_freed_memory
from indexnet.run.callbacks import DivergedError
from indexnet.run.fit import execute
from indexnet.run.folder import prepare
from indexnet.run.job import first_record
from indexnet.run.processes import Cause, Ranks
from indexnet.run.record import Record
from indexnet.run.schema import read_config


class Enough(Exception):  # noqa: N818  it is no error
    """A callback has seen what it wanted to see; training ends here."""


class _TooEarly(pl.Callback):
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        raise UserError(
            f"the run ended at step {trainer.global_step}, before all was measured: a callback or budget.max_seconds "
            "stopped it; leave that out."
        )


def train_briefly(content: Mapping[str, Any], watching: pl.Callback) -> Record:
    """Train a configuration on one device until a callback raises :class:`Enough`, and leave nothing behind.

    What a run says on standard output is not shown; its remarks on standard error are.

    Args:
        content: the frozen configuration. Its folder, W&B, the progress bar and the weights of other runs that it
            begins with (``ckpt_path``, ``init``) are left out.
        watching: is called first of all callbacks, but for the one that seeds the step.

    Returns:
        The record as it was when training began: parameters, costs, data.

    Raises:
        UserError: a person's mistake, as a run would say it; the loss is not finite, or the run ends too early.
    """
    with tempfile.TemporaryDirectory(prefix="indexnet-") as place:
        content = {
            **{key: value for key, value in content.items() if key != "init"},  # of a run that may not be there
            "ckpt_path": None,
            "experiment": {"name": None, "row": None, "label": None},
            "logger": {**content["logger"], "wandb": False},
            "trainer": {**content["trainer"], "enable_progress_bar": False},
            "paths": {**content["paths"], "runs": place},
        }
        folder, config = prepare(content), read_config(content)
        record, loggers = first_record(config), list[Any]()
        ranks = Ranks(folder.path, _stuck)
        keep_freed_memory()
        with silence():
            try:
                execute(folder, config, record, loggers, ranks, further=[watching, _TooEarly()])
            except Enough:
                pass
            except DivergedError as error:
                raise UserError(f"{error}; {error.remedy}.") from None
            finally:
                for logger in loggers:
                    logger.finalize("success")
                ranks.close(0)
    return record


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what a run says on standard output to itself."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _stuck(cause: Cause) -> None:
    raise RuntimeError(cause.text)  # of several processes only, and there is one
