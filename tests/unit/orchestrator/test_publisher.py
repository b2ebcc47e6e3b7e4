"""Devices are told by batches: what is stopped first, nothing twice, nothing for a gone broker."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import event

from orchestrator.domain.acts import Act
from orchestrator.services.publisher import DesiredPublisher
from schemas.rollout import ExecState
from tests.unit.orchestrator.test_rollout_service import executions, start

S = ExecState
EVERYONE = [{"percent": 100}]


class Signs:
    """The platform's signer, which counts, and of which a version can be missing."""

    def __init__(self, trust):
        self._trust, self.signed, self.missing = trust, 0, set()

    def __getattr__(self, name):
        return getattr(self._trust, name)

    def published(self, model, version):
        return version not in self.missing and self._trust.published(model, version)

    def sign_assignment(self, *args, **more):
        self.signed += 1
        return self._trust.sign_assignment(*args, **more)


@pytest.fixture
def fleet(platform):
    """Twelve devices that are there, and two versions."""
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    devices = platform.enroll(12)
    for device in devices:
        platform.birth(device)
    platform.signing.tick()
    platform.signs = Signs(platform.trust)
    platform.publisher = DesiredPublisher(
        platform.uow, platform.signs, platform.downlink, platform.clock, batch=5
    )
    platform.publisher.tick()
    return devices


def offered(platform, **more):
    rollout = start(platform, waves=EVERYONE, **more)
    platform.engine.tick()
    platform.engine.tick()
    return rollout


def acknowledge(platform):
    for mid in range(1, len(platform.broker.sent) + 1):
        platform.downlink.acknowledged(mid)


def unsent(platform):
    with platform.uow.read() as tx:
        return sum(group.count for group in tx.outbox.pending())


def test_offers_go_out_by_batches_each_signed_and_sent_once(platform, fleet):
    offered(platform)
    sent = platform.broker.sent
    platform.publisher.tick()
    assert (len(sent), unsent(platform)) == (5, 12)
    platform.publisher.tick()
    assert len(sent) == 5
    for left in (7, 2, 0):
        acknowledge(platform)
        platform.publisher.tick()
        assert unsent(platform) == left
    assert len({topic for topic, _, _ in sent}) == len(sent) == platform.signs.signed == 12


def test_a_stop_waits_neither_for_offers_on_their_way_nor_for_a_signature(platform, fleet):
    stopped = offered(platform)
    acknowledge_all(platform)
    platform.signs.missing.add(2)
    platform.clock.forward(1)
    offered(platform, version=2)  # supersedes: each has an end, and an offer that cannot be sent
    sent = platform.broker.sent
    sent.clear()
    acknowledge_all(platform)
    assert sum(topic.endswith("cmd") for topic, _, _ in sent) == 12
    assert {e.state for e in executions(platform, stopped)} == {S.SUPERSEDED}
    assert unsent(platform) == 12
    platform.signs.missing.clear()
    acknowledge_all(platform)
    assert unsent(platform) == 0


def acknowledge_all(platform):
    for _ in range(8):
        platform.publisher.tick()
        acknowledge(platform)


def test_all_are_told_to_stop_at_once_while_the_broker_is_slow_to_take_offers(platform, fleet):
    """However many there are: what the broker keeps for them follows by rounds."""
    rollout = offered(platform)
    platform.publisher.tick()
    platform.rollouts.operate(rollout, Act.ABORT)
    platform.broker.sent.clear()
    platform.publisher.tick()
    leaves = [topic.rpartition("/")[2] for topic, _, _ in platform.broker.sent]
    assert leaves[:12] == ["cmd"] * 12
    assert leaves.count("desired") == 5
    platform.publisher.tick()
    leaves = [topic.rpartition("/")[2] for topic, _, _ in platform.broker.sent]
    assert leaves.count("cmd") == 12
    acknowledge_all(platform)
    assert unsent(platform) == 0


def test_a_broker_that_is_gone_costs_a_look_a_try_and_no_more_signatures(platform, fleet):
    offered(platform)
    platform.broker.up = False
    statements = []
    event.listen(
        platform.database, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    for _ in range(20):
        platform.publisher.tick()
    assert platform.signs.signed == 1
    assert not any(text.startswith(("UPDATE", "INSERT")) for text in statements)
    assert len(statements) < 20 * 12
    platform.broker.up = True
    acknowledge_all(platform)
    assert unsent(platform) == 0


def test_what_changed_while_it_was_on_its_way_is_not_taken_for_delivered(platform, fleet):
    rollout = offered(platform)
    platform.publisher.tick()
    platform.rollouts.operate(rollout, Act.ABORT)
    acknowledge(platform)
    platform.publisher.tick()
    assert unsent(platform) == 12
    acknowledge_all(platform)
    assert unsent(platform) == 0
    last = {topic: body for topic, body, _ in platform.broker.sent if topic.endswith("desired")}
    assert set(last.values()) == {b""}


def test_statements_do_not_grow_with_what_is_sent(platform, fleet):
    publisher = DesiredPublisher(platform.uow, platform.signs, platform.downlink, platform.clock)
    offered(platform)
    publisher.tick()
    acknowledge(platform)
    statements = []
    event.listen(
        platform.database, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    assert publisher.tick() == 12
    assert len(statements) < 20


def watched(platform, seconds):
    """A publisher with a clock in hand, and the statements that are sent."""
    statements = []
    event.listen(
        platform.database, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    publisher = DesiredPublisher(
        platform.uow,
        platform.signs,
        platform.downlink,
        platform.clock,
        batch=5,
        monotonic=lambda: seconds[0],
    )
    publisher.tick()  # follows the director's key
    statements.clear()
    return publisher, statements


def test_what_is_on_its_way_is_not_read_again_by_every_round(platform, fleet):
    seconds = [0.0]
    publisher, statements = watched(platform, seconds)
    offered(platform)
    publisher.tick()
    assert (len(platform.broker.sent), publisher.busy) == (5, True)
    statements.clear()
    publisher.tick()
    assert not [text for text in statements if "executions.id IN" in text]
    seconds[0] = 0.3  # what was lost, or changed meanwhile, is looked for four times a second
    publisher.tick()
    assert [text for text in statements if "executions.id IN" in text]
    seconds[0] = 2.0  # the broker is silent: its answers are waited for at ease
    publisher.tick()
    assert not publisher.busy


def test_what_was_on_its_way_when_the_connection_ended_is_sent_again(platform, fleet):
    seconds = [0.0]
    publisher, _ = watched(platform, seconds)
    offered(platform)
    publisher.tick()
    platform.downlink.disconnected()
    publisher.tick()
    assert len(platform.broker.sent) == 5
    seconds[0] = 0.3
    publisher.tick()
    assert len(platform.broker.sent) == 10
    assert len({topic for topic, _, _ in platform.broker.sent}) == 5


def test_who_is_to_be_told_anew_behind_what_was_read_has_his_turn(platform, fleet):
    rollout = offered(platform)
    platform.publisher.tick()
    acknowledge(platform)
    platform.publisher.tick()  # by now the reading stands at the tenth
    first = min(executions(platform, rollout), key=lambda one: one.id)
    with platform.uow() as tx:
        record = tx.rollouts.execution(first.id)
        tx.rollouts.save_execution(replace(record, published=False))
    before = [topic for topic, _, _ in platform.broker.sent]
    acknowledge_all(platform)
    assert unsent(platform) == 0
    again = [topic for topic, _, _ in platform.broker.sent[len(before) :]]
    assert f"d/{first.device}/down/desired" in again


def test_a_tick_ends_by_time_while_there_is_more_to_send(platform, fleet):
    """So that the other tasks have their turn, and a stop is seen to; the rest goes on at once."""
    seconds = iter(range(1000))
    publisher = DesiredPublisher(
        platform.uow,
        platform.signs,
        platform.downlink,
        platform.clock,
        batch=5,
        monotonic=lambda: next(seconds) * 0.6,
    )
    offered(platform)
    publisher.tick()
    assert (len(platform.broker.sent), publisher.busy) == (5, True)
    for _ in range(8):
        acknowledge(platform)
        publisher.tick()
    assert (unsent(platform), publisher.busy) == (0, False)
