"""Both machines of an execution, with a channel between them that loses, repeats and reorders.

Whatever happened before: once messages arrive again, the record ends as what the device did, the
device works on nothing that was ended, and it never put the same model into service twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client import events as told
from edge_client.actions import Repeat, Report
from edge_client.probation import Figures
from edge_client.state_machine import step as device_step
from edge_client.states import (
    Accepted,
    Activating,
    Deferred,
    Downloading,
    Ended,
    Idle,
    OnProbation,
    Reverting,
    Staged,
    Verified,
    exec_state,
    key_of,
)
from edge_client.waiting import Hold, Why
from orchestrator.domain import execution as machine
from orchestrator.domain.execution import IN_FLIGHT, Execution
from orchestrator.domain.reconcile import Given, Known, Restart, Tell, Told, decide, lost
from schemas.device import ActiveModel, ExecutionSeen
from schemas.errors import DeviceCause
from schemas.rollout import EXEC_TERMINAL, SERVER_TERMINAL, ExecState
from tests.property.test_edge_state_machine import execution as name_of
from tests.property.test_edge_state_machine import offer_of, slot_of

S = ExecState
EXE, SLOT = name_of(1), slot_of(1)
START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ActiveModel(model="digits", version=1, variant="int8", sha256="a" * 64)


@dataclass
class Birth:
    """What a device publishes when it connects, and then from time to time."""

    boot: int
    session: int
    seen: ExecutionSeen | None
    serves: bool


@dataclass
class Device:
    """The device's machine, with its journal; ``up`` is what it sent."""

    state: object = field(default_factory=Idle)
    seqs: dict = field(default_factory=dict)
    last: dict = field(default_factory=dict)
    outbox: list = field(default_factory=list)
    floor: int = 0
    active: object = None
    boot: int = 1
    session: int = 1
    swapped: list = field(default_factory=list)

    def apply(self, event):
        self.state, actions = device_step(self.state, event, 0.0)
        for action in actions:
            if isinstance(action, Report):
                self.report(action)
            elif isinstance(action, Repeat):
                self.outbox.append(self.last[action.key])

    def report(self, action):
        seq = self.seqs[action.key] = self.seqs.get(action.key, -1) + 1
        said = machine.Reported(
            action.key[1], seq, action.state, action.cause, action.detail, action.retryable
        )
        self.outbox.append(said)
        if action.terminal and action.keep:
            self.last[action.key] = said

    def hear(self, message):
        kind, attempt, sequence = message
        key = (EXE, attempt)
        if key != key_of(self.state) and key in self.last:
            self.outbox.append(self.last[key])
        elif kind == "cancel":
            self.apply(told.CancelRequested(key=key))
        elif kind == "proceed":
            self.apply(told.ProceedWanted(key=key))
        elif sequence >= self.floor:
            self.floor = sequence
            offer = replace(offer_of(1, attempt), sequence=sequence)
            self.apply(told.Offered(offer=offer, active=self.active))

    def work(self, *, well=True, retryable=False):
        state = self.state
        if isinstance(state, Idle | Ended):
            return
        key = key_of(state)
        if not well and not isinstance(state, Reverting):
            cause = DeviceCause.TRANSFER_FAILED
            self.apply(told.Broke(key=key, cause=cause, detail="broke", retryable=retryable))
            return
        if isinstance(state, Activating):
            self.swapped += [key] if self.active != SLOT else []
            self.active = SLOT
        elif isinstance(state, Reverting):
            self.active = state.fallback
        onward = {
            Accepted: told.ManifestAccepted(key=key, slot=SLOT, total=9),
            Deferred: told.Released(key=key),
            Downloading: told.Fetched(key=key, fetched=9),
            Verified: told.TrialPassed(key=key),
            Staged: told.Proceeded(key=key, fallback=self.active),
            Activating: told.Swapped(key=key),
            OnProbation: told.Observed(key=key, figures=Figures(n=100, errors=0)),
            Reverting: told.Restored(key=key, serving=getattr(state, "fallback", None)),
        }
        self.apply(onward[type(state)])

    def wait(self):
        """A window has closed, as far as that holds anything."""
        key = key_of(self.state)
        if key is not None:
            self.apply(told.Held(key=key, hold=Hold(why=Why.WINDOW)))

    def restart(self, *, lost=False):
        self.boot, self.session = self.boot + 1, 1
        if lost:
            self.state, self.seqs, self.last, self.outbox = Idle(), {}, {}, []
            self.floor, self.swapped = 0, []
        else:
            self.apply(told.Booted())

    def birth(self):
        key = key_of(self.state)
        seen = None
        if key is not None:
            state = exec_state(self.state)
            seen = ExecutionSeen(
                execution=key[0], attempt=key[1], state=state, seq=self.seqs.get(key, -1)
            )
        return Birth(self.boot, self.session, seen, self.active is not None)


@dataclass
class Server:
    """The server's machine, as services apply it, with the broker's retained message."""

    record: Execution = field(default_factory=Execution)
    sequence: int = 0
    published: bool = True
    boot: int = 0
    session: int = 0
    now: datetime = START
    changed: datetime = START
    retained: tuple | None = None

    def apply(self, event):
        before = self.record
        self.record, actions = machine.step(before, event, self.now)
        if self.record.state is not before.state:
            self.changed = self.now
        if any(isinstance(a, machine.SendCancel | machine.ClearDesired) for a in actions):
            self.published = False

    def offer(self):
        if self.record.state is S.SCHEDULED:
            self.apply(machine.Offered())
            self.anew()

    def anew(self):
        self.sequence += 1
        self.published = False

    def born(self, birth):
        if (birth.boot, birth.session) < (self.boot, self.session):
            return  # of a boot that is over (``domain.clone``), or an older connection's
        news = Told(
            birth.seen,
            connected=(birth.boot, birth.session) != (self.boot, self.session),
            started=birth.boot != self.boot,
            serves=frozenset({MODEL.model} if birth.serves else ()),
        )
        self.boot, self.session = birth.boot, birth.session
        one = self.record
        known = Known(EXE, one.attempt, one.seq, one.state, one.late, self.published, self.changed)
        if news.started and news.seen is None and one.state is S.SUCCEEDED:
            self.anew() if lost([Given(EXE, MODEL, one.state, one.late)], news.serves) else None
        for act in decide(known if one.offered else None, news, self.now):
            match act:
                case Tell():
                    self.published = False
                case Restart():
                    self.apply(machine.Forgotten())
                    self.anew()
                case _:
                    self.apply(act)

    def publish(self):
        """What goes down now; an offer is retained, anything else clears it."""
        if self.published:
            return []
        self.published = True
        one = self.record
        is_offer = one.state in IN_FLIGHT or one.state is S.SUCCEEDED
        self.retained = ("offer", one.attempt, self.sequence) if is_offer else None
        if is_offer:
            return [self.retained]
        back = range(max(1, one.attempt - 3), one.attempt + 1)
        return [("cancel", n, 0) for n in back] if one.state in SERVER_TERMINAL else []


SERVER_ACTS = {
    "vanish": machine.Vanished(),
    "retry": machine.Retried(),
    "cancel": machine.Ended(S.CANCELLED),
    "time out": machine.Ended(S.TIMED_OUT),
}
ACTS = st.sampled_from(
    [
        *(["work"] * 6),
        *(["up", "down", "flush", "publish", "heartbeat"] * 3),
        "fail",
        "fail_for_now",
        "wait",
        "proceed",
        "restart",
        "reconnect",
        "forget",
        "broker_forgets",
        "lose up",
        "lose down",
        "repeat up",
        "repeat down",
        "vanish",
        "retry",
        "cancel",
        "time out",
    ]
)


class World:
    """Device, server, and what is between them."""

    def __init__(self):
        self.device, self.server = Device(), Server()
        self.up, self.down = [], []
        self.server.offer()

    def act(self, what, place):
        self.server.now += timedelta(seconds=1)
        if what in SERVER_ACTS:
            self.server.apply(SERVER_ACTS[what])
            self.server.offer()
        elif what in {"up", "down"} or what.startswith(("lose ", "repeat ")):
            self.carry(what, place)
        else:
            getattr(self, what)()

    def work(self):
        self.device.work()

    def fail(self):
        self.device.work(well=False)

    def fail_for_now(self):
        self.device.work(well=False, retryable=True)

    def wait(self):
        self.device.wait()

    def proceed(self):
        """The server says so, of the attempt that it knows."""
        self.down.append(("proceed", self.server.record.attempt, 0))

    def flush(self):
        self.up += self.device.outbox
        self.device.outbox = []

    def heartbeat(self):
        self.up.append(self.device.birth())

    def restart(self, *, lost=False):
        self.device.restart(lost=lost)
        self.connect()

    def forget(self):
        self.restart(lost=True)

    def reconnect(self):
        self.device.session += 1
        self.connect()

    def publish(self):
        self.down += self.server.publish()

    def broker_forgets(self):
        """All that it held is gone, and everybody connects anew."""
        self.up, self.down, self.server.retained = [], [], None
        self.reconnect()

    def connect(self):
        self.up.append(self.device.birth())
        if self.server.retained is not None:
            self.device.hear(self.server.retained)

    def carry(self, what, place):
        queue = self.up if what.endswith("up") else self.down
        if not queue:
            return
        at = place % len(queue)
        message = queue[at] if what.startswith("repeat") else queue.pop(at)
        if what.startswith("lose"):
            return
        if queue is self.down:
            self.device.hear(message)
        elif isinstance(message, Birth):
            self.server.born(message)
        else:
            self.server.apply(message)

    def settle(self):
        """Messages arrive in order, everything goes well, and heartbeats go on."""
        for _ in range(40):
            self.server.now += timedelta(seconds=20)
            for what in ("publish", "work", "flush", "heartbeat"):
                self.act(what, 0)
            while self.up or self.down:
                self.act("up", 0)
                self.act("down", 0)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(0, 9)), max_size=60))
def test_both_come_to_the_same_end_and_nothing_is_activated_twice(acts):
    world = World()
    for what, place in acts:
        world.act(what, place)
        swapped = world.device.swapped
        assert len(swapped) == len(set(swapped))
    world.settle()
    device, record = world.device, world.server.record
    assert record.state in EXEC_TERMINAL
    assert isinstance(device.state, Idle | Ended)
    serves = device.active == SLOT
    if record.state is S.SUCCEEDED:
        assert serves
    elif serves:
        assert record.late is S.SUCCEEDED
    before = (record, world.server.published, len(device.outbox))
    world.settle()
    assert (world.server.record, world.server.published, len(device.outbox)) == before
