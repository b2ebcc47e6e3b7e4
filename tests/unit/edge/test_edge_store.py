from __future__ import annotations

import errno
import hashlib
import os

import pytest

from edge_client import partial as partial_module
from edge_client.errors import DigestError, DiskFullError
from edge_client.partial import FLUSH_CHUNKS, Partial, Placed
from edge_client.settings import GIB, Home
from edge_client.store import RESERVE, Store
from schemas.transfer import CHUNK_BYTES, leaves_of
from tests.fakes.edge_models import blocks, model_file

DATA = os.urandom(3 * CHUNK_BYTES + 500)
FILE = model_file("model.onnx", DATA)
LEAVES = leaves_of(blocks(DATA))
OWNER = "exe.1"


@pytest.fixture
def store(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    return Store(home, quota=GIB)


def opened(store, file=FILE, leaves=LEAVES, owner=OWNER) -> Partial:
    partial = store.open_partial(file, leaves, owner)
    partial.resume()
    return partial


def fill(partial: Partial, indices) -> None:
    for index in indices:
        assert partial.place(index, blocks(DATA)[index]) is Placed.NEW


def test_a_whole_file_moves_among_the_complete_ones(store):
    partial = opened(store)
    fill(partial, range(4))
    partial.finish(store.home.blobs)
    assert store.has(FILE.sha256)
    assert store.read(FILE.sha256) == DATA


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (0, 2, 1, 3), (1, 3, 0, 2)])
@pytest.mark.parametrize("killed_after", [0, 2])
def test_the_whole_is_hashed_in_whatever_order_it_comes(store, order, killed_after):
    partial = opened(store)
    fill(partial, order[:killed_after])
    kill(partial)
    again = opened(store)
    fill(again, order[killed_after:])
    again.finish(store.home.blobs)
    assert store.read(FILE.sha256) == DATA


def test_a_manifest_whose_leaves_are_of_another_file_is_found_out(store):
    file = FILE.model_copy(update={"sha256": "0" * 64})
    partial = opened(store, file)
    fill(partial, range(4))
    with pytest.raises(DigestError, match="although all chunks fit"):
        partial.finish(store.home.blobs)
    assert list(store.home.partial.iterdir()) == list(store.home.blobs.iterdir()) == []


def kill(partial: Partial) -> None:
    """What SIGKILL does: nothing is saved, the file is closed."""
    os.close(partial._fd)


def test_chunks_that_were_written_survive_saved_or_not(store):
    partial = opened(store)
    fill(partial, [0, 2])
    partial.fetched = 2 * CHUNK_BYTES + 5  # a damaged chunk came as well
    partial.save()
    fill(partial, [1])
    kill(partial)
    again = opened(store)
    assert again.have == {0, 1, 2}
    assert again.fetched == 3 * CHUNK_BYTES + 5
    assert store.fetched_for(FILE, OWNER) == 3 * CHUNK_BYTES + 5
    assert store.known_leaves(FILE) == tuple(LEAVES)
    assert opened(store, owner="exe.2").fetched == 0


@pytest.mark.parametrize("killed_after", [[0], [3], [1, 3], [0, 1, 2], [0, 1, 2, 3]])
def test_a_kill_costs_no_chunk_even_before_the_first_save(store, killed_after):
    partial = opened(store)
    fill(partial, killed_after)
    kill(partial)
    again = opened(store)
    assert again.have == set(killed_after)
    fill(again, set(range(4)) - again.have)
    again.finish(store.home.blobs)
    assert store.read(FILE.sha256) == DATA


def test_a_chunk_cut_short_by_the_kill_is_fetched_again(store):
    partial = opened(store)
    fill(partial, [0, 1])
    kill(partial)
    os.truncate(store.home.partial / f"{FILE.sha256}.data", 2 * CHUNK_BYTES - 1)
    assert opened(store).have == {0}


def test_holes_are_not_read_when_it_is_opened(store, monkeypatch):
    big = bytearray(64 * CHUNK_BYTES)
    big[-CHUNK_BYTES:] = os.urandom(CHUNK_BYTES)
    file, leaves = model_file("big.onnx", bytes(big)), leaves_of(blocks(bytes(big)))
    partial = opened(store, file, leaves)
    assert partial.place(63, bytes(big[-CHUNK_BYTES:])) is Placed.NEW
    kill(partial)
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: (read.append(at), pread(fd, n, at))[1])
    assert opened(store, file, leaves).have == {63}
    assert len(read) <= 2


def test_a_file_system_that_does_not_tell_of_holes_has_everything_hashed(store, monkeypatch):
    partial = opened(store)
    fill(partial, [1, 3])
    kill(partial)

    def no_seek(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "lseek", no_seek)
    assert opened(store).have == {1, 3}


def test_a_chunk_damaged_on_the_disk_is_fetched_again(store):
    partial = opened(store)
    fill(partial, range(4))
    partial.close()
    path = store.home.partial / f"{FILE.sha256}.data"
    raw = bytearray(path.read_bytes())
    raw[CHUNK_BYTES] ^= 1
    path.write_bytes(raw)
    assert opened(store).have == {0, 2, 3}


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"owner": "exe.1", "bitmap": "0"}'])
def test_a_damaged_map_loses_the_count_and_no_chunk(store, damage):
    partial = opened(store)
    fill(partial, [1, 2])
    partial.fetched = 5
    partial.close()
    (store.home.partial / f"{FILE.sha256}.map").write_bytes(damage)
    again = opened(store)
    assert again.have == {1, 2}
    assert again.fetched == 0


@pytest.mark.parametrize("damage", [b"", b"\xff" * 31, b"\xff" * 128])
def test_damaged_leaves_are_asked_for_again(store, damage):
    opened(store).close()
    (store.home.leaves / FILE.sha256).write_bytes(damage)
    assert store.known_leaves(FILE) is None
    opened(store).close()
    assert store.known_leaves(FILE) == tuple(LEAVES)


def test_what_was_made_on_the_device_is_not_counted_after_a_kill(store):
    partial = opened(store)
    fill(partial, [0])
    partial.fetched = CHUNK_BYTES
    partial.making = True
    partial.save()
    fill(partial, [1, 2])
    kill(partial)
    again = opened(store)
    assert again.have == {0, 1, 2}
    assert again.fetched == CHUNK_BYTES


def test_nothing_is_written_to_a_file_that_was_closed(store):
    partial = opened(store)
    fd = partial._fd
    partial.close()
    other = os.open(store.home.root / "other", os.O_RDWR | os.O_CREAT)
    assert other == fd  # the number is in use again, for another file
    assert partial.place(0, blocks(DATA)[0]) is Placed.GONE
    partial.save()
    assert os.fstat(other).st_size == 0
    os.close(other)


def test_damaged_chunks_are_not_written(store):
    partial = opened(store)
    assert partial.place(1, blocks(DATA)[0]) is Placed.CORRUPT
    assert partial.have == set()
    assert (partial.bytes_there, partial.missing) == (0, 4)
    fill(partial, [3])
    assert partial.place(3, b"whatever") is Placed.THERE
    assert (partial.bytes_there, partial.missing) == (500, 3)


def test_leaves_that_are_not_the_manifests_are_refused(store):
    with pytest.raises(DigestError):
        store.open_partial(FILE, LEAVES[:-1], OWNER)
    with pytest.raises(DigestError):
        store.open_partial(FILE, [*LEAVES[:-1], hashlib.sha256(b"").digest()], OWNER)


def test_the_data_are_on_the_disk_before_the_map_says_so(store, monkeypatch):
    order = []
    real_sync, real_write = os.fdatasync, partial_module.write_atomic
    monkeypatch.setattr(os, "fdatasync", lambda fd: (order.append("data"), real_sync(fd)))
    monkeypatch.setattr(
        partial_module, "write_atomic", lambda *a, **k: (order.append("map"), real_write(*a, **k))
    )
    partial = opened(store)
    fill(partial, [0])
    order.clear()
    partial.save()
    assert order == ["data", "map"]


def test_saves_are_batched_by_time_and_by_number(store):
    partial = opened(store)
    assert not partial.save_due(0.0)
    assert not partial.save_due(9.0)  # there is nothing to save
    fill(partial, [0])
    assert partial.save_due(9.5)
    partial.save()
    fill(partial, [1])
    assert not partial.save_due(9.9)
    assert partial.save_due(10.1)
    partial._unsaved = FLUSH_CHUNKS
    assert partial.save_due(10.1)


def test_a_full_disk_is_said_and_keeps_what_is_there(store, monkeypatch):
    partial = opened(store)
    fill(partial, [0])
    partial.save()

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        with pytest.raises(OSError, match="No space left"):
            fill(partial, [1])
    assert opened(store).have == {0}


def test_a_write_that_falls_short_goes_on(store, monkeypatch):
    partial = opened(store)
    pwrite = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1000], at))
        fill(partial, range(4))
    partial.finish(store.home.blobs)
    assert store.read(FILE.sha256) == DATA


def test_room_is_made_by_removing_what_nothing_needs(store):
    (store.home.blobs / ("a" * 64)).write_bytes(b"x" * 1000)
    (store.home.blobs / ("b" * 64)).write_bytes(b"x" * 1000)
    small = Store(store.home, quota=FILE.size + 1500)
    small.make_room([FILE], keep={"b" * 64})
    assert {p.name for p in store.home.blobs.iterdir()} == {"b" * 64}
    with pytest.raises(DiskFullError, match="quota"):
        Store(store.home, quota=FILE.size + 500).make_room([FILE], keep={"b" * 64})


def test_a_disk_without_room_is_found_before_anything_is_fetched(store):
    full = Store(store.home, quota=GIB, free_bytes=lambda _: 1000)
    with pytest.raises(DiskFullError, match="1000 are free"):
        full.make_room([FILE], keep=())


def test_what_was_damaged_on_the_disk_is_removed_when_read(store):
    path = store.home.blobs / FILE.sha256
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(DigestError, match="damaged"):
        store.read(FILE.sha256)
    assert not path.exists()
    path.write_bytes(b"?")
    with pytest.raises(DigestError, match="damaged"):
        store.check(FILE)
    assert not path.exists()


def test_manifests_are_checked_when_read(store):
    text = b'{"a": 1}'
    sha = hashlib.sha256(text).hexdigest()
    store.save_manifest(sha, text)
    assert store.manifest(sha) == text
    (store.home.manifests / f"{sha}.json").write_bytes(b"{}")
    with pytest.raises(DigestError):
        store.manifest(sha)


def test_collecting_keeps_the_leaves_of_what_is_there(store):
    partial = opened(store)
    fill(partial, range(4))
    partial.finish(store.home.blobs)
    (store.home.leaves / ("a" * 64)).write_bytes(b"x" * 32)
    store.collect(keep={FILE.sha256})
    assert {path.name for path in store.home.leaves.iterdir()} == {FILE.sha256}
    assert store.leaves.of(store.home.blobs / FILE.sha256, lambda: True) == tuple(LEAVES)


def test_leaves_of_a_file_are_computed_once(store, monkeypatch):
    path = store.home.blobs / FILE.sha256
    path.write_bytes(DATA)
    assert store.leaves.of(path, lambda: False) is None
    assert store.leaves.of(path, lambda: True) == tuple(LEAVES)
    monkeypatch.setattr(hashlib, "sha256", None)
    assert store.leaves.of(path, lambda: True) == tuple(LEAVES)


def test_the_files_nearest_in_size_are_named_as_bases(store):
    sizes = {"a" * 64: 10, "b" * 64: FILE.size + 1, "c" * 64: FILE.size - 9, "notes": FILE.size}
    for name, size in sizes.items():
        (store.home.blobs / name).write_bytes(b"x" * size)
    assert store.held(FILE) == ("b" * 64, "c" * 64, "a" * 64)
    assert store.held(FILE, first="a" * 64)[0] == "a" * 64


def test_room_for_a_patch_is_beside_what_the_file_still_needs(store):
    opened(store).close()
    beside = sum(p.stat().st_size for p in store.home.partial.glob("*.map"))
    tight = Store(store.home, quota=FILE.size + beside + 1000)
    assert tight.has_room(1000, beside=FILE)
    assert not tight.has_room(1001, beside=FILE)
    full = Store(store.home, quota=GIB, free_bytes=lambda _: RESERVE + FILE.size + 99)
    assert full.has_room(99, beside=FILE)
    assert not full.has_room(100, beside=FILE)
