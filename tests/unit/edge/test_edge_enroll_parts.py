"""What is typed at enrollment, who is believed, and what survives a kill."""

from __future__ import annotations

import datetime as dt
import secrets

import pytest

from edge_client import certificates, requested
from edge_client.enroll import parse_pasted
from edge_client.enroll_command import make_key, read_key_file
from edge_client.errors import CertificateError, UsageError
from edge_client.https import parse_server
from edge_client.identity import Identity, NewIdentity
from edge_client.reenroll import Change, change, drop
from edge_client.requested import EnrollmentNote
from edge_client.settings import Home
from edge_client.span import Span
from schemas.enroll import JoinToken
from schemas.ids import new_id
from tests.fakes.edge_certificates import certificate, enrolled, issuing, now
from tests.fakes.edge_kill import killed_at_each_step, without_fsync
from tests.fakes.gateway import Ca


def token() -> str:
    return str(JoinToken(new_id("tok"), secrets.token_urlsafe(32), "0" * 64, "1" * 64))


TOKEN, OTHER = token(), token()
URL = "https://argosy.example.org:8420"


@pytest.mark.parametrize(
    "pasted",
    [
        f"argosy-edge enroll {TOKEN} --server {URL}",
        f"  sudo argosy-edge enroll --server={URL} '{TOKEN}' --home /d\n",
        f'$ argosy-edge enroll "{TOKEN}" --server {URL} # {TOKEN}',
    ],
)
def test_a_whole_command_is_understood(pasted):
    found = parse_pasted(pasted)
    assert (str(found.token), found.server) == (TOKEN, URL)


def test_a_token_alone_names_no_server():
    assert parse_pasted(f" {TOKEN}\n").server is None


@pytest.mark.parametrize(
    ("pasted", "word"),
    [
        (f"{TOKEN} {OTHER}", "2 join tokens"),
        (f"{TOKEN} --server https://a --server https://b", "2 servers"),
        (f"enroll '{TOKEN}", "cannot be read"),
        ("enroll --server https://a", "not a join token"),
        (TOKEN[:-3], "not a join token"),
        (TOKEN + "x" * 5000, "characters"),
        ("", "not a join token"),
    ],
)
def test_what_is_ambiguous_is_refused(pasted, word):
    with pytest.raises(UsageError, match=word):
        parse_pasted(pasted)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:80/", "http://localhost", URL])
def test_servers_that_may_be_called(url):
    assert parse_server(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://example.org", "not encrypted"),
        ("http://127.0.0.1.example.org", "not encrypted"),
        ("ftp://x", "not a server"),
        ("https://", "not a server"),
        ("https://a:b@x", "not a server"),
        ("https://x:99999", "not a server"),
        ("https://x?y=1", "not a server"),
    ],
)
def test_servers_that_may_not(url, word):
    with pytest.raises(UsageError, match=word):
        parse_server(url)
    if "encrypted" in word:
        assert parse_server(url, insecure_http=True) == url


def test_lengths_of_time():
    read = [Span().convert(text, None, None) for text in ("90", "90s", "1.5m", "2h", "1d")]
    assert read == [90, 90, 90, 7200, 86400]


def test_a_key_is_made_once_and_read_again(tmp_path):
    path = tmp_path / "device.key"
    sha256, made = make_key(path)
    assert made
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_key(path) == (sha256, False)
    assert certificates.spki_sha256(read_key_file(path)) == sha256


@pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----\n", Ca().pem])
def test_a_file_that_is_no_key_is_said_to_be_none(tmp_path, text):
    (tmp_path / "k").write_bytes(text)
    with pytest.raises(CertificateError, match="not a private key"):
        make_key(tmp_path / "k")
    with pytest.raises(UsageError, match="no folder"):
        make_key(tmp_path / "missing" / "k")


def test_a_chain_leads_to_a_root_or_it_does_not():
    root, key = Ca(), certificates.new_key()
    first, second = issuing(root), issuing(root)
    below = issuing(first)
    leaf = certificate("dev", key.public_key(), below)
    roots = [root.certificate]
    between = [second.certificate, first.certificate, below.certificate]
    assert certificates.leads_to_root(leaf, between, roots)
    assert not certificates.leads_to_root(leaf, between[:2], roots)
    assert not certificates.leads_to_root(leaf, between, [Ca().certificate])
    device = Ca()  # a device's certificate must not vouch for another's
    device.certificate = certificate("dev", device.key.public_key(), root)
    forged = certificate("dev", key.public_key(), device)
    assert not certificates.leads_to_root(forged, [device.certificate], roots)


@pytest.mark.parametrize(("years", "word"), [(-6, "not valid yet"), (64, "no longer valid")])
def test_a_wrong_clock_is_named(years, word):
    ca = Ca()
    leaf = certificate("dev", ca.key.public_key(), ca)
    clock = now() + dt.timedelta(days=365 * years)
    with pytest.raises(CertificateError, match=word) as caught:
        certificates.check_time(certificates.life_of(leaf), clock, "the certificate")
    assert "clock" in str(caught.value.hint)


def test_a_request_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    without_fsync(monkeypatch)
    folder, key = tmp_path / "enrollment", certificates.new_key()
    note = EnrollmentNote(
        csr_pem=certificates.request(key),
        began=now(),
        token=new_id("tok"),
        token_sha256="0" * 64,
        server=URL,
    )
    amended = note.model_copy(update={"device": new_id("dev"), "fingerprint": "a-b"})

    def work() -> None:
        requested.keep(folder, key, note)
        requested.amend(folder, amended)
        requested.forget(folder)

    seen: set[str | None] = set()
    for _ in killed_at_each_step(lambda: requested.forget(folder), work):
        kept = requested.kept(folder, EnrollmentNote)
        seen.add("nothing" if kept is None else kept[1].device)
        if kept is not None:
            assert certificates.key_pem(kept[0]) == certificates.key_pem(key)
            assert kept[1] in {note, amended}
    assert seen == {"nothing", None, amended.device}


def test_what_belonged_to_another_device_is_dropped(tmp_path):
    home, ca = Home(tmp_path / "home"), Ca()
    old = enrolled(home, ca)
    same = enrolled(Home(tmp_path / "a"), ca, device=old.record.device)
    other = enrolled(Home(tmp_path / "b"), ca)
    stranger = enrolled(Home(tmp_path / "c"), Ca(), root_json=b"{1}")

    def as_new(identity: Identity) -> NewIdentity:
        return NewIdentity(
            record=identity.record,
            key_pem=identity.key.read_bytes(),
            certificate_pem=identity.certificate.read_bytes(),
            ca_pem=identity.ca.read_bytes(),
            root_json=identity.root_json,
        )

    assert change(None, as_new(same)) is Change.FIRST
    assert change(old, as_new(same)) is Change.SAME_DEVICE
    assert change(old, as_new(other)) is Change.OTHER_DEVICE
    assert change(old, as_new(stranger)) is Change.OTHER_PLATFORM
    home.metadata.mkdir(parents=True, exist_ok=True)
    drop(home, Change.SAME_DEVICE)
    assert home.metadata.exists()
    drop(home, Change.OTHER_PLATFORM)
    assert not home.metadata.exists()
