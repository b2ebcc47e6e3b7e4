"""What the agent reads and verifies without ``cryptography`` is what that would say."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from edge_client import certificates
from edge_client.certificate_facts import MAX_CERTIFICATES, read_facts, seen_of
from edge_client.errors import CertificateError
from edge_client.lean import _ORDER

_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(start: datetime, end: datetime, serial: int, names: int = 1) -> x509.Certificate:
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "argosy")]
        + [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "unit" * 9)] * names
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_KEY.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .sign(_KEY, hashes.SHA256())
    )


def pem(*found: x509.Certificate) -> bytes:
    return certificates.to_pem(found)


@pytest.mark.parametrize("year", [1951, 1999, 2000, 2026, 2049, 2050, 2118])
@pytest.mark.parametrize("serial", [1, 127, 128, 2**63, 2**159 - 1])
def test_facts_are_what_the_certificate_says(year, serial):
    start = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    one = certificate(start, start + timedelta(days=7300), serial, names=1 + serial % 40)
    (facts,) = read_facts(b"# before\n" + pem(one), "it")
    assert facts.life == certificates.life_of(one)
    assert facts.digest == certificates.digest(one)
    assert facts.serial == f"{one.serial_number:x}"


def test_of_several_the_first_is_the_device_s_and_all_are_told():
    now = datetime.now(UTC)
    several = [certificate(now, now + timedelta(days=n), n) for n in (1, 2, 3)]
    facts = read_facts(pem(*several), "they")
    seen = seen_of(facts[0], facts[1:])
    assert seen.serial == "1"
    assert seen.roots == tuple(certificates.digest(one) for one in several[1:])


def test_what_is_damaged_is_refused_wherever_it_is_damaged():
    now = datetime.now(UTC)
    one = certificate(now, now + timedelta(days=1), 5)
    der = one.public_bytes(serialization.Encoding.DER)

    for cut in range(0, len(der), 7):
        with pytest.raises(CertificateError, match="not a certificate"):
            read_facts(ssl.DER_cert_to_PEM_cert(der[:cut]).encode(), "it")
    for text in (b"", b"x", b"\xff\xfe", pem(one).replace(b"END", b"ENT")):
        with pytest.raises(CertificateError, match="not a certificate"):
            read_facts(text, "it")


def test_too_many_are_refused():
    now = datetime.now(UTC)
    one = certificate(now, now + timedelta(days=1), 5)
    another = [certificate(now, now + timedelta(days=1), n) for n in range(1, 9)]
    with pytest.raises(CertificateError, match=f"{MAX_CERTIFICATES} are the most"):
        read_facts(pem(one, *another), "it")


VERIFY = """
import json, sys
from edge_client.lean import import_trust
import_trust()
from securesystemslib.signer import Key, Signature
from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.metadata import Metadata
assert "cryptography" not in sys.modules
told = []
for key, signature, data in json.load(sys.stdin):
    try:
        Key.from_dict("id", key).verify_signature(Signature("id", signature), data.encode())
        told.append(True)
    except UnverifiedSignatureError:
        told.append(False)
print(json.dumps(told))
"""


def test_a_lean_agent_takes_a_signature_exactly_when_it_holds():
    key, data = Ed25519PrivateKey.generate(), "what is signed"
    own = {
        "keytype": "ed25519",
        "scheme": "ed25519",
        "keyval": {"public": key.public_key().public_bytes_raw().hex()},
    }
    good = key.sign(data.encode())
    flipped = bytes([good[0] ^ 1]) + good[1:]
    second = good[:32] + (int.from_bytes(good[32:], "little") + _ORDER).to_bytes(32, "little")
    pair = {
        "keytype": "ecdsa",
        "scheme": "ecdsa-sha2-nistp256",
        "keyval": {
            "public": _KEY.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        },
    }
    by_pair = _KEY.sign(data.encode(), ec.ECDSA(hashes.SHA256())).hex()
    cases = [
        (own, good.hex(), data, True),
        (own, good.hex(), data + "!", False),
        (own, flipped.hex(), data, False),
        (own, second.hex(), data, False),
        (own, good.hex()[:-2], data, False),
        (own, good.hex() + "00", data, False),
        (own, "", data, False),
        (own, "not hex", data, False),
        (own, "00" * 64, data, False),
        (pair, by_pair, data, False),
    ]
    done = subprocess.run(
        [sys.executable, "-c", VERIFY],
        input=json.dumps([case[:3] for case in cases]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [case[3] for case in cases]
