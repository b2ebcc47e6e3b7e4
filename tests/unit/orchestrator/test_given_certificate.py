"""A certificate that the operator gives the API."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.adapters.authority.chains import read_chain
from orchestrator.adapters.authority.parts import DER
from orchestrator.adapters.authority.served import check_given, keep_serving, local_ca
from orchestrator.errors import Invalid
from orchestrator.home import Home
from orchestrator.settings import load

NOW = datetime.now(UTC).replace(microsecond=0)
NAME = "argosy.example"
ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound


def pair(folder: Path, *names: str, root: bool = False) -> tuple[Path, Path]:
    """A certificate for these names, as another authority would give it."""
    ca = CertificateAuthority.open_or_create(folder, clock=lambda: NOW)
    ca.ensure_server(names)
    certificate = folder / "server.pem"
    if root:
        certificate.write_text(certificate.read_text() + ca.pem)
    return certificate, folder / "server.key"


def test_a_good_one_is_taken(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, NAME, "*.sub.example", root=True)
    served = check_given(certificate, key, (NAME, "a.sub.example"), NOW)
    assert served.root == read_chain((tmp_path / "ca.pem").read_text())[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c, _: c.unlink(), "ARGOSY_TLS_CERT: .* cannot be read"),
        (lambda c, _: c.write_text("x"), "ARGOSY_TLS_CERT: .* no certificates"),
        (lambda _, k: k.write_text("x"), "ARGOSY_TLS_KEY: .* no private key"),
        (lambda _, k: k.unlink(), "ARGOSY_TLS_KEY: .* cannot be read"),
        (lambda c, k: pair(c.parent / "x", NAME)[1].replace(k), "ARGOSY_TLS_KEY: .* not the key"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, spoil, said: str) -> None:
    certificate, key = pair(tmp_path, NAME)
    spoil(certificate, key)
    with pytest.raises(Invalid, match=said):
        check_given(certificate, key, (NAME,), NOW)


def test_an_expired_one_or_one_for_another_name_is_told(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, NAME, "*.example")
    with pytest.raises(Invalid, match="is valid from"):
        check_given(certificate, key, (NAME,), NOW + timedelta(days=1000))
    for name in ("other.test", "10.0.0.1", "a.b.example"):
        with pytest.raises(Invalid, match=f"is not for {name}"):
            check_given(certificate, key, (name,), NOW)


def test_settings_go_together(tmp_path: Path) -> None:
    env = {"ARGOSY_TLS_CERT": "/x", "ARGOSY_HOST": ANYWHERE}
    with pytest.raises(Invalid, match="ARGOSY_TLS_CERT and ARGOSY_TLS_KEY go together"):
        load(env, home=tmp_path)
    with pytest.raises(Invalid, match="without TLS"):
        load({"ARGOSY_TLS_CERT": "/x", "ARGOSY_TLS_KEY": "/y"}, home=tmp_path)
    with pytest.raises(Invalid, match="ARGOSY_CA_COMMAND and ARGOSY_CA_ROOTS go together"):
        load({"ARGOSY_CA_COMMAND": "/x"}, home=tmp_path)


def test_programs_on_this_machine_are_told_by_what_to_check_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    own = {"ARGOSY_HOST": ANYWHERE}
    assert local_ca(load({}, home=home.path), home) is None
    assert local_ca(load(own, home=home.path), home) == str(home.ca_pem)
    for with_root in (False, True):
        certificate, key = pair(tmp_path / f"{with_root}", NAME, root=with_root)
        given = {"ARGOSY_TLS_CERT": str(certificate), "ARGOSY_TLS_KEY": str(key)}
        settings = load(own | given, home=home.path, public_url=f"https://{NAME}")
        assert settings.url == f"https://{NAME}"
        found = local_ca(settings, home)
        assert (found is not None) == with_root
        if found is not None:
            kept = read_chain(Path(found).read_text())
            assert kept == read_chain((tmp_path / "True/ca.pem").read_text())


def test_a_new_pair_is_served_without_a_restart(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path / "a", NAME)
    other, other_key = pair(tmp_path / "b", NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    look = keep_serving(context, certificate, key)
    first = served_by(context)
    os.utime(other, ns=(1, 1))
    certificate.write_bytes(other.read_bytes())
    look()
    assert served_by(context) == first, "half of a pair is not taken up"
    key.write_bytes(other_key.read_bytes())
    os.utime(key, ns=(2, 2))
    look()
    assert served_by(context) == read_chain(other.read_text())[0].public_bytes(DER)


def served_by(context: ssl.SSLContext) -> bytes:
    """The certificate that a client is shown."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with context.wrap_socket(theirs, server_side=True) as sock:
            sock.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with client.wrap_socket(ours) as sock:
        shown = sock.getpeercert(binary_form=True)
        sock.sendall(b"x")
    thread.join(5)
    assert shown is not None
    return shown
