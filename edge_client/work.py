"""The work that each state calls for: ask, fetch, try, swap, watch, put back.

Work that takes time goes on in ``pump`` or ends in an event; its failure is an event
too. Letting go of it (``leave``) keeps on the disk what was fetched.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_client.device import Device, clock_is_set
from edge_client.errors import LoadError, SwapPendingError, TrustError, UpdateError
from edge_client.events import (
    Broke,
    Compared,
    Event,
    Held,
    Proceeded,
    Refused,
    ShadowDue,
    Swapped,
)
from edge_client.fetching import Fetching
from edge_client.gauges import rss_mb
from edge_client.manifests import keep_manifest, kept_manifest
from edge_client.network import Asking
from edge_client.probation_watch import ProbationWatch
from edge_client.serving import activate, restore
from edge_client.shadow_watch import LOOK_SECONDS, ShadowWatch
from edge_client.slots import Slot, read_pointers
from edge_client.staging import TrialEnded, TrialRun
from edge_client.states import (
    Accepted,
    Activating,
    Deferred,
    Downloading,
    Key,
    OnProbation,
    Reverting,
    Shadowing,
    Staged,
    State,
    Verified,
)
from edge_client.trust import require_current
from edge_client.waits import Waits
from schemas.device import MAX_MODELS
from schemas.errors import DeviceCause
from schemas.transfer import Ask, Reply

IDLE_SECONDS = 1.0
"""How often to look when nothing asks for sooner."""

MAX_SWAP_TRIES = 30
"""Tries, a second apart, to write the pointer before the update is taken back."""


class Work:
    """What is under way for the present state; every call is given that state."""

    def __init__(
        self,
        device: Device,
        *,
        apply: Callable[[Event], None],
        post: Callable[[TrialEnded], None],
    ) -> None:
        """Put together.

        Args:
            device: its parts.
            apply: takes the events with which work answers, at once.
            post: hands over a trial's verdict from the trial's thread.
        """
        self._device, self._apply, self._post = device, apply, post
        self._asking = Asking()
        self._fetching = Fetching(device, apply=apply, doing=self._doing)
        self._trial: TrialRun | None = None
        self._swap_tries = 0
        self._waits = Waits(device, apply=apply)
        self._watch = ProbationWatch(device, apply=apply)
        self._shadow = ShadowWatch(device)

    def begin(self, state: State) -> None:
        """Begin the work of a state, or begin it again after a restart or a failure.

        Raises:
            EdgeError: an event could not be written down; begin again.
            OSError: the pointer could not be put back; begin again.
        """
        match state:
            case Verified():
                self._doing(state.offer.key, lambda: self._try(state))
            case Activating():
                self._doing(state.offer.key, lambda: self._activate(state))
            case Reverting():
                self._apply(restore(self._device, state))
            case _:
                self.pump(state)

    def pump(self, state: State) -> float:
        """Go on with what is under way. Returns when to call again, in steady seconds."""
        now = self._device.clock.steady()
        match state:
            case Accepted() | Deferred() | Downloading() | Staged() if self._waits.keeps(state):
                return now + IDLE_SECONDS
            case Accepted() if self._asking.due(now):
                wanted = state.offer.assignment.manifest_sha256
                if not self._device.inquire(Ask(kind="manifest", sha256=wanted)):
                    self._asking.unsent(now)
            case Downloading():
                return self._fetching.pump(state, now)
            case Staged():
                self._doing(state.offer.key, lambda: self._proceed(state))
            case Shadowing():
                self._doing(state.offer.key, lambda: self._compare(state))
                return now + LOOK_SECONDS
            case OnProbation():
                self._watch.look(state)
        return now + IDLE_SECONDS

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        self._asking = Asking()
        self._fetching.connected()

    def disconnected(self) -> None:
        """Nothing that was asked for comes any more."""
        self._fetching.disconnected()

    def leave(self) -> None:
        """Let go of the work of a state that is over."""
        self._asking = Asking()
        self._swap_tries = 0
        self._watch.leave()
        self._shadow.leave()
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.abandon()
        self._fetching.leave()

    def reply(self, state: State, reply: Reply) -> None:
        """Take an answer to a request; one that nothing waits for is dropped."""
        if isinstance(state, Accepted) and reply.kind == "manifest":
            self._doing(state.offer.key, lambda: self._manifest(state, reply))
        elif isinstance(state, Downloading):
            self._fetching.reply(state, reply)

    def _doing(self, key: Key, work: Callable[[], Event | None]) -> None:
        """Do work and apply its event, if any; its failure is an event too.

        The event is applied outside of the guard: what then fails belongs to the next
        state, and is not this work's failure.
        """
        event: Event | None
        try:
            event = work()
        except TrustError as error:
            event = Refused(key=key, cause=error.cause, detail=str(error))
        except UpdateError as error:
            event = Broke(key=key, cause=error.cause, detail=str(error), retryable=error.retryable)
        except OSError as error:
            event = Broke(key=key, cause=DeviceCause.INTERNAL, detail=str(error))
        except MemoryError:
            # The agent must not end by it: it would come to the same point again, for ever.
            detail = "there is not enough memory for the update"
            cause = DeviceCause.OUT_OF_MEMORY
            event = Broke(key=key, cause=cause, detail=detail, retryable=True)
        if event is not None:
            self._apply(event)

    def _manifest(self, state: Accepted, reply: Reply) -> Event | None:
        if reply.sha256 != state.offer.assignment.manifest_sha256:
            return None
        if reply.error is not None or reply.manifest is None:
            self._asking.refused(reply.error or "the answer holds no manifest")
            return None
        if not clock_is_set(self._device):
            return None
        return keep_manifest(self._device, state.offer, reply.manifest.encode())

    def _try(self, state: Verified) -> None:
        key = state.offer.key
        self._trial = TrialRun(
            self._device.home,
            state.slot,
            size=kept_manifest(self._device, state.offer).variant.file.size,
            seconds=self._device.settings.stage_seconds,
            on_end=lambda verdict: self._post(TrialEnded(key=key, verdict=verdict)),
        )

    def _proceed(self, state: Staged) -> Event | None:
        if not self._may_install(state):
            return None
        key, serving = state.offer.key, self._device.runtime.slot(state.slot.model)
        rules = state.offer.assignment.shadow
        if rules is not None and not state.shadowed and serving not in {None, state.slot}:
            return ShadowDue(key=key, before_mb=rss_mb())
        fallback, older = self._before(state.slot)
        before_mb = rss_mb() if state.before_mb is None else state.before_mb
        return Proceeded(key=key, fallback=fallback, older=older, before_mb=before_mb)

    def _compare(self, state: Shadowing) -> Event | None:
        if not self._may_install(state):
            return None
        fallback, older = self._before(state.slot)
        key, hold = state.offer.key, self._waits.hold(state)
        if self._device.runtime.slot(state.slot.model) is None:
            # Nothing serves to compare with, as after a start at which it could not be loaded.
            if hold is not None:
                return Held(key=key, hold=hold)
            return Proceeded(key=key, fallback=fallback, older=older, before_mb=state.before_mb)
        beside = self._shadow.look(state)
        if beside is None:
            return None
        return Compared(key=key, beside=beside, fallback=fallback, older=older, hold=hold)

    def _may_install(self, state: Staged | Shadowing) -> bool:
        """Whether now is a time for it.

        Raises:
            TrustError: what signed the offer has expired.
            LoadError: there are too many models.
        """
        if not clock_is_set(self._device):
            return False
        require_current(state.offer, self._device.clock.date())
        models = read_pointers(self._device.home.pointer).models
        if state.slot.model not in models and len(models) >= MAX_MODELS:
            msg = f"the device serves {MAX_MODELS} models already, and no more fit"
            raise LoadError(msg)
        return True

    def _before(self, new: Slot) -> tuple[Slot | None, Slot | None]:
        """What becomes the fallback of a model, and what was that.

        What serves, and not what should: the active one may have given way to its fallback.
        """
        pointer = read_pointers(self._device.home.pointer).of(new.model)
        serving = self._device.runtime.slot(new.model) or pointer.active
        if serving == new:  # again, as after an offer that waited while it was installed
            serving = pointer.fallback
        return serving, None if pointer.fallback == serving else pointer.fallback

    def _activate(self, state: Activating) -> Event:
        try:
            activate(self._device, state)
        except OSError as error:
            self._swap_tries += 1
            if self._swap_tries < MAX_SWAP_TRIES:
                msg = f"the pointer could not be written, which is tried again: {error}"
                raise SwapPendingError(msg) from error
            raise
        return Swapped(key=state.offer.key)
