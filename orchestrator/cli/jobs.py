"""``argosy job``: training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option, timeout_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from orchestrator.client import Argosy
    from schemas.job import JobView


@click.group()
def job() -> None:
    """Train models."""


@job.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-w", "--watch", "follow", is_flag=True, help="Watch it until it ends.")
@timeout_option
@home_option
@output_option
def submit(
    *,
    file: Path,
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
) -> int:
    """Queue the job that FILE describes."""
    from orchestrator.cli import console
    from orchestrator.cli.jobfile import load_job
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    spec = load_job(file)
    with Argosy.from_profile(home) as argosy:
        view = argosy.jobs.submit(spec)
        if follow:
            return _watch(argosy, view.id, timeout, form)
    emit_one(view, form, _shape(), lambda v: click.echo(v.id))
    if form == "table":
        console.say(f"queued; watch it with `argosy job watch {view.id}`", style="dim")
    return 0


@job.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List jobs, newest first."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        jobs = list(argosy.jobs.list())
    emit_list(jobs, form, _shape(), "no jobs: queue one with `argosy job submit FILE`")


@job.command()
@click.argument("job_id", metavar="JOB")
@home_option
@output_option
def get(job_id: str, home: Path | None, form: str) -> None:
    """Show one job."""
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.jobs.get(job_id)
    emit_one(view, form, _shape(), _show)


@job.command()
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@home_option
def logs(*, job_id: str, follow: bool, home: Path | None) -> None:
    """Print what a job printed."""
    from orchestrator.cli.failures import detaches
    from orchestrator.cli.job_watch import print_logs
    from orchestrator.client import Argosy

    with (
        Argosy.from_profile(home) as argosy,
        detaches(f"job {job_id}", f"argosy job logs -f {job_id}"),
    ):
        print_logs(argosy, job_id, follow=follow)


@job.command()
@click.argument("job_id", metavar="JOB")
@timeout_option
@home_option
@output_option
def watch(job_id: str, timeout: float | None, home: Path | None, form: str) -> int:
    """Watch a job until it ends; exit code 1 if it fails."""
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        return _watch(argosy, job_id, timeout, form)


@job.command()
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
    emit_one(view, form, _shape(), lambda v: console.say(f"{v.id} {words}"))


def _watch(argosy: Argosy, job_id: str, timeout: float | None, form: str) -> int:
    from orchestrator.cli.failures import detaches
    from orchestrator.cli.job_watch import watch_job
    from orchestrator.cli.output import emit_one
    from schemas.errors import Exit
    from schemas.job import JobState

    with detaches(f"job {job_id}", f"argosy job watch {job_id}"):
        view = watch_job(argosy, job_id, timeout)
    if form != "table":
        emit_one(view, form, _shape(), None)
    return Exit.OK if view.state is JobState.SUCCEEDED else Exit.FAILED


def _shape() -> Shape[JobView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("NAME", lambda view: view.name),
        ("STATE", lambda view: console.state(view.state)),
        ("EPOCH", lambda view: f"{view.epoch}/{view.spec.stop.max_epochs}"),
        ("BEST", lambda view: console.percent(view.best.get(view.spec.stop.metric))),
        ("MODEL", lambda view: f"{view.model}@{view.version}" if view.version else console.NONE),
        ("AGE", lambda view: console.age(view.created_at)),
    )


def _show(view: JobView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import Cell, print_facts

    stop, res = view.spec.stop, view.spec.resources
    end = view.ended_at or view.started_at
    took = (end - view.started_at).total_seconds() if end and view.started_at else None
    why = f"{view.cause}: {console.clean(view.detail or '')}" if view.cause else view.detail
    target = f", target {console.percent(stop.target)}" if stop.target else ""
    best = view.best.get(stop.metric)
    facts: list[tuple[str, Cell | None]] = [
        ("job", view.id),
        ("name", view.name),
        ("state", console.state(view.state)),
        ("why", why),
        ("task", view.spec.task),
        ("workers", f"{res.workers} x {res.cpus_per_worker:g} CPUs, {res.precision}"),
        ("epoch", f"{view.epoch} of at most {stop.max_epochs}"),
        (stop.metric, None if best is None else f"best {console.percent(best)}{target}"),
        ("attempt", f"{view.attempt} of {view.spec.max_attempts}"),
        ("agent", view.agent),
        ("model", f"{view.model}@{view.version}" if view.version else None),
        ("created", f"{view.created_at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("took", console.duration(took) if took is not None and view.ended_at else None),
    ]
    print_facts(facts)
