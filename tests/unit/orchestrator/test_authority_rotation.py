"""Replacing the root: what is trusted at each moment, and after a crash in any of them."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from orchestrator import home
from orchestrator.adapters.authority import CertificateAuthority, RevokedSerial, generations
from orchestrator.adapters.authority.chains import path_to, read_chain
from orchestrator.adapters.authority.crl import read_crls, serials_of
from orchestrator.errors import Conflict, Unauthenticated, Unavailable
from schemas.ids import new_id

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("127.0.0.1", "localhost")
PEM = serialization.Encoding.PEM


def opened(folder: Path) -> CertificateAuthority:
    """As a start of the platform does it."""
    authority = CertificateAuthority.open_or_create(folder, clock=lambda: NOW)
    authority.ensure_server(NAMES)
    return authority


def csr() -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    key = ec.generate_private_key(ec.SECP256R1())
    return request.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


def roots_of(authority: CertificateAuthority) -> list[x509.Certificate]:
    return read_chain(authority.pem)


def serves(folder: Path, root: x509.Certificate) -> bool:
    """Whether one who trusts that root alone accepts the server's certificate."""
    leaf, *chain = read_chain((folder / "server.pem").read_text())
    policy = PolicyBuilder().store(Store([root])).time(NOW + timedelta(minutes=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    try:
        policy.build_server_verifier(address).verify(leaf, chain)
    except x509.verification.VerificationError:
        return False
    return True


def legacy(folder: Path) -> x509.Certificate:
    """A home as an early version left it: one self-signed authority without any below it."""
    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "argosy early")])
    usage = {"digital_signature", "content_commitment", "key_encipherment", "data_encipherment"}
    usage |= {"key_agreement", "encipher_only", "decipher_only"}
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(NOW + timedelta(days=3000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(**dict.fromkeys(usage, False), key_cert_sign=True, crl_sign=True),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(PEM))
    (folder / "ca.key").write_bytes(generations.key_pem(key))
    return made


def test_while_rotating_both_roots_are_trusted_and_the_new_one_issues(tmp_path: Path) -> None:
    ca = opened(tmp_path)
    (old,), device = roots_of(ca), new_id("dev")
    before = ca.issue_device(csr(), device, 7)
    made = ca.rotate()
    ca.ensure_server(NAMES)
    new = roots_of(ca)[0]
    assert roots_of(ca) == [new, old]
    assert (
        ca.ca_sha256()
        == made
        == hashlib.sha256(new.public_bytes(serialization.Encoding.DER)).hexdigest()
    )
    assert serves(tmp_path, old)
    assert serves(tmp_path, new)
    after = ca.issue_device(csr(), device, 7)
    assert after.root_sha256 == made
    leaf, *between = read_chain(after.pem)
    assert path_to(leaf, between, [new]) is not None
    assert path_to(leaf, between, [old]) is not None, "a broker that lags behind lets it in"
    assert ca.verify_old(before.pem, device).root_sha256 == before.root_sha256
    with pytest.raises(Conflict, match="already"):
        ca.rotate()


def test_after_retiring_the_old_root_nothing_of_it_counts(tmp_path: Path) -> None:
    ca = opened(tmp_path)
    (old,), device = roots_of(ca), new_id("dev")
    before = ca.issue_device(csr(), device, 7)
    made = ca.rotate()
    assert ca.root_of(before.root_sha256)
    assert ca.retire() == before.root_sha256
    ca.ensure_server(NAMES)
    assert not ca.root_of(before.root_sha256)
    assert ca.root_of(made)
    assert old not in roots_of(ca)
    assert not serves(tmp_path, old)
    assert serves(tmp_path, roots_of(ca)[0])
    with pytest.raises(Unauthenticated):
        ca.verify_old(before.pem, device)
    with pytest.raises(Conflict, match="no old root"):
        ca.retire()
    ca.rotate()
    assert len(roots_of(ca)) == 2


@pytest.mark.parametrize("years", [6, 11])
def test_an_authority_that_ended_can_still_be_rotated_away(tmp_path: Path, years: int) -> None:
    opened(tmp_path)
    later = NOW + timedelta(days=365 * years)
    ca = CertificateAuthority.open_or_create(tmp_path, clock=lambda: later)
    ca.ensure_server(NAMES)
    with pytest.raises(Unavailable, match="issuing authority expired"):
        ca.issue_device(csr(), new_id("dev"), 7)
    ca.rotate()
    issued = ca.issue_device(csr(), new_id("dev"), 7)
    assert issued.expires > later
    (canary,) = ca.canaries()
    ca.publish([RevokedSerial("abc", later)], [canary])
    lists = read_crls((tmp_path / "crl.pem").read_bytes())
    assert [len(serials_of(crl)) for crl in lists] == [2, 2]
    assert all(crl.next_update_utc > later for crl in lists)
    ca.ensure_server(NAMES)
    ca.retire()
    ca.ensure_server(NAMES)
    leaf = read_chain((tmp_path / "server.pem").read_text())[0]
    assert leaf.not_valid_after_utc > later


def test_a_server_certificate_that_a_clock_ahead_made_is_replaced(tmp_path: Path) -> None:
    ahead = NOW + timedelta(days=200)
    ca = CertificateAuthority.open_or_create(tmp_path, clock=lambda: NOW)
    CertificateAuthority.open(tmp_path, clock=lambda: ahead).ensure_server(NAMES)
    assert ca.ensure_server(NAMES)
    leaf = read_chain((tmp_path / "server.pem").read_text())[0]
    assert leaf.not_valid_before_utc <= NOW
    assert not ca.ensure_server(NAMES)


def test_revocations_outlive_a_rotation(tmp_path: Path) -> None:
    ca = opened(tmp_path)
    ca.write_crl([RevokedSerial("abc", NOW)])
    ca.rotate()
    lists = read_crls((tmp_path / "crl.pem").read_bytes())
    assert [serials_of(crl) for crl in lists] == [{0xABC}, {0xABC}]
    assert len({crl.issuer for crl in lists}) == 2


class TestEarlyHome:
    def test_goes_on_as_root_and_issuer(self, tmp_path: Path) -> None:
        old = legacy(tmp_path / "ca")
        ca = opened(tmp_path / "ca")
        assert roots_of(ca) == [old]
        assert not (tmp_path / "ca/ca.key").exists()
        issued = ca.issue_device(csr(), new_id("dev"), 7)
        (leaf,) = read_chain(issued.pem)
        leaf.verify_directly_issued_by(old)
        assert serves(tmp_path / "ca", old)
        assert any("argosy ca rotate" in problem for problem in ca.problems())
        assert roots_of(opened(tmp_path / "ca")) == [old]

    def test_rotates_with_the_old_root_serving_until_it_is_retired(self, tmp_path: Path) -> None:
        old = legacy(tmp_path / "ca")
        ca = opened(tmp_path / "ca")
        pinned = ca.ca_sha256()
        ca.rotate()
        ca.ensure_server(NAMES)
        # It may have no authority below it, so it cannot vouch for the new root.
        assert serves(tmp_path / "ca", old)
        assert ca.ca_sha256() == pinned
        assert ca.issue_device(csr(), new_id("dev"), 7).root_sha256 != pinned
        ca.retire()
        ca.ensure_server(NAMES)
        assert ca.ca_sha256() != pinned
        assert serves(tmp_path / "ca", roots_of(ca)[0])

    def test_without_its_key_is_told(self, tmp_path: Path) -> None:
        legacy(tmp_path / "ca")
        (tmp_path / "ca/ca.key").unlink()
        with pytest.raises(Unavailable, match=r"ca\.key is missing"):
            opened(tmp_path / "ca")


class Crash(BaseException):
    """The process ends here."""


def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[int]:
    """Ends the process before the ``at``-th file is replaced; tells how many there were."""
    count = 0
    real = home.write_atomic

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise Crash
        real(path, data, mode)

    for module in (
        "orchestrator.home",
        "orchestrator.adapters.authority.embedded",
        "orchestrator.adapters.authority.server_certificate",
        "orchestrator.adapters.authority.generations",
    ):
        monkeypatch.setattr(f"{module}.write_atomic", write)
    monkeypatch.setattr(generations.make, "__kwdefaults__", {"write": write})
    yield 0
    monkeypatch.undo()
    yield count


@pytest.mark.parametrize("action", ["rotate", "retire"])
def test_a_crash_before_any_write_leaves_a_platform_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    for at in range(1, 20):
        folder = tmp_path / f"{at}"
        ca = opened(folder)
        known, device = roots_of(ca)[0], new_id("dev")
        if action == "retire":
            ca.rotate()
            ca.ensure_server(NAMES)
            known = roots_of(ca)[0]  # a device that has followed
        held = ca.issue_device(csr(), device, 7)
        steps = crashing(monkeypatch, at)
        next(steps)
        crashed = True
        try:
            getattr(ca, action)()
            ca.ensure_server(NAMES)
            crashed = False
        except Crash:
            pass
        next(steps)
        again = opened(folder)
        assert serves(folder, known), f"a device cannot follow after a crash at write {at}"
        assert again.verify_old(held.pem, device).serial == held.serial
        fresh = again.issue_device(csr(), device, 7)
        leaf, *between = read_chain(fresh.pem)
        assert path_to(leaf, between, roots_of(again)) is not None
        lists = read_crls((folder / "crl.pem").read_bytes())
        issuing = [between[0], *([read_chain(held.pem)[1]] if len(roots_of(again)) > 1 else [])]
        assert {c.subject for c in issuing} <= {crl.issuer for crl in lists}
        if len(roots_of(again)) == (1 if action == "rotate" else 2):
            getattr(again, action)()  # it did not come to pass: it can be done again
        if not crashed:
            assert at > 3
            return
    pytest.fail("it never came to its end")
