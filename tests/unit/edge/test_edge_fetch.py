"""Fetching files while the connection, or the process, comes and goes; and by every way."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import ClassVar

import pytest

from edge_client import linked as linked_module
from edge_client import patching
from edge_client import store as store_module
from edge_client.errors import DigestError, DiskFullError, TransferError
from edge_client.fetch import Fetcher
from edge_client.fetch_https import HttpsChunk, HttpsEnded
from edge_client.inlet import Inlet
from edge_client.leaves import Leaves
from edge_client.network import Network
from edge_client.settings import GIB, Home
from edge_client.store import Store
from edge_client.transfer import Bucket
from edge_client.ways import MAX_PATCH_WAITS
from schemas.transfer import (
    CHUNK_BYTES,
    Ask,
    BroadcastOffer,
    Chunk,
    HttpsOffer,
    Need,
    PatchOffer,
    Reply,
    encode_chunk,
    leaves_of,
    tag_of,
)
from tests.fakes.edge_models import blocks, model_file
from tests.fakes.edge_patches import patch_of

DATA = os.urandom(40 * CHUNK_BYTES + 7)
FILE = model_file("model.onnx", DATA)
LEAVES = leaves_of(blocks(DATA))
BASE = DATA[: 30 * CHUNK_BYTES] + os.urandom(8 * CHUNK_BYTES)
OWNER = "exe.1"
OUTAGE = 60.0
OFFER = BroadcastOffer(batch=9, starts_in=1.0, rate=1e6)


class Server:
    """A perfect gateway behind a connection that may be down. offers: by file, for leaves."""

    def __init__(self) -> None:
        self.up = True
        self.tried = 0
        self.wire: list[Ask | Need] = []
        self.asks: list[Ask] = []
        self.listened: list[str | None] = []
        self.files = {FILE.sha256: DATA}
        self.offers: dict[str, list[dict]] = {}
        self.sent: list[tuple[str, int]] = []

    def take(self, message: Ask | Need) -> bool:
        self.tried += 1
        if self.up:
            self.wire.append(message)
        return self.up

    def patch(self, data: bytes, base: bytes = BASE) -> dict:
        file = model_file("patch", data)
        self.files[file.sha256] = data
        return {
            "patch": PatchOffer(
                base=hashlib.sha256(base).hexdigest(), sha256=file.sha256,
                size=file.size, leaves_sha256=file.leaves_sha256,
            )
        }  # fmt: skip

    def leaves(self, sha256: str) -> Reply:
        if sha256 not in self.files:
            return Reply(kind="leaves", sha256=sha256, error="no such file")
        data = self.files[sha256]
        offers = self.offers.get(sha256, [])
        offer = offers.pop(0) if len(offers) > 1 else next(iter(offers), {})
        leaves = b"".join(leaves_of(blocks(data))).hex()
        return Reply(kind="leaves", sha256=sha256, leaves=leaves, size=len(data), **offer)

    def chunk(self, sha256: str, index: int, batch: int = 0) -> bytes:
        return encode_chunk(Chunk(batch, index, tag_of(sha256), blocks(self.files[sha256])[index]))


class Download:
    """A fetcher on a connection, with a clock that is moved by hand."""

    def __init__(
        self, store: Store, bucket: Bucket | None = None, server: Server | None = None, **more
    ) -> None:
        self.server, self.now, self.inlet = server or Server(), 100.0, Inlet()
        network = Network(
            need=self.server.take,
            ask=self.server.take,
            listen=self.server.listened.append,
            inlet=self.inlet,
            clock=lambda: self.now,
            bucket=bucket,
            bandwidth=more.pop("bandwidth", None),
        )
        more.setdefault("owner", OWNER)
        self.fetcher = Fetcher(network, store, [FILE], first_batch=0, **more)

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
        while self.server.wire and requests:
            message, requests = self.server.wire.pop(0), requests - 1
            if isinstance(message, Ask):
                self.server.asks.append(message)
                self.fetcher.reply(self.server.leaves(message.sha256), self.now)
                continue
            for first, last in message.ranges:
                for index in range(first, last):
                    self.server.sent.append((message.sha256, index))
                    self.inlet.take(self.server.chunk(message.sha256, index, message.batch))
                    given += 1
            self.fetcher.pump(self.now)
        return given

    def finish(self) -> int:
        chunks = 0
        for _ in range(20_000):
            if self.fetcher.complete:
                return chunks
            self.fetcher.pump(self.now)
            chunks += self.answer()
            self.now += 0.01
        pytest.fail("it does not end")

    def kill(self) -> None:
        """What SIGKILL does: nothing is saved."""
        os.close(self.fetcher._now._download.partial._fd)


@pytest.fixture
def store(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    return Store(home, quota=GIB)


def hold(store: Store, data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    (store.home.blobs / sha256).write_bytes(data)
    return sha256


# --- the connection comes and goes ----------------------------------------------------


@pytest.mark.parametrize("stage", ["before the leaves", "before a chunk", "in between"])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_an_outage_is_waited_for_in_peace(store, stage, limited, told, monkeypatch):
    bucket = Bucket(rate=1000 * CHUNK_BYTES, level=50 * CHUNK_BYTES) if limited else None
    download = Download(store, bucket)
    if stage != "before the leaves":
        download.fetcher.pump(download.now)
        download.answer(requests=2 if stage == "in between" else 1)
    server = download.server
    server.up = False
    server.wire.clear()
    if told:
        download.fetcher.disconnected()
    server.tried, reads = 0, []
    read_map, read_leaves = store_module.read_map, Leaves.read
    monkeypatch.setattr(store_module, "read_map", lambda p: (reads.append(p), read_map(p))[1])
    monkeypatch.setattr(Leaves, "read", lambda *a: (reads.append(a), read_leaves(*a))[1])
    level = None if bucket is None else bucket.level
    assert download.wait(OUTAGE) <= 2 * OUTAGE + 5
    assert 1 <= server.tried <= OUTAGE + 5
    assert len(reads) <= OUTAGE + 5
    assert bucket is None or bucket.level >= level
    server.up = True
    download.fetcher.connected()
    assert download.fetcher.due(download.now) <= download.now
    assert download.finish() <= len(LEAVES)
    assert store.read(FILE.sha256) == DATA


def test_requests_that_were_not_sent_use_up_no_numbers(store):
    download = Download(store)
    download.fetcher.pump(download.now)
    download.server.up = False
    download.answer()
    download.wait(OUTAGE)
    download.server.up = True
    download.wait(2.0)
    assert download.server.wire[0].batch == 0


def test_a_killed_process_asks_for_nothing_it_had(store):
    first = Download(store)
    first.fetcher.pump(first.now)
    had = first.answer(requests=3)
    assert had >= 20
    first.kill()
    second = Download(store)
    assert second.finish() == len(LEAVES) - had
    assert {index for _, index in second.server.sent} == set(range(had, len(LEAVES)))
    assert second.fetcher.fetched == len(DATA)


def test_a_server_that_says_no_is_believed_after_some_times(store):
    download = Download(store)
    download.server.files.clear()
    with pytest.raises(TransferError, match="no such file"):
        download.finish()


def test_leaves_that_are_not_the_manifests_end_the_transfer(store):
    download = Download(store)
    download.server.files[FILE.sha256] = DATA[:-1] + b"?"
    with pytest.raises(DigestError):
        download.finish()


def test_a_full_disk_ends_the_transfer_and_keeps_what_is_there(store, monkeypatch):
    download = Download(store)
    download.fetcher.pump(download.now)
    had = download.answer(requests=2)
    full = OSError(28, "No space left on device")

    def pwrite(*_):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(DiskFullError):
            download.answer(requests=1)
    download.fetcher.close()
    assert Download(store).finish() == len(LEAVES) - had


def test_a_complete_file_that_was_damaged_is_found(store):
    (store.home.blobs / FILE.sha256).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(DigestError):
        Download(store).finish()
    assert Download(store).finish() == len(LEAVES)


# --- at hand --------------------------------------------------------------------------


def test_chunks_of_files_on_the_device_are_not_fetched(store):
    hold(store, BASE)
    download = Download(store)
    assert download.finish() == 11
    assert {index for _, index in download.server.sent} == set(range(30, 41))
    assert download.fetcher.fetched == len(DATA) - 30 * CHUNK_BYTES
    assert store.read(FILE.sha256) == DATA


def test_a_file_that_is_at_hand_whole_is_made_without_a_word(store):
    hold(store, DATA + b"and more")  # its last chunk is another one
    hold(store, DATA[40 * CHUNK_BYTES :])
    first = Download(store)
    first.fetcher.pump(first.now)
    first.answer(requests=1)  # the leaves
    assert first.fetcher.complete
    assert (first.server.sent, first.fetcher.fetched) == ([], 0)


def test_a_damaged_file_at_hand_gives_only_what_is_sound(store):
    name = hold(store, BASE)
    store.leaves.of(store.home.blobs / name, lambda: True)
    raw = bytearray(BASE)
    raw[5 * CHUNK_BYTES] ^= 1
    (store.home.blobs / name).write_bytes(raw)
    download = Download(store)
    assert download.finish() == 12
    assert store.read(FILE.sha256) == DATA


# --- patches --------------------------------------------------------------------------


def patched(store, patch: bytes, *, held: bool = True, **more) -> Download:
    base = hold(store, BASE) if held else None
    download = Download(store, **more)
    download.server.offers[FILE.sha256] = [download.server.patch(patch)]
    download.fetcher.pump(download.now)
    (ask,) = download.server.wire
    assert (base in ask.held) == held
    return download


def mixed() -> tuple[bytes, bytes]:
    """A file of which nothing is at hand but all compresses against the base, and its patch."""
    base = bytearray(DATA)
    for at in range(0, len(base), CHUNK_BYTES):
        base[at] ^= 1
    return bytes(base), patch_of(bytes(base), DATA)


def test_a_patch_brings_the_file(store):
    base, patch = mixed()
    hold(store, base)
    download = Download(store)
    download.server.offers[FILE.sha256] = [download.server.patch(patch, base)]
    assert download.finish() == len(blocks(patch))
    assert download.fetcher.fetched == len(patch) < len(DATA) / 20
    assert store.read(FILE.sha256) == DATA
    assert [p.suffix for p in store.home.partial.iterdir()] == [".map"]


def test_a_patch_of_a_part_leaves_the_rest_to_the_pull(store):
    base, _ = mixed()
    hold(store, base)
    patch = patch_of(base, DATA, first=10, chunks=20)
    download = Download(store)
    download.server.offers[FILE.sha256] = [download.server.patch(patch, base)]
    download.finish()
    pulled = {i for sha, i in download.server.sent if sha == FILE.sha256}
    assert pulled == {*range(10), *range(30, 41)}
    assert download.fetcher.fetched == len(patch) + len(DATA) - 20 * CHUNK_BYTES


@pytest.mark.parametrize("what", ["garbage", "of another file", "cut off", "missing", "larger"])
def test_a_bad_patch_falls_back_to_the_pull(store, what):
    base, patch = mixed()
    hold(store, base)
    bad = {
        "garbage": os.urandom(5000),
        "of another file": patch_of(base, os.urandom(len(DATA)))[:200_000],
        "cut off": patch[: len(patch) // 2],
        "missing": patch,
        "larger": os.urandom(len(DATA)),
    }[what]
    download = Download(store)
    download.server.offers[FILE.sha256] = [download.server.patch(bad, base)]
    if what == "missing":
        del download.server.files[hashlib.sha256(bad).hexdigest()]
    download.finish()
    assert store.read(FILE.sha256) == DATA
    assert [p.suffix for p in store.home.partial.iterdir()] == [".map"]
    if what == "larger":
        assert {sha for sha, _ in download.server.sent} == {FILE.sha256}


@pytest.mark.parametrize("fault", [MemoryError, ValueError])
def test_a_fault_while_a_patch_is_applied_leads_to_the_pull(store, monkeypatch, fault):
    base, patch = mixed()
    hold(store, base)
    download = Download(store)
    download.server.offers[FILE.sha256] = [download.server.patch(patch, base)]

    def fail(*_args, **_more):
        raise fault

    monkeypatch.setattr(patching, "apply", fail)
    download.finish()
    assert store.read(FILE.sha256) == DATA


def test_a_patch_without_room_or_base_is_not_fetched(store):
    base, patch = mixed()
    hold(store, base)
    tight = Store(store.home, quota=len(base) + FILE.size + 100)
    download = Download(tight)
    download.server.offers[FILE.sha256] = [download.server.patch(patch, base)]
    assert download.finish() == len(LEAVES)
    (store.home.blobs / FILE.sha256).unlink()
    other = Download(store)
    other.server.offers[FILE.sha256] = [other.server.patch(patch, b"not here")]
    other.finish()
    assert {sha for sha, _ in other.server.sent} == {FILE.sha256}


def test_a_patch_in_the_making_is_waited_for_and_not_for_ever(store):
    base, patch = mixed()
    hold(store, base)
    download = Download(store)
    offer = download.server.patch(patch, base)
    download.server.offers[FILE.sha256] = [{"retry_in": 2.0}, {"retry_in": 2.0}, offer]
    download.finish()
    assert {sha for sha, _ in download.server.sent} == {offer["patch"].sha256}
    assert [a.sha256 for a in download.server.asks].count(FILE.sha256) == 3
    (store.home.blobs / FILE.sha256).unlink()
    never = Download(store)
    never.server.offers[FILE.sha256] = [{"retry_in": 3.0}]
    began = never.now
    never.finish()
    assert {sha for sha, _ in never.server.sent} == {FILE.sha256}
    assert len(never.server.asks) <= MAX_PATCH_WAITS + 1
    assert never.now - began < 100


def test_a_kill_while_a_patch_comes_loses_none_of_it(store):
    base = os.urandom(50 * CHUNK_BYTES)
    patch = patch_of(base, DATA)[: 35 * CHUNK_BYTES]  # it compresses badly: many chunks
    hold(store, base)
    first = Download(store)
    first.server.offers[FILE.sha256] = [first.server.patch(patch, base)]
    first.fetcher.pump(first.now)
    first.answer(requests=3)
    had = set(first.server.sent)
    assert had
    assert first.fetcher.fetched == len(had) * CHUNK_BYTES
    patching = first.fetcher._now._patching
    os.close(patching._download.partial._fd)
    first.kill()
    second = Download(store, server=first.server)
    second.server.sent.clear()
    second.server.wire.clear()
    second.finish()
    assert had.isdisjoint(second.server.sent)


# --- HTTPS ----------------------------------------------------------------------------


class Source:
    """Stands for ``HttpsSource``: brings so many chunks at once, the fifth of them damaged."""

    brings = 20
    made: ClassVar[list[Source]] = []

    def __init__(self, _server, wanted, post, *, rate) -> None:
        self.wanted, self._post, self.rate = wanted, post, rate
        self.cancelled = False
        self.made.append(self)

    def start(self) -> None:
        indices = [i for first, last in self.wanted.ranges for i in range(first, last)]
        for index in indices[: self.brings]:
            data = blocks(DATA)[index]
            self._post(HttpsChunk(self, index, b"?" + data[1:] if index == 5 else data))
        left = tuple((i, i + 1) for i in indices[self.brings :])
        self._post(HttpsEnded(self, left, "it broke", link_over=False, wasted=11))

    def taken(self) -> None:
        pass

    def cancel(self) -> None:
        self.cancelled = True

    def join(self, _timeout: float) -> bool:
        return True


def test_what_https_leaves_out_or_brings_damaged_is_pulled(store, monkeypatch):
    monkeypatch.setattr(linked_module, "HttpsSource", Source)
    Source.made.clear()
    offer = {"https": HttpsOffer(path="/v1/files/x", expires_in=60.0)}
    download = Download(store, server=Server(), bandwidth=5)
    download.server.offers[FILE.sha256] = [offer]
    assert download.finish() == len(LEAVES)  # it was not told to use HTTPS
    assert Source.made == []
    (store.home.blobs / FILE.sha256).unlink()
    (store.home.partial / f"{FILE.sha256}.map").unlink()
    network = Download(store)
    more = Fetcher(
        network.fetcher._network, store, [FILE], owner=OWNER, first_batch=0, server=object()
    )
    network.fetcher = more
    network.server.offers[FILE.sha256] = [offer]
    assert network.finish() == len(LEAVES) - 19
    assert Source.made[0].wanted.ranges == ((0, len(LEAVES)),)
    assert more.fetched == len(DATA) + CHUNK_BYTES + 11
    assert store.read(FILE.sha256) == DATA


# --- broadcasts -----------------------------------------------------------------------


def listening(store, **more) -> Download:
    download = Download(store, **more)
    download.server.offers[FILE.sha256] = [{"broadcast": OFFER}]
    download.fetcher.pump(download.now)
    download.answer(requests=1)
    return download


def cast(download: Download, indices) -> None:
    for index in indices:
        download.inlet.take(download.server.chunk(FILE.sha256, index, OFFER.batch), broadcast=True)


def test_what_a_broadcast_leaves_out_is_pulled_after_some_quiet(store):
    download = listening(store)
    assert download.server.listened == [FILE.sha256]
    download.wait(0.9)
    cast(download, [0, 1, 2, 3, 5, 6, 7])
    download.wait(1.9)
    assert download.server.wire == []
    cast(download, [9])
    download.wait(1.9)
    assert download.server.wire == []
    download.wait(0.3)
    assert download.server.listened == [FILE.sha256, None]
    assert download.finish() == len(LEAVES) - 8
    assert download.fetcher.fetched == len(DATA)


def test_a_broadcast_that_brings_all_is_left_at_once(store):
    download = listening(store)
    cast(download, range(len(LEAVES)))
    download.fetcher.pump(download.now)
    assert download.fetcher.complete
    assert download.server.listened == [FILE.sha256, None]
    assert download.server.sent == []


def test_a_broadcast_that_does_not_come_is_not_waited_for(store):
    download = listening(store)
    download.wait(OFFER.starts_in + OFFER.quiet + 0.1)
    assert download.finish() == len(LEAVES)


def test_a_broadcast_that_trickles_for_ever_is_left(store):
    download = listening(store)
    for _ in range(100):
        cast(download, [0])
        download.wait(1.0)
        if download.server.wire:
            break
    assert download.server.listened[-1] is None
    assert download.now - 100.0 < 1 + 2 * len(DATA) / OFFER.rate + 32


def test_a_slow_device_does_not_listen(store):
    download = listening(store, bandwidth=999_999)
    assert download.server.listened == []
    assert download.finish() == len(LEAVES)


def test_told_in_the_middle_of_a_pull_it_stops_and_listens(store):
    download = Download(store)
    download.fetcher.pump(download.now)
    had = download.answer(requests=2)
    download.server.wire.clear()  # what was asked for is lost
    told = Reply(kind="broadcast", sha256=FILE.sha256, broadcast=OFFER)
    download.fetcher.reply(told, download.now)
    download.wait(2.0)
    assert download.server.wire == []
    cast(download, range(had - 3, 40))
    download.wait(2.2)
    assert download.finish() == 1
    assert download.server.sent == [(FILE.sha256, index) for index in (*range(had), 40)]
    assert store.read(FILE.sha256) == DATA


def test_letting_go_leaves_the_broadcast_and_keeps_what_it_brought(store):
    download = listening(store)
    cast(download, range(10))
    download.fetcher.close()
    assert download.server.listened == [FILE.sha256, None]
    cast(download, range(10, 20))
    assert Download(store).finish() == len(LEAVES) - 10


def test_malformed_and_foreign_chunks_do_nothing(store):
    download = Download(store)
    download.fetcher.pump(download.now)
    download.answer(requests=1)
    good = download.server.chunk(FILE.sha256, 0)
    other = good[:12] + b"another!" + good[20:]
    beyond = good[:8] + struct.pack(">I", 41) + good[12:]
    for bad in (b"", good[:20], b"XX" + good[2:], good + bytes(CHUNK_BYTES), other, beyond):
        download.inlet.take(bad)
    download.fetcher.pump(download.now)
    assert (download.fetcher.fetched, download.fetcher.done) == (0, 0)
