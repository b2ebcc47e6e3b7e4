"""What a device checks before it believes a document: the rules, without any IO.

Two roles must agree, as in Uptane: the ``director`` says what belongs on which device, and
a model's own role what a version is made of. Where their keys come from is the work of
``edge_client.metadata``; here both documents are held against each other and against the device.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

from pydantic import ValidationError
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile, Targets

from edge_client.errors import TrustError
from edge_client.metadata_rules import Delegation, Found, expired, parse_targets, refuse
from edge_client.states import Offer
from schemas.errors import DeviceCause
from schemas.model import MAX_MANIFEST_BYTES, Manifest, Variant
from schemas.rollout import Assignment
from schemas.trust import desired_target, manifest_target

MAX_DESIRED_BYTES = 64 * 1024

CLOCK_SLACK = dt.timedelta(minutes=5)
"""A clock may be set back by this much against the last good time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who is asking, for the checks that depend on it. floor: the least sequence."""

    device: str
    device_class: str
    floor: int


@dataclass(frozen=True, slots=True)
class Genuine:
    """A manifest that passed every check, with the variant that was assigned."""

    manifest: Manifest
    variant: Variant


def require_clock(now: dt.datetime, *, built: dt.datetime, good: float | None) -> None:
    """Refuse to decide by a clock that is behind.

    Args:
        now: the time, with a zone.
        built: before this there was no such program.
        good: seconds since 1970 at which metadata was last found to hold; None at first.

    Raises:
        TrustError: the clock says a time that has passed.
    """
    earliest = built
    if good is not None:
        earliest = max(built, dt.datetime.fromtimestamp(good, dt.UTC) - CLOCK_SLACK)
    if now < earliest:
        detail = (
            f"this device's clock says {now:%Y-%m-%d %H:%M} UTC, which has passed "
            f"(it was {earliest:%Y-%m-%d %H:%M} before); set it, and it is tried again"
        )
        refuse(DeviceCause.EXPIRED, detail)


def read_desired(raw: bytes, *, director: Delegation, me: Reader, now: dt.datetime) -> Offer:
    """Check a desired document by itself.

    Args:
        raw: the director's signed JSON.
        director: its role, in metadata that was refreshed after ``raw`` came.
        me: this device, with its sequence floor.
        now: the time, with a zone.

    Returns:
        What it offers, still to be held against what the model's role says (``confirm``).

    Raises:
        TrustError: it must not be acted on; ``cause`` says why.
    """
    document = director.read(raw, limit=MAX_DESIRED_BYTES, now=now)
    path, target = _only_target(document)
    assignment = _assignment(target)
    if assignment.device != me.device or not path.startswith(f"device/{me.device}/"):
        refuse(DeviceCause.WRONG_DEVICE, f"the document is for {assignment.device}")
    if path != desired_target(me.device, assignment.execution):
        refuse(DeviceCause.BAD_SIGNATURE, f"target {path} names another execution")
    if not director.may_sign(path):
        refuse(DeviceCause.BAD_SIGNATURE, f"the director may not sign {path}")
    if document.version < me.floor:
        refuse(
            DeviceCause.BELOW_FLOOR,
            f"sequence {document.version} is below {me.floor}, which was accepted before",
        )
    if assignment.device_class != me.device_class:
        refuse(
            DeviceCause.WRONG_CLASS,
            f"it is for class {assignment.device_class}, this device is {me.device_class}",
        )
    if target.hashes.get("sha256") != assignment.manifest_sha256:
        refuse(DeviceCause.DIGEST_MISMATCH, "assignment and target name two manifests")
    if not 0 < target.length <= MAX_MANIFEST_BYTES:
        refuse(DeviceCause.DIGEST_MISMATCH, f"a manifest of {target.length} bytes")
    return Offer(
        assignment=assignment,
        sequence=document.version,
        length=target.length,
        expires=min(director.expires, document.expires),
    )


def target_of(offer: Offer) -> str:
    """The target path under which the model's role must list what is offered."""
    return manifest_target(offer.assignment.model, offer.assignment.version)


def confirm(offer: Offer, found: Found | None) -> Offer:
    """Hold an offer against what the model's role says.

    Args:
        offer: what the director wants.
        found: the target ``target_of(offer)``; None when no role lists it.

    Returns:
        The offer, with the time until which both say so.

    Raises:
        TrustError: they do not agree.
    """
    path = target_of(offer)
    if found is None:
        refuse(DeviceCause.BAD_SIGNATURE, f"no role that may sign for the model lists {path}")
    directed = (offer.length, offer.assignment.manifest_sha256)
    if directed != (found.file.length, found.file.hashes.get("sha256")):
        detail = f"the director and the model's role name two manifests for {path}"
        refuse(DeviceCause.DIGEST_MISMATCH, detail)
    ends = found.expires if offer.expires is None else min(offer.expires, found.expires)
    return replace(offer, expires=ends)


def require_current(offer: Offer, now: dt.datetime) -> None:
    """Refuse to install from an offer that was signed for a time that is over.

    Raises:
        TrustError: it expired, or was accepted by a program that did not look.
    """
    if offer.expires is None:
        detail = "the offer was not held against the model's role; it is to be made again"
        refuse(DeviceCause.EXPIRED, detail)
    if now >= offer.expires:
        refuse(DeviceCause.EXPIRED, expired("what the offer rests on", offer.expires, now))


def read_genuine(text: bytes, offer: Offer) -> Genuine:
    """Check that a manifest is the one of a confirmed offer, and read it.

    Raises:
        TrustError: it is not, or it is malformed.
    """
    assignment = offer.assignment
    path = target_of(offer)
    try:
        hashes = {"sha256": assignment.manifest_sha256}
        TargetFile(offer.length, hashes, path).verify_length_and_hashes(text)
    except LengthOrHashMismatchError as error:
        raise TrustError(DeviceCause.DIGEST_MISMATCH, f"{path}: {error}") from error
    return read_manifest(text, assignment)


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
        refuse(DeviceCause.DIGEST_MISMATCH, f"the manifest is of {manifest.model}")
    if variant is None:
        refuse(DeviceCause.LOAD_FAILED, f"the manifest has no variant {assignment.variant}")
    return Genuine(manifest, variant)


def claimed_key(raw: bytes) -> tuple[str, int] | None:
    """Which execution a document says it is for, believed or not.

    A refusal has to name one. Nothing else may rest on it.
    """
    try:
        document = parse_targets(raw, MAX_DESIRED_BYTES, "the document")
        assignment = _assignment(_only_target(document.signed)[1])
    except TrustError:
        return None
    return (assignment.execution, assignment.attempt)


def _only_target(document: Targets) -> tuple[str, TargetFile]:
    if len(document.targets) != 1 or document.delegations is not None:
        refuse(DeviceCause.BAD_SIGNATURE, "a desired document has exactly one target")
    return next(iter(document.targets.items()))


def _assignment(target: TargetFile) -> Assignment:
    try:
        return Assignment.model_validate(target.custom, extra="ignore")
    except ValidationError as error:
        detail = f"the assignment is malformed: {error.errors()[0]['msg']}"
        raise TrustError(DeviceCause.BAD_SIGNATURE, detail) from error
