"""A platform's keys and its TUF repository in memory, for tests of the device.

Every file is made with python-tuf. Everything may be got wrong: by other keys, dates, versions, or
by changing ``files``, which are what devices are given.
"""

from __future__ import annotations

import datetime as dt
import hashlib

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_client.metadata import MetadataClient
from edge_client.metadata_floors import Floors
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
    model_paths,
    model_role,
    signable,
)

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
YEAR = dt.timedelta(days=365)
ONLINE = (Snapshot.type, Timestamp.type)


def new_signer():
    return CryptoSigner.generate_ed25519()


def sign(document, *signers) -> bytes:
    metadata = Metadata(document)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


class MemoryCache(dict):
    """A cache whose files are seen, and may be changed."""

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, data: bytes) -> None:
        self[name] = data

    def remove(self, name: str) -> None:
        self.pop(name, None)


class MemoryFloors:
    """Floors that are kept, and how often they were written."""

    def __init__(self, floors: Floors | None = None) -> None:
        self.floors, self.written = floors or Floors(), 0
        self.anew: list[frozenset[str]] = []

    def load(self) -> Floors:
        return self.floors

    def save(self, floors: Floors, *, anew: frozenset[str]) -> None:
        self.floors, self.written = floors, self.written + 1
        self.anew.append(anew)


class Signer:
    """One platform. files: by name, as devices ask for them."""

    def __init__(
        self, *, expires: dt.datetime = NOW + YEAR, root_keys: int = 1, threshold: int = 1
    ) -> None:
        self.expires = expires
        self.files: dict[str, bytes] = {}
        self.written: dict[str, int] = {}
        roles = (Root.type, Targets.type, *ONLINE, MODELS_ROLE, DIRECTOR_ROLE, "release")
        self.keys = {role: [new_signer()] for role in roles}
        self.keys[Root.type] = [new_signer() for _ in range(root_keys)]
        self.root = Root(1, None, expires, consistent_snapshot=True)
        for role in (Root.type, Targets.type, *ONLINE):
            for key in self.keys[role]:
                self.root.add_key(key.public_key, role)
        self.root.roles[Root.type].threshold = threshold
        self.roles: dict[str, Targets] = {
            Targets.type: self._targets({}),
            MODELS_ROLE: self._targets({}),
        }
        for role, paths in ((MODELS_ROLE, MODELS_PATHS), (DIRECTOR_ROLE, DIRECTOR_PATHS)):
            self._delegate(Targets.type, role, paths, self.keys[role][0])
        self.snapshot = Snapshot(1, None, expires, meta={})
        self.timestamp = Timestamp(1, None, expires, MetaFile(1))
        self.write_root()
        for role in self.roles:
            self.write(role)
        self.publish(grow=False)

    @property
    def director(self) -> CryptoSigner:
        return self.keys[DIRECTOR_ROLE][0]

    @property
    def models(self) -> CryptoSigner:
        return self.keys["release"][0]

    def client(self, cache, floors, *, now: dt.datetime = NOW, fetch=None) -> MetadataClient:
        """A device's client, which is given ``files`` unless ``fetch`` brings others."""
        fetch = fetch or (lambda name, _limit: self.files.get(name))
        clock = (lambda: now) if isinstance(now, dt.datetime) else now
        return MetadataClient(
            self.root_json(), cache=cache, floors=floors, clock=clock, fetch=fetch
        )

    def root_json(self) -> bytes:
        """The first root: what a token pins."""
        return self.files["1.root.json"]

    def add(self, manifest: bytes, model: str = "digits", version: int = 1) -> None:
        """List a version, and publish."""
        digest = hashlib.sha256(manifest).hexdigest()
        self.list_target(model, version, TargetFile(len(manifest), {"sha256": digest}, ""))

    def list_target(self, model: str, version: int, target: TargetFile) -> None:
        role, path = model_role(model), manifest_target(model, version)
        target.path = path
        if role not in self.roles:
            self.roles[role] = self._targets({})
            self._delegate(MODELS_ROLE, role, model_paths(model), self.models)
            self.grow(MODELS_ROLE)
            self.roles[role].targets[path] = target
            self.write(role)
        elif self.roles[role].targets.get(path) == target:
            return
        else:
            self.roles[role].targets[path] = target
            self.grow(role)
        self.publish()

    def grow(self, role: str) -> None:
        self.roles[role].version += 1
        self.write(role)

    def write(self, role: str, *signers: CryptoSigner) -> None:
        """Sign a targets role as it stands, for the next snapshot."""
        document = self.roles[role]
        keys = signers or self.keys.get(role) or (self.models,)
        self.files[f"{document.version}.{role}.json"] = sign(document, *keys)
        self.written[role] = document.version

    def write_root(self, *signers: CryptoSigner) -> None:
        keys = signers or self.keys[Root.type]
        self.files[f"{self.root.version}.root.json"] = sign(self.root, *keys)

    def publish(self, *, grow: bool = True) -> None:
        """Sign a snapshot of what was written, and a timestamp."""
        if grow:
            self.snapshot.version += 1
            self.timestamp.version += 1
        self.snapshot.meta |= {f"{role}.json": MetaFile(n) for role, n in self.written.items()}
        data = sign(self.snapshot, *self.keys[Snapshot.type])
        self.files[f"{self.snapshot.version}.snapshot.json"] = data
        digest = {"sha256": hashlib.sha256(data).hexdigest()}
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version, len(data), digest)
        self.files["timestamp.json"] = sign(self.timestamp, *self.keys[Timestamp.type])

    def rotate(self, *roles: str) -> None:
        """New keys for top roles, in a new root that old and new root keys sign."""
        before = self.keys[Root.type]
        self.root.version += 1
        for role in roles:
            for key in self.keys[role]:
                self.root.revoke_key(key.public_key.keyid, role)
            self.keys[role] = [new_signer() for _ in self.keys[role]]
            for key in self.keys[role]:
                self.root.add_key(key.public_key, role)
        self.write_root(*{id(k): k for k in (*before, *self.keys[Root.type])}.values())
        if Targets.type in roles:
            self.grow(Targets.type)
        self.publish()

    def rotate_director(self) -> None:
        """A new key for the director, named by new targets."""
        self.keys[DIRECTOR_ROLE] = [new_signer()]
        delegations = self.roles[Targets.type].delegations
        del delegations.roles[DIRECTOR_ROLE]
        self._delegate(Targets.type, DIRECTOR_ROLE, DIRECTOR_PATHS, self.director)
        self.grow(Targets.type)
        self.publish()

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
        """The director's document for one device."""
        path = path or desired_target(assignment.device, assignment.execution)
        target = TargetFile(
            length,
            {"sha256": sha256 or assignment.manifest_sha256},
            path,
            {"custom": signable(assignment.model_dump(mode="json"))},
        )
        document = Targets(version=sequence, expires=expires or NOW + YEAR, targets={path: target})
        return sign(document, signer or self.director)

    def _targets(self, targets: dict[str, TargetFile]) -> Targets:
        return Targets(1, None, self.expires, targets, Delegations({}, {}))

    def _delegate(self, parent: str, role: str, paths: str, signer: CryptoSigner) -> None:
        key = signer.public_key
        delegations = self.roles[parent].delegations
        delegations.keys[key.keyid] = key
        delegations.roles[role] = DelegatedRole(
            role, [key.keyid], 1, terminating=True, paths=[paths]
        )


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
