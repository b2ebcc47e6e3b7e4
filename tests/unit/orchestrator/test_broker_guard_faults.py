"""What the broker is told although the authority cannot do its part."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.broker_guard import BrokerGuard
from orchestrator.domain.gate import Wanted
from orchestrator.errors import Unavailable
from orchestrator.home import Home
from orchestrator.settings import Settings
from schemas.ids import new_id


@pytest.mark.parametrize("part", ["settle", "ensure_server", "canaries", "publish"])
def test_who_is_shut_out_is_denied_everything_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    home, device = Home(tmp_path), new_id("dev")
    home.broker.mkdir(parents=True)
    authority = CertificateAuthority.open_or_create(home.ca)
    gateway = Gateway("127.0.0.1", 1, "gateway", "secret")
    guard = BrokerGuard(home, Settings(home=tmp_path), gateway, authority)

    def damaged(*_args: object) -> None:
        msg = "a key is missing"
        raise Unavailable(msg)

    monkeypatch.setattr(authority, part, damaged)
    with pytest.raises(Unavailable):
        guard.tell(Wanted(frozenset(), frozenset({device}), ()), ())
    assert f"user {device}\ntopic deny #" in (home.broker / "acl").read_text()
    assert home.broker_reload.exists(), "and the broker reads it"
