"""The Jobs API's client: time-outs, and what Ray's answers mean."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workers.agent import ray_jobs
from workers.agent.ray_jobs import RayJobs, capacity_of
from workers.errors import ClusterError

HUNG = threading.Event()


class Dashboard(BaseHTTPRequestHandler):
    """Tells its version and then hangs, as one does whose event loop is stuck."""

    def do_GET(self) -> None:
        if self.path != "/api/version":
            HUNG.wait(30)
            return
        body = json.dumps({"ray_version": "2.60.0", "version": "4", "ray_commit": "x"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - a name that http.server calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[str]:
    HUNG.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    HUNG.set()
    server.shutdown()
    server.server_close()


def test_a_dashboard_that_hangs_does_not_hang_the_agent(dashboard, monkeypatch) -> None:
    monkeypatch.setattr(ray_jobs, "ANSWER_SECONDS", 0.3)
    jobs = RayJobs(dashboard)
    for ask in (lambda: jobs.look("x"), lambda: jobs.stop("x"), jobs.capacity):
        started = time.monotonic()
        with pytest.raises(ClusterError, match="timed out"):
            ask()
        assert time.monotonic() - started < 5


def test_no_dashboard_is_one_clear_line() -> None:
    with pytest.raises(ClusterError, match="Failed to connect to Ray") as caught:
        RayJobs("http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_capacity_is_the_sum_of_the_nodes_that_live() -> None:
    gib = 1024**3
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 8.0, "memory": 16 * gib, "node:x": 1.0}},
        {"state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 2.0, "memory": 8 * gib}},
        {"state": "DEAD", "resources_total": {"CPU": 64.0}},
        {"state": "ALIVE", "resources_total": {}},
    ]
    found = capacity_of(nodes, grows=True)
    assert (found.nodes, found.cpus, found.gpus, found.memory_gb) == (3, 12.0, 2.0, 24.0)
    assert found.grows
    assert capacity_of([], grows=False).cpus == 0
