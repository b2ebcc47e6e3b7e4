"""Certificates that must not open the broker, and one that must no longer."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from schemas.enroll import renewal_text
from schemas.ids import new_id
from schemas.topics import Down, Up, down, down_filter, up
from tests.attacks.intruder import (
    LOOPBACK,
    REFUSED,
    be_born,
    birth,
    csr,
    new_key,
    until,
)

pytestmark = pytest.mark.integration

DAY = dt.timedelta(days=1)


def certificate(name, public_key, issuer, issuer_key, *, start=-DAY, end=DAY, ca=False, usage=None):
    """A certificate as whoever holds ``issuer_key`` can make them."""
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([usage or ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
    )
    return builder.sign(issuer_key, hashes.SHA256())


def pem(*certificates) -> str:
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


@pytest.fixture(scope="module")
def issuing(site):
    """The platform's issuing authority with its key, for certificates that it would not make."""
    (found,) = site.home.ca.rglob("issuing.pem")
    key = serialization.load_pem_private_key(found.with_suffix(".key").read_bytes(), None)
    return x509.load_pem_x509_certificates(found.read_bytes())[0], key


@pytest.fixture(scope="module")
def victim(site):
    return site.enroll()


def test_what_this_authority_issues_gets_in(site, victim, issuing):
    """The control of all that follows: made in the same way, it opens."""
    assert site.knock(victim) == 0
    authority, authority_key = issuing
    key = new_key()
    leaf = certificate(new_id("dev"), key.public_key(), authority.subject, authority_key)
    assert site.knock(site.write("control", pem(leaf, authority), key)) == 0


def self_signed(_site, victim, _issuing):
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, victim.device)])
    return pem(certificate(victim.device, key.public_key(), name, key)), key


def rogue_authority(site, victim, issuing):
    """With the names of the real ones, all the way up."""
    root = x509.load_pem_x509_certificates(site.home.ca_pem.read_bytes())[0]
    root_key, own_key, key = new_key(), new_key(), new_key()
    ours = certificate("x", root_key.public_key(), root.subject, root_key, ca=True)
    names = issuing[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    middle = certificate(names[0].value, own_key.public_key(), root.subject, root_key, ca=True)
    leaf = certificate(victim.device, key.public_key(), issuing[0].subject, own_key)
    return pem(leaf, middle, ours), key


def expired(_site, victim, issuing):
    key = new_key()
    authority, authority_key = issuing
    leaf = certificate(
        victim.device, key.public_key(), authority.subject, authority_key, start=-2 * DAY, end=-DAY
    )
    return pem(leaf, authority), key


def not_yet(_site, victim, issuing):
    key = new_key()
    authority, authority_key = issuing
    leaf = certificate(
        victim.device, key.public_key(), authority.subject, authority_key, start=DAY, end=2 * DAY
    )
    return pem(leaf, authority), key


def made_by_a_device(_site, victim, issuing):
    """A device is no authority, whatever its key signs."""
    own = x509.load_pem_x509_certificates(victim.certificate.read_bytes())[0]
    own_key = serialization.load_pem_private_key(victim.key.read_bytes(), None)
    key = new_key()
    leaf = certificate(new_id("dev"), key.public_key(), own.subject, own_key)
    return pem(leaf, own, issuing[0]), key


def the_servers_own(site, _victim, _issuing):
    key = serialization.load_pem_private_key(site.home.server_key.read_bytes(), None)
    return site.home.server_pem.read_text(), key


@pytest.mark.parametrize(
    "forge", [self_signed, rogue_authority, expired, not_yet, made_by_a_device, the_servers_own]
)
def test_a_wrong_certificate_does_not_get_in(site, victim, issuing, forge):
    text, key = forge(site, victim, issuing)
    assert site.knock(site.write("forged", text, key)) == REFUSED


def test_nobody_gets_in_without_a_certificate(site):
    assert site.knock(None) == REFUSED
    with socket.create_connection((LOOPBACK, site.mqtt_port), 5) as plain:
        plain.sendall(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x")
        with contextlib.suppress(ConnectionError):
            assert plain.recv(100)[:1] != b"\x20"


def test_a_certificate_is_nothing_without_its_key(site, victim):
    stolen = site.write("stolen", victim.certificate.read_text(), new_key())
    with pytest.raises(ssl.SSLError):
        site.tls(stolen)


@pytest.mark.parametrize("name", ["gateway", "argosy-canary", "dev_" + "0" * 16, "+", "#", "a/b"])
def test_a_request_does_not_choose_its_name(site, name):
    made = site.enroll(name=name)
    leaf = x509.load_pem_x509_certificates(made.certificate.read_bytes())[0]
    assert leaf.subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, made.device)])
    assert made.device != name


def test_what_a_request_asks_for_besides_is_not_given(site):
    key = new_key()
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    body = {"csr_pem": asked.public_bytes(serialization.Encoding.PEM).decode()}
    answer = site.ask(site.join_token(), key, **body)
    if answer.status_code != 201:
        assert answer.json()["code"] == "csr_invalid"
        return
    leaf = x509.load_pem_x509_certificates(answer.json()["certificate_pem"].encode())[0]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_weak_and_unproven_keys_are_refused(site):
    from cryptography.hazmat.primitives.asymmetric import rsa

    token = site.join_token(max_uses=10)
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
    text = csr(weak)
    assert site.ask(token, new_key(), csr_pem=text).json()["code"] == "csr_invalid"
    raw = bytearray(base64.b64decode("".join(csr(new_key()).strip().splitlines()[1:-1]).encode()))
    raw[-1] ^= 1
    body = base64.encodebytes(bytes(raw)).decode()
    forged = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    assert site.ask(token, new_key(), csr_pem=forged).json()["code"] == "csr_invalid"
    assert site.ask(token, new_key()).status_code == 201


def renewal(site, identity, key=None, signer=None, **wrong):
    """The request of a device whose certificate has expired, with what may be wrong."""
    text, at = csr(key or new_key()), dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    own = signer or serialization.load_pem_private_key(identity.key.read_bytes(), None)
    device = wrong.get("device", identity.device)
    signature = own.sign(renewal_text(device, text, at), ec.ECDSA(hashes.SHA256()))
    body = {
        "device": device,
        "certificate_pem": identity.certificate.read_text(),
        "csr_pem": text,
        "signed_at": at,
        "signature": base64.b64encode(signature).decode(),
    }
    with site.http() as anybody:
        return anybody.post("/v1/renew", json=body | wrong)


def test_nobody_renews_without_the_key(site, victim, issuing):
    neighbour = site.enroll()
    refused = [
        renewal(site, victim, signer=new_key()),
        renewal(site, victim, device=neighbour.device),
        renewal(site, neighbour, device=victim.device),
        renewal(site, victim, csr_pem=csr(new_key())),
        renewal(site, victim, signature=base64.b64encode(b"x" * 70).decode()),
    ]
    for forge in (self_signed, rogue_authority):
        text, key = forge(site, victim, issuing)
        refused.append(renewal(site, victim, signer=key, certificate_pem=text))
    for answer in refused:
        assert 400 <= answer.status_code < 500, answer.text
        assert "BEGIN CERTIFICATE" not in answer.text
    done = renewal(site, neighbour)
    assert done.status_code == 200, done.text
    assert "BEGIN CERTIFICATE" in done.json()["certificate_pem"]


def test_a_revoked_device_is_out_at_once_and_for_good(site, admin):
    """Its session ends, it cannot return, and what it still says is not heard."""
    revoked, kept = site.enroll(), site.enroll()
    with site.peer(revoked) as thief, site.peer(kept) as neighbour:
        be_born(site, thief, revoked.device)
        be_born(site, neighbour, kept.device)
        thief.subscribe(down_filter(revoked.device))
        answer = admin.post(f"/v1/devices/{revoked.device}/revoke", json={"reason": "stolen"})
        assert answer.status_code == 200, answer.text
        until(lambda: thief.drops, "the end of its session")
        until(lambda: site.knock(revoked) != 0, "the refusal")
        seen = site.device(revoked.device)["last_seen_at"]
        with site.observer() as observer:
            # As if it had been on its way, or the broker had let it through.
            observer.publish(up(revoked.device, Up.BIRTH), birth(9))
            neighbour.publish(up(kept.device, Up.BIRTH), birth(2))
            until(lambda: site.device(kept.device)["presence"] == "ONLINE", "the neighbour")
        shown = site.device(revoked.device)
        assert shown["state"] == "REVOKED"
        assert shown["last_seen_at"] == seen
        assert neighbour.drops == 0
        assert site.knock(kept) == 0

    key = serialization.load_pem_private_key(revoked.key.read_bytes(), None)
    again = site.ask(site.join_token(), key)
    assert again.status_code in {401, 403, 409}, again.text
    assert renewal(site, revoked).status_code in {401, 403, 409}
    with site.observer() as observer:
        observer.subscribe(f"d/{revoked.device}/#")
        observer.subscribe(down(kept.device, Down.CMD))
        observer.publish(down(kept.device, Down.CMD))
        heard = observer.until(down(kept.device, Down.CMD))
        assert not [t for t in heard if revoked.device in t], "the broker keeps nothing of it"
    with ThreadPoolExecutor(8) as pool:
        assert all(code != 0 for code in pool.map(lambda _: site.knock(revoked), range(16)))
