"""Brings what the broker holds for devices to what the database says, by batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.services.letters import Letter, assignment_of, commands_for, write_down
from orchestrator.services.ports import Clock, Downlink, Signer, Transaction, UnitOfWork
from orchestrator.services.records import Outgoing, Pending, RolloutRecord, VersionRecord
from schemas.rollout import SERVER_TERMINAL, ExecState, RolloutState

_DESIRED_DAYS = 30
_BATCH = 500
_STOPS = 10_000
"""Devices of one rollout that are told to stop within a tick."""
_TICK_SECONDS = 1.0
"""Rounds of a tick, as long as each gets on: then the other tasks of the loop have their turn."""
_CHECK_SECONDS = 0.25
"""So often what is on its way is compared with the database, and what was lost is sent again."""
_PATIENCE_SECONDS = 1.0
"""So long after the last answer of the broker the next one is waited for without a rest."""

_Key = tuple[str, ExecState]


@dataclass(slots=True)
class _Found:
    """What one look at the database gave. fresh: what is not on its way yet."""

    fresh: list[Outgoing] = field(default_factory=list)
    rollouts: dict[str, tuple[RolloutRecord, VersionRecord]] = field(default_factory=dict)


class DesiredPublisher:
    """Signs assignments and sends them, clears them, sends cancels and the word to go on.

    Level-triggered: an execution stays unpublished until the broker has acknowledged exactly
    what it asks for, and only then is that written down. A round is one write of what arrived,
    then one read, then signing and sending outside of any transaction. At most so many offers
    are on their way, and as many ends beside them: what is to be stopped never waits behind what
    is offered. A round costs by what moves in it, not by what is on its way or still to be sent.

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
        """Whether more is to be sent or answered, and the broker takes it and answers."""
        self._director: tuple[str, ...] = ()
        self._way: dict[str, Letter] = {}
        self._read_to: dict[_Key, str] = {}
        self._stopped: dict[_Key, str] = {}
        self._checked = self._moved = monotonic()
        self._refused = False

    def tick(self) -> int:
        """Publish what differs from the database; of how many devices the broker has all now."""
        self._follow_director()
        self._stop_many()
        done, now = 0, self._monotonic()
        end, moving = now + _TICK_SECONDS, True
        while moving and now < end:
            delivered, posted = self._round(now)
            done += delivered
            moving = bool(delivered or posted)
            now = self._monotonic()
            self._moved = now if moving else self._moved
        awaited = bool(self._way) and not self._refused and now - self._moved < _PATIENCE_SECONDS
        self.busy = moving or awaited
        return done

    def _follow_director(self) -> None:
        keys = self._signer.director_keys()
        if keys == self._director:
            return
        with self._uow() as tx:
            tx.rollouts.unpublish(IN_FLIGHT)
        self._way.clear()
        self._read_to.clear()
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
            for command in commands_for(one):
                self._downlink.command(one.device_id, command)
            if self._downlink.refuses:
                return
            self._stopped[key] = one.id

    def _round(self, now: float) -> tuple[int, int]:
        """How many were delivered, and how many were sent for the first time."""
        delivered = self._take_delivered()
        check = self._refused or now - self._checked >= _CHECK_SECONDS
        with self._uow.read() as tx:
            if check:
                self._drop_changed(tx)
            found = self._look(tx)
        self._refused = False
        if check:
            self._checked = now
            # Ends first, also within what is on its way.
            self._send(sorted(self._way.values(), key=lambda one: one.about.is_offer))
        posted = 0 if self._refused else self._send(self._letters(found))
        return delivered, posted

    def _take_delivered(self) -> int:
        """Write down what the broker has by now of what is on its way."""
        delivered = [letter for letter in self._way.values() if self._arrived(letter)]
        if not delivered:
            return 0
        with self._uow() as tx:
            write_down(tx, delivered, self._clock())
        for letter in delivered:
            del self._way[letter.about.id]
            if letter.document is not None:
                self._downlink.forget(letter.about.device_id)
            for command in letter.commands:
                self._downlink.forget(letter.about.device_id, command)
        return len(delivered)

    def _arrived(self, letter: Letter) -> bool:
        device, has = letter.about.device_id, self._downlink.has
        if letter.document is not None and not has(device, letter.document):
            return False
        return all(has(device, command) for command in letter.commands)

    def _drop_changed(self, tx: Transaction) -> None:
        """Nothing is sent again that its device is not to have any more."""
        current: Mapping[str, Outgoing] = tx.outbox.outgoing(self._way) if self._way else {}
        self._way = {
            key: letter
            for key, letter in self._way.items()
            if key in current and current[key].wish() == letter.about.wish()
        }

    def _look(self, tx: Transaction) -> _Found:
        groups = tx.outbox.pending()
        known = {_key(group) for group in groups}
        self._read_to = {key: last for key, last in self._read_to.items() if key in known}
        ends = [group for group in groups if group.state not in IN_FLIGHT]
        offers = [group for group in groups if group.state in IN_FLIGHT and self._goes(tx, group)]
        under_way = sum(letter.about.state in IN_FLIGHT for letter in self._way.values())
        found = _Found()
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
        if rollout.unreadable:
            return False  # nobody knows what windows or probation its devices are to be given
        return group.state is not ExecState.OFFERED or rollout.state is not RolloutState.PAUSED

    def _more(self, tx: Transaction, groups: Iterable[Pending], room: int) -> list[Outgoing]:
        """The next of these groups that are not on their way, at most ``room``."""
        fresh: list[Outgoing] = []
        for group in groups:
            if len(fresh) >= room:
                break
            fresh += self._next(tx, group, room - len(fresh))
        return fresh

    def _next(self, tx: Transaction, group: Pending, room: int) -> list[Outgoing]:
        """Goes on after what was read of a group before, and from its end to its start again."""
        key = _key(group)
        last = self._read_to.pop(key, None)
        # From the start, whatever is on its way lies among the first.
        most = room + (len(self._way) if last is None else 0)
        waiting = tx.outbox.waiting(group, most, after=last)
        fresh = [one for one in waiting if not self._is_on_its_way(one)][:room]
        if len(fresh) == room:
            self._read_to[key] = fresh[-1].id
        elif len(waiting) == most:
            self._read_to[key] = waiting[-1].id
        return fresh

    def _is_on_its_way(self, one: Outgoing) -> bool:
        letter = self._way.get(one.id)
        return letter is not None and letter.about.wish() == one.wish()

    def _letters(self, found: _Found) -> Iterable[Letter]:
        for one in found.fresh:
            yield Letter(one, self._document(one, found), commands_for(one))

    def _document(self, one: Outgoing, found: _Found) -> bytes | None:
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
            assignment_of(one, rollout, version),
            manifest_size=version.manifest_size,
            sequence=one.sequence,
            expires=(one.offered_at or rollout.created_at) + timedelta(days=_DESIRED_DAYS),
        )

    def _send(self, letters: Iterable[Letter]) -> int:
        """Hand letters over, as long as they are taken; how many were not on their way before."""
        known = len(self._way)
        for letter in letters:
            self._way[letter.about.id] = letter
            self._hand_over(letter)
            if self._refused:
                break
        return len(self._way) - known

    def _hand_over(self, letter: Letter) -> None:
        device, downlink = letter.about.device_id, self._downlink
        for command in letter.commands:
            downlink.command(device, command)
            self._refused |= downlink.refuses
        if letter.document is not None:
            downlink.desired(device, letter.document)
            self._refused |= downlink.refuses


def _key(group: Pending) -> _Key:
    return group.rollout_id, group.state
