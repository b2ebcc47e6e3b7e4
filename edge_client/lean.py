"""Keeps what a device does not need out of the agent's memory."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_HIDDEN = ("boto3", "botocore", "azure.core", "google.cloud.kms", "hvac", "cryptography")
"""What TUF's library imports where it is installed (``securesystemslib.signer``): to sign with keys
in a cloud, and ``cryptography`` for more kinds of keys than ed25519, which it verifies without
(5 ms each). All keys of Argosy's trust metadata are ed25519; a signature by another kind of key
does not verify then, and counts for nothing. boto3 alone is 11 MB, cryptography 10 MB."""

_FETCHER = "tuf.ngclient.urllib3_fetcher"
"""Which TUF's client imports to fetch metadata by HTTP; a device is sent its metadata by MQTT."""

_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the base point of ed25519 (RFC 8032, 5.1)."""

_SIGNATURE_BYTES = 64


def import_trust() -> None:
    """Import TUF's library without what of it, and beside it, is not used; before all else.

    Where it, or what is hidden from it, has been imported already, that is left as it is.
    """
    if "securesystemslib.signer" not in sys.modules:
        _import_signers()
    if "tuf.ngclient" not in sys.modules:
        _import_client()


def _import_signers() -> None:
    """Import TUF's keys as where none of the hidden is installed.

    A module that is None in ``sys.modules`` is not found, as the import system documents; this is
    undone at the end, so that whoever wants such a library later gets it.
    """
    hidden = [name for name in _HIDDEN if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        signer = importlib.import_module("securesystemslib.signer")
    finally:
        for name in hidden:
            del sys.modules[name]
    if "cryptography" in hidden:
        signer.KEY_FOR_TYPE_AND_SCHEME[("ed25519", "ed25519")] = _strict(signer)


def _import_client() -> None:
    """Import TUF's client with a class in place of its fetcher that fetches nothing: 1.5 MiB."""
    empty = ModuleType(_FETCHER)
    empty.__dict__["Urllib3Fetcher"] = type("Urllib3Fetcher", (), {})
    sys.modules[_FETCHER] = empty
    try:
        importlib.import_module("tuf.ngclient")
    finally:
        del sys.modules[_FETCHER]


def _strict(signer: Any) -> type:  # Any: not to be imported before it is
    """A key that takes no second form of a signature, as the library's own verification would."""
    unverified = importlib.import_module("securesystemslib.exceptions").UnverifiedSignatureError

    class Ed25519Key(signer.SSlibKey):  # type: ignore[misc]  # known only at run time
        """Checks S < L first, as RFC 8032 (5.1.7) says and OpenSSL does."""

        def verify_signature(self, signature: Any, data: bytes) -> None:
            if not _canonical(signature.signature):
                msg = f"Failed to verify signature by {self.keyid}"
                raise unverified(msg)
            super().verify_signature(signature, data)

    return Ed25519Key


def _canonical(signature: str) -> bool:
    """Whether hex is a signature's, R and S, with S in its least form."""
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        return False
    return len(raw) == _SIGNATURE_BYTES and int.from_bytes(raw[32:], "little") < _ORDER
