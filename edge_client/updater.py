"""The update, carried out: journal first, then do what the state calls for.

All of it runs on one thread. What each state calls for is in ``edge_client.work``, and
what comes over the wire is checked in ``edge_client.inbox`` before it gets here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_client.actions import Begin, Collect, PutBack, Repeat, Report
from edge_client.device import Device
from edge_client.errors import EdgeError, PointerError
from edge_client.events import Booted, Broke, Event, TrialPassed
from edge_client.hang import forget_hang, read_hang
from edge_client.journal import ROLLED_BACK, Floor, facts_of
from edge_client.manifests import offered_files
from edge_client.room import in_use
from edge_client.serving import (
    on_trial,
    put_back,
    serve_at_boot,
    serve_proven,
    serve_trial,
)
from edge_client.staging import TrialEnded
from edge_client.state_machine import step
from edge_client.states import (
    Activating,
    Downloading,
    Idle,
    OnProbation,
    Shadowing,
    State,
    Verified,
    exec_state,
    key_of,
)
from edge_client.steps_from_swap import disown
from edge_client.work import Work
from schemas.device import ExecutionSeen
from schemas.rollout import ExecState
from schemas.transfer import Reply

SAVE_SECONDS = 30.0
"""On probation, between two writes of how long it has lasted."""

AGAIN_SECONDS = 1.0
"""Between two tries to begin a state's work."""

log = logging.getLogger(__name__)


class Updater:
    """One device's updates."""

    def __init__(self, device: Device, *, post: Callable[[TrialEnded], None]) -> None:
        """Put together. post: hands a trial's verdict over to this thread."""
        self._device = device
        self._work = Work(device, apply=self.apply, post=post)
        self._state: State = Idle()
        self._begun = True  # whether the work of this state has been begun
        self._again_at = 0.0
        self._found: State = self._state  # as it is in the journal, at a start
        self._started = self._counted = True  # whether what a start does is done
        self._verdict: TrialEnded | None = None  # kept until it is written down
        self.seen: ExecutionSeen | None = None  # for the birth, which another thread sends
        self.rolled_back = False  # likewise

    @property
    def state(self) -> State:
        """Where the update stands."""
        return self._state

    @property
    def settled(self) -> bool:
        """Whether the state's work is under way, not still to be begun."""
        return self._started and self._begun

    def boot(self) -> None:
        """Go on where the journal ends, and serve.

        What is proven serves before anything is written. While a model is on trial the
        start is journalled before it is loaded, so that one which brings the agent down
        is counted out; when that fails the fallback serves, and ``pump`` tries again.

        Raises:
            JournalError: the journal cannot be read.
        """
        self._found = self._device.journal.load()
        self._state = disown(self._found, self._device.name)
        self._recall(self._state)
        self._started = self._counted = False
        serve_at_boot(self._device, self._state)
        try:
            self._start()
        except (EdgeError, OSError) as error:
            self._device.problems.note(f"the start is not complete: {error}")
            trial = on_trial(self._state)
            if trial is not None and self._device.runtime.slot(trial) is None:
                serve_proven(self._device, self._state)

    def look_on(self) -> State:
        """Where the update stands, for who asks: nothing is done where nothing can be written."""
        state = disown(self._device.journal.load(), self._device.name)
        self._recall(state)
        return state

    def _start(self) -> None:
        """What a start writes, and what follows from it; may be done again."""
        self._again_at = self._device.clock.steady() + AGAIN_SECONDS
        if not self._counted:
            if self._state != self._found:
                self._commit(self._state, ())
                self._found = self._state
            self.apply(Booted(hung=self._hung()), begin=False)
            forget_hang(self._device.home)
            self._counted = True
        broke = None
        if isinstance(self._state, Activating | OnProbation):
            broke = serve_trial(self._device, self._state)
        if broke is not None:
            self.apply(broke)
        self._started = True
        if not self._begun:
            self._begin()

    def close(self) -> None:
        """Save what is under way; the journal knows how to go on."""
        self._work.leave()

    def connected(self) -> None:
        """Ask at once for what is missing."""
        self._work.connected()
        self.pump()

    def disconnected(self) -> None:
        """Nothing that was asked for comes any more."""
        self._work.disconnected()

    def pump(self) -> float:
        """Go on with what is under way. Returns when to call again, in steady seconds."""
        now = self._device.clock.steady()
        if not (self._started and self._begun):
            if now < self._again_at:
                return self._again_at
            if self._started:
                self._begin()
            else:
                self._start()
        if self._verdict is not None:
            self._judge()
        return self._work.pump(self._state)

    def reply(self, reply: Reply) -> None:
        """Take an answer to a request."""
        self._work.reply(self._state, reply)

    def trial_ended(self, ended: TrialEnded) -> None:
        """Take the trial load's verdict."""
        self._verdict = ended
        self._judge()

    def apply(self, event: Event, *, floor: Floor | None = None, begin: bool = True) -> None:
        """Decide, write it down, then act.

        Args:
            event: what happened.
            floor: the sequence accepted with it, to be written with the new state.
            begin: whether to begin the work of the new state.

        Raises:
            JournalError: it could not be written; the state stays as it was.
        """
        old, clock = self._state, self._device.clock
        new, actions = step(old, event, clock.date().timestamp())
        reports = [action for action in actions if isinstance(action, Report)]
        if reports or floor or _lasting(new) != _lasting(old):
            self._commit(new, reports, floor)
        self._state = new
        if not _same(new, old):
            self._begun = True
            self._work.leave()
        if Begin() in actions:
            self._begun, self._again_at = False, clock.steady()
        for report in reports:
            self._tell(report)
        for action in actions:
            if isinstance(action, Repeat):
                self._device.journal.repeat(action.key)
            elif isinstance(action, PutBack):
                self._put_back(action)
            elif isinstance(action, Collect):
                self._collect(old)
        if begin and Begin() in actions:
            self._begin()

    def report(self, report: Report) -> None:
        """Tell the server something that changes nothing here."""
        self._commit(self._state, (report,))

    def _commit(self, state: State, reports: Sequence[Report], floor: Floor | None = None) -> None:
        journal, uptime = self._device.journal, self._device.clock.steady()
        facts = facts_of(reports)
        journal.commit(state, reports, uptime=uptime, floor=floor, facts=facts)
        self._recall(state)

    def _recall(self, state: State) -> None:
        journal = self._device.journal
        self.seen = journal.seen(state, self._device.name)
        self.rolled_back = bool(journal.fact(ROLLED_BACK))

    def _put_back(self, action: PutBack) -> None:
        put_back(self._device, action.fallback)
        self._device.journal.remember(ROLLED_BACK, 1.0)
        self._recall(self._state)
        self._collect(self._state)

    def _hung(self) -> str | None:
        """How the model on trial, or the shadow, brought the last run to an end, if it did."""
        note = read_hang(self._device.home)
        if note is None:
            return None
        self._device.problems.note(f"the watchdog ended the agent: {note.what} {note.why}")
        if not isinstance(self._state, Shadowing | Activating | OnProbation):
            return None
        if note.sha256 != self._state.slot.sha256:
            return None
        return f"{note.what} of it {note.why}, so that the watchdog ended the agent"

    def _begin(self) -> None:
        """Begin the state's work; when that fails, ``pump`` begins it again.

        All of it may be done again to the same end.
        """
        state = self._state
        self._begun = False
        self._again_at = self._device.clock.steady() + AGAIN_SECONDS
        self._work.begin(state)
        if _same(self._state, state):
            self._begun = True

    def _judge(self) -> None:
        """Apply the trial's verdict, unless what it was about is over."""
        ended = self._verdict
        if ended is None:
            return
        if isinstance(self._state, Verified) and key_of(self._state) == ended.key:
            verdict = ended.verdict
            if verdict.cause is None:
                self.apply(TrialPassed(key=ended.key))
            else:
                self.apply(Broke(key=ended.key, cause=verdict.cause, detail=verdict.detail or ""))
        self._verdict = None

    def _collect(self, ended: State) -> None:
        """Remove what nothing needs.

        What a failed attempt fetched is left to the next one; ``make_room`` removes it
        when its room is needed.
        """
        succeeded = exec_state(self._state) is ExecState.SUCCEEDED
        keep_partial = set[str]() if succeeded else None
        try:
            keep = in_use(self._device, self._state)
            if not succeeded:
                keep |= offered_files(self._device, ended)
            self._device.store.collect(keep=keep, partial=keep_partial)
        except (OSError, PointerError) as error:
            self._device.problems.note(f"old models could not be removed: {error}")

    def _tell(self, report: Report) -> None:
        cause = "" if report.cause is None else f" ({report.cause}: {report.detail or ''})"
        if report.state is not ExecState.DOWNLOADING:
            log.info("%s %s%s", report.key[0], report.state, cause)
        if report.cause is not None:
            self._device.problems.last = f"{report.state}{cause}"


def _same(one: State, other: State) -> bool:
    """Whether both are the same state of the same execution."""
    return type(one) is type(other) and key_of(one) == key_of(other)


def _lasting(state: State) -> State:
    """A state without what need not survive a restart."""
    if isinstance(state, Downloading):
        return replace(state, done=0, fetched=0, reported_at=0.0)
    if isinstance(state, Shadowing):
        return replace(state, elapsed=state.elapsed // SAVE_SECONDS * SAVE_SECONDS)
    if isinstance(state, OnProbation):
        saved = state.elapsed // SAVE_SECONDS * SAVE_SECONDS
        return replace(state, n=0, errors=0, elapsed=saved, golden_due=False)
    return state
