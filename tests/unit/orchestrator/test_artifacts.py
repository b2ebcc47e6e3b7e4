from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.errors import DigestMismatch, Invalid, NotFound, TooLarge, Unavailable
from schemas.transfer import CHUNK_BYTES, chunk_count, leaves_of

LIMIT = 10 * CHUNK_BYTES
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes, size: int = 5000) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def chunks_of(data: bytes) -> list[bytes]:
    return [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]


def files_in(store: ArtifactStore) -> list[Path]:
    return [p for p in store._root.rglob("*") if p.is_file()]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_comes_back_whole_and_by_chunks(store: ArtifactStore, size: int) -> None:
    data = os.urandom(size)
    sha = digest(data)
    stored = store.put(pieces(data), sha, LIMIT)
    assert (stored.sha256, stored.size, stored.created) == (sha, size, True)
    with store.open(sha) as file:
        assert file.read() == data
    assert store.size(sha) == size
    assert [store.read_chunk(sha, i) for i in range(chunk_count(size))] == chunks_of(data)
    assert store.leaves(sha) == leaves_of(chunks_of(data))
    assert store.path(sha).stat().st_mode & 0o777 == 0o600


def test_leaves_are_the_same_however_the_stream_is_cut(store: ArtifactStore) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 5)
    for size in (1000, CHUNK_BYTES, CHUNK_BYTES + 1, len(data)):
        other = ArtifactStore(store._root.with_name(f"cut-{size}"))
        other.put(pieces(data, size), digest(data), LIMIT)
        assert other.leaves(digest(data)) == leaves_of(chunks_of(data))


def test_putting_again_changes_nothing(store: ArtifactStore) -> None:
    sha = digest(b"model")
    assert store.put([b"model"], sha, LIMIT).created
    before = {p: p.stat().st_mtime_ns for p in files_in(store)}
    assert not store.put([b"mo", b"del"], sha, LIMIT).created
    assert {p: p.stat().st_mtime_ns for p in files_in(store)} == before


def test_wrong_bytes_leave_nothing_behind(store: ArtifactStore) -> None:
    sha = digest(b"announced")
    with pytest.raises(DigestMismatch, match=digest(b"sent")):
        store.put([b"sent"], sha, LIMIT)
    assert files_in(store) == []
    assert not store.exists(sha)


def test_too_many_bytes_are_refused_while_they_come(store: ArtifactStore) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="5000"):
        store.put(endless(), "0" * 64, 5000)
    assert taken == 6
    assert files_in(store) == []
    assert store.put([b"x" * 5000], digest(b"x" * 5000), 5000).created


def test_a_broken_stream_leaves_nothing_behind(store: ArtifactStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.put(broken(), digest(b"some"), LIMIT)
    assert files_in(store) == []


def test_a_full_disk_is_told(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="full"):
        store.put([b"model"], digest(b"model"), LIMIT)
    assert files_in(store) == []


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "/etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"]
)
def test_only_a_digest_names_an_artifact(store: ArtifactStore, name: str) -> None:
    for act in (store.path, store.exists, store.size, store.open, store.leaves):
        with pytest.raises(Invalid, match="not a SHA-256"):
            act(name)
    with pytest.raises(Invalid):
        store.put([b""], name, LIMIT)
    with pytest.raises(Invalid):
        store.read_chunk(name, 0)


def test_what_is_not_there_is_told(store: ArtifactStore) -> None:
    for act in (store.size, store.open, store.leaves):
        with pytest.raises(NotFound, match="no artifact 0000"):
            act("0" * 64)
    sha = digest(b"model")
    store.put([b"model"], sha, LIMIT)
    for index in (-1, 1, 2**40):
        with pytest.raises(NotFound, match="chunks"):
            store.read_chunk(sha, index)


def test_lost_leaves_are_computed_again_from_sound_bytes_only(store: ArtifactStore) -> None:
    data = os.urandom(CHUNK_BYTES + 1)
    sha = digest(data)
    store.put([data], sha, LIMIT)
    leaves = store.path(sha).with_name(sha + ".leaves")
    leaves.write_bytes(b"short")
    assert store.leaves(sha) == leaves_of(chunks_of(data))
    assert len(leaves.read_bytes()) == 64
    leaves.unlink()
    store.path(sha).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatch):
        store.leaves(sha)


def test_many_artifacts_are_read_with_few_open_files(store: ArtifactStore) -> None:
    blobs = [f"model {i}".encode() for i in range(100)]
    for blob in blobs:
        store.put([blob], digest(blob), LIMIT)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for blob in blobs * 2:
        assert store.read_chunk(digest(blob), 0) == blob
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 32


def test_threads_that_put_and_read_at_once_see_whole_files(store: ArtifactStore) -> None:
    blobs = [os.urandom(CHUNK_BYTES + i) for i in range(1, 40)]
    wrong: list[str] = []

    def work() -> None:
        for blob in blobs:
            store.put(pieces(blob, 30_000), digest(blob), LIMIT)
            if store.read_chunk(digest(blob), 1) != blob[CHUNK_BYTES:]:
                wrong.append(digest(blob))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(store.exists(digest(b)) for b in blobs)
    assert len(files_in(store)) == 2 * len(blobs)


def test_what_a_killed_upload_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    old, new = tmp_path / "tmp/old", tmp_path / "tmp/new"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    ArtifactStore(tmp_path)
    assert not old.exists()
    assert new.exists()
