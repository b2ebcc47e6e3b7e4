"""The signer of TUF metadata (theupdateframework, specification 1.0) for one platform.

``root`` vouches for ``targets``, which delegates to ``models`` (what a version is made
of) and ``director`` (which version belongs on which device). Each role has a key of its
own (Ed25519). Serving needs the keys of ``models`` and ``director`` alone: ``root.pem``,
``targets.pem``, ``snapshot.pem`` and ``timestamp.pem`` may be moved away from the server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import KeyMismatchError
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    TargetFile,
    Targets,
)
from tuf.api.serialization.json import JSONSerializer

from orchestrator.adapters.certificates import utc_now
from orchestrator.errors import Unavailable
from orchestrator.home import write_atomic
from schemas.rollout import Assignment
from schemas.trust import (
    DIRECTOR_PATHS,
    DIRECTOR_ROLE,
    MODELS_PATHS,
    MODELS_ROLE,
    ROOT_FILE,
    TARGETS_FILE,
    desired_target,
    manifest_target,
    signable,
)

LIFETIME = timedelta(days=3650)
"""Of the root and of its delegations: devices pin both at enrollment."""

MANIFEST_LIFETIME = timedelta(days=365)

_Document = TypeVar("_Document", Root, Targets)
_COMPACT = JSONSerializer(compact=True)


class TrustStore:
    """The two documents that devices pin, and the two keys that sign for them.

    Args:
        root_json: ``root.json``, as it is on disk.
        targets_json: ``targets.json``, likewise.
        signers: the signers of ``models`` and ``director``.
        clock: tells the time; in UTC.
    """

    def __init__(
        self,
        root_json: bytes,
        targets_json: bytes,
        signers: dict[str, CryptoSigner],
        clock: Callable[[], datetime],
    ) -> None:
        self._root_json = root_json
        self._targets_json = targets_json
        self._signers = signers
        self._clock = clock

    @classmethod
    def open_or_create(cls, folder: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the trust store of a folder, making it at the first call.

        Raises:
            Unavailable: one of its files is missing, damaged or not signed as it must be.
        """
        if not (folder / ROOT_FILE).exists():
            _create(folder, clock())
        return cls.open(folder, clock)

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the trust store of a folder, checking it as a device will.

        Raises:
            Unavailable: one of its files is missing, damaged or not signed as it must be.
        """
        try:
            root_json = (folder / ROOT_FILE).read_bytes()
            targets_json = (folder / TARGETS_FILE).read_bytes()
            root = Metadata[Root].from_bytes(root_json)
            root.verify_delegate(Root.type, root)
            targets = Metadata[Targets].from_bytes(targets_json)
            root.verify_delegate(Targets.type, targets)
            signers = {
                role: _load_signer(folder, role, targets.signed)
                for role in (MODELS_ROLE, DIRECTOR_ROLE)
            }
        except (OSError, ValueError, RepositoryError, KeyMismatchError) as error:
            msg = f"the trust store in {folder} is damaged: {error}"
            hint = "restore the folder from a backup; devices trust this root and no other"
            raise Unavailable(msg, hint=hint) from error
        return cls(root_json, targets_json, signers, clock)

    @property
    def root_json(self) -> str:
        """The root's metadata, whose hash a join token pins."""
        return self._root_json.decode()

    @property
    def targets_json(self) -> str:
        """The delegations to ``models`` and ``director``, signed by ``targets``."""
        return self._targets_json.decode()

    def root_sha256(self) -> str:
        """The SHA-256 of ``root_json``, in hex."""
        return hashlib.sha256(self._root_json).hexdigest()

    def sign_manifest(self, model: str, version: int, manifest: bytes) -> bytes:
        """The ``models`` role's document that lists a version's manifest, and it alone.

        Args:
            model: the model's name.
            version: the version's number; also the document's TUF version.
            manifest: the manifest's exact bytes.
        """
        path = manifest_target(model, version)
        target = TargetFile(len(manifest), {"sha256": hashlib.sha256(manifest).hexdigest()}, path)
        expires = self._clock() + MANIFEST_LIFETIME
        return self._sign(MODELS_ROLE, target, version, expires)

    def sign_assignment(
        self, assignment: Assignment, manifest_size: int, sequence: int, expires: datetime
    ) -> bytes:
        """The ``director`` role's document for one device: what it shall run.

        Args:
            assignment: carried in the target's ``custom`` field, floats as text.
            manifest_size: bytes of the manifest that the assignment names by its hash.
            sequence: the document's TUF version, which grows with every assignment.
            expires: after this the device does not install from it any more.
        """
        target = TargetFile(
            manifest_size,
            {"sha256": assignment.manifest_sha256},
            desired_target(assignment.device, assignment.execution),
            {"custom": signable(assignment.model_dump(mode="json"))},
        )
        return self._sign(DIRECTOR_ROLE, target, sequence, expires)

    def _sign(self, role: str, target: TargetFile, version: int, expires: datetime) -> bytes:
        signed = Targets(version, None, expires.astimezone(UTC), {target.path: target})
        return _signed(signed, self._signers[role])


def _create(folder: Path, now: datetime) -> None:
    """Make keys, then targets.json, then root.json, whose presence says that all is there."""
    (folder / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
    expires = now.astimezone(UTC) + LIFETIME
    roles = (*sorted(TOP_LEVEL_ROLE_NAMES), MODELS_ROLE, DIRECTOR_ROLE)
    signers = {role: CryptoSigner.generate_ed25519() for role in roles}
    for role, signer in signers.items():
        write_atomic(_key_path(folder, role), signer.private_bytes)

    root = Root(1, None, expires, consistent_snapshot=False)
    for role in sorted(TOP_LEVEL_ROLE_NAMES):
        root.add_key(signers[role].public_key, role)

    delegated = {MODELS_ROLE: MODELS_PATHS, DIRECTOR_ROLE: DIRECTOR_PATHS}
    keys = {role: signers[role].public_key for role in delegated}
    delegations = Delegations(
        {key.keyid: key for key in keys.values()},
        {
            role: DelegatedRole(role, [keys[role].keyid], 1, terminating=True, paths=[pattern])
            for role, pattern in delegated.items()
        },
    )
    targets = Targets(1, None, expires, {}, delegations)
    write_atomic(folder / TARGETS_FILE, _signed(targets, signers[Targets.type]), 0o644)
    write_atomic(folder / ROOT_FILE, _signed(root, signers[Root.type]), 0o644)


def _signed(signed: _Document, signer: CryptoSigner) -> bytes:
    metadata = Metadata(signed)
    metadata.sign(signer)
    return metadata.to_bytes(_COMPACT)


def _load_signer(folder: Path, role: str, targets: Targets) -> CryptoSigner:
    private = load_pem_private_key(_key_path(folder, role).read_bytes(), password=None)
    key = targets.get_key(targets.get_delegated_role(role).keyids[0])
    if not (isinstance(private, Ed25519PrivateKey) and isinstance(key, SSlibKey)):
        msg = f"the key of {role} is not an Ed25519 key"
        raise ValueError(msg)  # noqa: TRY004 - the caller reports every damage alike
    return CryptoSigner(private, key)


def _key_path(folder: Path, role: str) -> Path:
    return folder / "keys" / f"{role}.pem"
