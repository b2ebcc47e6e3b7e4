"""Refreshing over a connection that loses, lies, comes and goes, by clocks that may be wrong."""

from __future__ import annotations

import datetime as dt
import itertools
from types import SimpleNamespace

import pytest

from edge_client.device import Clock, Device
from edge_client.errors import JournalError, TrustError
from edge_client.inbox import Inbox
from edge_client.journal import Floor, Journal
from edge_client.metadata_age import last_refresh
from edge_client.metadata_refresh import (
    FIRST_DELAY,
    LAST_DELAY,
    MAX_REFUSED,
    WALK_SECONDS,
    JournalFloors,
    Refresher,
)
from edge_client.settings import Home, RunSettings
from edge_client.states import Idle
from schemas.errors import DeviceCause
from schemas.trust import MAX_METADATA_BYTES, MetadataAnswer
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import NOW, YEAR, MemoryCache, Signer, assignment, new_signer

DEVICE = "dev_0000000000000001"
VERSION = release(linear_onnx())
DAY = dt.timedelta(days=1)


class World:
    """A refresher with a wire and clocks in the test's hand."""

    def __init__(self, home: Home) -> None:
        home.create()
        self.signer = Signer()
        self.signer.add(VERSION.manifest)
        self.now, self.steady = NOW, 0.0
        self.wire: list[str] = []
        self.verdicts: list = []
        self.cache = MemoryCache()
        self.journal = Journal(home.journal, boot="0" * 32)
        record = SimpleNamespace(device=DEVICE, device_class="default")
        self.device = Device(
            home=home,
            settings=RunSettings(),
            identity=SimpleNamespace(record=record),
            journal=self.journal,
            store=None,
            metadata=self.signer.client(
                self.cache, JournalFloors(self.journal, DEVICE), now=lambda: self.now
            ),
            runtime=None,
            clock=Clock(date=lambda: self.now, steady=lambda: self.steady),
            send=lambda _need: True,
            inquire=lambda _ask: True,
            ask=lambda ask: self.wire.append(ask.name) or True,
        )
        self.refresher = Refresher(self.device, decided=self.decided)
        self.lies: dict[str, bytes | None] = {}
        self.faults: list[Exception] = []

    def decided(self, _raw: bytes, verdict) -> None:
        if self.faults:
            raise self.faults.pop()
        self.verdicts.append(verdict)

    def document(self, sequence: int = 1, **changes) -> bytes:
        wanted = assignment(DEVICE, VERSION.manifest, **changes)
        return self.signer.desired(wanted, sequence=sequence, length=len(VERSION.manifest))

    def tell(self, name: str, **fields) -> None:
        if not fields:
            data = self.lies[name] if name in self.lies else self.signer.files.get(name)
            fields = {"text": None if data is None else data.decode()}
        answer = MetadataAnswer(name=name, **fields)
        self.refresher.answer(answer.model_dump_json().encode())

    def answer_all(self) -> int:
        answered = 0
        while self.wire:
            self.tell(self.wire.pop(0))
            answered += 1
        return answered

    def pass_time(self, seconds: float, *, answering: bool = True) -> None:
        """Let time go by as the agent's loop does: it wakes when it was told to."""
        end = self.steady + seconds
        while self.steady < end:
            if answering:
                self.answer_all()
            due = self.refresher.pump()
            assert due > self.steady, "a loop would spin"
            if answering and self.wire:
                continue
            step = min(due, end) - self.steady
            self.steady += step
            self.now += dt.timedelta(seconds=step)


@pytest.fixture
def world(tmp_path):
    world = World(Home(tmp_path))
    yield world
    world.journal.close()


def cause(verdict) -> DeviceCause:
    assert isinstance(verdict, TrustError)
    return verdict.cause


def test_a_document_is_decided_once_the_metadata_was_refreshed_after_it(world):
    world.refresher.connected()
    assert world.wire == ["2.root.json"]  # none was ever refreshed
    world.answer_all()
    world.signer.add(b"later", "digits", 2)
    world.refresher.check(world.document())
    assert world.wire == ["2.root.json"]
    assert world.answer_all() == 5  # root, timestamp, snapshot, and the two roles of the model
    (offer,) = world.verdicts
    assert offer.sequence == 1
    assert offer.expires == NOW + YEAR
    assert world.refresher.pump() > world.steady


def test_nothing_is_asked_for_without_a_connection(world):
    world.refresher.check(world.document())
    world.pass_time(1000)
    assert (world.wire, world.verdicts) == ([], [])
    world.refresher.connected()
    world.answer_all()
    assert len(world.verdicts) == 1


def test_a_lost_connection_ends_the_walk_and_the_next_begins_anew(world):
    world.refresher.connected()
    world.refresher.check(world.document())
    world.wire.clear()
    world.tell("2.root.json")
    assert world.wire == ["timestamp.json"]
    world.refresher.disconnected()
    world.wire.clear()
    world.tell("timestamp.json")  # comes late
    assert world.wire == []
    world.refresher.connected()
    assert world.wire == ["2.root.json"]
    world.answer_all()
    assert len(world.verdicts) == 1


@pytest.mark.parametrize("what", ["another name", "malformed", "endless", "empty", "repeated"])
def test_an_answer_that_nothing_waits_for_changes_nothing(world, what):
    world.refresher.connected()
    world.refresher.check(world.document())
    world.wire.clear()
    if what == "another name":
        world.tell("timestamp.json")
    elif what == "malformed":
        world.refresher.answer(b'{"name": "2.root.json", "text": 5}')
    elif what == "endless":
        world.refresher.answer(b'{"name": "2.root.json", "text": "' + b"x" * 2**22)
    elif what == "empty":
        world.refresher.answer(b"")
    else:
        world.tell("2.root.json")
        assert world.wire == ["timestamp.json"]
        world.tell("2.root.json")
        assert world.wire == ["timestamp.json"]
        world.tell(world.wire.pop())
        world.answer_all()
        assert len(world.verdicts) == 1
        return
    assert world.wire == []
    world.tell("2.root.json")
    world.answer_all()
    assert len(world.verdicts) == 1


def test_files_that_cannot_be_had_are_asked_for_ever_more_slowly_and_nothing_is_rejected(world):
    world.refresher.connected()
    world.answer_all()
    world.lies["timestamp.json"] = None
    world.refresher.check(world.document())
    asked = []
    for _ in range(400):
        if "2.root.json" in world.wire:
            asked.append(world.steady)
        world.answer_all()
        world.pass_time(10, answering=False)
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert world.verdicts == []
    assert max(gaps) >= LAST_DELAY / 2
    assert max(gaps) <= LAST_DELAY + 10
    assert gaps[0] <= 20 * FIRST_DELAY
    world.lies.clear()
    world.pass_time(LAST_DELAY + 1)
    assert len(world.verdicts) == 1


def test_a_server_that_cannot_answer_now_says_so(world):
    world.refresher.connected()
    world.refresher.check(world.document())
    world.wire.clear()
    world.tell("2.root.json", error="the signer is busy")
    assert "the signer is busy" in world.device.problems.last
    assert world.verdicts == []
    world.pass_time(2)
    assert len(world.verdicts) == 1


def test_silence_is_asked_again_and_given_up_in_time(world):
    world.refresher.connected()
    world.refresher.check(world.document())
    world.pass_time(WALK_SECONDS - 1, answering=False)
    assert 5 < len(world.wire) < 20
    assert set(world.wire) == {"2.root.json"}
    world.pass_time(5, answering=False)
    assert "did not come in time" in world.device.problems.last
    assert world.verdicts == []
    world.wire.clear()
    world.pass_time(10)
    assert len(world.verdicts) == 1


def test_metadata_that_does_not_hold_rejects_the_document_after_a_few_tries(world):
    world.refresher.connected()
    world.answer_all()
    world.lies["timestamp.json"] = Signer().files["timestamp.json"]
    world.refresher.check(world.document())
    for tried in range(1, MAX_REFUSED):
        world.answer_all()
        assert world.verdicts == [], tried
        world.pass_time(FIRST_DELAY * 2**tried, answering=False)
    world.pass_time(60)
    assert [cause(verdict) for verdict in world.verdicts] == [DeviceCause.BAD_SIGNATURE]
    world.lies.clear()
    world.refresher.check(world.document(sequence=2))
    world.answer_all()
    assert world.verdicts[-1].sequence == 2


def test_an_oversized_file_is_refused(world):
    world.refresher.connected()
    world.answer_all()
    world.lies["timestamp.json"] = b" " * (MAX_METADATA_BYTES - 1)
    world.refresher.check(world.document())
    world.pass_time(60)
    assert [cause(verdict) for verdict in world.verdicts] == [DeviceCause.BAD_SIGNATURE]


def test_a_document_that_is_wrong_by_itself_is_refused_at_once(world):
    world.refresher.connected()
    stranger = world.signer.desired(
        assignment(DEVICE, VERSION.manifest), signer=new_signer(), length=3
    )
    world.refresher.check(stranger)
    world.answer_all()
    assert [cause(verdict) for verdict in world.verdicts] == [DeviceCause.BAD_SIGNATURE]


def test_a_version_that_no_role_lists_is_refused(world):
    world.refresher.connected()
    world.refresher.check(world.document(version=9))
    world.answer_all()
    assert [cause(verdict) for verdict in world.verdicts] == [DeviceCause.BAD_SIGNATURE]


def test_a_newer_document_replaces_one_that_waits(world):
    world.refresher.connected()
    world.refresher.check(world.document(sequence=1))
    world.wire.clear()
    world.tell("2.root.json")
    world.refresher.check(world.document(sequence=2))
    assert world.wire == ["timestamp.json", "2.root.json"]  # from the beginning
    world.answer_all()
    assert [offer.sequence for offer in world.verdicts] == [2]


def test_a_verdict_that_cannot_be_written_down_is_given_again(world):
    world.faults = [JournalError("disk full")]
    world.refresher.connected()
    world.refresher.check(world.document())
    with pytest.raises(JournalError):
        world.answer_all()
    assert world.verdicts == []
    world.pass_time(2)
    assert len(world.verdicts) == 1


def test_metadata_is_refreshed_daily_and_at_a_connection_after_half_a_day(world, tmp_path):
    world.refresher.connected()
    world.answer_all()
    assert last_refresh(Home(tmp_path)) == NOW
    world.refresher.disconnected()
    world.now += DAY / 2 - dt.timedelta(minutes=1)
    world.refresher.connected()
    assert world.wire == []
    world.refresher.disconnected()
    world.now += dt.timedelta(minutes=1)
    world.refresher.connected()
    assert world.wire == ["2.root.json"]
    world.answer_all()
    began = world.steady
    world.pass_time(3 * DAY.total_seconds())
    assert last_refresh(Home(tmp_path)) >= NOW + 2.5 * DAY
    assert world.steady > began


def test_a_clock_in_2020_asks_for_nothing_and_says_why(world):
    world.refresher.connected()
    world.answer_all()
    world.now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    world.refresher.check(world.document())
    assert world.wire == []
    world.now = NOW  # set in time
    world.pass_time(5)
    assert [verdict.sequence for verdict in world.verdicts] == [1]
    world.now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    world.refresher.check(world.document(sequence=2))
    world.pass_time(60)
    assert cause(world.verdicts[-1]) is DeviceCause.EXPIRED
    assert "clock says 2020-01-01" in str(world.verdicts[-1])


def test_a_clock_in_2090_refuses_and_does_not_keep_the_right_time_out(world):
    world.now = dt.datetime(2090, 1, 1, tzinfo=dt.UTC)
    world.refresher.connected()
    world.refresher.check(world.document())
    world.pass_time(60)
    assert cause(world.verdicts[-1]) is DeviceCause.EXPIRED
    assert "clock says 2090-01-01" in str(world.verdicts[-1])
    world.now = NOW
    world.refresher.check(world.document(sequence=2))
    world.pass_time(5)
    assert world.verdicts[-1].sequence == 2


def test_the_floor_of_sequences_survives_and_begins_anew_with_the_directors_key(world):
    world.refresher.connected()
    world.answer_all()
    world.journal.commit(Idle(), (), uptime=0.0, floor=Floor(device=DEVICE, sequence=2**40))
    world.refresher.check(world.document(sequence=5))
    world.answer_all()
    assert cause(world.verdicts[-1]) is DeviceCause.BELOW_FLOOR
    world.signer.rotate_director()
    world.refresher.check(world.document(sequence=5))
    world.answer_all()
    assert world.verdicts[-1].sequence == 5


def test_a_document_that_was_taken_back_while_it_waited_is_forgotten(world):
    world.refresher.connected()
    world.answer_all()
    world.refresher.check(world.document())
    world.wire.clear()
    world.tell("2.root.json", error="the disk is full")
    inbox = Inbox(world.device, SimpleNamespace(chunk=None))
    inbox._refresher = world.refresher
    inbox.desired(b"")
    world.pass_time(LAST_DELAY)
    assert world.verdicts == []
    world.refresher.check(world.document(2))
    world.pass_time(LAST_DELAY)
    assert [offer.sequence for offer in world.verdicts] == [2]


def test_whatever_goes_wrong_in_a_walk_is_tried_again_later_and_ends_nothing(world, monkeypatch):
    def broken():
        yield from ()
        raise RuntimeError

    monkeypatch.setattr(world.device.metadata, "refreshing", broken)
    world.refresher.connected()
    world.refresher.check(world.document())
    world.pass_time(LAST_DELAY)  # asserts that it does not spin
    monkeypatch.undo()
    world.pass_time(2 * LAST_DELAY)
    assert [offer.sequence for offer in world.verdicts] == [1]
