"""What every artifact store promises, be it a folder or a bucket behind real HTTP."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.artifacts_s3 import S3ArtifactStore
from orchestrator.artifact_url import parse
from orchestrator.errors import DigestMismatch, Invalid, NotFound, TooLarge, Unavailable
from schemas.transfer import CHUNK_BYTES, chunk_count, leaves_of
from tests.fakes import s3_server

pytestmark = pytest.mark.integration

LIMIT = 64 * CHUNK_BYTES
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]
LATER = timedelta(hours=2)

_CHILD = """
    import sys
    from pathlib import Path
    from orchestrator.artifact_url import Bucket, parse
    from orchestrator.adapters import s3_client
    from orchestrator.adapters.artifacts import ArtifactStore
    from orchestrator.adapters.artifacts_s3 import S3ArtifactStore
    s3_client.MULTIPART_BYTES = s3_client._PART_BYTES = 5 * 1024**2

    place = parse(sys.argv[1], "test")
    if isinstance(place, Bucket):
        store = S3ArtifactStore(place, Path(sys.argv[2]))
    else:
        store = ArtifactStore(place)
"""


@pytest.fixture(scope="module")
def s3_service():
    with s3_server.running() as server:
        yield server


class Site:
    """A place for artifacts, as a setting names it, and how it is opened."""

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder

    def open(self, place: str | None = None):
        found = parse(place or self.place, "test")
        if isinstance(found, Path):
            return ArtifactStore(found)
        return S3ArtifactStore(found, self.folder)

    @contextmanager
    def child(self, code: str, place: str | None = None, **more):
        """A process of its own that has opened this place as ``store``."""
        text = textwrap.dedent(_CHILD) + textwrap.dedent(code)
        process = subprocess.Popen(
            [sys.executable, "-c", text, place or self.place, str(self.folder / "child")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **more,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(params=["folder", "s3"])
def site(request, tmp_path, monkeypatch):
    for name, value in s3_server.KEYS.items():
        monkeypatch.setenv(name, value)
    if request.param == "folder":
        return Site(str(tmp_path / "artifacts"), tmp_path / "local")
    server = request.getfixturevalue("s3_service")
    name = f"b-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    server.bucket(name)
    return Site(server.url(name), tmp_path / "local")


@pytest.fixture
def store(site):
    return site.open()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes, size: int = 5000) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def chunks_of(data: bytes) -> list[bytes]:
    return [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]


def everything(store) -> dict[str, int]:
    return {found.sha256: found.size for found in store.stored()}


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_comes_back_by_chunks_with_its_leaves(site, store, size: int) -> None:
    data = os.urandom(size)
    sha = digest(data)
    stored = store.put(pieces(data), sha, LIMIT)
    assert (stored.sha256, stored.size, stored.created) == (sha, size, True)
    for reader in (store, site.open()):
        assert reader.exists(sha)
        assert reader.size(sha) == size
        assert [reader.read_chunk(sha, i) for i in range(chunk_count(size))] == chunks_of(data)
        assert reader.leaves(sha) == leaves_of(chunks_of(data))


def test_chunks_are_read_in_any_order(store) -> None:
    data = os.urandom(70 * CHUNK_BYTES + 5)
    store.put([data], digest(data), len(data))
    for index in (70, 3, 64, 63, 0, 70):
        assert store.read_chunk(digest(data), index) == chunks_of(data)[index]


def test_chunks_are_read_into_the_callers_memory(store) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 5)
    store.put([data], digest(data), len(data))
    room = bytearray(CHUNK_BYTES)
    for index, chunk in enumerate(chunks_of(data)):
        length = store.read_into(digest(data), index, memoryview(room))
        assert bytes(room[:length]) == chunk
    with pytest.raises(NotFound):
        store.read_into(digest(data), 3, memoryview(room))


def test_putting_again_is_no_second_artifact(store) -> None:
    sha = digest(b"model")
    assert store.put([b"model"], sha, LIMIT).created
    before = list(store.stored())
    assert not store.put([b"mo", b"del"], sha, LIMIT).created
    assert list(store.stored()) == before


def test_wrong_bytes_leave_nothing(store) -> None:
    sha = digest(b"announced")
    with pytest.raises(DigestMismatch, match=digest(b"sent")):
        store.put([b"sent"], sha, LIMIT)
    assert not store.exists(sha)
    assert everything(store) == {}


def test_too_many_bytes_are_refused_while_they_come(store) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="5000"):
        store.put(endless(), "0" * 64, 5000)
    assert taken == 6
    assert everything(store) == {}
    assert store.put([b"x" * 5000], digest(b"x" * 5000), 5000).created


def test_a_broken_stream_leaves_nothing(store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.put(broken(), digest(b"some"), LIMIT)
    assert not store.exists(digest(b"some"))


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_digest_names_an_artifact(store, name: str) -> None:
    for act in (store.exists, store.size, store.leaves):
        with pytest.raises(Invalid, match="not a SHA-256"):
            act(name)
    with pytest.raises(Invalid):
        store.put([b""], name, LIMIT)
    with pytest.raises(Invalid):
        store.read_chunk(name, 0)
    with pytest.raises(Invalid):
        store.delete(name, datetime.now(UTC))


def test_what_is_not_there_is_told(store) -> None:
    assert not store.exists("0" * 64)
    for act in (store.size, store.leaves):
        with pytest.raises(NotFound, match="no artifact 0000"):
            act("0" * 64)
    store.put([b"model"], digest(b"model"), LIMIT)
    for index in (-1, 1, 2**40):
        with pytest.raises(NotFound, match="chunks"):
            store.read_chunk(digest(b"model"), index)


def test_two_who_store_the_same_at_once_both_succeed(site, store) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    sha, other, gate = digest(data), site.open(), threading.Barrier(4)

    def put(target) -> int:
        def slowly() -> Iterator[bytes]:
            yield data[:1000]
            gate.wait(30)
            yield data[1000:]

        return target.put(slowly(), sha, LIMIT).size

    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(put, [store, store, other, other]))
    assert sizes == [len(data)] * 4
    assert [store.read_chunk(sha, i) for i in range(3)] == chunks_of(data)
    assert everything(store) == {sha: len(data)}


def test_an_upload_whose_process_is_killed_leaves_nothing_visible(site, store) -> None:
    data = os.urandom(2 * CHUNK_BYTES)
    code = f"""
        def stream():
            yield sys.stdin.buffer.read({CHUNK_BYTES})
            print("half", flush=True)
            yield sys.stdin.buffer.read()
        store.put(stream(), "{digest(data)}", {LIMIT})
    """
    with site.child(code) as process:
        process.stdin.buffer.write(data[:CHUNK_BYTES])
        process.stdin.buffer.flush()
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert not store.exists(digest(data))
    assert everything(store) == {}
    assert store.put([data], digest(data), LIMIT).created
    store.sweep(datetime.now(UTC) + LATER)
    assert store.leaves(digest(data)) == leaves_of(chunks_of(data))
    if not site.place.startswith("s3"):
        assert list((Path(site.place) / "tmp").iterdir()) == []


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(site, store) -> None:
    code = f"""
        import resource
        from orchestrator.errors import Unavailable
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.put([b"x" * 50_000] * 4, "{digest(b"x" * 200_000)}", {LIMIT})
        except Unavailable as error:
            print(error.detail, error.hint, flush=True)
    """
    with site.child(code) as process:
        said = process.communicate(timeout=60)[0]
    assert "is full make room below" in said
    assert everything(store) == {}
    assert store.put([b"x" * 200_000], digest(b"x" * 200_000), LIMIT).created


def test_a_full_file_system_is_told(site, tmp_path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = shutil.which("mount") or "/bin/false"
    mount = [program, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        on_disk = str(disk / "a") if not site.place.startswith("s3") else None
        site.folder = disk / "local"
        store = site.open(on_disk)
        data = os.urandom(2 * 1024**2)
        with pytest.raises(Unavailable, match="is full"):
            store.put(pieces(data, 65536), digest(data), 2 * len(data))
        assert everything(store) == {}
        small = data[:1000]
        assert store.put([small], digest(small), LIMIT).created
        assert store.read_chunk(digest(small), 0) == small
    finally:
        subprocess.run([shutil.which("umount") or "umount", "-l", str(disk)], check=True)


def test_what_is_old_is_deleted_and_what_is_young_is_not(store) -> None:
    sha, now = digest(b"model"), datetime.now(UTC)
    store.put([b"model"], sha, LIMIT)
    assert abs((next(iter(store.stored())).put_at - now).total_seconds()) < 60
    assert not store.delete(sha, now - LATER)
    assert store.read_chunk(sha, 0) == b"model"
    assert store.delete(sha, now + LATER)
    assert not store.delete(sha, now + LATER)
    assert not store.exists(sha)
    with pytest.raises(NotFound):
        store.read_chunk(sha, 0)
    with pytest.raises(NotFound):
        store.size(sha)
    assert everything(store) == {}
    assert store.put([b"model"], sha, LIMIT).created
    assert store.leaves(sha) == leaves_of([b"model"])


def test_what_another_server_deleted_is_not_there_when_asked_anew(site, store) -> None:
    other = site.open()
    for _ in range(2):
        store.put([b"model"], digest(b"model"), LIMIT)
        assert store.exists(digest(b"model"))
        assert other.delete(digest(b"model"), datetime.now(UTC) + LATER)
        assert not store.exists(digest(b"model"), anew=True)
        assert not store.exists(digest(b"model"))
        with pytest.raises(NotFound):
            store.read_chunk(digest(b"model"), 0)
    with pytest.raises(Invalid):
        store.exists("../../etc/passwd", anew=True)


def test_sweeping_removes_no_artifact(store) -> None:
    blobs = [os.urandom(100 * i) for i in range(4)]
    for blob in blobs:
        store.put([blob], digest(blob), LIMIT)
    store.sweep(datetime.now(UTC) + LATER)
    assert everything(store) == {digest(blob): len(blob) for blob in blobs}
    assert all(store.leaves(digest(blob)) == leaves_of(chunks_of(blob)) for blob in blobs)


def test_storing_and_deleting_at_once_never_loses_what_was_stored(store) -> None:
    sha, future = digest(b"model"), datetime.now(UTC) + LATER
    wrong: list[str] = []
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            store.delete(sha, future)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for _ in range(20):
            store.put([b"model"], sha, LIMIT)
            try:
                if store.read_chunk(sha, 0) != b"model":
                    wrong.append("other bytes")
            except NotFound:
                pass
    finally:
        done.set()
        thread.join()
    store.put([b"model"], sha, LIMIT)
    assert wrong == []
    assert store.read_chunk(sha, 0) == b"model"
    assert store.leaves(sha) == leaves_of([b"model"])
