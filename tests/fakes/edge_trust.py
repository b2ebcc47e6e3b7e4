"""Keys and signed documents for tests of the device: a root, and its roles' signatures."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    TargetFile,
    Targets,
)

from schemas.ids import new_id
from schemas.model import Manifest
from schemas.rollout import Assignment, Probation
from schemas.trust import (
    DIRECTOR_PATHS,
    DIRECTOR_ROLE,
    MODELS_PATHS,
    MODELS_ROLE,
    desired_target,
    manifest_target,
    signable,
)

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
YEAR = dt.timedelta(days=365)


def new_signer():
    return CryptoSigner.generate_ed25519()


@dataclass
class Signer:
    """One platform's keys. Every argument of its methods is there to be got wrong."""

    root: CryptoSigner = field(default_factory=new_signer)
    targets: list[CryptoSigner] = field(default_factory=lambda: [new_signer()])
    models: CryptoSigner = field(default_factory=new_signer)
    director: CryptoSigner = field(default_factory=new_signer)
    threshold: int = 1
    expires: dt.datetime = NOW + YEAR

    def root_json(self) -> bytes:
        root = Root(version=1, expires=self.expires, consistent_snapshot=False)
        for role in ("root", "snapshot", "timestamp"):
            root.add_key(self.root.public_key, role)
        for signer in self.targets:
            root.add_key(signer.public_key, "targets")
        root.roles["targets"].threshold = self.threshold
        return sign(root, self.root)

    def targets_json(self, *signers: CryptoSigner) -> bytes:
        roles = {
            MODELS_ROLE: (self.models, MODELS_PATHS),
            DIRECTOR_ROLE: (self.director, DIRECTOR_PATHS),
        }
        delegations = Delegations(
            {signer.public_key.keyid: signer.public_key for signer, _ in roles.values()},
            {
                name: DelegatedRole(
                    name, [signer.public_key.keyid], 1, terminating=True, paths=[paths]
                )
                for name, (signer, paths) in roles.items()
            },
        )
        document = Targets(version=1, expires=self.expires, delegations=delegations)
        return sign(document, *(signers or self.targets))

    def desired(
        self,
        assignment: Assignment,
        *,
        sequence: int = 1,
        length: int = 100,
        path: str | None = None,
        sha256: str | None = None,
        expires: dt.datetime | None = None,
        signer: CryptoSigner | None = None,
    ) -> bytes:
        path = path or desired_target(assignment.device, assignment.execution)
        target = TargetFile(
            length,
            {"sha256": sha256 or assignment.manifest_sha256},
            path,
            {"custom": signable(assignment.model_dump(mode="json"))},
        )
        document = Targets(version=sequence, expires=expires or NOW + YEAR, targets={path: target})
        return sign(document, signer or self.director)

    def listing(
        self,
        manifest: bytes,
        model: str,
        version: int,
        *,
        signer: CryptoSigner | None = None,
        expires: dt.datetime | None = None,
        path: str | None = None,
    ) -> bytes:
        path = path or manifest_target(model, version)
        digest = hashlib.sha256(manifest).hexdigest()
        target = TargetFile(len(manifest), {"sha256": digest}, path)
        document = Targets(version=version, expires=expires or NOW + YEAR, targets={path: target})
        return sign(document, signer or self.models)


def sign(document, *signers) -> bytes:
    metadata = Metadata(document)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def assignment(
    device: str,
    manifest: bytes,
    *,
    version: int = 1,
    variant: str = "fp32",
    execution: str | None = None,
    attempt: int = 1,
    device_class: str = "default",
    probation: Probation | None = None,
) -> Assignment:
    return Assignment(
        device=device,
        device_class=device_class,
        execution=execution or new_id("exe"),
        attempt=attempt,
        rollout=new_id("rol"),
        model=Manifest.model_validate_json(manifest).model,
        version=version,
        variant=variant,
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        probation=probation or Probation(min_inferences=5),
    )
