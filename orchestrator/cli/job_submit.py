"""``argosy job submit`` and ``argosy job clone``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import (
    changes_options,
    home_option,
    output_option,
    timeout_option,
    watch_option,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from orchestrator.cli.overrides import Override
    from orchestrator.client import Argosy
    from orchestrator.client.pack import Packed
    from schemas.job import JobView


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@changes_options
@watch_option
@timeout_option
@home_option
@output_option
def submit(
    *,
    file: Path,
    sets: tuple[str, ...],
    name: str | None,
    priority: int | None,
    project: str | None,
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
) -> int:
    """Queue the job that FILE describes.

    Its code is the folder that the file names as `code`, or the file's own if the task's
    module lies there.
    """
    from orchestrator.cli import console
    from orchestrator.cli.jobfile import load_job
    from orchestrator.client import Argosy

    loaded = load_job(file, _overrides(sets, name, priority, project))
    for note in loaded.notes:
        console.say(f"note: {note}", style="yellow")
    with Argosy.from_profile(home) as argosy:
        if loaded.model is not None:
            console.say(f"uploading {loaded.model.name}", style="dim")
            argosy.artifacts.put(loaded.model)
        with may_be_queued():
            view = argosy.jobs.submit(loaded.spec, loaded.folder, told=_say_packed)
        return queued(argosy, view, follow=follow, timeout=timeout, form=form)


@click.command()
@click.argument("job_id", metavar="JOB")
@changes_options
@watch_option
@timeout_option
@home_option
@output_option
def clone(
    *,
    job_id: str,
    sets: tuple[str, ...],
    name: str | None,
    priority: int | None,
    project: str | None,
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
) -> int:
    """Queue JOB again, with changes; it runs the same code."""
    from orchestrator.cli import console
    from orchestrator.cli.jobfile import cloned
    from orchestrator.cli.overrides import doubts
    from orchestrator.client import Argosy

    overrides = _overrides(sets, name, priority, project)
    with Argosy.from_profile(home) as argosy:
        job = argosy.jobs.get(job_id)
        for note in doubts({"config": job.spec.config}, overrides):
            console.say(f"note: {note}", style="yellow")
        with may_be_queued():
            view = argosy.jobs.submit(cloned(job, overrides))
        return queued(argosy, view, follow=follow, timeout=timeout, form=form)


def may_be_queued() -> AbstractContextManager[None]:
    """While a job is handed in: Ctrl-C does not say whether it was queued."""
    from orchestrator.cli.failures import may_be_done

    return may_be_done("the job may have been queued", "argosy job ls")


def queued(argosy: Argosy, view: JobView, *, follow: bool, timeout: float | None, form: str) -> int:
    """Watch a job that was just queued, or print its id and say how to watch it."""
    from orchestrator.cli import console
    from orchestrator.cli.job_show import job_shape, watch_to_the_end
    from orchestrator.cli.output import emit_one

    if follow:
        return watch_to_the_end(argosy, view.id, timeout, form)
    emit_one(view, form, job_shape(), lambda v: click.echo(v.id))
    if form == "table":
        console.say(f"queued; watch it with `argosy job watch {view.id}`", style="dim")
    return 0


def _overrides(
    sets: tuple[str, ...], name: str | None, priority: int | None, project: str | None
) -> list[Override]:
    from orchestrator.cli.overrides import named, parse

    return [
        *parse(sets),
        *named("--name", "name", name),
        *named("--priority", "priority", priority),
        *named("--project", "project", project),
    ]


def _say_packed(packed: Packed) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.job_text import code_text

    console.say(f"code: {code_text(packed.code)}", style="dim")
