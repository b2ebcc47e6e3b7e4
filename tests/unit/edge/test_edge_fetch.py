"""Fetching files while the connection, or the process, comes and goes."""

from __future__ import annotations

import os

import pytest

from edge_client import store as store_module
from edge_client.fetch import Fetcher
from edge_client.settings import GIB, Home
from edge_client.store import Store
from edge_client.transfer import Bucket
from schemas.transfer import CHUNK_BYTES, Chunk, Need, Reply, encode_chunk, leaves_of, tag_of
from tests.fakes.edge_models import blocks, model_file

DATA = os.urandom(40 * CHUNK_BYTES + 7)
FILE = model_file("model.onnx", DATA)
LEAVES = leaves_of(blocks(DATA))
OWNER = "exe.1"
OUTAGE = 60.0


class Link:
    """A connection, what was tried on it and what went through."""

    def __init__(self) -> None:
        self.up = True
        self.tried = 0
        self.sent: list[Need] = []

    def send(self, need: Need) -> bool:
        self.tried += 1
        if self.up:
            self.sent.append(need)
        return self.up


class Download:
    """A fetcher on a link, with a clock that is moved by hand."""

    def __init__(self, store: Store, bucket: Bucket | None = None) -> None:
        self.link, self.bucket, self.now = Link(), bucket, 100.0
        self.fetcher = Fetcher(
            store, [FILE], owner=OWNER, send=self.link.send, bucket=bucket, first_batch=0
        )

    def wait(self, seconds: float) -> int:
        """Pump whenever it is due, as the agent does; gives how often that was."""
        end, pumps = self.now + seconds, 0
        while self.now < end:
            self.fetcher.pump(self.now)
            pumps += 1
            assert pumps < 1000, "it spins"
            self.now = max(self.now, min(self.fetcher.due(self.now), end))
        return pumps

    def answer(self, requests: int = 1000) -> int:
        """Answer at most so many requests; gives the number of chunks."""
        given = 0
        while self.link.sent and requests:
            need, requests = self.link.sent.pop(0), requests - 1
            if need.kind == "leaves":
                reply = Reply(kind="leaves", sha256=FILE.sha256, leaves=b"".join(LEAVES).hex())
                self.fetcher.reply(reply, self.now)
            for first, last in need.ranges:
                for index in range(first, last):
                    chunk = Chunk(need.batch, index, tag_of(FILE.sha256), blocks(DATA)[index])
                    self.fetcher.chunk(encode_chunk(chunk), self.now)
                    given += 1
        return given


@pytest.fixture
def store(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    return Store(home, quota=GIB)


def finish(download: Download) -> int:
    chunks = 0
    while not download.fetcher.complete:
        download.fetcher.pump(download.now)
        chunks += download.answer()
        download.now += 0.01
    return chunks


@pytest.mark.parametrize("stage", ["before the leaves", "before a chunk", "in between"])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_an_outage_is_waited_for_in_peace(store, stage, limited, told, monkeypatch):
    bucket = Bucket(rate=1000 * CHUNK_BYTES, level=50 * CHUNK_BYTES) if limited else None
    download = Download(store, bucket)
    if stage != "before the leaves":
        download.fetcher.pump(download.now)
        download.answer(requests=2 if stage == "in between" else 1)
    download.link.up = False
    download.link.sent.clear()
    if told:
        download.fetcher.disconnected()
    download.link.tried, reads = 0, []
    read_map = store_module.read_map
    monkeypatch.setattr(store_module, "read_map", lambda p: (reads.append(p), read_map(p))[1])
    level = None if bucket is None else bucket.level
    assert download.wait(OUTAGE) <= 2 * OUTAGE + 5
    assert 1 <= download.link.tried <= OUTAGE + 5
    assert len(reads) <= OUTAGE + 5
    assert bucket is None or bucket.level >= level
    download.link.up = True
    download.fetcher.connected()
    assert download.fetcher.due(download.now) <= download.now
    assert finish(download) <= len(LEAVES)
    assert store.read(FILE.sha256) == DATA


def test_requests_that_were_not_sent_use_up_no_numbers(store):
    download = Download(store)
    download.fetcher.pump(download.now)
    download.link.up = False
    download.answer()
    download.wait(OUTAGE)
    download.link.up = True
    download.wait(2.0)
    assert download.link.sent[0].batch == 0


def test_a_killed_process_asks_for_nothing_it_had(store):
    first = Download(store)
    first.fetcher.pump(first.now)
    had = first.answer(requests=3)
    assert had >= 20
    os.close(first.fetcher._partial._fd)  # what SIGKILL does: nothing is saved
    second = Download(store)
    second.fetcher.pump(second.now)
    (need,) = second.link.sent
    assert need.ranges[0][0] == had
    assert second.fetcher.fetched == had * CHUNK_BYTES
    assert finish(second) == len(LEAVES) - had
    assert second.fetcher.fetched == len(DATA)
