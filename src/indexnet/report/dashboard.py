"""``indexnet dashboard``: the W&B workspace and report of an experiment, as code: written to files, or published."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexnet.core.errors import UserError

if TYPE_CHECKING:
    from indexnet.report.table import Table


FILES = ("workspace.json", "report.json")
PUBLISHED = "published.json"
"""Which workspace and report the last ``--publish`` made; the next one replaces them."""


def write(table: Table, folder: Path, entity: str, project: str) -> tuple[Path, Path]:
    """Write ``workspace.json`` and ``report.json`` into a folder, after a round trip through the library.

    Raises:
        UserError: wandb-workspaces is missing, or does not read back what it wrote.
    """
    from indexnet.core.files import atomic_write

    with _quiet():
        _need_library()
        from indexnet.report.dashboard_panels import create_report, create_workspace

        texts = (
            _checked(create_workspace(table, entity, project)),
            _checked(create_report(table, entity or "me", project)),
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; give a folder.")
    paths = folder / FILES[0], folder / FILES[1]
    for path, text in zip(paths, texts, strict=True):
        atomic_write(path, text)
    return paths


def publish(table: Table, folder: Path, entity: str | None, project: str) -> dict[str, str]:
    """Save workspace and report on the server, in place of those that an earlier call saved.

    Args:
        table: the experiment and its runs.
        folder: with the written files; remembers what was saved.
        entity: user or team; None: who is logged in.
        project: their project.

    Returns:
        ``workspace`` and ``report`` -> address.

    Raises:
        UserError: nobody is logged in, the server cannot be reached or refuses.
    """
    import wandb

    from indexnet.core.files import read_json, write_json
    from indexnet.report.dashboard_panels import create_report, create_workspace

    kept = f"; the files are in {folder}."
    with _quiet():
        try:
            if not wandb.login(prompt=False, verify=True):
                raise UserError(f"--publish needs a W&B key, and `wandb login` asks for one{kept}")
            entity = entity or str(wandb.Api().default_entity)
            before: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                before = read_json(folder / PUBLISHED)
            where = {"entity": entity, "project": project}
            before = before if {key: before.get(key) for key in where} == where else {}
            workspace = create_workspace(table, entity, project)
            workspace._internal_id, workspace._internal_name = before.get("workspace", ("", ""))
            workspace.save()
            report = create_report(table, entity, project, online=True)
            report.id = before.get("report", "")
            report.save()
        except UserError:
            raise
        except Exception as error:  # what the library and its transport raise is not documented
            text = " ".join(str(error).split()).rstrip(".")
            why = "no answer" if "did not respond in time" in text else f"{type(error).__name__}: {text}"
            raise UserError(f"W&B did not take the dashboard of {entity or 'you'}/{project} ({why}){kept}") from error
        saved = {"workspace": [workspace._internal_id, workspace._internal_name], "report": report.id}
        write_json(folder / PUBLISHED, {**where, **saved})
        return {"workspace": str(workspace.url), "report": str(report.url)}


def _need_library() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "indexnet dashboard needs the package wandb-workspaces: pip install 'indexnet[report]'."
        ) from error


def _checked(made: Any) -> str:
    """Return a workspace or report as JSON, once the library reads its own writing as the same thing.

    Raises:
        UserError: it does not; what was built means something else to this version.
    """
    import json

    model = made._to_model()  # the library has no public way to write without a server
    text = _text(model)
    again = type(made)._from_model(type(model).model_validate_json(text))
    if hasattr(made, "width"):
        again.width = made.width  # the one thing that the library does not read
    if _text(again._to_model()) != text:
        from importlib.metadata import version

        raise UserError(
            f"wandb-workspaces {version('wandb-workspaces')} does not read back the {type(made).__name__.lower()} that "
            "it wrote; install another version (0.4.13 is known to work)."
        )
    return json.dumps(json.loads(text), indent=1) + "\n"


def _text(model: Any) -> str:
    return str(model.model_dump_json(by_alias=True, exclude_none=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep wandb's own lines off the terminal."""
    before = os.environ.get("WANDB_SILENT")
    os.environ["WANDB_SILENT"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_SILENT"]
        else:
            os.environ["WANDB_SILENT"] = before
