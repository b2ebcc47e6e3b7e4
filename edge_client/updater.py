"""The update, carried out: journal first, then do what the state calls for.

All of it runs on one thread. Work that takes time answers with events; what comes
over the wire is checked here and never believed before.
"""

from __future__ import annotations

import datetime as dt
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from edge_client.actions import Begin, Collect, Repeat, Report
from edge_client.errors import EdgeError, TrustError, UpdateError
from edge_client.events import (
    Booted,
    Broke,
    CancelRequested,
    Event,
    Fetched,
    ManifestAccepted,
    Observed,
    Offered,
    Proceeded,
    Progressed,
    Refused,
    Restored,
    Swapped,
    TrialPassed,
)
from edge_client.fetch import Asking, Fetcher
from edge_client.hardware import ram_mb
from edge_client.identity import Identity
from edge_client.journal import Floor, Journal
from edge_client.probe import Verdict
from edge_client.runtime import Runtime, load_first, load_slot
from edge_client.settings import BUILT, Home, RunSettings
from edge_client.slots import Pointer, Slot, read_pointer, write_pointer
from edge_client.staging import TrialRun
from edge_client.state_machine import step
from edge_client.states import (
    Accepted,
    Activating,
    Downloading,
    Ended,
    Idle,
    Key,
    OnProbation,
    Reverting,
    Staged,
    State,
    Verified,
    exec_state,
    key_of,
)
from edge_client.store import Store
from edge_client.transfer import Bucket
from edge_client.trust import Genuine, Reader, Trust, claimed_key, read_manifest
from schemas.errors import DeviceCause
from schemas.model import ModelFile, Variant
from schemas.rollout import Command, ExecState
from schemas.transfer import Need, Reply

CLOCK_SLACK = dt.timedelta(minutes=5)
"""A clock may be set back by this much against the last good time."""

_GOOD_TIME = "good_time"
MAX_COMMAND_BYTES = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """The trial load's verdict, posted to the updater's thread."""

    key: Key
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """date: with a zone. steady: seconds that only grow; zero at the agent's start."""

    date: Callable[[], dt.datetime]
    steady: Callable[[], float]


class Updater:
    """One device's updates."""

    def __init__(
        self,
        *,
        home: Home,
        settings: RunSettings,
        identity: Identity,
        journal: Journal,
        store: Store,
        trust: Trust,
        runtime: Runtime,
        clock: Clock,
        send: Callable[[Need], bool],
        post: Callable[[TrialEnded], None],
    ) -> None:
        """Put together. send: publishes a request. post: hands over a trial's verdict."""
        self._home, self._settings, self._identity = home, settings, identity
        self._journal, self._store, self._trust = journal, store, trust
        self._runtime, self._clock, self._send, self._post = runtime, clock, send, post
        self._state: State = Idle()
        self._asking = Asking()
        self._fetcher: Fetcher | None = None
        self._trial: TrialRun | None = None
        bandwidth = settings.bandwidth
        self._bucket = None if bandwidth is None else Bucket(rate=float(bandwidth))
        self._first_batch = int(clock.date().timestamp()) % 2**31
        self.last_error: str | None = None

    @property
    def state(self) -> State:
        """Where the update stands."""
        return self._state

    # --- starting and stopping ------------------------------------------------------

    def boot(self) -> None:
        """Go on where the journal ends, and serve what the pointer names.

        The start is journalled before any model is loaded, so that one which brings
        the agent down is counted out.
        """
        self._state = self._journal.load()
        if self._foreign():
            self._drop_foreign()
        self.apply(Booted(), begin=False)
        if isinstance(self._state, Reverting):
            self._begin()  # what is being taken back is not loaded again
            return
        pointer = read_pointer(self._home.pointer)
        loaded, problems = load_first(self._store, pointer.active, pointer.fallback)
        for problem in problems:
            self._note(problem)
        self._runtime.swap(loaded)
        state = self._state
        serving = None if loaded is None else loaded.slot
        if isinstance(state, OnProbation) and serving != state.slot:
            detail = problems[0] if problems else "the pointer names another model"
            self.apply(Broke(key=state.offer.key, cause=DeviceCause.LOAD_FAILED, detail=detail))
            return
        settled = not isinstance(state, Activating | OnProbation)
        if settled and serving is not None and serving == pointer.fallback:
            write_pointer(self._home.pointer, Pointer(active=serving))
        self._begin()

    def close(self) -> None:
        """Save what is under way; the journal knows how to go on."""
        self._leave()

    def _foreign(self) -> bool:
        state = self._state
        if isinstance(state, Idle | Ended):
            return False
        return state.offer.assignment.device != self._identity.record.device

    def _drop_foreign(self) -> None:
        """The device was enrolled anew: an older identity's update does not go on."""
        state = self._state
        if isinstance(state, Activating | OnProbation):
            self._state = Reverting(
                offer=state.offer,
                slot=state.slot,
                fallback=state.fallback,
                cause=DeviceCause.SUPERSEDED,
                detail="the device was enrolled anew",
            )
        elif not isinstance(state, Reverting):
            self._state = Idle()
        self._journal.commit(self._state, (), uptime=self._clock.steady())

    # --- what comes over the wire -----------------------------------------------------

    def connected(self) -> None:
        """Ask at once for what is missing."""
        self._asking = Asking()
        self.pump()

    def disconnected(self) -> None:
        """Nothing that was asked for comes any more."""
        if self._fetcher is not None:
            self._fetcher.disconnected()

    def desired(self, raw: bytes) -> None:
        """A desired document; an empty one means that there is none any more."""
        if not raw:
            return
        now = self._clock.date()
        record = self._identity.record
        reader = Reader(
            device=record.device,
            device_class=record.device_class,
            floor=self._journal.floor(record.device),
            earliest=self._earliest(),
        )
        try:
            offer = self._trust.desired(raw, me=reader, now=now)
        except TrustError as error:
            self._refuse(raw, error)
            return
        self._journal.remember(_GOOD_TIME, now.timestamp())
        if self._repeated(offer.key):
            return
        serving = self._runtime.loaded
        event = Offered(offer=offer, active=None if serving is None else serving.slot)
        raised = offer.sequence > reader.floor
        floor = Floor(device=record.device, sequence=offer.sequence) if raised else None
        self.apply(event, floor=floor)

    def command(self, raw: bytes) -> None:
        """A command."""
        try:
            if len(raw) > MAX_COMMAND_BYTES:
                return
            command = Command.model_validate_json(raw)
        except ValidationError:
            self._note("a malformed command was ignored")
            return
        key = (command.execution, command.attempt)
        if not self._repeated(key):
            self.apply(CancelRequested(key=key))

    def reply(self, raw: bytes) -> None:
        """An answer to a request."""
        try:
            reply = Reply.model_validate_json(raw)
        except ValidationError:
            self._note("a malformed reply was ignored")
            return
        state = self._state
        if isinstance(state, Accepted) and reply.kind == "manifest":
            self._working(state.offer.key, lambda: self._manifest(state, reply))
        elif isinstance(state, Downloading) and self._fetcher is not None:
            fetcher = self._fetcher
            self._working(state.offer.key, lambda: fetcher.reply(reply, self._clock.steady()))
            self._after_fetching()

    def chunk(self, payload: bytes) -> None:
        """A chunk."""
        fetcher = self._fetcher
        if isinstance(self._state, Downloading) and fetcher is not None:
            key = self._state.offer.key
            self._working(key, lambda: fetcher.chunk(payload, self._clock.steady()))
            self._after_fetching()

    def trial_ended(self, ended: TrialEnded) -> None:
        """The trial load's verdict."""
        verdict = ended.verdict
        if verdict.cause is None:
            self.apply(TrialPassed(key=ended.key))
        else:
            self.apply(Broke(key=ended.key, cause=verdict.cause, detail=verdict.detail or ""))

    # --- time -------------------------------------------------------------------------

    def pump(self) -> float:
        """Go on with what is under way. Returns when to call again, in steady seconds."""
        now = self._clock.steady()
        state = self._state
        if isinstance(state, Accepted):
            if self._asking.due(now):
                wanted = state.offer.assignment.manifest_sha256
                if not self._send(Need(kind="manifest", sha256=wanted)):
                    self._asking.next_at = 0.0
        elif isinstance(state, Downloading):
            return self._fetch(state, now)
        elif isinstance(state, OnProbation):
            n, errors = self._runtime.counts(state.slot)
            if (n, errors) != (state.n, state.errors):
                self.apply(Observed(key=state.offer.key, n=n, errors=errors))
        return now + 1.0

    def _fetch(self, state: Downloading, now: float) -> float:
        if self._fetcher is None:
            self._working(state.offer.key, lambda: self._start_fetching(state))
        fetcher = self._fetcher
        if fetcher is None:
            return now + 1.0
        self._working(state.offer.key, lambda: fetcher.pump(now))
        self._after_fetching()
        return fetcher.due(now)

    # --- transitions ------------------------------------------------------------------

    def apply(self, event: Event, *, floor: Floor | None = None, begin: bool = True) -> None:
        """Decide, write it down, then act.

        Raises:
            JournalError: it could not be written; the state stays as it was.
        """
        old = self._state
        new, actions = step(old, event, self._clock.date().timestamp())
        reports = [action for action in actions if isinstance(action, Report)]
        if reports or floor or _lasting(new) != _lasting(old):
            self._journal.commit(new, reports, uptime=self._clock.steady(), floor=floor)
        self._state = new
        if type(new) is not type(old) or key_of(new) != key_of(old):
            self._leave()
            self._asking = Asking()
        for report in reports:
            self._tell(report)
        for action in actions:
            if isinstance(action, Repeat):
                self._journal.repeat(action.key)
            elif isinstance(action, Collect):
                self._collect()
        if begin and Begin() in actions:
            self._begin()

    def _begin(self) -> None:
        """Begin the work of the state."""
        state = self._state
        if isinstance(state, Verified):
            self._working(state.offer.key, lambda: self._start_trial(state))
        elif isinstance(state, Staged):
            pointer = read_pointer(self._home.pointer)
            self.apply(Proceeded(key=state.offer.key, fallback=pointer.active))
        elif isinstance(state, Activating):
            self._working(state.offer.key, lambda: self._activate(state))
        elif isinstance(state, Reverting):
            self._restore(state)
        else:
            self.pump()

    def _working(self, key: Key, work: Callable[[], None]) -> None:
        """Do work; its failure is an event."""
        try:
            work()
        except TrustError as error:
            self.apply(Refused(key=key, cause=error.cause, detail=str(error)))
        except UpdateError as error:
            broke = Broke(key=key, cause=error.cause, detail=str(error), retryable=error.retryable)
            self.apply(broke)
        except OSError as error:
            self.apply(Broke(key=key, cause=DeviceCause.INTERNAL, detail=str(error)))

    def _leave(self) -> None:
        """Let go of the work of a state that is over."""
        fetcher, self._fetcher = self._fetcher, None
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.abandon()
        if fetcher is not None:
            try:
                fetcher.close()
            except (OSError, EdgeError) as error:
                self._note(f"what was fetched could not be saved: {error}")

    # --- the work of each state -------------------------------------------------------

    def _manifest(self, state: Accepted, reply: Reply) -> None:
        wanted = state.offer.assignment.manifest_sha256
        if reply.sha256 != wanted:
            return
        if reply.error is not None or reply.manifest is None or reply.signed is None:
            self._asking.refused(reply.error or "the answer holds no manifest")
            return
        text = reply.manifest.encode()
        genuine = self._trust.manifest(
            text, reply.signed.encode(), offer=state.offer, now=self._clock.date()
        )
        self._require_fit(genuine.variant)
        self._store.save_manifest(wanted, text)
        files = _files(genuine)
        total = sum({file.sha256: file.size for file in files}.values())
        slot = _slot(state.offer.assignment.version, genuine, wanted)
        self.apply(ManifestAccepted(key=state.offer.key, slot=slot, total=total))

    def _start_fetching(self, state: Downloading) -> None:
        files = _files(self._genuine(state))
        self._store.make_room(files, self._in_use())
        self._first_batch += 1 << 16
        self._fetcher = Fetcher(
            self._store,
            files,
            owner="{}.{}".format(*state.offer.key),
            send=self._send,
            bucket=self._bucket,
            first_batch=self._first_batch % 2**31,
        )

    def _after_fetching(self) -> None:
        state, fetcher = self._state, self._fetcher
        if not isinstance(state, Downloading) or fetcher is None:
            return
        key = state.offer.key
        if fetcher.complete:
            self.apply(Fetched(key=key, fetched=fetcher.fetched))
        else:
            self.apply(Progressed(key=key, done=fetcher.done, fetched=fetcher.fetched))

    def _start_trial(self, state: Verified) -> None:
        key = state.offer.key
        self._trial = TrialRun(
            self._home,
            state.slot,
            size=self._genuine(state).variant.file.size,
            seconds=self._settings.stage_seconds,
            on_end=lambda verdict: self._post(TrialEnded(key=key, verdict=verdict)),
        )

    def _activate(self, state: Activating) -> None:
        """Load, swap the pointer, serve. Done again after a restart, to the same end."""
        loaded = load_slot(self._store, state.slot)
        pointer = Pointer(active=state.slot, fallback=state.fallback)
        write_pointer(self._home.pointer, pointer)
        self._runtime.swap(loaded)
        self.apply(Swapped(key=state.offer.key))

    def _restore(self, state: Reverting) -> None:
        write_pointer(self._home.pointer, Pointer(active=state.fallback))
        serving = self._runtime.loaded
        if serving is None or serving.slot != state.fallback:
            loaded, problems = load_first(self._store, state.fallback)
            for problem in problems:
                self._note(problem)
            self._runtime.swap(loaded)
        self.apply(Restored(key=state.offer.key))

    def _genuine(self, state: Downloading | Verified) -> Genuine:
        """The manifest that was checked when it came, by its hash."""
        assignment = state.offer.assignment
        return read_manifest(self._store.manifest(assignment.manifest_sha256), assignment)

    def _require_fit(self, variant: Variant) -> None:
        needs = variant.requires
        here, memory = platform.machine(), ram_mb()
        detail = None
        if needs.arch and here not in needs.arch:
            detail = f"variant {variant.id} is for {', '.join(needs.arch)}, this device is {here}"
        elif needs.ram_mb is not None and memory < needs.ram_mb:
            detail = f"variant {variant.id} needs {needs.ram_mb} MB, this device has {memory}"
        if detail is not None:
            raise TrustError(DeviceCause.LOAD_FAILED, detail)

    # --- small things -----------------------------------------------------------------

    def _earliest(self) -> dt.datetime:
        good = self._journal.fact(_GOOD_TIME)
        if good is None:
            return BUILT
        return max(BUILT, dt.datetime.fromtimestamp(good, dt.UTC) - CLOCK_SLACK)

    def _repeated(self, key: Key) -> bool:
        """Answer for an execution that ended before the present one."""
        return key != key_of(self._state) and self._journal.repeat(key)

    def _refuse(self, raw: bytes, error: TrustError) -> None:
        """Tell why a document is not acted on, and let nothing else follow from it."""
        key = claimed_key(raw)
        self._note(f"the desired document is refused: {error}")
        if key is None or key == key_of(self._state) or self._repeated(key):
            return
        report = Report(
            key=key, state=ExecState.REJECTED, cause=error.cause, detail=str(error), keep=False
        )
        self._journal.commit(self._state, (report,), uptime=self._clock.steady())

    def _in_use(self) -> set[str]:
        """Hashes of the files that slots and the present execution refer to."""
        pointer = read_pointer(self._home.pointer)
        state = self._state
        slots: list[Slot | None] = [pointer.active, pointer.fallback]
        slots += [getattr(state, "slot", None), getattr(state, "fallback", None)]
        if self._runtime.loaded is not None:
            slots.append(self._runtime.loaded.slot)
        return {sha for s in slots if s is not None for sha in (s.sha256, s.manifest_sha256)}

    def _collect(self) -> None:
        state = self._state
        keep_partial = None if exec_state(state) is not ExecState.SUCCEEDED else set[str]()
        try:
            self._store.collect(keep=self._in_use(), partial=keep_partial)
        except OSError as error:
            self._note(f"old models could not be removed: {error}")

    def _tell(self, report: Report) -> None:
        cause = "" if report.cause is None else f" ({report.cause}: {report.detail or ''})"
        if report.state is not ExecState.DOWNLOADING:
            log.info("%s %s%s", report.key[0], report.state, cause)
        if report.cause is not None:
            self.last_error = f"{report.state}{cause}"

    def _note(self, problem: str) -> None:
        self.last_error = problem
        log.warning("%s", problem)


def _files(genuine: Genuine) -> tuple[ModelFile, ModelFile]:
    return genuine.variant.file, genuine.variant.golden.file


def _slot(version: int, genuine: Genuine, manifest_sha256: str) -> Slot:
    return Slot(
        model=genuine.manifest.model,
        version=version,
        variant=genuine.variant.id,
        sha256=genuine.variant.file.sha256,
        manifest_sha256=manifest_sha256,
    )


def _lasting(state: State) -> State:
    """A state without what need not survive a restart."""
    if isinstance(state, Downloading):
        return replace(state, done=0, fetched=0, reported_at=0.0)
    if isinstance(state, OnProbation):
        return replace(state, n=0, errors=0)
    return state
