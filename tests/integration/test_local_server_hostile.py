"""A device's local server and clients that mean no good, or are just slow."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client.errors import ServeError
from edge_client.server.limits import Limits
from tests.fakes.edge_models import linear_onnx, loaded
from tests.fakes.edge_serving import echo, serving
from tests.unit.edge.test_local_server_reader import WORDS

pytestmark = pytest.mark.integration

LIMITS = Limits(
    body=4 * 1024 * 1024,
    held=8 * 1024 * 1024,
    connections=40,
    head_seconds=0.6,
    body_seconds=1.2,
    idle_seconds=1.5,
    write_seconds=0.5,
    drain_seconds=2,
)
ASK = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
).encode()
HEAD = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n"


@pytest.fixture(scope="module")
def server():
    with serving(loaded(linear_onnx()), echo("float32", name="echo"), limits=LIMITS) as (local, _):
        yield local


@pytest.fixture
def line(server):
    with connected(server) as made:
        yield made


def connected(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.bound[0].port), timeout=10)


def until_end(line: socket.socket) -> bytes:
    found = b""
    try:
        while part := line.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def one_answer(line: socket.socket) -> tuple[int, bytes]:
    found = b""
    while b"\r\n\r\n" not in found:
        part = line.recv(65536)
        assert part, found
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    fields = dict(f.split(b": ", 1) for f in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"Content-Length"]):
        body += line.recv(65536)
    return int(head.split()[1]), body


def test_pipelined_requests_are_answered_in_their_order(line):
    line.sendall((HEAD % (len(ASK), b"") + ASK + b"GET /v2 HTTP/1.1\r\nHost: ::1\r\n\r\n") * 200
                 + b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")  # fmt: skip
    answers = until_end(line).split(b"HTTP/1.1 ")[1:]
    assert len(answers) == 401
    assert all(b'"model_name"' in a for a in answers[:400:2])
    assert all(b'"extensions"' in a for a in answers[1:400:2])
    assert answers[400].startswith(b"404")


def test_100_continue(line):
    line.sendall(HEAD % (len(ASK), b"Expect: 100-continue\r\n"))
    assert line.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.sendall(ASK)
    assert one_answer(line)[0] == 200


def test_a_body_in_chunks(line):
    line.sendall(
        b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for at in range(0, len(ASK), 10):
        part = ASK[at : at + 10]
        line.sendall(b"%x\r\n%s\r\n" % (len(part), part))
    line.sendall(b"0\r\n\r\n")
    assert one_answer(line)[0] == 200


def test_head_has_no_body_and_other_methods_are_refused(line):
    line.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"\r\n\r\n" in (found := line.recv(1000))
    assert found.endswith(b"\r\n\r\n")
    line.sendall(b"DELETE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, body = one_answer(line)
    assert (status, b"DELETE" in body) == (405, True)
    line.sendall(b"GET /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert one_answer(line)[0] == 405


@pytest.mark.parametrize(
    "begin", [b"GET /v2 HTTP/1.1\r\nX: ", HEAD % (100, b"") + b"{"], ids=["head", "body"]
)
def test_a_client_that_drips_is_told_and_ended(line, begin):
    line.sendall(begin)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.1):
            try:
                line.sendall(b"a")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    found = until_end(line)
    stop.set()
    thread.join()
    assert found.startswith(b"HTTP/1.1 408")


def test_an_idle_connection_is_closed_and_more_than_allowed_are_refused(server):
    lines = [connected(server) for _ in range(LIMITS.connections)]
    for line in lines:
        line.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one_answer(line)[0] == 200
    with connected(server) as extra:
        assert until_end(extra).startswith(b"HTTP/1.1 503")
    assert until_end(lines[0]) == b""
    for line in lines:
        line.close()


def test_a_client_that_does_not_read_is_cut_off(line):
    x = np.zeros((80_000, 3), np.float32)
    head = json.dumps(
        {
            "inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32",
                        "parameters": {"binary_data_size": x.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()  # fmt: skip
    request = (
        b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: localhost\r\n"
        b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
        % (len(head), len(head) + x.nbytes)
    )
    data, sent = 20 * (request + head + x.tobytes()), 0
    line.settimeout(0.3)
    try:
        while sent < len(data):
            sent += line.send(data[sent:])
    except OSError:
        line.settimeout(10)
    assert sent < len(data)
    assert len(until_end(line)) < sent


def test_memory_stays_within_what_may_be_held(server):
    """40 clients send as much as they can, and none ends its request."""
    lines = [connected(server) for _ in range(LIMITS.connections)]
    part = b"a" * 65536
    tracemalloc.start()
    try:
        for line in lines:
            line.settimeout(0.2)
            line.sendall(HEAD % (LIMITS.body, b""))
        for _ in range(60):
            for line in lines:
                try:
                    line.sendall(part)
                except OSError:
                    continue
        _, peak = tracemalloc.get_traced_memory()
        assert server.held.now <= LIMITS.held
    finally:
        tracemalloc.stop()
        for line in lines:
            line.close()
    assert LIMITS.held / 2 < peak < 2 * LIMITS.held
    deadline = time.monotonic() + 5
    while server.held.now and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.held.now == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(WORDS, st.binary(max_size=20)), max_size=20))
def test_whatever_is_sent_is_answered_or_closed(server, parts):
    with connected(server) as line:
        line.sendall(b"".join(parts))
        line.shutdown(socket.SHUT_WR)
        found = until_end(line)
    assert found == b"" or found.startswith(b"HTTP/1.1 ")
    with connected(server) as again:
        again.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one_answer(again)[0] == 200


def test_a_stop_answers_what_was_asked():
    with serving(loaded(linear_onnx()), limits=Limits(inline_seconds=0)) as (local, runtime):
        runtime.hold = threading.Event()
        with connected(local) as line, connected(local):
            line.sendall(HEAD % (len(ASK), b"") + ASK)
            assert runtime.begun.wait(5)
            stopping = threading.Thread(target=local.stop)
            stopping.start()
            runtime.hold.set()
            assert one_answer(line)[0] == 200
            assert until_end(line) == b""
            stopping.join(10)
            assert not stopping.is_alive()


def test_sockets_are_taken_only_where_nobody_listens(tmp_path):
    path = tmp_path / "a.sock"
    path.write_text("mine")
    one = loaded(linear_onnx())
    with pytest.raises(ServeError, match="no socket"), serving(one, addresses=(f"unix:{path}",)):
        pass
    assert path.read_text() == "mine"
    path.unlink()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()  # what a killed server leaves
    with serving(one, addresses=(f"unix:{path}", "127.0.0.1:0")) as (local, _):
        assert path.stat().st_mode & 0o777 == 0o600
        for taken in local.bound:
            again = serving(one, addresses=(str(taken),))
            with pytest.raises(ServeError, match="cannot listen"), again:
                pass
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
