"""A simulated device's way through an execution, as ``docs/protocol.md`` has it.

What it does not do is verify signatures and run a model: it takes the document at its word, and
what becomes of the update follows from the profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from orchestrator.simulator.fetch import Fetch, Package
from orchestrator.simulator.outcome import Outcome
from schemas.device import ActiveModel, ExecutionSeen
from schemas.errors import DeviceCause
from schemas.maintenance import for_download, look
from schemas.pace import MaintenanceWindow, Urgency
from schemas.rollout import DEVICE_TERMINAL, Assignment, Command, ExecReport, ExecState, Shadow

S = ExecState
_SWAPPED = frozenset({S.ACTIVATING, S.PROBATION})
_PROGRESS_SECONDS = 1.0
_SWAP_SECONDS = 0.05
_AGAIN_SECONDS = 60.0


class Host(Protocol):
    """The device, as its update sees it."""

    id: str
    device_class: str
    active: dict[str, ActiveModel]
    fetch: Fetch

    def report(self, update: Update, **more: Any) -> None:
        """Tell the server."""

    def after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Have something done later."""

    def now(self) -> datetime:
        """The server's time, as the device knows it."""

    def pace(self, seconds: float, what: str, number: int) -> float:
        """How long a step takes on this device."""

    def outcome(self, assignment: Assignment) -> Outcome:
        """What becomes of an update."""

    def serve(self, model: ActiveModel | None, name: str) -> None:
        """Serve another version from now on; None: none of that model any more."""

    def shadowed(self, update: Update, shadow: Shadow) -> tuple[int, int]:
        """Send what a shadow compared; how many answers, and how many of them agreed."""

    def offered(self, assignment: Assignment) -> None:
        """Count an offer that it had not seen."""

    def told(self, rollout: str) -> None:
        """Count that it was told to give an execution up."""

    def disown(self, command: Command) -> None:
        """Told to give up what it does not know: it says that it is given up."""


@dataclass(slots=True)
class Update:
    """Where an execution stands on the device. seq: of the last report, -1 before the first."""

    assignment: Assignment
    state: ExecState = S.OFFERED
    seq: int = -1
    last: ExecReport | None = None
    before: ActiveModel | None = None
    package: Package | None = None
    put_off: bool = False
    proceed: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Which attempt of which execution it is."""
        return _key(self.assignment)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in DEVICE_TERMINAL


class Walk:
    """The updates of one device, one at a time.

    Args:
        host: the device.
        floor: the highest sequence it ever accepted.
        seen: what an earlier run of the simulator left of the newest execution.
    """

    def __init__(self, host: Host, floor: int = 0, seen: ExecutionSeen | None = None) -> None:
        self._host = host
        self.floor = floor
        self._seen = seen
        self._update: Update | None = None
        self._next: Assignment | None = None
        self._turn = 0

    @property
    def seen(self) -> ExecutionSeen | None:
        """The newest execution, as a birth tells it."""
        update = self._update
        if update is None:
            return self._seen
        state = S.ACCEPTED if update.seq < 0 else update.state
        execution, attempt = update.key
        return ExecutionSeen(execution=execution, attempt=attempt, state=state, seq=update.seq)

    @property
    def last(self) -> ExecReport | None:
        """The last report."""
        return None if self._update is None else self._update.last

    def desired(self, payload: bytes) -> None:
        """A desired document came; an empty one, or what is none, changes nothing."""
        found = _read(payload)
        if found is None:
            return
        sequence, assignment = found
        update = self._update
        same = update is not None and update.key == _key(assignment)
        if sequence < self.floor and not same:
            self._reject(assignment, DeviceCause.BELOW_FLOOR)
            return
        self.floor = max(self.floor, sequence)
        if update is not None and same:
            if update.over:
                self._host.report(update, again=True)
            return
        if update is None and self._ended_before(assignment):
            return
        self._host.offered(assignment)
        if update is None or update.over:
            self._begin(assignment)
        elif update.state is S.ACTIVATING:
            self._next = assignment
        else:
            self._supersede(update)
            self._begin(assignment)

    def command(self, command: Command) -> None:
        """A command came."""
        update = self._update
        key = (command.execution, command.attempt)
        if command.kind == "proceed":
            if update is not None and update.key == key and not update.over:
                self._proceed(update)
            return
        if update is None or update.key != key:
            self._host.disown(command)
            return
        self._host.told(update.assignment.rollout)
        if update.over:
            self._host.report(update, again=True)
        elif update.state in _SWAPPED:
            self._host.report(update, cause=DeviceCause.CANCEL_TOO_LATE)
        else:
            self._end(update, S.FAILED, DeviceCause.CANCELLED)

    def _ended_before(self, assignment: Assignment) -> bool:
        """Whether an earlier run ended it; then that is said once more."""
        seen = self._seen
        if seen is None or (seen.execution, seen.attempt) != _key(assignment):
            return False
        if seen.state not in DEVICE_TERMINAL:
            return False
        self._update = Update(assignment, state=S(seen.state), seq=seen.seq - 1)
        self._host.report(self._update)
        return True

    def _begin(self, assignment: Assignment) -> None:
        host = self._host
        seen = self._seen
        goes_on = seen is not None and (seen.execution, seen.attempt) == _key(assignment)
        seq = seen.seq if seen is not None and goes_on else -1
        update = self._update = Update(assignment, seq=seq)
        host.fetch.stop()
        self._turn += 1
        if assignment.device != host.id or assignment.device_class != host.device_class:
            wrong = assignment.device != host.id
            cause = DeviceCause.WRONG_DEVICE if wrong else DeviceCause.WRONG_CLASS
            self._end(update, S.REJECTED, cause)
            return
        active = host.active.get(assignment.model)
        update.before = active
        wanted = (assignment.version, assignment.variant)
        if active is not None and (active.version, active.variant) == wanted:
            self._end(update, S.SUCCEEDED)
            return
        self._move(update, S.ACCEPTED)
        jitter = host.pace(assignment.jitter_seconds, "jitter", assignment.attempt)
        self._after(min(jitter, assignment.jitter_seconds), self._start)

    def _start(self, update: Update) -> None:
        """Begin with the work, unless it is put off or waits for a window."""
        assignment, now = update.assignment, self._host.now()
        wait = self._host.outcome(assignment).deferral
        may = assignment.mode.urgency in {Urgency.SOFT, Urgency.TIME_FORCED}
        if wait and may and not update.put_off and not update.proceed:
            update.put_off = True
            until = now + timedelta(seconds=min(wait, assignment.max_deferral_seconds))
            if assignment.mode.force_at is not None:
                until = min(until, assignment.mode.force_at)
            self._move(update, S.DEFERRED, waits_until=until)
            self._after((until - now).total_seconds(), self._start)
            return
        if not self._open(update, for_download(assignment.windows), S.DEFERRED, self._start):
            return
        self._host.fetch.manifest(
            assignment.manifest_sha256, lambda package: self._packed(update, package)
        )

    def _open(
        self,
        update: Update,
        windows: tuple[MaintenanceWindow, ...],
        state: ExecState,
        then: Callable[[Update], None],
    ) -> bool:
        """Whether the windows let it go on; else it says until when it waits."""
        now = self._host.now()
        found = look(windows, now)
        if found.open or update.proceed:
            return True
        self._move(update, state, waits_until=found.until)
        if found.until is not None:
            self._after(max(1.0, (found.until - now).total_seconds()), then)
        return False

    def _packed(self, update: Update, package: Package | None) -> None:
        if self._gone(update):
            return
        files = None if package is None else package.files.get(update.assignment.variant)
        if files is None:
            self._end(update, S.FAILED, DeviceCause.TRANSFER_FAILED, retryable=True)
            return
        update.package = package
        total = sum(file.size for file in files)
        self._move(update, S.DOWNLOADING, bytes_done=0, bytes_total=total, bytes_fetched=0)
        if self._host.outcome(update.assignment).pulls:
            self._host.fetch.files(files, lambda whole: self._pulled(update, total, whole=whole))
        else:
            self._download(update, 0, total)

    def _pulled(self, update: Update, total: int, *, whole: bool) -> None:
        if self._gone(update):
            return
        if whole:
            self._downloaded(update, total)
        else:
            self._end(update, S.FAILED, DeviceCause.TRANSFER_FAILED, retryable=True)

    def _download(self, update: Update, done: int, total: int) -> None:
        """Go on with a download that is not really made."""
        if done >= total:
            self._downloaded(update, total)
            return
        if done:
            self._move(
                update, S.DOWNLOADING, bytes_done=done, bytes_total=total, bytes_fetched=done
            )
        rate = self._host.outcome(update.assignment).bytes_per_second
        step = min(_PROGRESS_SECONDS, (total - done) / rate)
        self._after(step, self._download, min(total, done + max(1, round(step * rate))), total)

    def _downloaded(self, update: Update, total: int) -> None:
        self._move(update, S.VERIFIED, bytes_done=total, bytes_total=total, bytes_fetched=total)
        self._after(self._host.pace(-1, "stage", update.assignment.attempt), self._stage)

    def _stage(self, update: Update) -> None:
        if self._host.outcome(update.assignment).fails:
            self._end(update, S.FAILED, DeviceCause.LOAD_FAILED, retryable=True)
            return
        self._move(update, S.STAGED)
        self._after(self._host.pace(-1, "swap", update.assignment.attempt), self._leave_stage)

    def _leave_stage(self, update: Update) -> None:
        assignment = update.assignment
        if assignment.mode.urgency is Urgency.DOWNLOAD_ONLY and not update.proceed:
            return  # it waits for a word
        if not self._open(update, assignment.windows, S.STAGED, self._leave_stage):
            return
        if assignment.shadow is not None and update.before is not None:
            self._move(update, S.SHADOWING)
            self._after(assignment.shadow.seconds, self._compare, assignment.shadow)
            return
        self._activate(update)

    def _compare(self, update: Update, shadow: Shadow) -> None:
        """The shadow has run beside what serves."""
        compared, agreed = self._host.shadowed(update, shadow)
        least = shadow.min_agreement
        enough = compared >= shadow.min_compared and least is not None
        if enough and least is not None and agreed < least * compared:
            self._end(update, S.FAILED, DeviceCause.SHADOW_DISAGREED)
        else:
            self._activate(update)

    def _activate(self, update: Update) -> None:
        self._move(update, S.ACTIVATING)
        self._after(_SWAP_SECONDS, self._swap)

    def _swap(self, update: Update) -> None:
        assignment = update.assignment
        files = update.package.files[assignment.variant] if update.package else ()
        self._host.serve(
            ActiveModel(
                model=assignment.model,
                version=assignment.version,
                variant=assignment.variant,
                sha256=files[0].sha256,
            ),
            assignment.model,
        )
        self._move(update, S.PROBATION)
        if self._next is not None:
            assignment, self._next = self._next, None
            self._supersede(update)
            self._begin(assignment)
            return
        seconds = self._host.outcome(update.assignment).probation_seconds
        self._after(min(seconds, update.assignment.probation.max_seconds), self._judge)

    def _judge(self, update: Update) -> None:
        """Probation is over: the device alone decides."""
        cause = self._host.outcome(update.assignment).condemned
        if cause is None:
            self._end(update, S.SUCCEEDED)
        else:
            self._back(update, cause, retryable=False)

    def _back(self, update: Update, cause: DeviceCause, *, retryable: bool) -> None:
        self._host.serve(update.before, update.assignment.model)
        self._end(update, S.ROLLED_BACK, cause, retryable=retryable)

    def _supersede(self, update: Update) -> None:
        if update.state is S.PROBATION:
            self._back(update, DeviceCause.SUPERSEDED, retryable=True)
        else:
            self._end(update, S.FAILED, DeviceCause.SUPERSEDED)

    def _proceed(self, update: Update) -> None:
        """Go on with what waits, whatever its mode and windows say."""
        update.proceed = True
        if update.state is S.DEFERRED:
            self._turn += 1
            self._start(update)
        elif update.state is S.STAGED:
            self._turn += 1
            self._leave_stage(update)

    def _reject(self, assignment: Assignment, cause: DeviceCause) -> None:
        """Refuse a document without giving up what is under way."""
        update = Update(assignment, state=S.REJECTED)
        self._host.report(update, cause=cause)

    def _move(self, update: Update, state: ExecState, **more: Any) -> None:
        update.state = state
        self._host.report(update, **more)

    def _end(
        self,
        update: Update,
        state: ExecState,
        cause: DeviceCause | None = None,
        *,
        retryable: bool = False,
    ) -> None:
        self._turn += 1
        self._host.fetch.stop()
        self._move(update, state, cause=cause, retryable=retryable)
        if self._next is not None and update is self._update:
            assignment, self._next = self._next, None
            self._begin(assignment)

    def _after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Do a step later, unless the update went another way meanwhile."""
        update, turn = self._update, self._turn

        def step() -> None:
            if update is not None and update is self._update and turn == self._turn:
                act(update, *args)

        self._host.after(seconds, step)

    def _gone(self, update: Update) -> bool:
        return update is not self._update or update.over


def _key(assignment: Assignment) -> tuple[str, int]:
    return assignment.execution, assignment.attempt


def _read(payload: bytes) -> tuple[int, Assignment] | None:
    """Sequence and assignment of a document; None when it is empty or none."""
    try:
        signed = json.loads(payload)["signed"]
        (target,) = signed["targets"].values()
        return int(signed["version"]), Assignment.model_validate(target["custom"])
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
