"""Certificates of any kind: lives, chains and roots, made with a throw-away authority."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_client.certificates import key_pem
from edge_client.identity import Identity, IdentityRecord, NewIdentity, save_identity
from edge_client.settings import Home
from schemas.enroll import BrokerAddress
from schemas.ids import new_id
from tests.fakes.gateway import Ca

HOUR = dt.timedelta(hours=1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(
    name: str,
    public_key,
    issuer: Ca,
    *,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    authority: bool = False,
) -> x509.Certificate:
    """A certificate; ``issuer`` is one of ``Ca`` or what looks like it."""
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start or now() - HOUR)
        .not_valid_after(end or now() + 24 * HOUR)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer.key, hashes.SHA256())
    )


def pem(*found: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in found)


def issuing(root: Ca) -> Ca:
    """An authority below a root."""
    below = Ca()
    below.certificate = certificate("issuing", below.key.public_key(), root, authority=True)
    return below


def answer_to(csr_pem: str, device: str, issuer: Ca, **life) -> bytes:
    """The certificate for a request."""
    public_key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
    return pem(certificate(device, public_key, issuer, **life))


def enrolled(
    home: Home,
    ca: Ca,
    *,
    device: str | None = None,
    port: int = 1,
    server: str = "http://127.0.0.1:1",
    heartbeat: float = 5.0,
    root_json: bytes = b"{}",
    **life,
) -> Identity:
    """A home with an identity whose certificate lives as long as is told."""
    device = device or new_id("dev")
    key = ec.generate_private_key(ec.SECP256R1())
    record = IdentityRecord(
        device=device,
        device_class="default",
        broker=BrokerAddress(host="127.0.0.1", port=port),
        heartbeat_seconds=heartbeat,
        server=server,
    )
    new = NewIdentity(
        record=record,
        key_pem=key_pem(key),
        certificate_pem=pem(certificate(device, key.public_key(), ca, **life)),
        ca_pem=ca.pem,
        root_json=root_json,
    )
    return save_identity(home, new)
