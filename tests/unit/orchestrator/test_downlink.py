"""Desired messages are repeated until the broker has exactly the one that is wanted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.adapters import downlink
from orchestrator.adapters.downlink import BrokerDownlink
from orchestrator.control_loop import ControlLoop
from schemas.ids import new_id
from schemas.rollout import Command


class Wire:
    """Takes what is published; acknowledges when told."""

    def __init__(self) -> None:
        self.sent, self.up, self.now = [], True, 0.0
        self.downlink = BrokerDownlink(self.publish, lambda: self.now)

    def publish(self, topic, payload, retain):
        if not self.up:
            return None
        self.sent.append((topic, payload, retain))
        return len(self.sent)

    def ack(self):
        self.downlink.acknowledged(len(self.sent))


@pytest.fixture
def wire():
    return Wire()


def test_a_document_counts_as_sent_once_the_broker_has_it(wire):
    assert not wire.downlink.desired("dev", b"one")
    assert not wire.downlink.desired("dev", b"one")
    assert len(wire.sent) == 1
    wire.ack()
    assert wire.downlink.desired("dev", b"one")


def test_a_newer_document_replaces_one_that_is_on_its_way(wire):
    wire.downlink.desired("dev", b"one")
    assert not wire.downlink.desired("dev", b"two")
    wire.downlink.acknowledged(1)
    assert not wire.downlink.desired("dev", b"two")
    wire.downlink.acknowledged(2)
    assert wire.downlink.desired("dev", b"two")
    assert [payload for _, payload, _ in wire.sent] == [b"one", b"two"]


def test_an_acknowledgement_may_come_before_the_id_is_known(wire):
    publish = wire.publish

    def hasty(topic, payload, retain):
        mid = publish(topic, payload, retain)
        wire.downlink.acknowledged(mid)
        return mid

    wire.downlink = BrokerDownlink(hasty, lambda: wire.now)
    wire.downlink.desired("dev", b"one")
    assert wire.downlink.desired("dev", b"one")


def test_what_was_never_acknowledged_is_sent_again(wire):
    wire.downlink.desired("dev", b"one")
    wire.now = 11
    wire.downlink.desired("dev", b"one")
    assert len(wire.sent) == 2


def test_a_lost_connection_forgets_what_was_on_its_way(wire):
    wire.downlink.desired("dev", b"one")
    wire.downlink.disconnected()
    wire.downlink.desired("dev", b"one")
    assert len(wire.sent) == 2


def test_nothing_is_taken_as_sent_while_the_broker_is_away(wire):
    wire.up = False
    assert not wire.downlink.desired("dev", b"one")
    wire.ack()
    assert not wire.downlink.desired("dev", b"one")


def test_a_wish_for_a_message_that_was_delivered_sends_it_anew(wire):
    for expected in (1, 2):
        wire.downlink.desired("dev", b"one")
        wire.ack()
        for _ in range(3):
            assert wire.downlink.desired("dev", b"one")
        assert len(wire.sent) == expected
        wire.downlink.forget("dev")


def test_what_is_on_its_way_is_never_forgotten_for_what_is_delivered(wire, monkeypatch):
    monkeypatch.setattr(downlink, "_KEEP", 3)
    for device in ("a", "b", "c"):
        wire.downlink.desired(device, b"one")
    wire.downlink.acknowledged(2)
    assert not wire.downlink.refuses
    wire.downlink.desired("d", b"one")  # in the place of "b", which the broker has
    wire.downlink.desired("e", b"one")
    assert wire.downlink.refuses
    assert len(wire.sent) == 4
    for mid in (1, 3, 4):
        wire.downlink.acknowledged(mid)
    assert [wire.downlink.desired(device, b"one") for device in "acd"] == [True] * 3


def test_asking_what_the_broker_has_sends_nothing_and_means_exactly_that(wire):
    command = Command(kind="cancel", execution=new_id("exe"), attempt=1)
    assert not wire.downlink.has("dev", b"one")
    assert not wire.downlink.has("dev", command)
    assert wire.sent == []
    wire.downlink.desired("dev", b"one")
    wire.ack()
    wire.downlink.command("dev", command)
    assert wire.downlink.has("dev", b"one")
    assert not wire.downlink.has("dev", b"two")
    assert not wire.downlink.has("dev", command)
    wire.ack()
    assert wire.downlink.has("dev", command)
    wire.up = False
    wire.downlink.desired("dev", b"two")  # refused: the broker still has the first one
    assert not wire.downlink.has("dev", b"two")


def test_an_id_that_came_round_belongs_to_the_newer_message(wire):
    mids = iter([7, 7, 8])
    wire.downlink = BrokerDownlink(lambda *_: next(mids), lambda: wire.now)
    wire.downlink.desired("old", b"one")
    wire.downlink.desired("new", b"one")
    wire.now = 11
    wire.downlink.desired("old", b"one")  # was never acknowledged, so it is sent again
    wire.downlink.acknowledged(7)
    assert wire.downlink.has("new", b"one")
    assert not wire.downlink.has("old", b"one")


def test_what_nobody_asks_for_any_more_makes_room(wire, monkeypatch):
    monkeypatch.setattr(downlink, "_KEEP", 1)
    wire.downlink.desired("a", b"one")
    wire.now = 61
    wire.downlink.desired("b", b"one")
    assert [topic for topic, _, _ in wire.sent] == ["d/a/down/desired", "d/b/down/desired"]
    wire.downlink.acknowledged(1)
    assert not wire.downlink.desired("b", b"one")
    wire.downlink.acknowledged(2)
    assert wire.downlink.desired("b", b"one")


def test_acknowledgements_of_other_messages_are_not_remembered(wire):
    for mid in range(1, 70_000):
        wire.downlink.acknowledged(mid)
    assert not wire.downlink.desired("dev", b"one")
    assert not wire.downlink.desired("dev", b"one")


def test_commands_are_not_retained(wire):
    wire.downlink.command("dev", Command(kind="cancel", execution=new_id("exe"), attempt=1))
    assert [(topic, retain) for topic, _, retain in wire.sent] == [("d/dev/down/cmd", False)]


def test_a_failing_task_does_not_stop_the_others_and_recovers():
    ran, broken = [], [True]

    def fails():
        if broken:
            raise RuntimeError

    times = iter([datetime(2026, 3, 1, 12, tzinfo=UTC)])  # asked for once: when it began to fail
    loop = ControlLoop({"a": fails, "b": lambda: ran.append(1)}, 1, clock=lambda: next(times))
    assert loop.health() == "ok"
    for rounds in (1, 2):
        loop.round()
        assert (set(loop.failing), len(ran)) == ({"a"}, rounds)
        assert loop.health() == "failing: a since 2026-03-01 12:00:00 UTC (RuntimeError)"
    broken.clear()
    loop.round()
    assert (loop.health(), len(ran)) == ("ok", 3)


def test_a_task_that_is_seldom_needed_runs_seldom_but_at_once_again_where_it_fails():
    ran, broken, now = [], [], [0.0]

    def task():
        ran.append(now[0])
        if broken:
            raise OSError

    loop = ControlLoop({"a": task}, 1, seldom={"a": 5.0}, monotonic=lambda: now[0])
    for second in range(11):
        now[0] = float(second)
        loop.round()
    assert ran == [0, 5, 10]
    broken.append(True)
    for second in (15, 16, 17):
        now[0] = float(second)
        loop.round()
    assert ran[3:] == [15, 16, 17]


@pytest.mark.parametrize(
    ("busy", "fails", "brisk"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_the_loop_rests_little_while_there_is_more_to_do(busy, fails, brisk):
    def task():
        if fails:
            raise OSError

    loop = ControlLoop({"a": task}, 10, lambda: busy)
    waits = []
    loop._stop.wait = lambda seconds: waits.append(seconds) or len(waits) > 1
    loop._run()
    assert waits[0] == (1 if busy else 10)
    assert waits[1] == (1 if brisk else 10)
