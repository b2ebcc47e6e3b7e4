"""An agent whose local server cannot listen says so in a line; one that can says where."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from edge_client.agent import Agent
from edge_client.errors import ServeError
from edge_client.settings import Home, RunSettings
from schemas.errors import Exit
from tests.fakes.gateway import Ca, Signer, enrolled_home


@pytest.fixture
def home(tmp_path) -> Home:
    home, _ = enrolled_home(tmp_path, Ca(), Signer(), 1)
    return home


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


@pytest.mark.parametrize("option", ["serve", "serve_grpc"])
def test_a_port_that_is_taken_is_one_error_and_closes_all(home, taken, option) -> None:
    agent = Agent(home, RunSettings(**{option: (taken,)}))
    with pytest.raises(ServeError, match=f"cannot listen on {taken}") as found:
        agent.run()
    assert found.value.hint
    assert "GRPC_VERBOSITY" not in str(found.value)
    assert [t.name for t in threading.enumerate() if t.name in {"mqtt", "local-server"}] == []


def test_the_log_says_where_the_local_server_listens(home, tmp_path, caplog) -> None:
    path = tmp_path / "infer.sock"
    agent = Agent(home, RunSettings(serve=("127.0.0.1:0", f"unix:{path}")))
    with caplog.at_level(logging.INFO, "edge_client"):
        threading.Timer(0.2, agent.stop).start()
        assert agent.run() is Exit.OK
    said = [r.getMessage() for r in caplog.records if "inference requests" in r.getMessage()]
    assert len(said) == 1
    assert f"unix:{path}" in said[0]
    assert ":0" not in said[0]  # the port that the system chose


def test_a_socket_in_a_folder_that_is_not_there(home, tmp_path) -> None:
    agent = Agent(home, RunSettings(serve=(f"unix:{tmp_path}/none/infer.sock",)))
    with pytest.raises(ServeError, match="cannot listen on unix:") as found:
        agent.run()
    assert found.value.hint == "make its folder first"
