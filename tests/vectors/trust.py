"""Vectors of trust: metadata from a pinned root on, and documents to believe or to refuse.

Keys are made of fixed seeds, so that the files are the same each time they are made.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from schemas.rollout import Assignment, Probation
from tests.fakes import edge_trust

NOW = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)
EXPIRES = dt.datetime(2027, 6, 1, 12, 0, tzinfo=dt.UTC)
DEVICE = "dev_01jqz3k5m7n9p1r3"
OTHER = "dev_01jqz3k5m7n9p1r4"
EXECUTION = "exe_01jqz3k5m7n9p1r5"
MANIFEST = b"the manifest of digits, version 3"
SEQUENCE = 7


def _signers() -> Iterator[CryptoSigner]:
    for number in range(1, 100):
        seed = hashlib.sha256(f"argosy vectors {number}".encode()).digest()
        yield CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed))


def assignment(**changes: Any) -> Assignment:
    """The one of the good case."""
    fields: dict[str, Any] = {
        "device": DEVICE,
        "device_class": "camera",
        "execution": EXECUTION,
        "attempt": 1,
        "rollout": "rol_01jqz3k5m7n9p1r6",
        "model": "digits",
        "version": 3,
        "variant": "int8",
        "manifest_sha256": hashlib.sha256(MANIFEST).hexdigest(),
        "probation": Probation(),
    }
    return Assignment(**{**fields, **changes})


def vectors() -> dict[str, dict[str, Any]]:
    """Each file's content by its name."""
    signers = _signers()
    with patch.object(edge_trust, "new_signer", lambda: next(signers)):
        signer = edge_trust.Signer(expires=EXPIRES)
        signer.add(MANIFEST, version=3)
        stranger = edge_trust.new_signer()
    cases = list(_cases(signer, stranger))
    files = {name: data.decode() for name, data in sorted(signer.files.items())}
    # What python-tuf signs: shown, so that others can look at their canonical JSON first.
    document = Metadata[Targets].from_bytes(cases[0]["document"].encode())
    (keyid,) = document.signatures
    signed = {
        "keyid": keyid,
        "ed25519_public": signer.director.public_key.keyval["public"],
        "canonical": document.signed_bytes.decode(),
        "signature": document.signatures[keyid].signature,
    }
    return {
        "desired.json": {
            "pinned_root": "1.root.json",
            "files": files,
            "signed": signed,
            "cases": cases,
        }
    }


def _cases(signer: edge_trust.Signer, stranger: CryptoSigner) -> Iterator[dict[str, Any]]:
    def desired(given: Assignment | None = None, **more: Any) -> bytes:
        more = {"sequence": SEQUENCE, "length": len(MANIFEST), "expires": EXPIRES, **more}
        return signer.desired(given or assignment(), **more)

    def case(name: str, document: bytes, cause: str | None, **more: Any) -> dict[str, Any]:
        asked = {"device": DEVICE, "device_class": "camera", "floor": SEQUENCE, "now": NOW} | more
        found = {"accept": cause is None, "cause": cause, "document": document.decode()}
        return {"name": name, **asked, "now": asked["now"].isoformat(), **found}

    good = desired()
    yield case("what the device is to run", good, None)
    yield case("the same again", good, None, floor=SEQUENCE)
    yield case("a device that accepted a later one", good, "below_floor", floor=SEQUENCE + 1)
    yield case("another device", good, "wrong_device", device=OTHER)
    yield case("a device of another class", good, "wrong_class", device_class="gate")
    yield case("signed by a stranger", desired(signer=stranger), "bad_signature")
    yield case("signed by the role of the models", desired(signer=signer.models), "bad_signature")
    yield case("a byte of it changed", good.replace(b'"int8"', b'"fp32"'), "bad_signature")
    yield case("expired", desired(expires=NOW), "expired")
    yield case("a clock behind which the metadata ends", good, "expired", now=EXPIRES)
    path = f"device/{DEVICE}/exe_01jqz3k5m7n9p1r7"
    yield case("a path of another execution", desired(path=path), "bad_signature")
    yield case(
        "a path of another device", desired(path=f"device/{OTHER}/{EXECUTION}"), "wrong_device"
    )
    yield case("two manifests in one document", desired(sha256="0" * 64), "digest_mismatch")
    unlisted = desired(assignment(version=4))
    yield case("a version that no role lists", unlisted, "bad_signature")
    another = desired(assignment(manifest_sha256="1" * 64))
    yield case("another manifest than the model's role lists", another, "digest_mismatch")
    yield case("another length than the model's role lists", desired(length=5), "digest_mismatch")
    yield case("two targets", _two_targets(signer), "bad_signature")
    yield case("no JSON", b"{", "bad_signature")
    yield case("a root in its place", signer.root_json(), "bad_signature")


def _two_targets(signer: edge_trust.Signer) -> bytes:
    paths = (f"device/{DEVICE}/{EXECUTION}", f"device/{DEVICE}/exe_01jqz3k5m7n9p1r7")
    targets = {path: TargetFile(5, {"sha256": "0" * 64}, path) for path in paths}
    return edge_trust.sign(Targets(SEQUENCE, None, EXPIRES, targets), signer.director)
