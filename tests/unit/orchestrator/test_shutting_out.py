from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import Conflict, Unavailable
from orchestrator.services.ports import AuditQuery
from orchestrator.services.shutting_out import ShuttingOut
from schemas.access import Role
from schemas.authority import AuthorityView
from schemas.device import CertificateSeen
from schemas.enroll import TokenRequest
from schemas.errors import Problem
from schemas.topics import Down, down
from tests.unit.orchestrator.platform import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    made = Platform(tmp_path)
    ticks(made)
    return made


def ticks(platform: Platform, count: int = 4) -> None:
    for _ in range(count):
        platform.shutting_out.tick()
        platform.clock.forward(1)


def seen(platform: Platform, device: str, *, session: int = 1) -> None:
    """The device connects and says what it trusts."""
    with platform.uow.read() as tx:
        serial = tx.devices.get(device).certificate_serial
    roots = tuple(root.sha256 for root in platform.ca.roots())
    platform.birth(device, session, certificate=CertificateSeen(serial=serial, roots=roots))


class TestRevoking:
    def test_a_revoked_device_is_told_of_proven_and_ended_once(self, platform: Platform) -> None:
        one, other = platform.enroll(2)
        platform.admission.revoke(one, "stolen")
        ticks(platform)
        assert platform.gate.loaded.shut == {one}
        assert platform.gate.over == [(one, True)]
        assert platform.shutting_out.health() == "ok"
        ticks(platform)
        assert platform.gate.over == [(one, True)]
        assert other not in platform.gate.loaded.shut

    def test_while_the_broker_does_not_read_it_nobody_is_ended_and_health_says_so(
        self, platform: Platform
    ) -> None:
        (one,) = platform.enroll()
        platform.gate.reads = False
        platform.admission.revoke(one, "")
        ticks(platform)
        assert "lets revoked certificates in" in platform.shutting_out.health()
        assert platform.gate.over == []
        told = len(platform.gate.told)
        ticks(platform, 6)
        assert len(platform.gate.told) > told, "it is told again"
        platform.gate.reads = True
        ticks(platform, 8)
        assert platform.shutting_out.health() == "ok"
        assert platform.gate.over == [(one, True)]

    def test_a_session_that_cannot_be_ended_is_tried_again(self, platform: Platform) -> None:
        (one,) = platform.enroll()
        platform.admission.revoke(one, "")
        ticks(platform, 1)
        platform.gate.up = False
        ticks(platform, 2)
        assert platform.gate.over == []
        assert platform.shutting_out.health() != "ok"
        platform.gate.up = True
        ticks(platform, 8)
        assert platform.gate.over == [(one, True)]

    def test_a_clock_that_was_ahead_does_not_stop_it(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = platform.enroll(2)
        seen(platform, one)
        years = 3600 * 24 * 365 * 64
        platform.clock.forward(years)
        with monkeypatch.context() as patched:

            def expired(*_args: object) -> None:
                msg = "the issuing authority expired"
                raise Unavailable(msg)

            patched.setattr(platform.gate, "tell", expired)
            with pytest.raises(Unavailable):
                platform.shutting_out.tick()
        platform.clock.forward(20)
        assert platform.shutting_out.health() != "ok"
        assert "could not be told again" in platform.shutting_out.health()
        platform.authority.rotate()
        platform.authority.tick()
        asked = len(platform.broker.sent)
        platform.clock.forward(-years)
        platform.admission.revoke(one, "stolen")
        seen(platform, two)
        ticks(platform)
        assert platform.gate.loaded.shut == {one}
        assert platform.gate.over == [(one, True)]
        assert platform.shutting_out.health() == "ok"
        platform.authority.tick()
        assert len(platform.broker.sent) > asked, "who is behind the rotation is asked"

    def test_a_new_start_tells_everything_once_more_and_ends_nobody_twice(
        self, platform: Platform
    ) -> None:
        one, two = platform.enroll(2)
        platform.admission.revoke(one, "")
        ticks(platform)
        platform.shutting_out = ShuttingOut(platform.uow, platform.clock, platform.gate)
        platform.admission.revoke(two, "")
        told = len(platform.gate.told)
        ticks(platform)
        assert len(platform.gate.told) == told + 1
        assert platform.gate.loaded.shut == {one, two}
        assert platform.gate.over == [(one, True), (two, True)]

    def test_who_took_a_devices_place_keeps_what_is_meant_for_it(self, platform: Platform) -> None:
        (one,) = platform.enroll()
        made = platform.tokens.create(TokenRequest(device=one))
        platform.join(made.token)
        ticks(platform)
        assert platform.gate.loaded.shut == frozenset()
        assert len(platform.gate.loaded.serials) == 1
        assert platform.gate.over == [(one, False)], "the old session ends, nothing is cleared"

    def test_a_device_that_came_back_is_denied_nothing_any_more(self, platform: Platform) -> None:
        (one,) = platform.enroll()
        platform.admission.revoke(one, "lost")
        ticks(platform)
        assert platform.gate.loaded.shut == {one}
        platform.join(platform.tokens.create(TokenRequest(device=one)).token)
        ticks(platform)
        assert platform.gate.loaded.shut == frozenset()
        assert platform.shutting_out.health() == "ok"

    def test_a_broker_elsewhere_that_cannot_be_tried_is_no_fault_of_ours(
        self, platform: Platform
    ) -> None:
        platform.gate.embedded = False
        platform.gate.try_canaries = lambda: type(platform.gate).try_canaries(_Away())
        (one,) = platform.enroll()
        platform.admission.revoke(one, "")
        ticks(platform)
        assert platform.gate.over == [(one, True)], "its session is ended all the same"
        platform.clock.forward(30)
        assert platform.shutting_out.health() == "ok"
        assert "cannot be reached" in (platform.shutting_out.trouble() or "")


class _Away:
    up = False


class TestRotating:
    def test_devices_that_are_behind_are_asked_once_for_each_connection(
        self, platform: Platform
    ) -> None:
        one, away = platform.enroll(2)
        seen(platform, one)
        platform.authority.rotate()
        for _ in range(4):
            platform.authority.tick()
            platform.clock.forward(6)
        asked = [t for t, _, _ in platform.broker.sent if t.endswith("/renew")]
        assert asked == [down(one, Down.RENEW)]
        seen(platform, away)
        platform.birth(one, 2)
        platform.authority.tick()
        asked = [t for t, _, _ in platform.broker.sent if t.endswith("/renew")]
        assert sorted(asked[1:]) == sorted([down(one, Down.RENEW), down(away, Down.RENEW)])

    def test_retiring_waits_for_the_fleet_or_says_whom_it_loses(self, platform: Platform) -> None:
        one, two = platform.enroll(2)
        for device in (one, two):
            seen(platform, device)
        platform.authority.rotate()
        view = platform.authority.status()
        assert (view.rotating, view.behind, view.devices) == (True, 2, 2)
        assert [r.issued for r in view.roots] == [2, 0]
        with pytest.raises(Conflict, match="2 devices do not know"):
            platform.authority.retire()
        platform.admission.revoke(one, "gone for good")
        with pytest.raises(Conflict, match=two):
            platform.authority.retire()
        view = platform.authority.retire(force=True)
        assert not view.rotating
        ticks(platform)
        assert (two, False) in platform.gate.over
        with platform.uow.read() as tx:
            entry = next(e for e in tx.audit.entries(AuditQuery()) if e.action == "ca.retire")
        assert entry.detail["devices"] == [two]

    def test_the_routes(self, platform: Platform) -> None:
        viewer = platform.client(platform.key(Role.VIEWER))
        admin = platform.client(platform.key(Role.ADMIN))
        before = AuthorityView.model_validate(viewer.get("/v1/authority").json())
        assert len(before.roots) == 1
        assert viewer.post("/v1/authority/rotate").status_code == 403
        assert admin.post("/v1/authority/rotate").status_code == 200
        refused = admin.post("/v1/authority/rotate")
        assert refused.status_code == 409
        assert "already" in Problem.model_validate(refused.json()).detail
        assert viewer.get("/v1/trust/ca.pem").text.count("BEGIN CERTIFICATE") == 2
        assert platform.client().get("/v1/trust/crl.pem").text.count("BEGIN X509 CRL") == 2
        assert viewer.post("/v1/authority/retire", json={}).status_code == 403
        assert admin.post("/v1/authority/retire", json={"force": 7}).status_code == 422
        after = AuthorityView.model_validate(admin.post("/v1/authority/retire", json={}).json())
        assert after.roots[0].sha256 != before.roots[0].sha256
