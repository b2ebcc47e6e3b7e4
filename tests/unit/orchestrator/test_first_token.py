"""The first admin's token: given out once, while a home that lost its own gets another."""

from __future__ import annotations

import time

from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.cli.up import Display
from orchestrator.clock import utc_now
from orchestrator.home import Home
from orchestrator.services import keys
from orchestrator.settings import load
from orchestrator.wiring.database import prepare_database
from schemas.access import Role


def test_it_is_given_out_once_for_each_database(tmp_path):
    settings, home = load({"ARGOSY_HOME": str(tmp_path)}), Home(tmp_path)
    home.prepare()
    first = prepare_database(settings)
    assert first == home.credentials().token
    assert prepare_database(settings) is None
    assert home.credentials().token == first, "a restart locks nobody out"
    home.credentials_json.unlink()
    assert prepare_database(settings) is None
    other = home.credentials().token
    assert other != first
    uow = SqlUnitOfWork(make_engine(settings.database))
    with uow.read() as tx:
        assert keys.authenticate(tx, other, utc_now()).role is Role.ADMIN
    assert home.credentials_json.stat().st_mode & 0o777 == 0o600


def test_it_is_shown_once_and_on_stdout_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("orchestrator.supervisor.bootstrap", lambda _settings: "arg_key_x_y")
    settings = load({"ARGOSY_HOME": str(tmp_path)})
    display = Display(settings, time.monotonic())
    display.prepare(settings)
    assert "arg_key_x_y" not in repr(display)
    for _ in range(2):
        display._address(time.monotonic())
    out, err = capsys.readouterr()
    assert out == "arg_key_x_y\n"
    assert "arg_key_x_y" not in err
    assert "argosy login" in err
