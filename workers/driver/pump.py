"""From the mailbox to the API: the thread in the driver that takes what workers send."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from schemas.job import JobCause, Live, MetricPoint
from schemas.jobfile import JobSpec
from workers.distributed import board, mailbox
from workers.distributed.board import Board, Vitals
from workers.distributed.logs import Level
from workers.driver import usage, waiting
from workers.driver.reporter import Reporter
from workers.driver.usage import Meter
from workers.driver.waiting import Offer, Tell, Wait
from workers.errors import JobFailed
from workers.training.steps import Step

log = logging.getLogger("workers.driver")

WAIT = 0.5
"""Seconds for which a look into the mailbox waits for something to come."""

TICK = 1.0
DRAIN_SECONDS = 5.0


class Source(Protocol):
    """The mailbox: ``workers.distributed.mailbox.Postbox``."""

    def take(self, seconds: float) -> list[mailbox.Message]:
        """What came."""
        ...


class Cluster(Protocol):
    """The cluster, as far as it says what there is."""

    def offer(self) -> Offer:
        """What it has and what is free."""
        ...

    def stuck(self) -> bool:
        """Whether something that this job asked for waits to be placed."""
        ...


class Pump:
    """Takes, adds up, and hands to the reporter.

    Args:
        spec: the job.
        source: the mailbox.
        cluster: where resources come from.
        reporter: where everything goes.
        fail: ends the job at once; called on the pump's thread.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        spec: JobSpec,
        source: Source,
        cluster: Cluster,
        reporter: Reporter,
        fail: Callable[[JobFailed], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._source, self._cluster = spec, source, cluster
        self._reporter, self._fail, self._clock = reporter, fail, clock
        self._meter = Meter()
        self._board = Board()
        self._wait = Wait()
        self._deciding = False
        self._moved = False
        self._ticked = clock()
        self._sizes: dict[int, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mailbox", daemon=True)

    def start(self) -> None:
        """Begin to take."""
        self._thread.start()

    def stop(self) -> None:
        """Take what is left, and say the last of it."""
        self._done.set()
        self._thread.join(DRAIN_SECONDS)
        self.settle()

    def settle(self) -> None:
        """Tell what was used up to now."""
        self._reporter.usage(usage.total(self._meter, self._clock()))

    def _run(self) -> None:
        failures = 0
        ended = False
        while not ended:
            ended = self._done.is_set()
            try:
                messages = self._source.take(0.0 if ended else WAIT)
            except Exception as error:  # noqa: BLE001 - the training goes on without its figures
                failures += 1
                if failures == 1:
                    log.warning("the mailbox does not answer: %s", str(error).splitlines()[:1])
                self._done.wait(TICK)
                messages = []
            for kind, payload in messages:
                self.receive(kind, payload)
            if self._clock() - self._ticked >= TICK:
                self.tick()

    def receive(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Act on a message; one that cannot be read is left out."""
        try:
            handler = getattr(self, f"_on_{kind}", None)
            if handler is not None:
                handler(payload)
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            log.warning("a message of kind %r is left out: %s", kind, str(error).splitlines()[:1])

    def tick(self) -> None:
        """What is due every second: live figures, usage, and whether it waits."""
        now = self._ticked = self._clock()
        if self._meter.workers and self._moved:
            self._reporter.live(self._live(now))
            self._moved = False
        self._reporter.usage(usage.total(self._meter, now))
        self._consider(now)

    def _live(self, now: float) -> Live:
        return board.live(self._board, workers=self._meter.workers, now=now, at=datetime.now(UTC))

    def _on_epoch(self, payload: Mapping[str, Any]) -> None:
        point = MetricPoint.model_validate(payload)
        self._reporter.metrics([point])
        values = " ".join(f"{k}={v:.4g}" for k, v in sorted(point.values.items()))
        trial = f"trial {point.trial}, " if point.trial else ""
        log.info("%sepoch %d: %s", trial, point.epoch, values)

    def _on_live(self, payload: Mapping[str, Any]) -> None:
        self._board = board.stepped(self._board, int(payload["trial"]), Step(**payload["step"]))
        self._moved = True

    def _on_usage(self, payload: Mapping[str, Any]) -> None:
        vitals = Vitals(**payload["vitals"])
        name = str(payload["worker"])
        self._meter = usage.used(self._meter, name, vitals.cpu_seconds)
        self._board = board.told(self._board, name, vitals, self._clock())
        self._moved = True

    def _on_log(self, payload: Mapping[str, Any]) -> None:
        level: Level = payload["level"]
        self._reporter.log(level, str(payload["text"]))

    def _on_dropped(self, payload: Mapping[str, Any]) -> None:
        self._reporter.log("warning", f"{payload['n']} printed lines were left out")

    def _on_batch(self, payload: Mapping[str, Any]) -> None:
        done, total = int(payload["done"]), int(payload["total"])
        if not self._meter.workers and not self._cluster.stuck():
            self._count_actors()
        live = Live(at=datetime.now(UTC), done=done, total=total, workers=self._meter.workers)
        self._reporter.live(live)

    def _count_actors(self) -> None:
        """Ray Data's actors are counted as asked for: it does not tell how many it started."""
        asked = self._spec.resources
        n = asked.workers.min
        cpus, gpus = asked.cpus_per_worker * n, float(asked.gpus_per_worker * n)
        now = self._clock()
        self._meter = usage.up(self._meter, 0, workers=n, cpus=cpus, gpus=gpus, now=now)

    def _on_group(self, payload: Mapping[str, Any]) -> None:
        now, trial, event = self._clock(), int(payload["trial"]), payload["event"]
        self._deciding = event == "deciding"
        workers = int(payload["workers"])
        if event == "up":
            self._meter = usage.up(
                self._meter,
                trial,
                workers=workers,
                cpus=float(payload["cpus"]),
                gpus=float(payload["gpus"]),
                now=now,
            )
            before = self._sizes.get(trial)
            log.info("%d worker%s up", workers, " is" if workers == 1 else "s are")
            if before is not None and before != workers:
                log.warning("training goes on with %d workers instead of %d", workers, before)
            self._sizes[trial] = workers
        elif event == "down":
            self._meter = usage.down(self._meter, trial, now)
        elif event == "lost":
            log.warning("%s", payload["detail"])

    def _consider(self, now: float) -> None:
        up = self._meter.workers > 0
        try:
            stuck = not up and (self._deciding or self._cluster.stuck())
            wait_limit = self._spec.resources.wait_minutes * 60
            self._wait, what = waiting.look(
                self._wait, up=up, stuck=stuck, now=now, limit=wait_limit
            )
            if what is Tell.CLEAR:
                self._reporter.notice("")
            elif what in {Tell.SAY, Tell.FAIL}:
                text = waiting.sentence(self._spec.resources, self._cluster.offer())
                self._said(what, text)
        except Exception as error:  # noqa: BLE001 - the next look may tell
            log.warning("the cluster does not say what is free: %s", str(error).splitlines()[:1])

    def _said(self, what: Tell, text: str) -> None:
        if what is Tell.SAY:
            self._reporter.notice(text)
            return
        minutes = self._spec.resources.wait_minutes
        detail = f"it waited for {minutes:g} min: {text}; lower resources, or add nodes"
        self._fail(JobFailed(JobCause.RESOURCES, detail))
