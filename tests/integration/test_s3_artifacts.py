"""What is the bucket's own: big uploads that break off, hot blocks, refusals, the settings."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator import doctor
from orchestrator.adapters.artifact_place import check_artifacts, open_artifacts
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.artifacts_s3 import S3ArtifactStore
from orchestrator.adapters.s3_client import S3Client
from orchestrator.artifact_url import Bucket, parse
from orchestrator.errors import DigestMismatch, NotFound, Unavailable
from orchestrator.settings import load
from schemas.transfer import CHUNK_BYTES, leaves_of
from tests.fakes import s3_server

pytestmark = pytest.mark.integration

MIB = 1024**2


@pytest.fixture(scope="module")
def server():
    with s3_server.running() as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name, value in s3_server.KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def name(server, tmp_path):
    made = f"b-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    server.bucket(made)
    return made


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Stalling(threading.Thread):
    """Passes bytes on to the service; once armed, holds an upload back after so many."""

    def __init__(self, target: int, after: int) -> None:
        super().__init__(daemon=True)
        self._target, self._after = target, after
        self._sent, self._lock = 0, threading.Lock()
        self.stalled, self.end = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        while not self.end.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            service = socket.create_connection(("127.0.0.1", self._target))
            for pair in ((client, service, "up"), (service, client, "")):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, upward: str) -> None:
        try:
            while data := source.recv(65536):
                if upward:
                    with self._lock:
                        self._sent += len(data)
                        full = self._sent > self._after
                    if full:
                        self.stalled.set()
                        self.end.wait()
                        break
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            target.close()


_CHILD = """
    import sys
    from pathlib import Path
    from orchestrator.artifact_url import parse
    from orchestrator.adapters import s3_client
    from orchestrator.adapters.artifacts_s3 import S3ArtifactStore
    s3_client.MULTIPART_BYTES = s3_client._PART_BYTES = 5 * 1024**2
    data = Path(sys.argv[2]).read_bytes()
    S3ArtifactStore(parse(sys.argv[1], "x"), Path(sys.argv[3])).put([data], sys.argv[4], len(data))
"""


def test_a_big_upload_killed_half_way_is_not_visible_and_is_swept(server, name, tmp_path) -> None:
    data = os.urandom(16 * MIB)
    file = tmp_path / "data"
    file.write_bytes(data)
    proxy = _Stalling(int(server.endpoint.rpartition(":")[2]), after=12 * MIB)
    proxy.start()
    place = f"s3://{name}/models?endpoint=http://127.0.0.1:{proxy.port}"
    code = [sys.executable, "-c", textwrap.dedent(_CHILD), place, str(file), str(tmp_path / "l")]
    with subprocess.Popen([*code, digest(data)]) as process:
        assert proxy.stalled.wait(60)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    proxy.end.set()
    proxy.listener.close()
    store = S3ArtifactStore(parse(server.url(name), "test"), tmp_path / "local")
    assert not store.exists(digest(data))
    assert list(store.stored()) == []
    uploads = server.client.list_multipart_uploads(Bucket=name).get("Uploads", ())
    assert len(uploads) == 1
    store.sweep(datetime.now(UTC) + timedelta(hours=1))
    assert not server.client.list_multipart_uploads(Bucket=name).get("Uploads")
    assert server.keys(name) == []
    assert store.put([data], digest(data), len(data)).created


def test_a_big_file_goes_in_parts_and_comes_back(server, name, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.adapters.s3_client.MULTIPART_BYTES", 5 * MIB)
    monkeypatch.setattr("orchestrator.adapters.s3_client._PART_BYTES", 5 * MIB)
    data = os.urandom(11 * MIB + 7)
    store = S3ArtifactStore(parse(server.url(name), "test"), tmp_path)
    store.put([data], digest(data), len(data))
    head = server.client.head_object(Bucket=name, Key=f"models/{digest(data)[:2]}/{digest(data)}")
    assert head["ETag"].strip('"').endswith("-3")
    read = b"".join(store.read_chunk(digest(data), i) for i in range(11 * 16 + 1))
    assert read == data


def test_a_hot_file_is_read_from_the_bucket_once(server, name, tmp_path, monkeypatch) -> None:
    store = S3ArtifactStore(parse(server.url(name), "test"), tmp_path)
    data = os.urandom(5 * MIB)
    store.put([data], digest(data), len(data))
    reads = []
    get = S3Client.get

    def counted(self, key, start=0, length=None):
        reads.append((start, length))
        return get(self, key, start, length)

    monkeypatch.setattr(S3Client, "get", counted)
    for _ in range(3):
        for index in range(80):
            expected = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            assert store.read_chunk(digest(data), index) == expected
    assert sorted(reads, key=str) == sorted(
        [(0, None), (0, 4 * MIB), (4 * MIB, MIB)], key=str
    )  # the leaves, and two blocks by their ranges


def test_without_a_cache_every_chunk_is_one_range(server, name, tmp_path, monkeypatch) -> None:
    place = parse(server.url(name).replace("cache_mb=64", "cache_mb=0"), "test")
    store = S3ArtifactStore(place, tmp_path)
    data = os.urandom(3 * CHUNK_BYTES + 5)
    store.put([data], digest(data), len(data))
    chunks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    assert [store.read_chunk(digest(data), i) for i in (3, 0, 2, 1)] == [
        chunks[i] for i in (3, 0, 2, 1)
    ]
    assert list((tmp_path / "cache").iterdir()) == []


def test_damage_in_the_bucket_is_told_and_not_served(server, name, tmp_path) -> None:
    store = S3ArtifactStore(parse(server.url(name), "test"), tmp_path)
    data = os.urandom(2 * CHUNK_BYTES)
    sha = digest(data)
    store.put([data], sha, len(data))
    key = f"models/{sha[:2]}/{sha}"
    server.client.put_object(Bucket=name, Key=key, Body=data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatch, match="is damaged in s3://"):
        store.read_chunk(sha, 0)
    server.client.delete_object(Bucket=name, Key=key + ".leaves")
    other = S3ArtifactStore(parse(server.url(name), "test"), tmp_path / "other")
    with pytest.raises(DigestMismatch, match="is damaged"):
        other.leaves(sha)
    server.client.put_object(Bucket=name, Key=key, Body=data)
    assert other.leaves(sha) == leaves_of([data[:CHUNK_BYTES], data[CHUNK_BYTES:]])
    assert key + ".leaves" in server.keys(name)


def test_an_object_that_somebody_removed_is_not_found(server, name, tmp_path) -> None:
    store = S3ArtifactStore(parse(server.url(name), "test"), tmp_path)
    sha = digest(b"model")
    store.put([b"model"], sha, 5)
    server.client.delete_object(Bucket=name, Key=f"models/{sha[:2]}/{sha}")
    with pytest.raises(NotFound, match=f"no artifact {sha}"):
        store.read_chunk(sha, 0)


def test_settings_name_the_store_and_the_doctor_tries_it(server, name, tmp_path) -> None:
    env = {"HOME": str(tmp_path), "ARGOSY_ARTIFACTS": server.url(name)}
    settings = load(env)
    assert load(settings.to_env()) == settings
    assert isinstance(open_artifacts(settings), S3ArtifactStore)
    assert check_artifacts(settings) == f"s3://{name}/models"
    assert server.keys(name) == []
    (found,) = [c for c in doctor.checks(settings) if c.name == "artifacts"]
    assert (found.ok, found.detail) == (True, f"s3://{name}/models")
    folder = load({"HOME": str(tmp_path), "ARGOSY_ARTIFACTS": str(tmp_path / "here")})
    assert isinstance(open_artifacts(folder), ArtifactStore)
    assert (tmp_path / "here" / "tmp").is_dir()


def test_a_bucket_that_is_not_there_is_told(server, tmp_path) -> None:
    url = f"s3://no-such-bucket?endpoint={server.endpoint}"
    settings = load({"HOME": str(tmp_path), "ARGOSY_ARTIFACTS": url})
    with pytest.raises(Unavailable, match="no bucket 'no-such-bucket'"):
        check_artifacts(settings)
    (found,) = [c for c in doctor.checks(settings) if c.name == "artifacts"]
    assert not found.ok
    assert found.required
    store = open_artifacts(settings)
    with pytest.raises(Unavailable, match="no bucket"):
        store.put([b"model"], digest(b"model"), 5)


def test_an_endpoint_that_nobody_serves_is_told(tmp_path, free_port) -> None:
    place = Bucket("models", endpoint=f"http://127.0.0.1:{free_port}")
    with pytest.raises(Unavailable, match="s3://models does not answer") as told:
        S3Client(place, patient=False).probe()
    assert "\n" not in told.value.detail


def test_missing_credentials_are_told(tmp_path, monkeypatch, server) -> None:
    for variable in s3_server.KEYS:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="no credentials for s3://models") as told:
        S3Client(Bucket("models", endpoint=server.endpoint)).probe()
    assert "AWS_ACCESS_KEY_ID" in (told.value.hint or "")


@contextmanager
def answering(*codes: tuple[int, str]) -> Iterator[tuple[Bucket, list[str]]]:
    """A service that gives these answers in turn, the last one again and again."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, code = codes[min(len(asked), len(codes) - 1)]
            asked.append(self.path)
            body = f"<Error><Code>{code}</Code><Message>no, thank you</Message></Error>".encode()
            body = b"" if status == 200 else body
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args) -> None:
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Bucket("models", endpoint=f"http://127.0.0.1:{service.server_address[1]}"), asked
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "InvalidAccessKeyId", "refuses these credentials: InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch", "refuses these credentials"),
        (403, "AccessDenied", "refuses these credentials"),
        (404, "NoSuchBucket", "there is no bucket 'models'"),
        (507, "XMinioStorageFull", "is full"),
        (400, "BadDigest", "answers with BadDigest: no, thank you"),
    ],
)
def test_refusals_are_told_in_words(status: int, code: str, words: str) -> None:
    with (
        answering((status, code)) as (place, _),
        pytest.raises(Unavailable, match=words) as told,
    ):
        S3Client(place, patient=False).put("key", b"data")
    assert "\n" not in told.value.detail


def test_a_service_that_is_busy_is_asked_again(tmp_path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"data")
    busy = (503, "SlowDown")
    with answering(busy, busy, (200, "")) as (place, asked):
        S3Client(place).upload("key", file, digest(b"data"))
        assert len(asked) == 3


def test_the_cache_stays_within_its_bound(server, name, tmp_path) -> None:
    place = parse(server.url(name).replace("cache_mb=64", "cache_mb=5"), "test")
    store = S3ArtifactStore(place, tmp_path)
    blobs = [os.urandom(2 * MIB) for _ in range(4)]
    for blob in blobs:
        store.put([blob], digest(blob), len(blob))
    for blob in [*blobs, *blobs]:
        assert store.read_chunk(digest(blob), 1) == blob[CHUNK_BYTES : 2 * CHUNK_BYTES]
        held = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
        assert held <= 5 * MIB
    assert held == 4 * MIB
    assert Path(tmp_path / "tmp").is_dir()
