"""A device reads a file by a link from the real server, over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import threading

import pytest
import uvicorn

from edge_client.fetch_https import HttpsEnded, HttpsSource, HttpsWanted
from edge_client.https import Server
from orchestrator.connection import GuardedLoop, guarded, modern_tls
from orchestrator.domain.link import LIFETIME_SECONDS
from orchestrator.services.links import LinkService
from schemas.transfer import CHUNK_BYTES, chunk_count
from tests.unit.orchestrator.platform import Platform

pytestmark = pytest.mark.integration

SIZE = 100 * CHUNK_BYTES + 77
DATA = os.urandom(SIZE)
SHA = hashlib.sha256(DATA).hexdigest()


class Serving(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        self.ready.set()


class Site:
    """The platform's API as it is served, on a port of its own."""

    def __init__(self, folder) -> None:
        self.platform = Platform(folder)
        self.platform.ca.ensure_server(("127.0.0.1",))
        ca = folder / "ca"
        self.roots = (ca / "ca.pem").read_bytes()
        self.links = LinkService(
            self.platform.clock, b"k" * 32, serves=lambda sha: sha == SHA, admits=self.admits
        )
        object.__setattr__(self.platform.app.state.context, "links", self.links)
        self.admitted = True
        self.platform.artifacts.put([DATA], SHA, SIZE)
        config = uvicorn.Config(
            self.platform.app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            http=guarded(None),
            ssl_certfile=ca / "server.pem",
            ssl_keyfile=ca / "server.key",
            ssl_context_factory=lambda _config, make: modern_tls(make()),
        )
        self.server = Serving(config)
        self.thread = threading.Thread(target=self.run)

    def admits(self, _device: str) -> bool:
        return self.admitted

    def run(self) -> None:
        with asyncio.Runner(loop_factory=GuardedLoop) as runner:
            runner.run(self.server.serve())

    @property
    def url(self) -> str:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"https://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("https"))
    made.thread.start()
    assert made.server.ready.wait(20)
    yield made
    made.server.should_exit = True
    made.thread.join(20)
    assert not made.thread.is_alive()


@pytest.fixture
def device(site):
    site.admitted = True
    return site.platform.enroll()[0]


def fetch(site, path, ranges, on_chunk=lambda _event: None):
    events = queue.Queue()
    wanted = HttpsWanted(path, SHA, SIZE, ranges)
    source = HttpsSource(Server(site.url, site.roots), wanted, events.put)
    source.start()
    got = {}
    while not isinstance(event := events.get(timeout=20), HttpsEnded):
        got[event.index] = event.data
        on_chunk(event)
        source.taken()
    assert source.join(5)
    return got, event


def test_a_file_comes_whole_over_tls(site, device):
    path = site.links.offer(device, SHA).path
    got, end = fetch(site, path, ((0, chunk_count(SIZE)),))
    assert b"".join(got[i] for i in range(chunk_count(SIZE))) == DATA
    assert (end.missing, end.problem, end.wasted) == ((), None, 0)
    assert not site.links._under_way


def test_parts_come_on_one_connection(site, device):
    path = site.links.offer(device, SHA).path
    got, end = fetch(site, path, ((3, 5), (50, 60), (100, 101)))
    assert end.missing == ()
    assert sorted(got) == [3, 4, *range(50, 60), 100]
    assert all(data == DATA[i * CHUNK_BYTES :][:CHUNK_BYTES] for i, data in got.items())


def test_a_link_that_ran_out_says_that_another_may_help(site, device):
    path = site.links.offer(device, SHA).path
    site.platform.clock.forward(LIFETIME_SECONDS)
    got, end = fetch(site, path, ((0, 2),))
    assert (got, end.missing, end.link_over) == ({}, ((0, 2),), True)
    assert "expired" in end.problem


def test_a_revoked_device_is_cut_off_in_the_middle(site, device, monkeypatch):
    """At the next look at who may, here at once."""
    monkeypatch.setattr("orchestrator.api.files.LOOK_SECONDS", 0.0)
    path = site.links.offer(device, SHA).path

    def revoked(_event):
        site.admitted = False

    got, end = fetch(site, path, ((0, chunk_count(SIZE)),), revoked)
    assert 0 < len(got) < chunk_count(SIZE)
    assert end.link_over
    assert "not active" in end.problem
    assert got[0] == DATA[:CHUNK_BYTES]


def test_another_authority_is_not_believed(site, device, tmp_path):
    other = Platform(tmp_path)
    other.ca.ensure_server(("127.0.0.1",))
    roots = (tmp_path / "ca" / "ca.pem").read_bytes()
    events = queue.Queue()
    wanted = HttpsWanted(site.links.offer(device, SHA).path, SHA, SIZE, ((0, 1),))
    source = HttpsSource(Server(site.url, roots), wanted, events.put)
    source.start()
    end = events.get(timeout=20)
    assert isinstance(end, HttpsEnded)
    assert "nothing was sent" in end.problem
