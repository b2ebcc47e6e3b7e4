"""Renewal by HTTPS: for a device whose certificate the broker does not take any more.

The old key signs the request (``schemas.enroll.renewal_text``), so that nobody else can ask in
the device's name; the server is verified as at enrollment.
"""

from __future__ import annotations

import datetime as dt

from pydantic import ValidationError

from edge_client import certificates
from edge_client.errors import ServerError
from edge_client.files import read_limited
from edge_client.https import Server, Via
from edge_client.identity import Identity
from schemas.enroll import MAX_CHAIN_BYTES, Renewed, RenewRequest, renewal_text


def renewal_request(identity: Identity, csr_pem: str, now: dt.datetime) -> RenewRequest:
    """The signed request.

    Raises:
        CertificateError: the old key is damaged.
    """
    key = certificates.read_key(read_limited(identity.key, MAX_CHAIN_BYTES), "this device's key")
    draft = RenewRequest(
        device=identity.record.device,
        certificate_pem=read_limited(identity.certificate, MAX_CHAIN_BYTES).decode(),
        csr_pem=csr_pem,
        signed_at=now,
        signature="",
    )
    # The text holds the time exactly as the JSON will: so it is taken from there.
    signed_at = draft.model_dump(mode="json")["signed_at"]
    text = renewal_text(draft.device, csr_pem, signed_at)
    return draft.model_copy(update={"signature": certificates.sign(key, text)})


def renew_by_https(identity: Identity, csr_pem: str, now: dt.datetime) -> tuple[Renewed, bool]:
    """Ask for a new certificate.

    Returns:
        The answer, and whether it came by a way on which nobody can have changed it.

    Raises:
        ServerError: the server cannot be reached, refuses, or is not to be trusted.
        CertificateError: the old key is damaged.
    """
    server = Server(identity.record.server, read_limited(identity.ca, MAX_CHAIN_BYTES))
    request = renewal_request(identity, csr_pem, now)
    answer = server.post("/v1/renew", request.model_dump_json())
    try:
        renewed = Renewed.model_validate_json(answer.data)
    except ValidationError as error:
        msg = f"{server.url} did not answer as an Argosy server does"
        raise ServerError(msg) from error
    # Whoever the system's roots vouch for, as a proxy, may carry it but not say whom to trust.
    return renewed, server.via in {Via.PINNED, Via.LOOPBACK}
