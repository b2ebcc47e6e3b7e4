"""A simulated device's way through an execution, as ``docs/protocol.md`` has it.

What it does not do is verify signatures and run a model: it takes the document at its word, and
what becomes of the update follows from the profile.
"""

from __future__ import annotations

from orchestrator.simulator.steps import Steps
from orchestrator.simulator.update import Host, Update, key_of, read_document
from schemas.device import ExecutionSeen
from schemas.errors import DeviceCause
from schemas.rollout import DEVICE_TERMINAL, Assignment, Command, ExecReport, ExecState

S = ExecState
_SWAPPED = frozenset({S.ACTIVATING, S.PROBATION})


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
        self._steps = Steps(host, self._served, self._over)

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
        found = read_document(payload)
        if found is None:
            return
        sequence, assignment = found
        update = self._update
        same = update is not None and update.key == key_of(assignment)
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
            self._steps.supersede(update)
            self._begin(assignment)

    def command(self, command: Command) -> None:
        """A command came."""
        update = self._update
        key = (command.execution, command.attempt)
        if command.kind == "proceed":
            if update is not None and update.key == key and not update.over:
                self._steps.proceed(update)
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
            self._steps.end(update, S.FAILED, DeviceCause.CANCELLED)

    def _ended_before(self, assignment: Assignment) -> bool:
        """Whether an earlier run ended it; then that is said once more."""
        seen = self._seen
        if seen is None or (seen.execution, seen.attempt) != key_of(assignment):
            return False
        if seen.state not in DEVICE_TERMINAL:
            return False
        self._update = Update(assignment, state=S(seen.state), seq=seen.seq - 1)
        self._host.report(self._update)
        return True

    def _begin(self, assignment: Assignment) -> None:
        seen = self._seen
        goes_on = seen is not None and (seen.execution, seen.attempt) == key_of(assignment)
        seq = seen.seq if seen is not None and goes_on else -1
        self._update = Update(assignment, seq=seq)
        self._steps.begin(self._update)

    def _served(self, update: Update) -> None:
        """The new version serves; a newer offer that waited for the swap puts it back."""
        if self._next is not None:
            assignment, self._next = self._next, None
            self._steps.supersede(update)
            self._begin(assignment)

    def _over(self, update: Update) -> None:
        if self._next is not None and update is self._update:
            assignment, self._next = self._next, None
            self._begin(assignment)

    def _reject(self, assignment: Assignment, cause: DeviceCause) -> None:
        """Refuse a document without giving up what is under way."""
        update = Update(assignment, state=S.REJECTED)
        self._host.report(update, cause=cause)
