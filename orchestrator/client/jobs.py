"""Jobs and the agents that run them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path

from orchestrator.client.errors import ArgosyError, InterruptedAnswerError, is_outage
from orchestrator.client.events import Bell
from orchestrator.client.follow import Look, follow
from orchestrator.client.pack import Packed, packed
from orchestrator.client.resources import PAGE_LIMIT, Resource, last_of, segment
from schemas.api import Page, Stored
from schemas.dataset import DatasetProfile
from schemas.job import TERMINAL_JOB_STATES, AgentView, JobState, JobView, LogLine, MetricPoint
from schemas.jobfile import JobSpec

RETRY_PAUSES = (0.5, 2.0, 5.0)
"""Seconds before a submission is sent again whose answer did not come."""


class Jobs(Resource):
    """Training jobs and batch inference."""

    def submit(
        self,
        spec: JobSpec,
        folder: str | PathLike[str] | None = None,
        *,
        told: Callable[[Packed], None] = lambda _packed: None,
    ) -> JobView:
        """Queue a job.

        Args:
            spec: the job.
            folder: of the task's code: packed, uploaded and named in the spec. None: the
                task is installed on the cluster, or the spec names code uploaded before.
            told: called with the packed folder before it is sent.

        A connection that breaks before the answer is made again, a few times: it is one
        job all the same.

        Raises:
            Invalid: the folder holds what must not travel, or is none.
            TooLarge: it holds too much.
        """
        if folder is None:
            return self._submit(spec)
        with packed(Path(folder)) as code:
            told(code)
            self.upload(code)
        return self._submit(spec.model_copy(update={"code": code.code}))

    def _submit(self, spec: JobSpec) -> JobView:
        # The key makes one job of it, however often it arrives.
        key = {"Idempotency-Key": secrets.token_hex(16)}
        pauses = iter(RETRY_PAUSES)
        interrupted = False
        while True:
            try:
                return self._transport.post("/v1/jobs", JobView, spec, key)
            except ArgosyError as error:
                # What nobody answered at first is not tried again: there is no platform.
                interrupted |= isinstance(error, InterruptedAnswerError)
                pause = next(pauses, None)
                if not interrupted or not is_outage(error) or pause is None:
                    raise
                time.sleep(pause)

    def upload(self, code: Packed) -> Stored:
        """Store a packed folder; once more changes nothing."""
        return self._transport.put(f"/v1/artifacts/{code.code.sha256}", Stored, code.path)

    def list(
        self,
        states: Sequence[JobState] = (),
        project: str | None = None,
        name: str | None = None,
    ) -> Iterator[JobView]:
        """Every job, newest first; of some states, one project or one name where given."""
        query = {"state": tuple(states), "project": project, "name": name}
        return self._pages("/v1/jobs", JobView, query)

    def get(self, job: str) -> JobView:
        """One job."""
        return self._transport.get(f"/v1/jobs/{segment(job)}", JobView)

    def metrics(
        self,
        job: str,
        after_epoch: int | None = None,
        *,
        trial: int | None = None,
        points: int | None = None,
    ) -> Iterator[MetricPoint]:
        """What each epoch measured.

        Args:
            job: its id.
            after_epoch: the last one that is known already.
            trial: of a sweep; None for all.
            points: thins the curve to about so many, its extremes kept.
        """
        cursor = None if after_epoch is None else str(after_epoch)
        path = f"/v1/jobs/{segment(job)}/metrics"
        query = {"trial": trial, "points": points}
        return self._pages(path, MetricPoint, query, cursor)

    def profile(self, job: str) -> DatasetProfile:
        """What the job found in its data set.

        Raises:
            NotFound: nothing yet.
        """
        return self._transport.get(f"/v1/jobs/{segment(job)}/profile", DatasetProfile)

    def log_page(
        self,
        job: str,
        cursor: str | None = None,
        *,
        search: str | None = None,
        level: str | None = None,
        tail: int | None = None,
    ) -> Page[LogLine]:
        """The log lines after a cursor. ``next`` is where to ask on, even at the end.

        Args:
            job: its id.
            cursor: ``next`` of the page before.
            search: text that a line holds.
            level: the least of debug, info, warning and error.
            tail: so many of the last lines instead of the first, at most 2,000.
        """
        query = {
            "limit": PAGE_LIMIT,
            "cursor": cursor,
            "search": search,
            "level": level,
            "tail": tail,
        }
        return self._transport.get(f"/v1/jobs/{segment(job)}/logs", Page[LogLine], query)

    def logs(
        self, job: str, *, search: str | None = None, level: str | None = None
    ) -> Iterator[LogLine]:
        """Every log line there is now; see ``log_page``."""
        cursor = None
        while (page := self.log_page(job, cursor, search=search, level=level)).items:
            yield from page.items
            if page.next is None or page.next == cursor:
                return
            cursor = page.next

    def cancel(self, job: str) -> JobView:
        """Ask for the job's end."""
        return self._transport.post(f"/v1/jobs/{segment(job)}/cancel", JobView)

    def follow(
        self,
        job: str,
        timeout: float | None = None,
        *,
        beside: Callable[[JobView], object] = lambda _view: None,
    ) -> Iterator[Look[JobView]]:
        """Look at the job now and whenever it changes, until it ends.

        Args:
            job: its id.
            timeout: seconds.
            beside: what else to fetch at each look. Where it meets an outage, the whole
                look is made again; so what it fetches at the last one is all there is.

        Raises:
            WaitTimeoutError: it did not end within ``timeout`` seconds.
        """

        def look() -> JobView:
            view = self.get(job)
            beside(view)
            return view

        return follow(
            look,
            lambda view: view.state in TERMINAL_JOB_STATES,
            Bell(self._transport, job),
            timeout=timeout,
        )

    def wait(self, job: str, timeout: float | None = None) -> JobView:
        """The job once it has ended, however it ended."""
        return last_of(self.follow(job, timeout))


class Agents(Resource):
    """What runs jobs."""

    def list(self) -> Iterator[AgentView]:
        """Every agent that has asked for work."""
        return self._pages("/v1/agents", AgentView)
