"""A real socket: whoever holds a connection without using it loses it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from orchestrator import connection
from orchestrator.connection import guarded, modern_tls

SECONDS = 0.3


async def app(scope, receive, send):
    """Answers /large with more than any buffer takes, /slow after a while, all else at once."""
    if scope["type"] != "http":
        return
    large = scope["path"] == "/large"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/slow":
        await asyncio.sleep(4 * SECONDS)
    for _ in range(2000 if large else 0):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b"done"})


@contextmanager
def serving(**options):
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        lifespan="off",
        http=options.pop("http", None) or guarded(None),
        loop="orchestrator.connection:GuardedLoop",
        timeout_graceful_shutdown=1,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", SECONDS)
    with serving() as found:
        yield found


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def read_to_end(sock: socket.socket) -> bytes:
    found = b""
    try:
        while piece := sock.recv(65536):
            found += piece
    except ConnectionError:
        pass
    return found


def test_an_ordinary_request_is_answered(port):
    with connect(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert read_to_end(sock).endswith(b"done\r\n0\r\n\r\n")


def test_a_stream_that_is_silent_for_a_while_is_not_cut(port):
    with connect(port) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert read_to_end(sock).endswith(b"done\r\n0\r\n\r\n")


@pytest.mark.parametrize("piece", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_never_ends_is_given_up(port, piece):
    with connect(port) as sock:
        sock.sendall(piece)
        assert read_to_end(sock).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_trickles_is_given_up(port):
    with connect(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        sock.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() - began < 5:
            try:
                sock.sendall(b"x: y\r\n")
                answer = sock.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() - began < 3
        assert not answer or answer.startswith(b"HTTP/1.1 408 ")


def test_a_second_head_that_trickles_is_given_up_too(port):
    with connect(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        found = b""
        while not found.endswith(b"0\r\n\r\n"):
            found += sock.recv(1000)
        sock.sendall(b"GET / HT")
        assert read_to_end(sock).startswith(b"HTTP/1.1 408 ")


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "WRITE_SECONDS", SECONDS)
    protocol = guarded(None)
    with serving(http=protocol) as port, connect(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
        assert protocol._open
        deadline = time.monotonic() + 10
        while protocol._open:
            assert time.monotonic() < deadline, "the connection is still held"
            time.sleep(0.02)


def test_an_answer_that_is_read_slowly_is_not(monkeypatch):
    """Each wait is longer than the limit, and each time something was read."""
    monkeypatch.setattr(connection, "WRITE_SECONDS", SECONDS)
    protocol = guarded(None)
    with serving(http=protocol) as port, connect(port) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        seen, deadline = 0, time.monotonic() + 5 * SECONDS
        while time.monotonic() < deadline:
            seen += len(sock.recv(1024**2))
            time.sleep(SECONDS / 10)
        assert protocol._open, "it was cut"
        assert seen < 2000 * 65536, "and there is more to come"


def test_there_are_only_so_many_connections(monkeypatch):
    protocol = guarded(None)
    protocol.max_connections = 2
    with serving(http=protocol) as port, connect(port) as one, connect(port) as two:
        for sock in (one, two):
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        with connect(port) as third:
            assert read_to_end(third) == b""
        one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        read_to_end(one)
        with connect(port) as again:
            again.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert again.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    ("address", "many"),
    [("127.0.0.1", True), ("::1", True), ("10.1.2.3", True), ("192.0.2.1", False), ("", False)],
)
def test_proxies_and_this_machine_stand_for_many_clients(address, many):
    one = guarded("10.0.0.0/8,2001:db8::1").__new__(guarded("10.0.0.0/8"))
    one._address = address
    assert one._stands_for_many() is many


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_is_at_least_1_2_and_its_handshake_is_timed(tmp_path, monkeypatch):
    from orchestrator.adapters.authority import CertificateAuthority

    authority = CertificateAuthority.open_or_create(tmp_path)
    authority.ensure_server(("localhost", "127.0.0.1"))
    monkeypatch.setattr(connection, "HANDSHAKE_SECONDS", SECONDS)
    tls = {
        "ssl_certfile": tmp_path / "server.pem",
        "ssl_keyfile": tmp_path / "server.key",
        "ssl_context_factory": lambda _config, make: modern_tls(make()),
        "headers": [("strict-transport-security", "max-age=1")],
    }
    with serving(**tls) as port:
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        with connect(port) as raw, context.wrap_socket(raw, server_hostname="localhost") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b"strict-transport-security: max-age=1" in read_to_end(sock)
            assert sock.version() in {"TLSv1.2", "TLSv1.3"}
        old = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with connect(port) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(raw, server_hostname="localhost")
        with connect(port) as silent:
            assert read_to_end(silent) == b""
