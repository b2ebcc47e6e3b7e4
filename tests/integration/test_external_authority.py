"""An authority behind a program: a real one in openssl, and ones that do it wrong."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority import (
    CertificateAuthority,
    CommandAuthority,
    RevokedSerial,
    open_authority,
)
from orchestrator.adapters.authority.chains import read_chain
from orchestrator.adapters.authority.crl import read_crls, serials_of
from orchestrator.errors import Invalid, Unauthenticated, Unavailable
from schemas.ids import new_id

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "examples/external_ca/ca.sh"


def csr() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody else")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority made by openssl, and a program that is bound to it."""
    folder = tmp_path_factory.mktemp("external")
    command = folder / "command"
    command.write_text(f'#!/bin/sh\nCA_HOME={folder}/ca exec "{SCRIPT}" "$@"\n')
    command.chmod(0o755)
    subprocess.run([command, "init"], check=True)
    return folder


def authority(folder: Path, own: Path, program: str | None = None) -> CertificateAuthority:
    """The platform's authority with that program, or with a shell script in its place."""
    command = own / "command"
    if program is not None:
        command = folder / "program"
        command.write_text(f"#!/bin/sh\n{program}\n")
        command.chmod(0o755)
    return open_authority(folder / "ca", command=command, roots=own / "ca/roots.pem")


def now() -> datetime:
    return datetime.now(UTC)


def test_a_device_gets_its_certificate_from_the_program(tmp_path: Path, own: Path) -> None:
    ca = authority(tmp_path, own)
    ca.publish([], ca.canaries())
    device = new_id("dev")
    issued = ca.issue_device(csr(), device, 7)
    leaf, issuing = read_chain(issued.pem)
    assert leaf.subject.rfc4514_string() == f"CN={device}"
    assert issuing.subject.rfc4514_string() == "CN=Our own devices"
    assert timedelta(days=6) < issued.expires - now() < timedelta(days=8)
    assert ca.root_of(issued.root_sha256)
    assert issued.root_sha256 != ca.ca_sha256(), "tokens pin the platform's own: the server's"
    assert len(read_chain(ca.pem)) == 2
    assert read_chain((tmp_path / "ca/ca.pem").read_text()) == read_chain(ca.pem)
    assert ca.verify_old(issued.pem, device).serial == issued.serial
    with pytest.raises(Unauthenticated):
        ca.verify_old(issued.pem, new_id("dev"))
    with pytest.raises(Unauthenticated):
        CertificateAuthority.open(tmp_path / "ca").verify_old(issued.pem, device)
    assert [root.external for root in ca.roots()] == [False, True]


def openssl_accepts(folder: Path, chain: str) -> bool:
    """As a broker judges a device: by the roots and the lists that are written for it."""
    (folder / "chain.pem").write_text(chain)
    ca = folder / "ca"
    trusted = ["-CAfile", ca / "ca.pem", "-CRLfile", ca / "crl.pem", "-crl_check"]
    command = ["openssl", "verify", *trusted, "-untrusted", folder / "chain.pem"]
    done = subprocess.run([*command, folder / "chain.pem"], capture_output=True, check=False)
    return done.returncode == 0


def test_revoking_reaches_the_programs_list(tmp_path: Path, own: Path) -> None:
    ca = authority(tmp_path, own)
    ca.publish([], ca.canaries())
    one, two = (ca.issue_device(csr(), new_id("dev"), 7) for _ in range(2))
    ours = CertificateAuthority.open(tmp_path / "ca").issue_device(csr(), new_id("dev"), 7)
    revoked = [RevokedSerial(i.serial, now()) for i in (one, ours)]
    canaries = ca.canaries()
    due = ca.publish(revoked, canaries)
    assert timedelta(days=3) < due - now() < timedelta(days=4), "half of the list's life"
    platform, external = read_crls(ca.crl_pem.encode())
    assert serials_of(external) == {int(one.serial, 16)}
    assert int(two.serial, 16) not in serials_of(external) | serials_of(platform)
    assert {int(ours.serial, 16), int(canaries[0].bad.serial, 16)} <= serials_of(platform)
    assert openssl_accepts(tmp_path, two.pem)
    assert not openssl_accepts(tmp_path, one.pem)
    assert not openssl_accepts(tmp_path, ours.pem)
    ca.publish(revoked, ca.canaries())
    ca.settle()
    assert len(read_crls(ca.crl_pem.encode())) == 2
    assert ca.problems() == ()


FAULTS = {
    "exit 1": "ended with 1",
    "echo 'the vault is sealed' >&2; exit 4": "ended with 4: the vault is sealed",
    "sleep 60": "took over",
    "yes | head -c 3000000; sleep 60": "said more than",
    "echo hello": "no chain of certificates",
    "echo": "no chain of certificates",
    "CA_HOME={own}/ca {script} issue dev_0123456789abcdef 7": "common name is not",
    "CA_HOME={own}/ca {script} issue $2 400": "valid for longer than 7 days",
    "cat {other}/other.pem": "does not lead to a root",
    "cat {own}/ca/issuing.pem": "another key",
    "cat {own}/stranger.pem": "another key",
}


@pytest.mark.parametrize("program", FAULTS)
def test_whatever_the_program_answers_is_checked(tmp_path: Path, own: Path, program: str) -> None:
    other = open_authority(tmp_path / "stranger")
    (tmp_path / "other.pem").write_text(other.issue_device(csr(), new_id("dev"), 7).pem)
    good = authority(tmp_path / "good", own) if (tmp_path / "good").mkdir() is None else None
    assert good is not None
    good.publish([], good.canaries())
    (own / "stranger.pem").write_text(good.issue_device(csr(), new_id("dev"), 7).pem)
    text = program.replace("{own}", str(own)).replace("{script}", str(SCRIPT))
    ca = authority(tmp_path, own, text.replace("{other}", str(tmp_path)))
    assert isinstance(ca, CommandAuthority)
    ca._seconds = 1.0
    with pytest.raises(Unavailable, match=FAULTS[program]):
        ca.issue_device(csr(), new_id("dev"), 7)


def test_a_certificate_without_a_list_is_not_given_out(tmp_path: Path, own: Path) -> None:
    # The broker would refuse the device.
    program = f'[ "$1" = issue ] || exit 1\nCA_HOME={own}/ca exec {SCRIPT} "$@"'
    ca = authority(tmp_path, own, program)
    with pytest.raises(Unavailable, match="`crl` ended with 1"):
        ca.issue_device(csr(), new_id("dev"), 7)


def test_lists_that_do_not_name_the_revoked_are_told(tmp_path: Path, own: Path) -> None:
    good = authority(tmp_path, own)
    good.publish([], good.canaries())
    issued = good.issue_device(csr(), new_id("dev"), 7)
    lazy = f'[ "$1" = revoke ] && exit 0\nCA_HOME={own}/ca exec {SCRIPT} "$@"'
    ca = authority(tmp_path, own, lazy)
    with pytest.raises(Unavailable, match="do not name 1"):
        ca.publish([RevokedSerial(issued.serial, now())], ca.canaries())
    assert any("do not name 1" in problem for problem in ca.problems())


def test_a_program_that_fails_keeps_the_lists_it_had(tmp_path: Path, own: Path) -> None:
    good = authority(tmp_path, own)
    good.publish([], good.canaries())
    ca = authority(tmp_path, own, "exit 1")
    due = ca.publish([], ca.canaries())
    assert due - now() < timedelta(minutes=1), "it is asked again soon"
    assert len(read_crls(ca.crl_pem.encode())) == 2
    assert any("ended with 1" in problem for problem in ca.problems())


@pytest.mark.parametrize("text", ["", "hello", "leaf"])
def test_roots_that_are_none_are_told(tmp_path: Path, own: Path, text: str) -> None:
    if text == "leaf":
        text = open_authority(tmp_path / "x").issue_device(csr(), new_id("dev"), 7).pem
    (tmp_path / "roots.pem").write_text(text)
    with pytest.raises(Invalid, match="ARGOSY_CA_ROOTS"):
        open_authority(tmp_path / "ca", command=own / "command", roots=tmp_path / "roots.pem")
