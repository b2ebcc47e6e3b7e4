"""Watching a job until it ends: a display on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.live import Live

from orchestrator.cli import console
from orchestrator.cli.job_lines import Lines, say_end
from orchestrator.cli.job_screen import Training
from orchestrator.cli.job_search import Following
from orchestrator.client import Argosy
from schemas.job import JobView, LogLine, MetricPoint

_REFRESHES = 8


def watch_job(
    argosy: Argosy,
    job: str,
    timeout: float | None = None,
    aside: Callable[[], str | None] = lambda: None,
) -> JobView:
    """Show a job until it ends, then say how it ended.

    It looks again at every event of the job, those that carry live figures included.

    Args:
        argosy: the platform.
        job: its id.
        timeout: seconds to watch.
        aside: what else to show beside it; asked at each look.

    Returns:
        The job as it ended.

    Raises:
        WaitTimeoutError: it did not end in time.
    """
    training, lines = Training(), Lines()
    live = None
    if console.is_live():
        live = Live(training, console=console.err(), refresh_per_second=_REFRESHES)
    frame: AbstractContextManager[object] = live or nullcontext()
    fresh: list[MetricPoint] = []
    said: list[LogLine] = []
    search = Following(argosy)

    def beside(view: JobView) -> None:
        training.rewind(view)
        fresh.extend(_fresh(argosy, view, [*training.points, *fresh]))
        said.extend(search.fresh(view, [*training.points, *fresh]))

    with frame:
        for look in argosy.jobs.follow(job, timeout, beside=beside):
            training.outage = look.outage.detail if look.outage else None
            training.aside = aside()
            if look.value is not None:
                training.points += fresh
                training.hear(said)
                training.see(look.value)
            if live is None:
                lines.update(training, fresh if look.value else (), said if look.value else ())
            if look.value is not None:
                fresh.clear()
                said.clear()
    if training.view is None:  # follow() yields a view or raises
        raise AssertionError
    say_end(training)
    return training.view


def _fresh(argosy: Argosy, view: JobView, known: list[MetricPoint]) -> list[MetricPoint]:
    """The epochs that are new. A sweep's trials tell of themselves in the job's view."""
    if view.spec.sweep is not None or view.spec.batch is not None:
        return []
    return list(argosy.jobs.metrics(view.id, known[-1].epoch if known else None))
