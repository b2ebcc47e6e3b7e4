"""Fetching by HTTPS, from a server that cuts, lies, trickles, redirects and is busy."""

from __future__ import annotations

import contextlib
import http.server
import queue
import random
import ssl
import threading
import time

import pytest

from edge_client import fetch_https
from edge_client.fetch_https import (
    MAX_UNTAKEN,
    HttpsChunk,
    HttpsEnded,
    HttpsSource,
    HttpsWanted,
)
from edge_client.https import Server
from orchestrator.adapters.authority import CertificateAuthority
from schemas.transfer import CHUNK_BYTES

SIZE = 20 * CHUNK_BYTES + 1234
DATA = random.Random(6).randbytes(SIZE)  # noqa: S311 - nothing secret
SHA = "a" * 64
PATH = f"/v1/files/{SHA}?device=dev_0123456789abcdef&expires=1&signature={'b' * 64}"


class Handler(http.server.BaseHTTPRequestHandler):
    """One file; ``server.script`` says what happens to the next requests."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/v1/health":
            self.answer(200, b"{}")
            return
        self.server.asked.append((self.path, self.headers.get("range")))
        script = self.server.script
        fault = script.pop(0) if script else None
        first, last = self.headers["range"].removeprefix("bytes=").split("-")
        start, end = int(first), int(last) + 1
        told = {"content-range": f"bytes {first}-{last}/{SIZE}"}
        match fault:
            case None:
                self.answer(206, DATA[start:end], told)
            case ("cut", after):
                self.answer(206, DATA[start:end], told, send=after)
            case ("status", code, headers):
                self.answer(code, b"no", headers)
            case ("whole",):
                self.answer(200, DATA)
            case ("other part",):
                self.answer(206, DATA[:5], {"content-range": f"bytes 0-4/{SIZE}"})
            case ("coded",):
                self.answer(206, DATA[start:end], told | {"content-encoding": "gzip"})
            case ("trickle",):
                self.answer(206, DATA[start:end], told, trickle=True)

    def answer(self, code, body, headers=None, *, send=None, trickle=False):
        self.send_response(code)
        for name, value in {**(headers or {}), "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            if trickle:
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.01)
            self.wfile.write(body if send is None else body[:send])
        if send is not None:
            self.close_connection = True


def serving(context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    server.script, server.asked = [], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    return server


@pytest.fixture(scope="module")
def running():
    server = serving()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(running, monkeypatch):
    running.script.clear()
    running.asked.clear()
    monkeypatch.setattr(HttpsSource, "_sleep", quick)
    return running


def quick(source, seconds):
    source.waited = [*getattr(source, "waited", []), seconds]
    source._going()


def source_at(server, ranges=((0, 21),), scheme="http", roots=b"", **more):
    events = queue.Queue()
    at = Server(f"{scheme}://127.0.0.1:{server.server_address[1]}", roots)
    source = HttpsSource(at, HttpsWanted(PATH, SHA, SIZE, ranges), events.put, **more)
    return source, events


def drain(source, events):
    """Take everything; the chunks by index, and the end."""
    got = {}
    while True:
        event = events.get(timeout=20)
        assert event.source is source
        if isinstance(event, HttpsEnded):
            assert source.join(5)
            return got, event
        assert event.index not in got
        got[event.index] = event.data
        source.taken()


def fetch(server, *args, **kwargs):
    source, events = source_at(server, *args, **kwargs)
    source.start()
    return drain(source, events)


def chunk(index):
    return DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def test_the_whole_file_comes_in_one_request(site):
    got, end = fetch(site)
    assert b"".join(got[i] for i in range(21)) == DATA
    assert (end.missing, end.problem, end.wasted) == ((), None, 0)
    assert site.asked == [(PATH, f"bytes=0-{SIZE - 1}")]


def test_only_what_is_missing_is_asked_for(site):
    got, end = fetch(site, ((1, 3), (7, 8), (20, 21)))
    assert got == {i: chunk(i) for i in (1, 2, 7, 20)}
    assert end.missing == ()
    asked = [span for _, span in site.asked]
    assert asked == ["bytes=65536-196607", "bytes=458752-524287", f"bytes=1310720-{SIZE - 1}"]


def test_a_cut_goes_on_at_the_chunk_that_was_cut(site):
    site.script[:] = [("cut", 5 * CHUNK_BYTES + 100), ("cut", 0), ("cut", 3 * CHUNK_BYTES)]
    got, end = fetch(site)
    assert b"".join(got[i] for i in range(21)) == DATA
    assert end.wasted == 100
    starts = [int(span[6:].split("-")[0]) // CHUNK_BYTES for _, span in site.asked]
    assert starts == [0, 5, 5, 8]


def test_a_server_that_always_cuts_is_given_up_and_what_came_is_kept(site):
    site.script[:] = [("cut", 2 * CHUNK_BYTES), *[("cut", 10)] * fetch_https.MAX_FRUITLESS]
    got, end = fetch(site)
    assert set(got) == {0, 1}
    assert end.missing == ((2, 21),)
    assert "gave up after 4 tries" in end.problem
    assert end.wasted == 10 * fetch_https.MAX_FRUITLESS
    assert "signature" not in end.problem
    assert not end.link_over


def test_a_link_that_is_over_is_told_as_such(site):
    site.script[:] = [("cut", CHUNK_BYTES), ("status", 403, {})]
    _, end = fetch(site)
    assert (end.missing, end.link_over) == (((1, 21),), True)
    site.script[:] = [("status", 404, {})]
    _, end = fetch(site)
    assert (end.missing, end.link_over) == (((0, 21),), False)


def test_a_busy_server_is_asked_again_when_it_says(site):
    site.script[:] = [("status", 429, {"retry-after": "7"}), ("status", 503, {})]
    source, events = source_at(site)
    source.start()
    got, end = drain(source, events)
    assert (len(got), end.problem) == (21, None)
    assert source.waited[0] == 7


def test_a_redirect_is_not_followed(site):
    other = serving()
    try:
        there = f"http://127.0.0.1:{other.server_address[1]}/v1/files/x"
        site.script[:] = [("status", 302, {"location": there})]
        got, end = fetch(site)
        assert (got, end.missing) == ({}, ((0, 21),))
        assert "points to" in end.problem
        assert not other.asked
    finally:
        other.shutdown()
        other.server_close()


@pytest.mark.parametrize(
    ("fault", "told"),
    [("whole", "gives no parts"), ("other part", "another part"), ("coded", "changed the file")],
)
def test_answers_that_are_not_the_range_end_it(site, fault, told):
    site.script[:] = [(fault,)]
    got, end = fetch(site, ((1, 21),))
    assert got == {}
    assert told in end.problem


def test_a_server_that_knows_no_ranges_may_still_give_all(site):
    site.script[:] = [("whole",)]
    got, end = fetch(site)
    assert b"".join(got[i] for i in range(21)) == DATA
    assert end.missing == ()


def test_a_trickle_is_cut(site, monkeypatch):
    monkeypatch.setattr(fetch_https, "CHUNK_SECONDS", 0.05)
    monkeypatch.setattr(fetch_https, "MAX_FRUITLESS", 2)
    site.script[:] = [("trickle",), ("trickle",)]
    got, end = fetch(site)
    assert got == {}
    assert "no chunk came" in end.problem


def test_no_more_than_the_credit_is_in_memory(site):
    source, events = source_at(site)
    source.start()
    first = [events.get(timeout=10) for _ in range(MAX_UNTAKEN)]
    with pytest.raises(queue.Empty):
        events.get(timeout=0.2)
    for _ in first:
        source.taken()
    got, end = drain(source, events)
    assert len(first) + len(got) == 21
    assert end.missing == ()


def test_a_cancelled_source_hands_over_no_more(site):
    source, events = source_at(site)
    source.start()
    for _ in range(MAX_UNTAKEN):
        assert isinstance(events.get(timeout=10), HttpsChunk)
    source.cancel()
    end = events.get(timeout=10)
    assert isinstance(end, HttpsEnded)
    assert (end.missing, end.problem) == (((MAX_UNTAKEN, 21),), "cancelled")
    assert source.join(5)


def test_an_agent_that_takes_nothing_ends_it(site, monkeypatch):
    monkeypatch.setattr(fetch_https, "UNTAKEN_SECONDS", 0.05)
    source, events = source_at(site)
    source.start()
    assert source.join(10)
    *chunks, end = [events.get() for _ in range(events.qsize())]
    assert len(chunks) == MAX_UNTAKEN
    assert "did not take" in end.problem


def test_the_rate_is_kept(site):
    """By a clock that moves only while it waits."""
    now = [0.0]

    class Slow(HttpsSource):
        def _sleep(self, seconds):
            now[0] += max(seconds, 0.001)
            self._going()

    events = queue.Queue()
    server = Server(f"http://127.0.0.1:{site.server_address[1]}", b"")
    rate = 4 * CHUNK_BYTES
    source = Slow(
        server,
        HttpsWanted(PATH, SHA, SIZE, ((0, 21),)),
        events.put,
        rate=rate,
        clock=lambda: now[0],
    )
    source.start()
    got, _ = drain(source, events)
    assert len(got) == 21
    assert now[0] == pytest.approx(20 / 4, rel=0.05)


def test_nobody_there_is_told_in_one_line(site):
    gone = serving()
    gone.shutdown()
    gone.server_close()
    got, end = fetch(gone)
    assert got == {}
    assert end.missing == ((0, 21),)
    assert "gave up" in end.problem


def test_only_the_pinned_authority_is_believed(site, tmp_path):
    ours, theirs = (CertificateAuthority.open_or_create(tmp_path / n) for n in ("a", "b"))
    for authority in (ours, theirs):
        authority.ensure_server(("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "a" / "server.pem", tmp_path / "a" / "server.key")
    server = serving(context)
    try:
        roots = [(tmp_path / name / "ca.pem").read_bytes() for name in ("a", "b")]
        got, _ = fetch(server, scheme="https", roots=roots[0])
        assert len(got) == 21
        server.asked.clear()
        got, end = fetch(server, scheme="https", roots=roots[1])
        assert (got, server.asked) == ({}, [])
        assert "nothing was sent" in end.problem
    finally:
        server.shutdown()
        server.server_close()
