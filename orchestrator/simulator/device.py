"""One simulated device: its connection, its births, what it serves and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from orchestrator.simulator.clock import Clock
from orchestrator.simulator.codec import Message
from orchestrator.simulator.draws import share
from orchestrator.simulator.fetch import Fetch
from orchestrator.simulator.hub import Hub
from orchestrator.simulator.identity import Identity, Kept
from orchestrator.simulator.link import Link
from orchestrator.simulator.outcome import Outcome, outcome
from orchestrator.simulator.telling import Telling
from orchestrator.simulator.traits import Traits
from orchestrator.simulator.update import Update
from orchestrator.simulator.walk import Walk
from schemas.clock import TimeReply
from schemas.device import ActiveModel, Birth, CertificateSeen, Death, Hardware
from schemas.errors import DeviceCause
from schemas.rollout import Assignment, Command, ExecReport, ExecState, Shadow
from schemas.topics import Down, Up, up
from schemas.transfer import Reply

AGENT = "argosy-simulator"
_FIRST_RETRY, _LONGEST_RETRY, _AFTER_REFUSAL = 0.5, 30.0, 300.0
_TIME_SECONDS = 900.0
_LAST_WORDS_SECONDS = 0.5
_MAX_CONNECTING, _TURN_SECONDS = 100, 0.3
_SPREAD = 0.5
"""A step takes its time, more or less by this share of it."""


class Device:
    """A device of the fleet.

    Args:
        hub: what all devices share.
        identity: what it enrolled with.
        traits: what it is like.
        kept: what an earlier run left of it.
    """

    def __init__(self, hub: Hub, identity: Identity, traits: Traits, kept: Kept) -> None:
        self.id, self.device_class = identity.device, identity.device_class
        self._hub, self._identity, self.traits = hub, identity, traits
        self.clock = Clock(traits.clock_hours)
        self.active = {one.model: one for one in kept.active}
        self.fetch = Fetch(self, hub.library)
        self.walk = Walk(self, kept.floor, kept.execution)
        self._link = Link(hub.loop, hub.broker, identity.device, identity.path, self)
        self._telling = Telling(hub, self, traits, self._link)
        self._boot = self._telling.boot
        self._born = hub.steady()
        self._session, self._retries, self._heart = 0, 0, 0
        self._outcome: tuple[tuple[str, int], Outcome] | None = None
        self.online = self.dead = False
        for one in kept.active:
            self._telling.begin(one, eager=False)

    # -- the connection -------------------------------------------------------------------

    def start(self) -> None:
        """Connect, unless this device never does; in its turn, when many want to."""
        hub = self._hub
        if self.traits.offline or self.dead or not self._link.closed or hub.over:
            return
        if hub.connecting >= _MAX_CONNECTING:
            self.after(_TURN_SECONDS, self.start)
        else:
            hub.connecting += 1
            self._session += 1
            death = Death(boot=self._boot, session=self._session)
            self._link.open((up(self.id, Up.DEATH), death.model_dump_json().encode()))

    def stop(self) -> None:
        """Leave, so that the platform hears of it at once."""
        self._link.close(leave=True)
        self.online = False

    def connected(self) -> None:
        """The broker let it in."""
        self.online, self._retries = True, 0
        self._hub.connecting -= 1
        self._heart += 1
        self._beat(self._heart)
        self._ask_time(self._session)
        if self.traits.flaps is not None:
            up_for = self.traits.flaps[0] * (
                0.5 + share(self._hub.seed, self.traits.number, "flap")
            )
            self.after(up_for, self._flap, self._session)

    def lost(self, *, refused: bool) -> None:
        """The connection ended: come back after a while, never all at once."""
        if not self.online:
            self._hub.connecting -= 1
        self.online = False
        self._hub.figures.lost(refused=refused)
        wait = min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(self._retries, 10))
        if refused:
            wait = min(_AFTER_REFUSAL, wait * 10)
        self._retries += 1
        jitter = 0.5 + share(self._hub.seed, self.id, "retry", self._session) / 2
        self.after(wait * jitter, self.start)

    def _flap(self, session: int) -> None:
        if session == self._session and self.online and self.traits.flaps is not None:
            self._link.close()
            self.online = False
            self.after(self.traits.flaps[1], self.start)

    def heard(self, message: Message) -> None:
        """A message of the platform came."""
        leaf = message.topic.rpartition("/")[2]
        try:
            if leaf == Down.DESIRED:
                self.walk.desired(message.payload)
            elif leaf == Down.CHUNK:
                self.fetch.chunk(message.payload)
            elif leaf == Down.REPLY:
                self.fetch.replied(Reply.model_validate_json(message.payload))
            elif leaf == Down.CMD:
                self.walk.command(Command.model_validate_json(message.payload))
            elif leaf == Down.TIME:
                self.clock.heard(TimeReply.model_validate_json(message.payload))
        except ValidationError:
            self._hub.figures.malformed += 1

    # -- births ---------------------------------------------------------------------------

    def _beat(self, heart: int) -> None:
        """Say that it is there, and again every heartbeat."""
        if heart != self._heart or not self.online:
            return
        self.birth()
        seconds = self._identity.heartbeat_seconds
        jitter = 0.9 + 0.1 * share(self._hub.seed, self.id, "beat")
        self.after(seconds * jitter, self._beat, heart)
        if seconds > 15:  # noqa: PLR2004 - the keep alive of 20 s needs something in between
            for at in range(15, int(seconds), 15):
                self.after(at, self._link.ping)

    def birth(self) -> None:
        """Say what it is and what it serves."""
        if not self.online:
            return
        board = self.traits.kind.board
        hardware = Hardware(**board.model_dump(), board=None, agent=AGENT)
        birth = Birth(
            boot=self._boot,
            session=self._session,
            uptime=self._hub.steady() - self._born,
            hardware=hardware,
            active=tuple(self.active.values()),
            certificate=CertificateSeen(serial=self._identity.serial, roots=self._hub.roots),
            execution=self.walk.seen,
        )
        expiry = max(1, round(3 * self._identity.heartbeat_seconds))
        payload = birth.model_dump_json(exclude_none=True).encode()
        self._link.publish(up(self.id, Up.BIRTH), payload, retain=True, expiry=expiry)

    # -- time -----------------------------------------------------------------------------

    def now(self) -> datetime:
        """The time as it believes."""
        return datetime.fromtimestamp(self.clock.wall(), UTC)

    def _ask_time(self, session: int) -> None:
        if self.clock.asks and self.online and session == self._session:
            self._link.tell(up(self.id, Up.TIME), self.clock.ask())
            self.after(_TIME_SECONDS, self._ask_time, session)

    # -- what an update asks of its device -------------------------------------------------

    def after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Have something done later."""
        self._hub.after(seconds, act, *args)

    def ask(self, leaf: Up, payload: bytes) -> None:
        """Send a question; without a connection it is asked again by its own timer."""
        if self.online:
            self._link.publish(up(self.id, leaf), payload)

    def pace(self, seconds: float, what: str, number: int) -> float:
        """How long a step takes; of negative seconds, a step of the profile's length."""
        chance = share(self._hub.seed, self.traits.number, what, number)
        if seconds >= 0:
            return seconds * chance
        length = self._hub.profile.work.step_seconds * self.traits.slowness
        return length * (1 - _SPREAD + 2 * _SPREAD * chance)

    def outcome(self, assignment: Assignment) -> Outcome:
        """What becomes of an update; decided once."""
        key = assignment.execution, assignment.attempt
        if self._outcome is None or self._outcome[0] != key:
            before = self.active.get(assignment.model)
            fate = outcome(
                self._hub.profile,
                self.traits,
                self._telling.effects(assignment.model, assignment.version),
                assignment,
                None if before is None else self._telling.level(before),
                self._hub.seed,
            )
            self._outcome = key, fate
        return self._outcome[1]

    def report(self, update: Update, *, again: bool = False, **more: Any) -> None:
        """Tell the server where an update stands; ``again``: the last report once more."""
        if not (again and update.last is not None):
            update.seq += 1
            execution, attempt = update.key
            update.last = ExecReport(
                execution=execution,
                attempt=attempt,
                seq=update.seq,
                boot=self._boot,
                uptime=self._hub.steady() - self._born,
                state=update.state,
                **more,
            )
        self._hub.figures.moved(self.traits.number, update.state)
        if update.state is ExecState.SUCCEEDED and not again:
            self._succeeded()
        number, seed = self.traits.number, self._hub.seed
        chance = (number, "report", *update.key, update.seq)
        if not again and share(seed, *chance, "lost") < self.traits.lost:
            self._hub.figures.reports_lost += 1
            return
        payload = update.last.model_dump_json(exclude_none=True).encode()
        for _ in range(1 + (share(seed, *chance, "doubled") < self.traits.doubled)):
            self._link.publish(up(self.id, Up.EXEC), payload)
            self._hub.figures.reports += 1

    def offered(self, assignment: Assignment) -> None:
        """Count an offer."""
        self._hub.figures.offered(assignment.rollout)

    def told(self, rollout: str) -> None:
        """Count that it was told to stop."""
        self._hub.figures.told(rollout)

    def disown(self, command: Command) -> None:
        """Say of an execution that it does not know that it is given up."""
        report = ExecReport(
            execution=command.execution,
            attempt=command.attempt,
            seq=0,
            boot=self._boot,
            uptime=self._hub.steady() - self._born,
            state=ExecState.FAILED,
            cause=DeviceCause.CANCELLED,
        )
        self._link.publish(up(self.id, Up.EXEC), report.model_dump_json(exclude_none=True).encode())

    # -- what it serves -------------------------------------------------------------------

    def serve(self, model: ActiveModel | None, name: str) -> None:
        """Serve another version from now on."""
        self._telling.end(name)
        self.active.pop(name, None)
        if model is not None:
            self.active[name] = model
            self._telling.begin(model, eager=True)
        self.birth()

    def shadowed(self, update: Update, shadow: Shadow) -> tuple[int, int]:
        """Send what a shadow compared."""
        fate, assignment = self.outcome(update.assignment), update.assignment
        files = update.package.files[assignment.variant] if update.package else ()
        model = ActiveModel(
            model=assignment.model,
            version=assignment.version,
            variant=assignment.variant,
            sha256=files[0].sha256,
        )
        return self._telling.shadow(model, fate.level, fate.agreement, shadow.seconds)

    def _succeeded(self) -> None:
        """An update is over; some versions are the end of their devices."""
        if self._outcome is not None and self._outcome[1].dead and not self.dead:
            self.dead = True
            self.after(_LAST_WORDS_SECONDS, self._die)

    def _die(self) -> None:
        """Gone for good, without a word."""
        self._link.close()
        self.online = False

    def kept(self) -> Kept:
        """What the next run is to know of it."""
        return Kept(
            floor=self.walk.floor, active=tuple(self.active.values()), execution=self.walk.seen
        )
