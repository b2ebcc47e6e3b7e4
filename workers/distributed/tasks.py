"""The trials of a search as tasks on the cluster, each with what one worker reserves.

Each call has a placement group of its own, so that the driver sees it wait for resources as
it sees training wait, and a process of its own, which ends with it. Repeats are counted
here: Ray itself repeats a task that ran out of memory for ever.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.blame import job_failure
from workers.distributed.mailbox import GROUP, Mailbox
from workers.distributed.task_process import run_call
from workers.distributed.train import worker_resources
from workers.memory import HOST_ADVICE, killed_by_ray
from workers.optimization.executor import TrialFailed, beat, failed

log = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")

RETRIES = 3
"""Repeats of a call whose process or node was lost."""

POLL = 1.0
FIRST_TRIAL = 1_000_000
"""Numbers of calls, as the driver counts what is reserved: above those of a sweep's trials."""

_PLACED = "CREATED"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A call to be made. lost: how often it was."""

    index: int
    argument: Any
    lost: int = 0


@dataclass(slots=True)
class _Call:
    """A call under way. group: its placement group. since: when it was asked for."""

    index: int
    argument: Any
    ref: Any
    group: Any
    since: float
    lost: int = 0
    placed: bool = False


class RayExecutor:
    """Runs each call as a task; as many at once as the job has workers.

    Everything runs in the environment of the job, whose mark every process carries, and ends
    with its driver. The cluster must be connected.

    Args:
        spec: the job.
        mailbox: the name of the job's, where lines, usage and reservations are told; empty:
            nowhere.
        clock: seconds, monotonic.
    """

    def __init__(
        self, spec: JobSpec, mailbox: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        import ray  # noqa: PLC0415 - a second to import

        self._ray: Any = ray
        self._spec, self._clock = spec, clock
        self._box = mailbox
        self._mailbox = Mailbox(mailbox) if mailbox else None
        self._resources = worker_resources(spec)
        # One call per process: it may have set limits, or hang.
        self._remote = self._ray.remote(max_calls=1, max_retries=0)(run_call)

    def map(
        self, function: Callable[[A], B], arguments: Sequence[A]
    ) -> Iterator[tuple[int, B | TrialFailed]]:
        """See ``workers.optimization.executor.Executor``.

        A call whose process was killed or whose node was lost is repeated ``RETRIES`` times.
        Calls for which the cluster has no room fail after ``resources.wait_minutes``.
        """
        waiting = deque(_Waiting(i, argument) for i, argument in enumerate(arguments))
        running: dict[Any, _Call] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._spec.resources.workers.max:
                    one = waiting.popleft()
                    started = self._start(function, one)
                    if isinstance(started, TrialFailed):
                        yield one.index, started
                    else:
                        running[started.ref] = started
                for call in self._ended(running):
                    result = self._result(call)
                    if isinstance(result, _Waiting):
                        waiting.appendleft(result)
                    else:
                        yield call.index, result
        finally:
            for call in running.values():
                with contextlib.suppress(Exception):
                    self._ray.cancel(call.ref, force=True)
                self._free(call)

    def _start(self, function: Callable[[Any], Any], one: _Waiting) -> _Call | TrialFailed:
        from ray.util.scheduling_strategies import (  # noqa: PLC0415 - with ray
            PlacementGroupSchedulingStrategy,
        )

        group = None
        try:
            group = self._ray.util.placement_group([self._resources])
            ref = self._remote.options(
                num_cpus=self._resources["CPU"],
                num_gpus=self._resources.get("GPU", 0),
                memory=self._resources.get("memory"),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group),
            ).remote(function, one.argument, self._spec.model_dump_json(), self._box)
        except Exception as error:  # noqa: BLE001 - such as an argument that cannot be sent
            if group is not None:
                self._remove(group)
            detail = f"it cannot be sent to the cluster: {_first(error)}"
            return TrialFailed(JobCause.INTERNAL, detail)
        return _Call(one.index, one.argument, ref, group, self._clock(), one.lost)

    def _ended(self, running: dict[Any, _Call]) -> list[_Call]:
        """Wait a moment; the calls that ended, taken out."""
        beat()  # each is watched by its own process
        try:
            done, _ = self._ray.wait(list(running), timeout=POLL)
            for call in running.values():
                self._look(call)
            if not done and self._stuck(running):
                done = list(running)
        except Exception as error:  # noqa: BLE001 - the cluster is gone: every call fails
            log.warning("the cluster does not answer: %s", str(error).splitlines()[:1])
            done = list(running)
        found = [running.pop(ref) for ref in done]
        for call in found:
            self._free(call)
        return found

    def _look(self, call: _Call) -> None:
        """See whether a call has its resources by now."""
        if call.placed:
            return
        table = self._ray.util.placement_group_table(call.group)
        if table.get("state") == _PLACED:
            call.placed = True
            self._tell(call, "up")

    def _stuck(self, running: dict[Any, _Call]) -> bool:
        """Whether there was no room for any call for longer than the job waits."""
        now, limit = self._clock(), self._spec.resources.wait_minutes * 60
        return all(not call.placed and now - call.since >= limit for call in running.values())

    def _result(self, call: _Call) -> Any:
        """What a call gave, or that it is to be repeated."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(call.ref, timeout=POLL if call.placed else 0)
        except errors.GetTimeoutError:
            with contextlib.suppress(Exception):
                self._ray.cancel(call.ref, force=True)
            return _no_room(self._spec)
        except (errors.RayTaskError, errors.TaskCancelledError) as error:
            return _of(error)
        except errors.RayError as error:
            if call.lost < RETRIES:
                log.warning("trial %d was lost, it is repeated: %s", call.index, _first(error))
                return _Waiting(call.index, call.argument, call.lost + 1)
            return _of(error)
        except Exception as error:  # noqa: BLE001 - a result that cannot be read, or no cluster
            return failed(error)

    def _free(self, call: _Call) -> None:
        self._remove(call.group)
        if call.placed:
            self._tell(call, "down")

    def _remove(self, group: Any) -> None:
        with contextlib.suppress(Exception):
            self._ray.util.remove_placement_group(group)

    def _tell(self, call: _Call, event: str) -> None:
        if self._mailbox is None:
            return
        asked = self._resources
        self._mailbox.send(
            GROUP,
            {
                "trial": FIRST_TRIAL + call.index,
                "event": event,
                "workers": 1,
                "cpus": asked["CPU"],
                "gpus": asked.get("GPU", 0.0),
            },
        )


def _of(error: BaseException) -> TrialFailed:
    found = job_failure(error)
    if found is not None:
        return TrialFailed(found.cause, found.detail)
    if killed_by_ray(f"{type(error).__name__} {error}"):
        detail = f"a worker ran out of memory: {_first(error)}; {HOST_ADVICE}"
        return TrialFailed(JobCause.OUT_OF_MEMORY, detail)
    how = "killed from outside, or a crash in native code"
    detail = f"its process died {RETRIES + 1} times ({how}): {_first(error)}"
    return TrialFailed(JobCause.DRIVER_DIED, detail)


def _no_room(spec: JobSpec) -> TrialFailed:
    asked = ", ".join(f"{amount:g} {kind}" for kind, amount in worker_resources(spec).items())
    minutes = spec.resources.wait_minutes
    detail = f"the cluster had no room for {asked} for {minutes:g} min"
    return TrialFailed(JobCause.RESOURCES, f"{detail}; lower resources, or add nodes")


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]
