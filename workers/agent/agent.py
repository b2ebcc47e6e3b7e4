"""The agent: claims jobs from the orchestrator and follows their drivers on Ray.

It keeps nothing in memory that matters: claims are on disk before a driver starts, and
what a driver does is asked of Ray by an id that follows from the claim. Its thread keeps
the leases, so all that may take long, a launch and a stop, runs in another; and once the
cluster did not answer, it is not asked again in the same round.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from schemas.job import AgentOutcome, Capacity, HeartbeatReply, JobClaim
from workers.agent.claims import Claimed, Claims, submission_of
from workers.agent.follow import (
    Do,
    DriverState,
    Followed,
    Seen,
    beaten,
    cause_of,
    detail_of,
    lost,
    step,
    unseen,
    waiting,
)
from workers.agent.launch import Following, Launch, in_background, launched
from workers.agent.processes import kill_all, marked
from workers.agent.reach import Drivers, Reach
from workers.client import backoff
from workers.errors import (
    ApiError,
    ApiUnavailableError,
    ClusterError,
    LeaseLostError,
    RefusedError,
)
from workers.order import MARK

log = logging.getLogger(__name__)

TICK = 0.5
CLAIM_EVERY = 1.0
MAX_CLAIM_PAUSE = 15.0
KILL_SECONDS = 2.0


class Orchestrator(Protocol):
    """The API, as the agent uses it: ``workers.client.Api``."""

    def claim(self, agent: str, capacity: Capacity | None = None) -> JobClaim | None:
        """A job, or None."""
        ...

    def heartbeat(self, claim: JobClaim) -> HeartbeatReply:
        """Keep a lease."""
        ...

    def outcome(self, job: str, outcome: AgentOutcome) -> None:
        """Speak for a dead driver."""
        ...


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
        launch: starts the driver of a claim: ``workers.agent.launch.Launcher``.
        slots: jobs at once.
        patience: seconds without an answer of the cluster after which ``run`` ends.
        kill: ends the processes of a submission.
        tidy: is told the digests of the code in use, whenever a job has ended.
        background: runs what takes long.
    """

    def __init__(
        self,
        name: str,
        *,
        api: Orchestrator,
        drivers: Drivers,
        claims: Claims,
        launch: Callable[[JobClaim, str], None],
        slots: int = 1,
        patience: float = math.inf,
        kill: Callable[[str], None] = kill_job,
        tidy: Callable[[frozenset[str]], None] = lambda _: None,
        background: Callable[[Callable[[], None]], Launch] = in_background,
    ) -> None:
        self._name = name
        self._api = api
        self._drivers = drivers
        self._reach = Reach(drivers)
        self._claims = claims
        self._launch = launch
        self._slots = slots
        self._patience = patience
        self._kill = kill
        self._tidy = tidy
        self._background = background
        self._claim_at = 0.0
        self._failures = 0
        self.following = [self._taken_up(one) for one in claims.load()]

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop.

        Raises:
            ClusterError: the cluster did not answer for longer than ``patience``.
        """
        while not stop.is_set():
            now = time.monotonic()
            self.tick(now)
            away = self._reach.away_since
            if away is not None and now - away > self._patience:
                msg = f"Ray did not answer for {self._patience:.0f} s"
                raise ClusterError(msg)
            stop.wait(TICK)

    def tick(self, now: float) -> None:
        """Look at every job once, then claim if there is room."""
        self._reach.new_round()
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
            claim = self._api.claim(self._name, self._reach.capacity(now))
        except (ApiUnavailableError, ClusterError) as error:
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
        one = self._started(one, now)
        seen, state, actions = self._next(one, now)
        one = self._keep(one, state)
        for action in actions:
            one = self._do(action, one, seen)

    def _next(self, one: Following, now: float) -> tuple[Seen, Followed, tuple[Do, ...]]:
        seen = one.failed or Seen(DriverState.MISSING)
        ending = one.state.cancel or one.state.lost
        if one.failed is None:
            # A claim of before a restart may have a driver that was not noted down.
            if not one.claimed.submitted and (one.launch is not None or not ending):
                return seen, *waiting(one.state, now)
            try:
                seen = self._reach.look(one.claimed.submission, now)
            except ClusterError as error:
                if one.state.away_since is None:
                    log.warning("%s: %s; trying again", one.claimed.submission, error)
                return seen, *unseen(one.state, now)
        return seen, *step(one.state, seen, now)

    def _started(self, one: Following, now: float) -> Following:
        """Begin a launch, or take note of how it went."""
        if one.claimed.submitted or one.failed is not None:
            return one
        if one.launch is None:
            if now < one.retry_at or not self._may_start(one):
                return one
            call = functools.partial(self._launch, one.claimed.claim, one.claimed.submission)
            since = now if one.launch_since is None else one.launch_since
            launch = self._background(call)
            one = self._replace(one, replace(one, launch=launch, launch_since=since))
        else:
            launch = one.launch
        if not launch.done.is_set():
            return one
        done = launched(one, launch.error, now)
        if done.claimed.submitted:
            self._claims.save(done.claimed)
            log.info("started the driver of %s", one.claimed.submission)
        else:
            log.warning("%s was not started: %s", one.claimed.submission, launch.error)
        return self._replace(one, done)

    def _may_start(self, one: Following) -> bool:
        """Not while an earlier driver of the job may run: both would write its checkpoints."""
        wanted = not (one.state.cancel or one.state.lost)
        return wanted and not self._earlier(one.claimed.claim)

    def _earlier(self, claim: JobClaim) -> list[Following]:
        found = [(o.claimed.claim, o) for o in self.following]
        return [o for c, o in found if c.id == claim.id and c.attempt < claim.attempt]

    def _do(self, action: Do, one: Following, seen: Seen) -> Following:
        match action:
            case Do.BEAT:
                return self._beat(one)
            case Do.STOP:
                log.info("stopping %s", one.claimed.submission)
                self._background(functools.partial(self._stop, one.claimed.submission))
            case Do.KILL:
                self._kill(one.claimed.submission)
            case Do.SAY:
                self._say(one, seen)
            case Do.FORGET:
                log.info("%s has ended", one.claimed.submission)
                self._claims.remove(one.claimed)
                self.following.remove(one)
                code = [other.claimed.claim.spec.code for other in self.following]
                self._tidy(frozenset(used.sha256 for used in code if used))
        return one

    def _stop(self, submission: str) -> None:
        try:
            self._drivers.stop(submission)
        except ClusterError as error:  # asked again while the driver runs
            log.warning("%s: %s", submission, error)

    def _beat(self, one: Following) -> Following:
        try:
            reply = self._api.heartbeat(one.claimed.claim)
        except ApiUnavailableError as error:
            log.warning("%s: no heartbeat: %s", one.claimed.submission, error)
            return one
        except LeaseLostError as error:
            log.info("%s: %s", one.claimed.submission, error)
            return self._keep(one, lost(one.state))
        return self._keep(one, beaten(one.state, reply))

    def _say(self, one: Following, seen: Seen) -> None:
        claim = one.claimed.claim
        detail = "stopped" if one.state.cancel else detail_of(seen)
        outcome = AgentOutcome(
            attempt=claim.attempt,
            lease=claim.lease,
            cancelled=one.state.cancel,
            cause=None if one.state.cancel else cause_of(seen),
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
