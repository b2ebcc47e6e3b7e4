"""Brings what the broker holds for devices to what the database says, by batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.domain.timers import Timers, after
from orchestrator.services.ports import Clock, Downlink, Signer, Transaction, UnitOfWork
from orchestrator.services.records import Outgoing, Pending, RolloutRecord, VersionRecord
from schemas.rollout import SERVER_TERMINAL, Assignment, Command, ExecState, RolloutState

_DESIRED_DAYS = 30
_BATCH = 500
_STOPS = 10_000
"""Devices of one rollout that are told to stop within a tick."""
_TICK_SECONDS = 1.0
"""Rounds of a tick, as long as each gets on: then the other tasks of the loop have their turn."""
_ATTEMPTS_BACK = 3
"""A device may still work on an attempt that was given up, so these are cancelled with the last."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """What one device is to have. document: None leaves the retained one as it is."""

    about: Outgoing
    document: bytes | None
    commands: tuple[Command, ...]


@dataclass(slots=True)
class _Round:
    """What one look at the database gave."""

    now: dict[str, Outgoing] = field(default_factory=dict)
    fresh: list[Outgoing] = field(default_factory=list)
    rollouts: dict[str, tuple[RolloutRecord, VersionRecord]] = field(default_factory=dict)


class DesiredPublisher:
    """Signs assignments and sends them, clears them, sends cancels and the word to go on.

    Level-triggered: an execution stays unpublished until the broker has acknowledged exactly
    what it asks for, and only then is that written down. A round is one read, then signing and
    sending outside of any transaction, then one write. At most so many offers are on their way,
    and as many ends beside them: what is to be stopped never waits behind what is offered.

    Args:
        uow: opens transactions; none is open while something is sent.
        signer: signs assignments.
        downlink: sends to devices.
        clock: the time, in UTC.
        batch: how many of a kind are on their way at once.
        monotonic: seconds, by which a tick is limited.

    An offer waits until its version is in the trust metadata: a device that cannot find it
    there would refuse it. It waits as well while its rollout is paused. A device's time to
    answer begins when the broker has the offer. What was offered is signed and sent anew
    after the director's key changed, and once when the server starts, which may have missed
    that.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        signer: Signer,
        downlink: Downlink,
        clock: Clock,
        *,
        batch: int = _BATCH,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uow = uow
        self._signer = signer
        self._downlink = downlink
        self._clock = clock
        self._batch = batch
        self._monotonic = monotonic
        self.busy = False
        """Whether the last tick ended by time: more is to be sent, and the broker takes it."""
        self._director: tuple[str, ...] = ()
        self._way: dict[str, _Letter] = {}
        self._stopped: dict[tuple[str, ExecState], str] = {}

    def tick(self) -> int:
        """Publish what differs from the database; of how many devices the broker has all now."""
        self._follow_director()
        self._stop_many()
        done, began = 0, self._monotonic()
        self.busy = True
        while self.busy and self._monotonic() - began < _TICK_SECONDS:
            delivered, posted = self._round()
            done += delivered
            self.busy = bool(delivered or posted)
        return done

    def _follow_director(self) -> None:
        keys = self._signer.director_keys()
        if keys == self._director:
            return
        with self._uow() as tx:
            tx.rollouts.unpublish(IN_FLIGHT)
        self._way.clear()
        self._director = keys

    def _stop_many(self) -> None:
        """Tell all devices of a large set to stop, which by rounds would wait for each other.

        The rounds then see to the rest: what the broker keeps for them, and that it has it all.
        """
        with self._uow.read() as tx:
            groups = [one for one in tx.outbox.pending() if one.state in SERVER_TERMINAL]
            large = {_key(one): one for one in groups if one.count > self._batch}
            self._stopped = {key: last for key, last in self._stopped.items() if key in large}
            stops = [
                (key, one)
                for key, group in large.items()
                for one in tx.outbox.waiting(group, _STOPS, after=self._stopped.get(key))
            ]
        for key, one in stops:
            for command in _commands(one):
                self._downlink.command(one.device_id, command)
            if self._downlink.refuses:
                return
            self._stopped[key] = one.id

    def _round(self) -> tuple[int, int]:
        """How many were delivered, and how many were sent for the first time."""
        with self._uow.read() as tx:
            found = self._look(tx)
        self._way = {
            key: letter
            for key, letter in self._way.items()
            if key in found.now and found.now[key].wish() == letter.about.wish()
        }
        known = len(self._way)
        # Ends first, also within what is on its way.
        delivered = self._send(sorted(self._way.values(), key=lambda one: one.about.is_offer))
        if not (self._way and self._downlink.refuses):
            delivered += self._send(self._letters(found))
        posted = max(0, len(self._way) - known)
        self._write_down(delivered)
        return len(delivered), posted

    def _look(self, tx: Transaction) -> _Round:
        found = _Round(now=dict(tx.outbox.outgoing(self._way)) if self._way else {})
        groups = tx.outbox.pending()
        ends = [group for group in groups if group.state not in IN_FLIGHT]
        offers = [group for group in groups if group.state in IN_FLIGHT and self._goes(tx, group)]
        under_way = sum(letter.about.state in IN_FLIGHT for letter in self._way.values())
        found.fresh = [
            *self._more(tx, ends, self._batch - (len(self._way) - under_way)),
            *self._more(tx, offers, self._batch - under_way),
        ]
        for rollout_id in {one.rollout_id for one in found.fresh if one.is_offer}:
            rollout = tx.rollouts.get(rollout_id)
            version = rollout and tx.models.get(rollout.model, rollout.version)
            if rollout and version and self._signer.published(rollout.model, rollout.version):
                found.rollouts[rollout_id] = rollout, version
        return found

    def _goes(self, tx: Transaction, group: Pending) -> bool:
        rollout = tx.rollouts.get(group.rollout_id)
        if rollout is None or not self._signer.published(rollout.model, rollout.version):
            return False
        return group.state is not ExecState.OFFERED or rollout.state is not RolloutState.PAUSED

    def _more(self, tx: Transaction, groups: Iterable[Pending], room: int) -> list[Outgoing]:
        """The next of these groups that are not on their way, at most ``room``."""
        fresh: list[Outgoing] = []
        for group in groups:
            if len(fresh) >= room:
                break
            # Whatever is on its way lies among the first of its group.
            waiting = tx.outbox.waiting(group, room - len(fresh) + len(self._way))
            fresh += [one for one in waiting if one.id not in self._way][: room - len(fresh)]
        return fresh

    def _letters(self, found: _Round) -> Iterable[_Letter]:
        for one in found.fresh:
            yield _Letter(one, self._document(one, found), _commands(one))

    def _document(self, one: Outgoing, found: _Round) -> bytes | None:
        """What is to be retained for the device: an offer, nothing (empty), or as it is."""
        if not one.newest:
            return None
        if not one.is_offer:
            return b""
        there = found.rollouts.get(one.rollout_id)
        if there is None:
            return None  # it serves what was revoked since; what follows is not said by this
        rollout, version = there
        return self._signer.sign_assignment(
            _assignment(one, rollout, version),
            manifest_size=version.manifest_size,
            sequence=one.sequence,
            expires=(one.offered_at or rollout.created_at) + timedelta(days=_DESIRED_DAYS),
        )

    def _send(self, letters: Iterable[_Letter]) -> list[_Letter]:
        """Hand letters over; those of which the broker has everything."""
        delivered = []
        for letter in letters:
            self._way[letter.about.id] = letter
            if self._has(letter):
                delivered.append(letter)
            if self._downlink.refuses:
                break
        return delivered

    def _has(self, letter: _Letter) -> bool:
        device = letter.about.device_id
        has = [self._downlink.command(device, command) for command in letter.commands]
        if letter.document is not None:
            has.append(self._downlink.desired(device, letter.document))
        return all(has)

    def _write_down(self, delivered: Sequence[_Letter]) -> None:
        if not delivered:
            return
        wishes = {letter.about.id: letter.about.wish() for letter in delivered}
        with self._uow() as tx:
            now = tx.outbox.outgoing(wishes)
            sent = {key: one for key, one in now.items() if one.wish() == wishes[key]}
            tx.outbox.publish(sent)
            tx.executions.extend(dict(_begun(tx, sent, self._clock())))
        for letter in delivered:
            del self._way[letter.about.id]
            if letter.document is not None:
                self._downlink.forget(letter.about.device_id)
            for command in letter.commands:
                self._downlink.forget(letter.about.device_id, command)


def _begun(
    tx: Transaction, sent: Mapping[str, Outgoing], now: datetime
) -> Iterable[tuple[str, datetime]]:
    """When the time is over to answer offers that go out for the first time, or to go on."""
    known: dict[str, Timers] = {}
    for key, one in sent.items():
        offered = one.state is ExecState.OFFERED and one.offered_at and one.due_at
        if not offered and not one.goes_on:
            continue
        if one.rollout_id not in known:
            rollout = tx.rollouts.get(one.rollout_id)
            if rollout is None:
                continue
            known[one.rollout_id] = Timers.of(rollout.spec)
        timers = known[one.rollout_id]
        if one.goes_on:
            yield key, after(now, timers.step)
        elif one.offered_at and one.due_at and one.due_at <= after(one.offered_at, timers.offer):
            yield key, after(now, timers.offer)


def _assignment(one: Outgoing, rollout: RolloutRecord, version: VersionRecord) -> Assignment:
    return Assignment(
        device=one.device_id,
        device_class=one.device_class,
        execution=one.id,
        attempt=one.attempt,
        rollout=rollout.id,
        model=rollout.model,
        version=rollout.version,
        variant=one.variant or "",
        manifest_sha256=version.manifest_sha256,
        probation=rollout.spec.probation,
        shadow=rollout.spec.shadow,
        mode=rollout.spec.mode,
        windows=rollout.spec.windows,
        max_deferral_seconds=rollout.spec.max_deferral_seconds,
        jitter_seconds=rollout.spec.pace.jitter_seconds,
    )


def _key(group: Pending) -> tuple[str, ExecState]:
    return group.rollout_id, group.state


def _commands(one: Outgoing) -> tuple[Command, ...]:
    if one.goes_on:
        return (Command(kind="proceed", execution=one.id, attempt=one.attempt),)
    if one.state not in SERVER_TERMINAL:
        return ()
    first = max(1, one.attempt - _ATTEMPTS_BACK)
    return tuple(
        Command(kind="cancel", execution=one.id, attempt=attempt)
        for attempt in range(first, one.attempt + 1)
    )
