"""What a job says once it has trained: which variants are tried, and why some are not kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.client import Argosy
from schemas.job import JobState, JobView, LogLine, MetricPoint

FIRST_LINES = 50
"""How far to look back at the first look."""

_AFTER = {
    JobState.EXPORTING,
    JobState.OPTIMIZING,
    JobState.REGISTERING,
    JobState.SUCCEEDED,
}


@dataclass(slots=True)
class Following:
    """The lines of a job's log from the end of its training on, each told once.

    A job that was over at the first look has its log for that.
    """

    argosy: Argosy
    cursor: str | None = None
    attempt: int = 0

    def fresh(self, view: JobView, points: Sequence[MetricPoint]) -> list[LogLine]:
        """What came since the last look. points: the epochs so far."""
        if view.spec.batch is not None or view.state not in _AFTER:
            return []
        if self.cursor is None and view.state is JobState.SUCCEEDED:
            return []
        if view.attempt != self.attempt:
            self.attempt, self.cursor = view.attempt, None
        if self.cursor is not None:
            return list(self._rest(view.id))
        page = self.argosy.jobs.log_page(view.id, tail=FIRST_LINES)
        self.cursor = page.next
        trained = max((point.at for point in points), default=None)
        start = max((at for at in (trained, view.started_at) if at is not None), default=None)
        lines = [line for line in page.items if start is None or line.at > start]
        # The last epoch's own line comes a little after its figures, which were shown.
        return [line for line in lines if not line.text.startswith("epoch ")]

    def _rest(self, job: str) -> Iterator[LogLine]:
        while True:
            page = self.argosy.jobs.log_page(job, self.cursor)
            yield from page.items
            before, self.cursor = self.cursor, page.next or self.cursor
            if not page.items or self.cursor == before:
                return
