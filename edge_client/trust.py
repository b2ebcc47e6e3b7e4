"""What a device checks before it believes a document: the rules, without any IO.

The chain is pinned root → ``targets`` (by threshold) → the delegated roles ``models``
(what a version is made of) and ``director`` (what belongs on which device). Metadata
and signatures are python-tuf's; the idea of one IO-free module that holds every rule
is that of its ``TrustedMetadataSet``. The two kinds of document are those of Uptane.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from pydantic import ValidationError
from tuf.api.exceptions import LengthOrHashMismatchError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    Root,
    TargetFile,
    Targets,
)
from tuf.api.serialization import DeserializationError, SerializationError

from edge_client.errors import TrustError
from edge_client.states import Offer
from schemas.errors import DeviceCause
from schemas.model import MAX_MANIFEST_BYTES, Manifest, Variant
from schemas.rollout import Assignment
from schemas.trust import DIRECTOR_ROLE, MODELS_ROLE, desired_target, manifest_target

MAX_DESIRED_BYTES = 64 * 1024
MAX_SIGNED_BYTES = 1024**2
MAX_TARGETS_BYTES = 4 * 1024**2

_S = TypeVar("_S", Root, Targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who is asking, for the checks that depend on it. earliest: a sane clock's least."""

    device: str
    device_class: str
    floor: int
    earliest: dt.datetime


@dataclass(frozen=True, slots=True)
class Genuine:
    """A manifest that passed every check, with the variant that was assigned."""

    manifest: Manifest
    variant: Variant


class Trust:
    """The pinned root and the delegations under it."""

    def __init__(self, root_json: bytes, targets_json: bytes) -> None:
        """Read and check both.

        Raises:
            TrustError: a document is malformed, or not signed by enough of its keys.
        """
        self._root = _parse(root_json, Root, MAX_TARGETS_BYTES, "the trust root")
        self._targets = _parse(targets_json, Targets, MAX_TARGETS_BYTES, "the delegations")
        _require_signed(self._root.signed, Root.type, self._root, "the trust root")
        _require_signed(self._root.signed, Targets.type, self._targets, "the delegations")

    def desired(self, raw: bytes, *, me: Reader, now: dt.datetime) -> Offer:
        """Check a desired document.

        Args:
            raw: the director's signed JSON.
            me: this device, with its sequence floor.
            now: the time, with a zone.

        Raises:
            TrustError: it must not be acted on; ``cause`` says why.
        """
        self._require_clock(me, now)
        document = self._delegated(DIRECTOR_ROLE, raw, MAX_DESIRED_BYTES, now)
        path, target = _only_target(document)
        assignment = _assignment(target)
        if assignment.device != me.device or not path.startswith(f"device/{me.device}/"):
            _refuse(DeviceCause.WRONG_DEVICE, f"the document is for {assignment.device}")
        if path != desired_target(me.device, assignment.execution):
            _refuse(DeviceCause.BAD_SIGNATURE, f"target {path} names another execution")
        self._require_path(DIRECTOR_ROLE, path)
        if document.version < me.floor:
            _refuse(
                DeviceCause.BELOW_FLOOR,
                f"sequence {document.version} is below {me.floor}, which was accepted before",
            )
        if assignment.device_class != me.device_class:
            _refuse(
                DeviceCause.WRONG_CLASS,
                f"it is for class {assignment.device_class}, this device is {me.device_class}",
            )
        if target.hashes.get("sha256") != assignment.manifest_sha256:
            _refuse(DeviceCause.DIGEST_MISMATCH, "assignment and target name two manifests")
        if not 0 < target.length <= MAX_MANIFEST_BYTES:
            _refuse(DeviceCause.DIGEST_MISMATCH, f"a manifest of {target.length} bytes")
        return Offer(assignment=assignment, sequence=document.version, length=target.length)

    def manifest(self, text: bytes, signed: bytes, *, offer: Offer, now: dt.datetime) -> Genuine:
        """Check a manifest against both roles' documents.

        Args:
            text: the manifest's JSON, exactly as it was hashed.
            signed: the ``models`` role's signed JSON.
            offer: the verified desired document.
            now: the time, with a zone.

        Raises:
            TrustError: it must not be acted on; ``cause`` says why.
        """
        assignment = offer.assignment
        document = self._delegated(MODELS_ROLE, signed, MAX_SIGNED_BYTES, now)
        path = manifest_target(assignment.model, assignment.version)
        self._require_path(MODELS_ROLE, path)
        target = document.targets.get(path)
        if target is None:
            _refuse(DeviceCause.BAD_SIGNATURE, f"the models role does not list {path}")
        directed = TargetFile(offer.length, {"sha256": assignment.manifest_sha256}, path)
        for expected in (directed, target):
            try:
                expected.verify_length_and_hashes(text)
            except LengthOrHashMismatchError as error:
                raise TrustError(DeviceCause.DIGEST_MISMATCH, f"{path}: {error}") from error
        return read_manifest(text, assignment)

    def _delegated(self, role: str, raw: bytes, limit: int, now: dt.datetime) -> Targets:
        document = _parse(raw, Targets, limit, f"the {role} document")
        _require_signed(self._targets.signed, role, document, f"the {role} document")
        for what, signed in (
            ("the trust root", self._root.signed),
            ("the delegations", self._targets.signed),
            (f"the {role} document", document.signed),
        ):
            if signed.is_expired(now):
                _refuse(DeviceCause.EXPIRED, f"{what} expired at {signed.expires.isoformat()}")
        return document.signed

    def _require_path(self, role: str, path: str) -> None:
        delegated = self._targets.signed.get_delegated_role(role)
        if not (isinstance(delegated, DelegatedRole) and delegated.is_delegated_path(path)):
            _refuse(DeviceCause.BAD_SIGNATURE, f"{role} may not sign {path}")

    @staticmethod
    def _require_clock(me: Reader, now: dt.datetime) -> None:
        if now < me.earliest:
            detail = f"the clock says {now.isoformat()}, which has passed; set it and try again"
            _refuse(DeviceCause.EXPIRED, detail)


def read_manifest(text: bytes, assignment: Assignment) -> Genuine:
    """Read a manifest whose bytes are known to be genuine.

    Raises:
        TrustError: it is malformed, or not what the assignment names.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        detail = f"the manifest is malformed: {error.errors()[0]['msg']}"
        raise TrustError(DeviceCause.LOAD_FAILED, detail) from error
    variant = manifest.variant(assignment.variant)
    if manifest.model != assignment.model:
        _refuse(DeviceCause.DIGEST_MISMATCH, f"the manifest is of {manifest.model}")
    if variant is None:
        _refuse(DeviceCause.LOAD_FAILED, f"the manifest has no variant {assignment.variant}")
    return Genuine(manifest, variant)


def claimed_key(raw: bytes) -> tuple[str, int] | None:
    """Which execution a document says it is for, believed or not.

    A refusal has to name one. Nothing else may rest on it.
    """
    try:
        document = _parse(raw, Targets, MAX_DESIRED_BYTES, "the document")
        assignment = _assignment(_only_target(document.signed)[1])
    except TrustError:
        return None
    return (assignment.execution, assignment.attempt)


def _parse(raw: bytes, kind: type[_S], limit: int, what: str) -> Metadata[_S]:
    if len(raw) > limit:
        _refuse(DeviceCause.BAD_SIGNATURE, f"{what} is larger than {limit} bytes")
    try:
        document = Metadata[_S].from_bytes(raw)
    except DeserializationError as error:
        raise TrustError(DeviceCause.BAD_SIGNATURE, f"{what} is malformed") from error
    if not isinstance(document.signed, kind):
        _refuse(DeviceCause.BAD_SIGNATURE, f"{what} is a {document.signed.type} document")
    return document


def _require_signed(
    delegator: Root | Targets, role: str, document: Metadata[_S], what: str
) -> None:
    try:
        delegator.verify_delegate(role, document.signed_bytes, document.signatures)
    except (UnsignedMetadataError, SerializationError, ValueError) as error:
        raise TrustError(DeviceCause.BAD_SIGNATURE, f"{what}: {error}") from error


def _only_target(document: Targets) -> tuple[str, TargetFile]:
    if len(document.targets) != 1 or document.delegations is not None:
        _refuse(DeviceCause.BAD_SIGNATURE, "a desired document has exactly one target")
    return next(iter(document.targets.items()))


def _assignment(target: TargetFile) -> Assignment:
    try:
        return Assignment.model_validate(target.custom, extra="ignore")
    except ValidationError as error:
        detail = f"the assignment is malformed: {error.errors()[0]['msg']}"
        raise TrustError(DeviceCause.BAD_SIGNATURE, detail) from error


def _refuse(cause: DeviceCause, message: str) -> NoReturn:
    raise TrustError(cause, message)
