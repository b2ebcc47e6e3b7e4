"""The agent: claims jobs from the orchestrator and follows their drivers on Ray.

It keeps nothing in memory that matters: claims are on disk before a driver starts, and
what a driver does is asked of Ray by an id that follows from the claim.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from schemas.job import AgentOutcome, HeartbeatReply, JobCause, JobClaim
from workers.claims import Claimed, Claims, submission_of
from workers.client import backoff
from workers.driver import MARK, order_environment
from workers.errors import ApiError, ApiUnavailableError, ClusterError, LeaseLostError, RefusedError
from workers.follow import (
    Do,
    DriverState,
    Followed,
    Seen,
    beaten,
    detail_of,
    lost,
    step,
    waiting,
)
from workers.processes import kill_all, marked
from workers.settings import Connection

log = logging.getLogger(__name__)

TICK = 0.5
CLAIM_EVERY = 1.0
MAX_CLAIM_PAUSE = 15.0
KILL_SECONDS = 2.0


class Orchestrator(Protocol):
    """The API, as the agent uses it: ``workers.client.Api``."""

    def claim(self, agent: str) -> JobClaim | None:
        """A job, or None."""
        ...

    def heartbeat(self, claim: JobClaim) -> HeartbeatReply:
        """Keep a lease."""
        ...

    def outcome(self, job: str, outcome: AgentOutcome) -> None:
        """Speak for a dead driver."""
        ...


class Drivers(Protocol):
    """The cluster, as the agent uses it: ``workers.cluster.RayJobs``."""

    def submit(self, submission: str, environment: Mapping[str, str], python: str) -> None:
        """Start a driver, once."""
        ...

    def look(self, submission: str) -> Seen:
        """What it does."""
        ...

    def stop(self, submission: str) -> None:
        """Ask it to end."""
        ...


@dataclass(frozen=True, slots=True)
class Following:
    """A claim and where its following stands."""

    claimed: Claimed
    state: Followed


def kill_job(submission: str) -> None:
    """End every process on this machine that belongs to a job's attempt."""
    left = kill_all(lambda: marked(MARK, submission), seconds=KILL_SECONDS)
    if left:
        log.warning("%d processes of %s would not end", left, submission)


class Agent:
    """Claims and follows up to ``slots`` jobs at once.

    Args:
        name: as the API shows it.
        api: the orchestrator.
        drivers: the cluster.
        claims: the memory.
        connection: what drivers are given to reach the orchestrator; the token is not.
        job_dir: gives a job's folder or URL, which every node must see.
        python: the interpreter of the drivers, on the cluster.
        slots: jobs at once.
        kill: ends the processes of a submission.
    """

    def __init__(
        self,
        name: str,
        *,
        api: Orchestrator,
        drivers: Drivers,
        claims: Claims,
        connection: Connection,
        job_dir: Callable[[str], str],
        python: str = sys.executable,
        slots: int = 1,
        kill: Callable[[str], None] = kill_job,
    ) -> None:
        self._name = name
        self._api = api
        self._drivers = drivers
        self._claims = claims
        self._connection = connection
        self._job_dir = job_dir
        self._python = python
        self._slots = slots
        self._kill = kill
        self._claim_at = 0.0
        self._failures = 0
        self.following = [self._taken_up(one) for one in claims.load()]

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        while not stop.is_set():
            self.tick(time.monotonic())
            stop.wait(TICK)

    def tick(self, now: float) -> None:
        """Look at every job once, then claim if there is room."""
        for one in list(self.following):
            try:
                self._follow(one, now)
            except (ClusterError, ApiError) as error:
                log.warning("%s: %s; trying again", one.claimed.submission, error)
        if len(self.following) < self._slots and now >= self._claim_at:
            self._claim(now)

    def _taken_up(self, claimed: Claimed) -> Following:
        return Following(claimed, Followed(claimed.claim.lease_seconds))

    def _claim(self, now: float) -> None:
        try:
            claim = self._api.claim(self._name)
        except ApiUnavailableError as error:
            self._failures += 1
            pause = backoff(self._failures, 1.0, base=CLAIM_EVERY, cap=MAX_CLAIM_PAUSE)
            self._claim_at = now + pause
            if self._failures == 1:
                log.warning("no jobs can be claimed: %s", error)
            return
        except ApiError as error:
            self._claim_at = now + MAX_CLAIM_PAUSE
            log.error("no jobs can be claimed: %s", error)  # noqa: TRY400 - one line says it
            return
        self._failures = 0
        self._claim_at = now + CLAIM_EVERY
        if claim is None:
            return
        claimed = Claimed(claim=claim, submission=submission_of(claim))
        self._claims.save(claimed)
        log.info("claimed %s (%s), attempt %d", claim.id, claim.spec.name, claim.attempt)
        for earlier in self._earlier(claim):
            self._keep(earlier, lost(earlier.state))  # what this claim says of their lease
        following = self._taken_up(claimed)
        self.following.append(following)
        try:
            self._follow(following, now)
        except (ClusterError, ApiError) as error:
            log.warning("%s: %s; trying again", claimed.submission, error)

    def _follow(self, one: Following, now: float) -> None:
        if one.claimed.submitted or self._may_start(one):
            if not one.claimed.submitted:
                one = self._submit(one)
            seen = self._drivers.look(one.claimed.submission)
            state, actions = step(one.state, seen, now)
        elif one.state.cancel or one.state.lost:
            seen = Seen(DriverState.MISSING)
            state, actions = step(one.state, seen, now)
        else:
            seen = Seen(DriverState.MISSING)
            state, actions = waiting(one.state, now)
        one = self._keep(one, state)
        for action in actions:
            one = self._do(action, one, seen)

    def _may_start(self, one: Following) -> bool:
        """Not while an earlier driver of the job may run: both would write its checkpoints."""
        wanted = not (one.state.cancel or one.state.lost)
        return wanted and not self._earlier(one.claimed.claim)

    def _earlier(self, claim: JobClaim) -> list[Following]:
        found = [(o.claimed.claim, o) for o in self.following]
        return [o for c, o in found if c.id == claim.id and c.attempt < claim.attempt]

    def _submit(self, one: Following) -> Following:
        claim = one.claimed.claim
        environment = order_environment(claim, self._connection, self._job_dir(claim.id))
        self._drivers.submit(one.claimed.submission, environment, self._python)
        claimed = one.claimed.model_copy(update={"submitted": True})
        self._claims.save(claimed)
        log.info("started the driver of %s", claimed.submission)
        return self._replace(one, Following(claimed, one.state))

    def _do(self, action: Do, one: Following, seen: Seen) -> Following:
        match action:
            case Do.BEAT:
                return self._beat(one)
            case Do.STOP:
                log.info("stopping %s", one.claimed.submission)
                self._drivers.stop(one.claimed.submission)
            case Do.KILL:
                self._kill(one.claimed.submission)
            case Do.SAY:
                self._say(one, seen)
            case Do.FORGET:
                log.info("%s has ended", one.claimed.submission)
                self._claims.remove(one.claimed)
                self.following.remove(one)
        return one

    def _beat(self, one: Following) -> Following:
        try:
            reply = self._api.heartbeat(one.claimed.claim)
        except ApiUnavailableError as error:
            log.warning("%s: no heartbeat: %s", one.claimed.submission, error)
            return one
        except LeaseLostError as error:
            log.warning("%s: %s", one.claimed.submission, error)
            return self._keep(one, lost(one.state))
        return self._keep(one, beaten(one.state, reply))

    def _say(self, one: Following, seen: Seen) -> None:
        claim = one.claimed.claim
        detail = "stopped" if one.state.cancel else detail_of(seen)
        outcome = AgentOutcome(
            attempt=claim.attempt,
            lease=claim.lease,
            cancelled=one.state.cancel,
            cause=None if one.state.cancel else JobCause.DRIVER_DIED,
            detail=detail,
        )
        log.info("%s: %s", one.claimed.submission, detail)
        try:
            self._api.outcome(claim.id, outcome)
        except RefusedError as error:
            # Lost, or ended already: there is nothing left to say.
            log.info("%s: its outcome is not needed: %s", one.claimed.submission, error)

    def _keep(self, one: Following, state: Followed) -> Following:
        return one if state == one.state else self._replace(one, replace(one, state=state))

    def _replace(self, old: Following, new: Following) -> Following:
        self.following[self.following.index(old)] = new
        return new


def local_job_dir(home: Path) -> Callable[[str], str]:
    """Jobs keep their checkpoints and exports in ``HOME/jobs/<job>``."""

    def folder(job: str) -> str:
        path = home / "jobs" / job
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    return folder
