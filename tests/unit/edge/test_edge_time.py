"""The device's clocks jump, the machine sleeps and starts anew: windows are dated right."""

from __future__ import annotations

import pytest

from edge_client.envelopes import Envelopes
from edge_client.machine import Clocks, machine_boot, steady_seconds
from edge_client.recorder import Recorder
from edge_client.settings import Home
from edge_client.telemetry import Windows
from edge_client.telemetry_buffer import Buffer
from edge_client.time_keeper import MAX_ASKED, PATIENCE_SECONDS, TimeKeeper
from schemas.clock import TimeReply
from schemas.window import decode
from tests.fakes.edge_windows import counted, serve

YEAR = 365 * 86_400.0


class World:
    """True time, by the server; a device whose clock is ``off`` by some seconds."""

    def __init__(self, root) -> None:
        self.true, self.off, self.started = 1_800_000_000.0, 0.0, 1_800_000_000.0 - 500
        self.machine = b"1" * 16
        self.home = Home(root)
        self.asked = []
        self.answering = True
        self.buffer = Buffer(self.home.telemetry)
        self.begin(b"a" * 16)

    @property
    def clocks(self):
        return Clocks(
            date=lambda: self.true + self.off,
            steady=lambda: self.true - self.started,
            cpu=lambda: 0.0,
            machine=self.machine,
        )

    def begin(self, boot):
        """A new start of the agent."""
        self.windows = Windows(self.clocks)
        self.recorder = Recorder(
            self.home, boot=boot.hex(), windows=self.windows, buffer=self.buffer
        )
        self.time = TimeKeeper(self.buffer, self.ask, self.clocks)
        self.time.connected()

    def reboot(self):
        self.recorder.close()
        self.machine, self.started = b"2" * 16, self.true + 20
        self.true += 30
        self.begin(b"b" * 16)

    def ask(self, ask):
        self.asked.append(ask.id)
        if self.answering:
            self.true += 0.05
            reply = TimeReply(id=ask.id, at=self.true)
            self.true += 0.05
            self.time.take(reply.model_dump_json().encode())
        return True

    def window(self):
        """One that begins now. Returns when, in milliseconds of true time."""
        began = self.true
        serve(self.windows, counted())
        self.true += 5
        self.recorder.cut()
        return round(began * 1000)

    def dated(self):
        (parcel,) = Envelopes(self.buffer, self.time.sync).waiting((), 1)
        return [(w.start_ms, w.synced) for w in decode(parcel.body).windows]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def near(found, expected):
    return [
        synced and abs(ms - want) <= 60 for (ms, synced), want in zip(found, expected, strict=True)
    ]


@pytest.mark.parametrize("off", [-30 * YEAR, -3600.0, 0.0, 10 * YEAR])
def test_windows_from_before_the_first_answer_are_dated_by_it(world, off):
    world.off = off
    before = world.window()
    world.off = -off  # and it jumps the other way
    after = world.window()
    assert [synced for _, synced in world.dated()] == [False, False]
    world.time.pump()
    assert near(world.dated(), [before, after]) == [True, True]


def test_a_machine_that_slept_is_still_right(world):
    world.time.pump()
    world.true += 7 * 86_400  # the steady clock counts that, as CLOCK_BOOTTIME does
    world.off = -7 * 86_400
    began = world.window()
    assert near(world.dated(), [began]) == [True]


def test_windows_of_an_earlier_start_of_the_machine_keep_its_time(world):
    world.time.pump()
    first = world.window()
    world.off = -60 * YEAR
    world.reboot()
    second = world.window()
    found = world.dated()
    assert near(found[:1], [first]) == [True]
    assert found[1] == (0, False), "the server was not reached in this start"
    world.time.pump()
    assert near(world.dated(), [first, second]) == [True, True]


def test_windows_of_a_start_without_the_server_have_the_devices_time(world):
    world.off = -3600.0
    first = world.window()
    world.reboot()
    world.time.pump()
    assert world.dated() == [(first - 3_600_000, False)]


def test_what_was_not_asked_is_not_believed(world):
    for body in (b"", b"[]", b'{"id": 99, "at": 5}', b'{"id": 1, "at": 1e300}', b"\xff"):
        world.time.take(body)
    assert world.time.sync(world.machine) is None
    world.answering = False
    for _ in range(100):
        world.time.pump()
        world.true += 1000
    assert len(world.time._asked) <= MAX_ASKED
    assert world.time.sync(world.machine) is None


def test_windows_wait_for_the_time_only_so_long(world):
    world.answering = False
    world.time.pump()
    assert not world.time.ready()
    world.true += PATIENCE_SECONDS
    assert world.time.ready(), "a server may be too old to say"


def test_the_machines_own_clocks(tmp_path):
    assert len(machine_boot()) == 16
    assert machine_boot() == machine_boot()
    assert machine_boot(tmp_path / "none") != machine_boot()
    first = steady_seconds()
    assert 0 < first <= steady_seconds()


def test_the_servers_time_is_known_whatever_the_device_says_and_in_one_start_alone(world):
    assert world.time.server_time() is None
    world.off = YEAR
    world.time.pump()
    for _ in range(3):
        assert world.time.server_time().timestamp() == pytest.approx(world.true, abs=0.2)
        world.true += 3600
        world.off -= YEAR
    world.answering = False
    world.reboot()
    world.time.pump()
    assert world.time.server_time() is None
    world.answering = True
    world.true += 10
    world.time.pump()
    assert world.time.server_time().timestamp() == pytest.approx(world.true, abs=0.2)


@pytest.mark.parametrize(("waits", "least", "most"), [(True, 20, 26), (False, 4, 4)])
def test_while_something_waits_for_the_time_it_is_asked_for_soon(world, waits, least, most):
    world.answering = False
    for _ in range(100):
        world.time.pump()
        if waits:
            assert world.time.server_time() is None
        world.true += 1
    assert least <= len(world.asked) <= most
