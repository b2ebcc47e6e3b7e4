"""What is sent next, to whom, and to whom not any more."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading

import pytest

from orchestrator.adapters import sender
from orchestrator.adapters.answer_desk import MAX_OF_DEVICE, AnswerDesk
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.peers import Peers
from orchestrator.adapters.sender import PORTION_CHUNKS, SENT, Sender
from orchestrator.adapters.transfer_line import refuse_old
from orchestrator.domain.broadcast import Broadcasts, Rules
from orchestrator.errors import Unavailable
from orchestrator.services.admitted import Admitted
from orchestrator.services.broadcasting import BroadcastDesk
from orchestrator.services.chunks import ChunkService
from orchestrator.services.meter import Rate
from schemas.api import TransferProcess
from schemas.ids import new_id
from schemas.measure import MAX_FILE_BYTES
from schemas.topics import Down, broadcast, down, parse_broadcast, parse_down
from schemas.transfer import CHUNK_BYTES, Ask, Need, Reply, decode_chunk

SLOW = Rules(start_from=1, delay=0.0, least_chunks=1, device_rate=CHUNK_BYTES)
"""A chunk a second."""


class Site:
    """A sender with time in hand."""

    def __init__(self, folder, rate=None, rules=None) -> None:
        self.now, self.asked = 100.0, []
        self.served, self.shut_out, self.down = set(), set(), False
        self.sent = []
        self.artifacts = ArtifactStore(folder)
        self.desk = None if rules is None else BroadcastDesk(Broadcasts(rules), self.clock)
        self.sender = Sender(
            ChunkService(self.serves, self.artifacts, self.clock),
            Admitted(self.among, self.clock),
            self.publish,
            broadcasts=self.desk,
            rate=rate,
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now

    def serves(self, sha256: str) -> bool:
        return sha256 in self.served

    def among(self, devices):
        self.asked.append(set(devices))
        if self.down:
            msg = "the database does not answer"
            raise Unavailable(msg)
        return set(devices) - self.shut_out

    def publish(self, topic, payload, qos) -> bool:
        self.sent.append((topic, bytes(payload), qos))
        return True

    def file(self, chunks: int) -> str:
        data = os.urandom(chunks * CHUNK_BYTES)
        sha256 = hashlib.sha256(data).hexdigest()
        self.artifacts.put([data], sha256, len(data))
        self.served.add(sha256)
        return sha256

    def need(self, device: str, sha256: str, *ranges, batch: int = 0) -> None:
        self.sender.take(device, Need(kind="chunks", sha256=sha256, batch=batch, ranges=ranges))

    def got(self, device: str) -> int:
        return sum(topic == down(device, Down.CHUNK) for topic, _, _ in self.sent)

    def run(self, seconds: float = 0.0) -> None:
        end = self.now + seconds
        while (wait := self.sender.wait(self.now)) is not None and self.now + wait <= end:
            self.now += wait and max(wait, 1e-6)
            self.sender.send(self.now)
        self.now = max(end, self.now)

    def devices(self) -> list[str]:
        return [parse_down(topic).device for topic, _, _ in self.sent]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


A, B, C = (new_id("dev") for _ in range(3))


def test_devices_take_turns_by_portions(site):
    file = site.file(20)
    site.need(A, file, (0, 20))
    site.need(B, file, (0, 2), (6, 8), batch=3)
    site.run()
    assert site.devices() == [A] * 4 + [B] * 2 + [A] * 4 + [B] * 2 + [A] * 12
    chunks = [
        decode_chunk(payload) for topic, payload, _ in site.sent if topic.startswith(f"d/{B}")
    ]
    assert [(chunk.batch, chunk.index) for chunk in chunks] == [(3, 0), (3, 1), (3, 6), (3, 7)]
    assert site.sender.counters.unicast_bytes == sum(len(payload) for _, payload, _ in site.sent)


def test_who_is_revoked_gets_nothing_a_second_later(site):
    file = site.file(64)
    site.need(A, file, (0, 64))
    site.sender.send(site.now)
    site.shut_out.add(A)
    site.sender.send(site.now)
    assert len(site.sent) == 2 * PORTION_CHUNKS
    site.now += 1.001
    site.run()
    assert len(site.sent) == 2 * PORTION_CHUNKS
    assert site.sender.counters.dropped_chunks == 64 - 2 * PORTION_CHUNKS


def test_a_file_that_was_revoked_is_refused_a_second_later(site):
    file = site.file(64)
    site.need(A, file, (0, 64))
    site.sender.send(site.now)
    site.served.clear()
    site.now += 1.001
    site.sender.send(site.now)
    *_, (topic, payload, qos) = site.sent
    assert (topic, qos) == (f"d/{A}/down/reply", 1)
    assert Reply.model_validate_json(payload).error


def test_what_waits_for_a_device_that_is_gone_is_dropped(site):
    file = site.file(10)
    site.need(A, file, (0, 10))
    site.need(B, file, (0, 1))
    site.sender.left(A)
    site.run()
    assert site.devices() == [B]
    assert site.sender.counters.dropped_chunks == 10


def test_the_database_is_asked_once_for_all_who_wait(site):
    file = site.file(8)
    for device in (A, B):
        site.need(device, file, (0, 8))
    site.run()
    assert site.asked == [{A, B}]
    site.now += 1.001
    site.need(A, file, (0, 1))
    site.run()
    assert site.asked == [{A, B}, {A}]


def test_nobody_is_sent_anything_while_the_database_is_silent(site):
    file = site.file(8)
    site.down = True
    site.need(A, file, (0, 8))
    site.run()
    assert site.sent == []
    site.down = False
    site.now += 1.001
    site.need(A, file, (0, 8))
    site.run()
    assert len(site.sent) == 8


def test_who_fetches_without_end_is_sent_no_more_for_a_while(site, monkeypatch, caplog):
    monkeypatch.setattr(sender, "SENT", Rate(32, 60.0))
    sha256, hoarder, other = site.file(4), new_id("dev"), new_id("dev")
    for batch in range(20):
        site.need(hoarder, sha256, (0, 4), batch=batch)
        site.run()
    assert site.got(hoarder) == 32
    assert sum("fetches too much" in line for line in caplog.messages) == 1
    site.need(other, sha256, (0, 4))
    site.run()
    assert site.got(other) == 4
    site.now += 60
    site.need(hoarder, sha256, (0, 4))
    site.run()
    assert site.got(hoarder) == 36
    assert SENT.count * CHUNK_BYTES >= 2 * MAX_FILE_BYTES, "no honest device meets it"


def test_an_agent_from_before_questions_is_told_so():
    asked = {"kind": "manifest", "sha256": "0" * 64, "batch": 0, "ranges": []}
    told = refuse_old(json.dumps(asked).encode())
    assert (told.kind, told.sha256) == ("manifest", "0" * 64)
    assert "newer" in told.error
    assert refuse_old(b'{"kind": "chunks"}') is None
    assert refuse_old(b"{") is None


def test_a_broadcast_and_devices_share_a_rate_and_neither_starves(tmp_path):
    rules = Rules(start_from=2, device_rate=1e9, total_rate=1e12, delay=0.0, least_chunks=1)
    site = Site(tmp_path, rate=20 * CHUNK_BYTES, rules=rules)
    site.sender.limit(20 * CHUNK_BYTES, site.now)
    file, other = site.file(40), site.file(64)
    for device in (A, B):
        site.desk.asked(device, file, 40 * CHUNK_BYTES)
    site.need(C, other, (0, 64))
    site.run(3.0)
    to_all = [payload for topic, payload, _ in site.sent if topic == broadcast(file)]
    to_one = [payload for topic, payload, _ in site.sent if parse_broadcast(topic) is None]
    assert len(to_all) >= 5
    assert len(to_one) >= 20
    assert 2 * len(to_all) + len(to_one) <= 20 * 3 + 2 + 2 + PORTION_CHUNKS
    assert [decode_chunk(payload).index for payload in to_all] == list(range(len(to_all)))


def test_a_broadcast_of_a_file_that_is_revoked_ends(tmp_path):
    site = Site(tmp_path, rules=SLOW)
    file = site.file(40)
    assert site.desk.asked(A, file, 40 * CHUNK_BYTES) is not None
    site.sender.send(site.now)
    site.served.clear()
    site.now += 1.001
    site.sender.send(site.now)
    assert len(site.sent) == 1
    assert site.sender.wait(site.now) is None


def test_who_waits_for_the_next_round_is_told_when_it_begins(tmp_path):
    site = Site(tmp_path, rules=SLOW)
    file, told = site.file(4), []
    site.desk.announce_by(lambda device, reply: told.append((device, reply)))
    first = site.desk.asked(A, file, 4 * CHUNK_BYTES)
    for _ in range(3):
        site.now += site.sender.wait(site.now)
        site.sender.send(site.now)
    assert site.desk.asked(B, file, 4 * CHUNK_BYTES) is None
    site.run(1.0)
    ((device, reply),) = told
    assert (device, reply.kind, reply.sha256) == (B, "broadcast", file)
    assert reply.broadcast.batch == first.batch + 1


def test_chunks_of_a_fast_broadcast_go_by_portions(tmp_path):
    rules = Rules(start_from=1, delay=0.0, least_chunks=1, device_rate=200 * CHUNK_BYTES)
    site = Site(tmp_path, rules=rules)
    site.desk.asked(A, site.file(40), 40 * CHUNK_BYTES)
    site.sender.send(site.now)
    assert len(site.sent) == PORTION_CHUNKS
    assert site.sender.wait(site.now) == pytest.approx(PORTION_CHUNKS / 200)
    site.run(10.0)
    assert [decode_chunk(payload).index for _, payload, _ in site.sent] == list(range(40))


def test_busy_processes_share_the_rate():
    peers = Peers("me")
    assert peers.share(None, 0.0, None) is None
    assert peers.share(90.0, 0.0, None) == 90.0
    for name, busy in (("b", True), ("c", False), ("me", True)):
        peers.heard(TransferProcess(name=name, busy=busy).model_dump_json().encode(), 0.0)
    peers.heard(b"noise", 0.0)
    assert peers.share(90.0, 0.5, 0.4) == 30.0
    assert peers.share(90.0, 2.0, 0.4) == 45.0
    assert peers.share(90.0, 9.0, 0.4) == 90.0


def test_a_device_that_floods_questions_delays_nobody_and_is_bounded():
    answered, sent, stop = [], [], threading.Event()

    def answer(device, question):
        answered.append((device, question.sha256))
        if len(answered) == MAX_OF_DEVICE + 1:
            stop.set()
        return Reply(kind="leaves", sha256=question.sha256, leaves="")

    desk = AnswerDesk(answer, lambda topic, _payload: sent.append(topic) or len(sent), stop)
    questions = [Ask(kind="leaves", sha256=f"{i:064x}") for i in range(MAX_OF_DEVICE + 1)]
    desk.take(A, questions[0])
    desk.take(A, questions[0])
    for question in questions[1:-1]:
        desk.take(A, question)
    with pytest.raises(queue.Full):
        desk.take(A, questions[-1])
    desk.take(B, questions[-1])
    desk.serve()
    assert [device for device, _ in answered] == [A, B] + [A] * (MAX_OF_DEVICE - 1)
    assert len({sha256 for _, sha256 in answered}) == MAX_OF_DEVICE + 1
    assert sent[1] == f"d/{B}/down/reply"


def test_the_database_is_asked_once_about_all_who_wait_for_an_answer():
    asked, stop = [], threading.Event()
    desk = AnswerDesk(lambda device, _: answer(device), lambda *_: 1, stop)

    def among(devices):
        asked.append(sorted(devices))
        return set(devices) - {B}

    admitted = Admitted(among, lambda: 0.0)
    answered = []

    def answer(device):
        answered.append((device, admitted.admits(device, desk.asking())))
        if len(answered) == 2:
            stop.set()

    for device in (A, B):
        desk.take(device, Ask(kind="manifest", sha256="0" * 64))
    desk.serve()
    assert asked == [sorted([A, B])]
    assert answered == [(A, True), (B, False)]
