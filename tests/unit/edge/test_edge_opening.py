from __future__ import annotations

import sqlite3

import pytest

from edge_client import opening
from edge_client.agent import Agent
from edge_client.errors import JournalError
from edge_client.journal import Floor, Journal
from edge_client.opening import open_buffer, open_journal, usable_journal
from edge_client.settings import Home, RunSettings
from edge_client.states import Idle, OnProbation
from edge_client.telemetry_buffer import Buffer
from schemas.rollout import Probation
from tests.fakes.edge_bench import NEW, Bench, Fuse, document
from tests.fakes.edge_trust import Signer
from tests.fakes.edge_windows import counted, serve
from tests.fakes.gateway import Ca, enrolled_home

BOOT = "0" * 32
DEVICE = "dev_0000000000000001"


def make(path) -> Buffer:
    return Buffer(path, most=10)


def full(_path) -> Buffer:
    msg = "the telemetry buffer cannot be used: database or disk is full"
    raise JournalError(msg)


def rot(path) -> None:
    """Damage a page in the middle of a sound database, which still opens."""
    data = bytearray(path.read_bytes())
    data[4096 + 8 : 3 * 4096] = b"\xa5" * (2 * 4096 - 8)
    path.write_bytes(bytes(data))


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.create()
    return home


def test_a_sound_journal_is_opened_as_it_is(home):
    journal = Journal(home.journal, boot=BOOT)
    journal.commit(Idle(), (), uptime=0, floor=Floor(device=DEVICE, sequence=4))
    journal.close()
    found, problem = open_journal(home, boot=BOOT)
    assert problem is None
    assert found.floor(DEVICE) == 4
    found.close()


@pytest.mark.parametrize("damage", ["no database", "rot", "unknown state"])
def test_a_damaged_journal_is_left_alone_and_said(home, damage):
    Journal(home.journal, boot=BOOT).close()
    if damage == "no database":
        home.journal.write_bytes(b"x" * 5000)
    elif damage == "rot":
        rot(home.journal)
    else:
        db = sqlite3.connect(home.journal)
        db.execute("INSERT INTO state VALUES (1, '{}')")
        db.commit()
        db.close()
    before = home.journal.read_bytes()
    found, problem = open_journal(home, boot=BOOT)
    assert "journal.db cannot be used" in problem
    assert found.load() == Idle()
    assert home.journal.read_bytes() == before
    found.close()
    with pytest.raises(JournalError):
        usable_journal(home, boot=BOOT)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    yield bench
    bench.die()


def test_where_nothing_can_be_written_what_is_on_trial_does_not_serve(bench, monkeypatch):
    bench.inbox.desired(document(bench, NEW, probation=Probation(min_inferences=3)))
    bench.go_to(OnProbation)
    told = bench.updater.seen
    bench.die()

    def read_only(*_args, **_more):
        msg = "the journal cannot be used: attempt to write a readonly database"
        raise JournalError(msg)

    monkeypatch.setattr(opening, "usable_journal", read_only)
    agent = Agent(bench.home, RunSettings())
    agent._serve()
    assert agent._runtime.slot().version == 1
    assert agent._birth(1).execution == told, "the journal is not lost"
    monkeypatch.undo()
    bench.start()
    assert bench.serving() == 2


@pytest.mark.parametrize("damage", ["no database", "rot"])
def test_a_damaged_telemetry_buffer_is_put_aside(home, damage, caplog):
    make(home.telemetry).close()
    if damage == "rot":
        rot(home.telemetry)
    else:
        home.telemetry.write_bytes(b"x" * 5000)
    damaged = home.telemetry.read_bytes()
    buffer = open_buffer(home.telemetry, make)
    assert "telemetry.db.damaged" in caplog.text
    assert len(buffer) == 0
    buffer.close()
    assert (home.root / "telemetry.db.damaged").read_bytes() == damaged
    caplog.clear()
    open_buffer(home.telemetry, make).close()
    assert not caplog.text


def test_telemetry_without_room_waits_in_memory_and_loses_nothing_on_the_disk(home, caplog):
    make(home.telemetry).close()
    before = home.telemetry.read_bytes()
    buffer = open_buffer(
        home.telemetry, lambda path: make(path) if path == opening.MEMORY else full(path)
    )
    assert "kept in memory" in caplog.text
    assert len(buffer) == 0
    buffer.close()
    assert home.telemetry.read_bytes() == before


@pytest.fixture
def agent(tmp_path):
    home, _ = enrolled_home(tmp_path, Ca(), Signer(), 1)
    agent = Agent(home, RunSettings())
    yield agent
    agent._journal.close()
    # An end has a limit of its own: left standing, it would end the process of the tests.
    agent._parts.watchdog.stopped()


def windows_in(home) -> list[int]:
    buffer = make(home.telemetry)
    found = [row.window.n for row in buffer.waiting(10)]
    buffer.close()
    return found


def test_a_window_that_cannot_be_kept_goes_with_the_next_cut(agent, monkeypatch):
    with monkeypatch.context() as now:
        now.setattr(agent._buffer, "put", lambda *_args, **_more: full(None))
        serve(agent._windows, counted(), n=3)
        agent._cut()
    assert "disk is full" in agent._problem
    serve(agent._windows, counted(), n=2)
    agent._cut()
    assert windows_in(agent._home) == [5]


def test_the_last_windows_are_kept_although_the_update_cannot_be_closed(agent, monkeypatch):
    serve(agent._windows, counted(), n=3)
    monkeypatch.setattr(agent._updater, "close", lambda: full(None))
    monkeypatch.setattr(agent._transport, "stop", lambda _seconds: None)
    agent._end()
    assert windows_in(agent._home) == [3]
    assert list(agent._home.live_counts.iterdir()) == []
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        len(agent._buffer)
    with pytest.raises(JournalError, match="closed"):
        agent._journal.load()
