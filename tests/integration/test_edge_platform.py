"""The real device before the real platform: let in, renewed, expired, shut out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from edge_client.enroll_command import Options, Voice, enroll_device
from edge_client.errors import NotAdmittedError
from edge_client.identity import Identity, load_identity
from edge_client.settings import Home
from schemas.device import Presence
from schemas.enroll import EnrollPending
from tests.attacks.intruder import Site
from tests.fakes.edge_certificates import HOUR, now, pem
from tests.fakes.gateway import Device, until

pytestmark = pytest.mark.integration


@pytest.fixture
def site(mosquitto, tmp_path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def enroll(site: Site, home: Home, **request) -> Identity:
    """Enroll, with an operator who approves whoever waits, or rejects."""
    verdict = request.pop("verdict", "approve")

    def decide(pending: EnrollPending) -> None:
        def work() -> None:
            with site.http(site.admin_token) as admin:
                shown = admin.get(f"/v1/devices/{pending.device}").json()
                assert shown["fingerprint"] == pending.fingerprint
                admin.post(f"/v1/devices/{pending.device}/{verdict}").raise_for_status()

        threading.Thread(target=work).start()

    options = Options(token=site.join_token(**request), server=site.url, wait=60, force=True)
    return enroll_device(home, options, Voice(say=lambda _text: None, pending=decide))


def renewed(home: Home, before: Identity) -> Identity | None:
    identity = load_identity(home)
    fresh = identity.seen.serial != before.seen.serial
    return identity if fresh and not identity.unproven else None


def expire(site: Site, identity: Identity) -> None:
    """Put a twin in the certificate's place that ended an hour ago."""
    chain = x509.load_pem_x509_certificates(identity.certificate.read_bytes())
    leaf = chain[0]
    key = next(
        found
        for path in sorted(site.home.ca.rglob("*.key"))
        if (found := serialization.load_pem_private_key(path.read_bytes(), None)).public_key()
        == chain[1].public_key()
    )
    builder = (
        x509.CertificateBuilder()
        .issuer_name(leaf.issuer)
        .subject_name(leaf.subject)
        .public_key(leaf.public_key())
        .serial_number(leaf.serial_number)
        .not_valid_before(now() - 90 * HOUR)
        .not_valid_after(now() - HOUR)
    )
    for extension in leaf.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    identity.certificate.write_bytes(pem(builder.sign(key, hashes.SHA256()), *chain[1:]))


def live(home: Home, what: str) -> object:
    return json.loads(home.live.read_text()).get(what) if home.live.exists() else None


def test_a_device_is_let_in_renewed_and_shut_out(site: Site, tmp_path: Path) -> None:
    home = Home(tmp_path / "device")
    with pytest.raises(NotAdmittedError, match="reject"):
        enroll(site, home, approval=True, verdict="reject")
    first = enroll(site, home, approval=True)
    name = first.record.device
    device = Device(home, name, ("--no-bench",))
    try:
        device.start()
        until(lambda: site.device(name)["presence"] == Presence.ONLINE, "the device")

        with site.http(site.admin_token) as admin:
            admin.post("/v1/authority/rotate").raise_for_status()
        second = until(lambda: renewed(home, first), "a certificate of the new authority")
        assert len(second.seen.roots) == 2
        until(lambda: site.device(name)["certificate_serial"] == second.seen.serial, "its serial")

        device.kill()
        expire(site, second)
        device.start()
        third = until(lambda: renewed(home, second), "a certificate by HTTPS")
        assert "asking for a new certificate (https)" in device.log()
        until(lambda: site.device(name)["certificate_serial"] == third.seen.serial, "its serial")

        with site.http(site.admin_token) as admin:
            admin.post(f"/v1/devices/{name}/revoke", json={"reason": "lost"}).raise_for_status()
        until(lambda: live(home, "refused") == "revoked", "its own word that it was revoked")
        device.kill()

        again = enroll(site, home, device=name)
        assert again.record.device == name
        device.start()
        until(lambda: live(home, "connected"), "the device that came back")
        assert live(home, "refused") is None
        until(
            lambda: site.device(name)["presence"] == Presence.ONLINE, "the broker to let it speak"
        )
    finally:
        device.kill()
