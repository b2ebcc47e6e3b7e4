"""The proxy does to a connection what the tests believe that it does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import FAIR, Line, Proxy, Weather

pytestmark = pytest.mark.integration


@pytest.fixture
def line() -> Iterator[Line]:
    """A line to a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(65536):
                    peer.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(peer,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    proxy = Proxy(listener.getsockname()[1])
    yield proxy.line()
    proxy.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def dial(line: Line) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), 5)


def said(peer: socket.socket, data: bytes, seconds: float = 5) -> bytes:
    """What comes back of it, until the line ends or nothing comes any more."""
    peer.settimeout(seconds)
    got = b""
    try:
        peer.sendall(data)
        while len(got) < len(data):
            part = peer.recv(65536)
            if not part:
                return got
            got += part
    except OSError:
        return got
    return got


def test_in_fair_weather_everything_comes_through(line: Line) -> None:
    with dial(line) as peer:
        data = bytes(range(256)) * 4096
        assert said(peer, data) == data
    assert line.bytes == 2 * len(data)


def test_a_cut_ends_connections_and_new_ones_work(line: Line) -> None:
    with dial(line) as peer:
        assert said(peer, b"x") == b"x"
        line.cut()
        assert said(peer, b"y") == b""
    with dial(line) as peer:
        assert said(peer, b"z") == b"z"


def test_refused_until_the_weather_changes(line: Line) -> None:
    line.set(Weather(refuse=True))
    with dial(line) as peer:
        assert said(peer, b"x") == b""
    line.set(FAIR)
    with dial(line) as peer:
        assert said(peer, b"x") == b"x"


def test_swallowed_bytes_never_come_and_the_connection_does_not_outlive_it(line: Line) -> None:
    with dial(line) as peer:
        line.set(Weather(swallow=True))
        assert said(peer, b"x", 0.3) == b""
        line.set(FAIR)
        assert said(peer, b"y") == b""


def test_it_breaks_once_after_so_many_bytes(line: Line) -> None:
    line.set(Weather(after=100_000))
    with dial(line) as peer:
        assert len(said(peer, bytes(200_000))) < 100_000
    with dial(line) as peer:
        assert len(said(peer, bytes(200_000))) == 200_000


def test_delay_and_rate_are_kept(line: Line) -> None:
    line.set(Weather(delay=0.1))
    with dial(line) as peer:
        began = time.monotonic()
        said(peer, b"x")
        assert time.monotonic() - began >= 0.2
    line.set(Weather(rate=100_000))
    with dial(line) as peer:
        began = time.monotonic()
        said(peer, bytes(30_000))
        assert time.monotonic() - began >= 0.3
