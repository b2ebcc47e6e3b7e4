from __future__ import annotations

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from orchestrator.adapters.authority import CertificateAuthority, RevokedSerial
from orchestrator.adapters.authority.chains import path_to, read_chain
from orchestrator.errors import CsrInvalid, Invalid, Unauthenticated, Unavailable
from schemas.ids import new_id

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open_or_create(tmp_path / "ca", clock=lambda: NOW)


def csr_for(key: Any, subject: str = "ignored", algorithm: Any = hashes.SHA256()) -> str:  # noqa: B008 - a constant
    if isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = None
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def loaded(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "ed25519", "rsa2048"],
)
def test_a_device_gets_a_certificate_for_its_key(ca: CertificateAuthority, key: Any) -> None:
    device = new_id("dev")
    issued = ca.issue_device(csr_for(key, subject="gateway"), device, days=7)
    certificate = loaded(issued.pem)
    path = path_to(certificate, read_chain(issued.pem)[1:], [loaded(ca.pem)])
    assert path is not None
    assert [p.subject.rfc4514_string()[:11] for p in path] == ["CN=argosy i", "CN=argosy r"]
    assert issued.root_sha256 == ca.ca_sha256()
    assert certificate.public_key() == key.public_key()
    assert [a.value for a in certificate.subject] == [device]
    assert certificate.not_valid_after_utc == issued.expires == NOW + timedelta(days=7)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert issued.serial == f"{certificate.serial_number:x}"
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert issued.spki_sha256 == hashlib.sha256(spki).hexdigest()


def test_the_requests_own_extensions_are_ignored(ca: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    certificate = loaded(ca.issue_device(pem, new_id("dev"), days=1).pem)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP224R1()),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak is what is tested
    ],
    ids=["p224", "rsa1024"],
)
def test_weak_keys_are_refused(ca: CertificateAuthority, key: Any) -> None:
    with pytest.raises(CsrInvalid, match="not accepted"):
        ca.issue_device(csr_for(key), new_id("dev"), days=7)


def test_a_request_for_anothers_key_is_refused(ca: CertificateAuthority) -> None:
    victim, thief = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    der = x509.load_pem_x509_csr(csr_for(thief).encode()).public_bytes(serialization.Encoding.DER)
    theirs, ours = (
        k.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for k in (victim, thief)
    )
    forged = x509.load_der_x509_csr(der.replace(ours, theirs))
    pem = forged.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(CsrInvalid, match="not signed by the key"):
        ca.issue_device(pem, new_id("dev"), days=7)


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "é"])
def test_what_is_no_request_is_refused(ca: CertificateAuthority, text: str) -> None:
    with pytest.raises(CsrInvalid, match="PKCS #10"):
        ca.issue_device(text, new_id("dev"), days=7)


def test_a_huge_request_is_refused(ca: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(CsrInvalid, match="larger than"):
        ca.issue_device(csr_for(key) + "\n" * 9000, new_id("dev"), days=7)


@pytest.mark.parametrize("name", ["gateway", "dev_#", "+", "dev_" + "i" * 16, ""])
def test_only_device_ids_become_common_names(ca: CertificateAuthority, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Invalid, match="not a device id"):
        ca.issue_device(csr_for(key), name, days=7)


def test_the_authority_stays_the_same_and_its_keys_private(tmp_path: Path) -> None:
    first = CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    again = CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    assert first.pem == again.pem
    der = loaded(first.pem).public_bytes(serialization.Encoding.DER)
    assert first.ca_sha256() == hashlib.sha256(der).hexdigest()
    for name in ("root.key", "issuing.key"):
        assert (tmp_path / "authorities/1" / name).stat().st_mode & 0o777 == 0o600
    assert loaded(first.pem).not_valid_after_utc - NOW == timedelta(days=3650)


def test_authorities_may_do_what_they_must_and_no_more(ca: CertificateAuthority) -> None:
    device = new_id("dev")
    issued = ca.issue_device(csr_for(ec.generate_private_key(ec.SECP256R1())), device, days=7)
    issuing, root = read_chain(issued.pem)[1], loaded(ca.pem)
    for certificate, length in ((issuing, 0), (root, 2)):
        held = certificate.extensions
        basic = held.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert (basic.value.ca, basic.value.path_length) == (True, length)
        usage = held.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
        assert not usage.value.digital_signature


def test_issuing_goes_on_without_the_roots_key(ca: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "ca/authorities/1/root.key").unlink()
    again = CertificateAuthority.open_or_create(tmp_path / "ca", clock=lambda: NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    assert again.issue_device(csr_for(key), new_id("dev"), days=7).root_sha256 == ca.ca_sha256()
    assert not again.roots()[0].key_held
    again.rotate()
    # Nobody vouches for the new root: the old one goes on serving until it is retired.
    assert not again.roots()[1].cross_signed
    assert again.ca_sha256() == ca.ca_sha256()
    assert any("pin the old root" in problem for problem in again.problems())


@pytest.mark.parametrize("name", ["issuing.key", "root.pem", "issuing.pem"])
def test_what_is_lost_is_told_and_not_replaced(tmp_path: Path, name: str) -> None:
    CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    path = tmp_path / "authorities/1" / name
    path.unlink()
    with pytest.raises(Unavailable):
        CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    assert not path.exists()


def test_a_lost_state_is_told_and_no_new_authority_made(tmp_path: Path) -> None:
    CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    (tmp_path / "authority.json").unlink()
    with pytest.raises(Unavailable, match=r"authority\.json is missing"):
        CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)


def test_a_key_of_another_authority_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        CertificateAuthority.open_or_create(tmp_path / name, clock=lambda: NOW)
    stolen = tmp_path / "b/authorities/1/issuing.key"
    stolen.replace(tmp_path / "a/authorities/1/issuing.key")
    with pytest.raises(Unavailable, match="not the key"):
        CertificateAuthority.open_or_create(tmp_path / "a", clock=lambda: NOW)


def test_an_old_certificate_says_whose_it_was_even_expired(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    device, key = new_id("dev"), ec.generate_private_key(ec.SECP256R1())
    issued = ca.issue_device(csr_for(key), device, days=1)
    later = CertificateAuthority.open(tmp_path / "ca", clock=lambda: NOW + timedelta(days=30))
    old = later.verify_old(issued.pem, device)
    assert (old.serial, old.spki_sha256) == (issued.serial, issued.spki_sha256)
    with pytest.raises(Unauthenticated, match="not that device's"):
        later.verify_old(issued.pem, new_id("dev"))
    stranger = CertificateAuthority.open_or_create(tmp_path / "other", clock=lambda: NOW)
    with pytest.raises(Unauthenticated, match="not of an authority"):
        stranger.verify_old(issued.pem, device)
    canary = ca.canaries()[0].good_pem
    with pytest.raises(Unauthenticated):
        ca.verify_old(canary, device)
    for text in ("", "hello", issued.pem * 40):
        with pytest.raises(Invalid):
            ca.verify_old(text, device)


def test_the_server_certificate_passes_a_clients_checks(tmp_path: Path) -> None:
    ca = CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    assert ca.ensure_server(("localhost", "127.0.0.1", "argosy.example", "::1"))
    certificate, *chain = read_chain((tmp_path / "server.pem").read_text())
    policy = PolicyBuilder().store(Store([loaded(ca.pem)])).time(NOW)
    for subject in (
        x509.DNSName("argosy.example"),
        x509.IPAddress(ipaddress.ip_address("::1")),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ):
        policy.build_server_verifier(subject).verify(certificate, chain)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600


def test_the_server_certificate_is_kept_until_it_must_change(tmp_path: Path) -> None:
    now = [NOW]
    ca = CertificateAuthority.open_or_create(tmp_path, clock=lambda: now[0])
    assert ca.ensure_server(("localhost", "127.0.0.1"))
    assert not ca.ensure_server(("localhost", "127.0.0.1"))
    assert not ca.ensure_server(("localhost",))
    assert ca.ensure_server(("localhost", "127.0.0.1", "new.example"))
    now[0] += timedelta(days=600)
    assert ca.ensure_server(("localhost", "127.0.0.1", "new.example"))
    (tmp_path / "server.key").write_text("damaged")
    assert ca.ensure_server(("localhost",))
    other = CertificateAuthority.open_or_create(tmp_path / "other", clock=lambda: now[0])
    other.ensure_server(("localhost",))
    for name in ("server.pem", "server.key"):
        (tmp_path / "other" / name).replace(tmp_path / name)
    assert ca.ensure_server(("localhost",))


def test_a_name_that_no_certificate_can_hold_is_told(ca: CertificateAuthority) -> None:
    with pytest.raises(Invalid, match="neither a host name"):
        ca.ensure_server(("a" * 70 + ".example",))


def test_the_revocation_list_names_exactly_the_revoked(tmp_path: Path) -> None:
    ca = CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    path = tmp_path / "crl.pem"
    assert list(x509.load_pem_x509_crl(path.read_bytes())) == []
    key = ec.generate_private_key(ec.SECP256R1())
    one, two = (ca.issue_device(csr_for(key), new_id("dev"), days=7) for _ in range(2))
    ca.write_crl([RevokedSerial(one.serial, NOW), RevokedSerial(one.serial, NOW)])
    crl = x509.load_pem_x509_crl(path.read_bytes())
    assert [f"{r.serial_number:x}" for r in crl] == [one.serial]
    assert crl.get_revoked_certificate_by_serial_number(int(two.serial, 16)) is None
    issuing = read_chain(one.pem)[1]
    assert crl.is_signature_valid(issuing.public_key())  # type: ignore[arg-type]
    assert crl.next_update_utc == issuing.not_valid_after_utc
    ca.write_crl([])
    assert list(x509.load_pem_x509_crl(path.read_bytes())) == []
