"""``argosy job ls``, ``get``, ``watch`` and ``cancel``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option, timeout_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from orchestrator.client import Argosy
    from schemas.job import JobState, JobView


@click.command()
@click.option("--state", "states", multiple=True, metavar="STATE", help="Of this state only.")
@click.option("--project", help="Of this project only.")
@click.option("--name", help="Of this name only.")
@home_option
@output_option
def ls(
    *, states: tuple[str, ...], project: str | None, name: str | None, home: Path | None, form: str
) -> None:
    """List jobs, newest first."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    wanted = [_state(word) for word in states]
    with Argosy.from_profile(home) as argosy:
        jobs = list(argosy.jobs.list(wanted, project, name))
    filtered = bool(wanted or project or name)
    empty = "no such jobs" if filtered else "no jobs: queue one with `argosy job submit FILE`"
    emit_list(jobs, form, job_shape(), empty)


@click.command()
@click.argument("job_id", metavar="JOB")
@home_option
@output_option
def get(job_id: str, home: Path | None, form: str) -> None:
    """Show one job."""
    from orchestrator.cli.job_facts import show_job
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.jobs.get(job_id)
    emit_one(view, form, job_shape(), show_job)


@click.command()
@click.argument("job_id", metavar="JOB")
@timeout_option
@home_option
@output_option
def watch(job_id: str, timeout: float | None, home: Path | None, form: str) -> int:
    """Watch a job until it ends; exit code 1 if it fails."""
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        return watch_to_the_end(argosy, job_id, timeout, form)


@click.command()
@click.argument("job_id", metavar="JOB")
@home_option
@output_option
def cancel(job_id: str, home: Path | None, form: str) -> None:
    """Stop a job."""
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from schemas.job import JobState

    with Argosy.from_profile(home) as argosy:
        view = argosy.jobs.cancel(job_id)
    words = "is cancelled" if view.state is JobState.CANCELLED else "will stop soon"
    emit_one(view, form, job_shape(), lambda v: console.say(f"{v.id} {words}"))


def watch_to_the_end(argosy: Argosy, job_id: str, timeout: float | None, form: str) -> int:
    """Watch a job; the exit code says whether it succeeded."""
    from orchestrator.cli.failures import detaches
    from orchestrator.cli.job_watch import watch_job
    from orchestrator.cli.output import emit_one
    from schemas.errors import Exit
    from schemas.job import JobState

    with detaches(f"job {job_id}", f"argosy job watch {job_id}"):
        view = watch_job(argosy, job_id, timeout)
    if form != "table":
        emit_one(view, form, job_shape(), None)
    return Exit.OK if view.state is JobState.SUCCEEDED else Exit.FAILED


def job_shape() -> Shape[JobView]:
    """A job as a row."""
    from orchestrator.cli import console
    from orchestrator.cli.job_text import trains
    from orchestrator.cli.output import Shape

    def epoch(view: JobView) -> str:
        return f"{view.epoch}/{view.spec.stop.max_epochs}" if trains(view.spec) else console.NONE

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("NAME", lambda view: view.name),
        ("PROJECT", lambda view: view.spec.project),
        ("STATE", lambda view: console.state(view.state)),
        ("EPOCH", epoch),
        ("BEST", lambda view: console.percent(view.best.get(view.spec.stop.metric))),
        ("MODEL", lambda view: f"{view.model}@{view.version}" if view.version else console.NONE),
        ("AGE", lambda view: console.age(view.created_at)),
    )


def _state(word: str) -> JobState:
    from orchestrator.errors import Invalid
    from schemas.job import JobState

    try:
        return JobState(word.upper())
    except ValueError:
        detail = f"--state: there is no state {word!r}"
        raise Invalid(detail, hint=f"states: {', '.join(JobState)}") from None
