from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.errors import Unavailable
from orchestrator.home import Credentials, Home
from orchestrator.settings import load
from orchestrator.standalone import main, share
from schemas.errors import Exit
from workers.settings import load_connection


def test_without_a_broker_it_says_what_to_set(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["--home", str(tmp_path / "home")], env={"ARGOSY_HOME": ""})
    assert ended.exit_code not in {Exit.OK, Exit.USAGE}
    assert "hint: set ARGOSY_BROKER_URL" in ended.output
    assert not (tmp_path / "home").exists()


def test_what_is_shared_is_what_an_agent_reads(tmp_path: Path) -> None:
    settings = load(
        {}, home=tmp_path, host="0.0.0.0", public_url="https://orchestrator:8420",  # noqa: S104 - not bound
    )  # fmt: skip
    home, shared = Home(tmp_path), tmp_path / "shared"
    home.prepare()
    home.ca_pem.write_text("certificate")
    home.write_worker(Credentials("https://127.0.0.1:8420", "arg_x", str(home.ca_pem)))
    shared.mkdir()
    share(settings, shared)
    found = load_connection(shared, {})
    assert (found.url, found.token) == ("https://orchestrator:8420", "arg_x")
    assert found.ca == str(shared / "ca.pem")
    assert (shared / "ca.pem").read_text() == "certificate"
    assert (shared / "worker.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.ca_pem.write_text("certificate")
    home.write_worker(Credentials("https://127.0.0.1:8420", "arg_x", None))
    with pytest.raises(Unavailable, match="cannot write"):
        share(load({}, home=tmp_path), tmp_path / "absent")
