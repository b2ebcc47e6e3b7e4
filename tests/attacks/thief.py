"""Who took the server's online keys and the broker's password, and answers devices himself.

He does not have what signs versions: the keys of ``models`` and of each model's role, which
the operator keeps elsewhere (``argosy trust init --offline``).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, TargetFile, Targets

from orchestrator.adapters.broker import read_gateway
from orchestrator.adapters.trust.keys import load_keys
from schemas.rollout import Assignment
from schemas.topics import ALL_UP
from schemas.transfer import Ask, Need
from schemas.trust import DIRECTOR_ROLE, desired_target, model_role, signable
from tests.attacks.intruder import LOOPBACK, Site
from tests.fakes.edge_models import Release
from tests.fakes.edge_trust import NOW, YEAR, new_signer, sign
from tests.fakes.gateway import Gateway


class Loot:
    """The stolen keys, and the metadata that anybody can read. files: by name."""

    def __init__(self, trust: Path) -> None:
        ring = load_keys(trust / "keys")
        self.files = {p.name: p.read_bytes() for p in (trust / "metadata").glob("*.json")}
        top = self.newest("root").signed.roles
        director = self.newest("targets").signed.delegations.roles[DIRECTOR_ROLE]
        self.keys: dict[str, list[CryptoSigner]] = {
            "snapshot": ring.of(top["snapshot"]),
            "timestamp": ring.of(top["timestamp"]),
            DIRECTOR_ROLE: ring.of(director),
        }
        assert all(self.keys.values())

    def newest(self, role: str) -> Metadata:
        """The newest file of a role."""
        names = [name for name in self.files if name.endswith(f".{role}.json")]
        return Metadata.from_bytes(
            self.files[max(names, key=lambda name: int(name.partition(".")[0]))]
        )

    def forge(self, model: str, version: int, release: Release) -> None:
        """List an own version under the model, by keys that may not."""
        signed = self.newest(model_role(model)).signed
        signed.version += 1
        path = f"models/{model}/{version}/manifest.json"
        digest = {"sha256": release.sha256}
        signed.targets[path] = TargetFile(len(release.manifest), digest, path)
        signers = [new_signer(), *(key for keys in self.keys.values() for key in keys)]
        self.files[f"{signed.version}.{model_role(model)}.json"] = sign(signed, *signers)
        self.snap({f"{model_role(model)}.json": MetaFile(signed.version)})

    def take_back(self, model: str, version: int) -> None:
        """Name an older document of the model's role, in a newer snapshot."""
        self.snap({f"{model_role(model)}.json": MetaFile(version)})

    def snap(self, changes: dict[str, MetaFile]) -> None:
        """A newer snapshot and timestamp; these he can make."""
        timestamp = Metadata.from_bytes(self.files["timestamp.json"]).signed
        name = f"{timestamp.snapshot_meta.version}.snapshot.json"
        snapshot = Metadata.from_bytes(self.files[name]).signed
        snapshot.meta |= changes
        snapshot.version += 1
        data = sign(snapshot, *self.keys["snapshot"])
        self.files[f"{snapshot.version}.snapshot.json"] = data
        timestamp.version += 1
        digest = {"sha256": hashlib.sha256(data).hexdigest()}
        timestamp.snapshot_meta = MetaFile(snapshot.version, len(data), digest)
        self.files["timestamp.json"] = sign(timestamp, *self.keys["timestamp"])

    def direct(self, wanted: Assignment, length: int, sequence: int) -> bytes:
        """A desired document; this he can make too."""
        path = desired_target(wanted.device, wanted.execution)
        target = TargetFile(
            length,
            {"sha256": wanted.manifest_sha256},
            path,
            {"custom": signable(wanted.model_dump(mode="json"))},
        )
        document = Targets(version=sequence, expires=NOW + YEAR / 52, targets={path: target})
        return sign(document, *self.keys[DIRECTOR_ROLE])


class Thief(Gateway):
    """Speaks to devices in the server's place."""

    def __init__(self, site: Site, loot: Loot) -> None:
        self._site = site
        super().__init__(None, loot)  # type: ignore[arg-type]
        self.loot = loot
        self.spoil: dict[str, bytes] = {}

    def stock(self, release: Release) -> None:
        """Have a version's manifest and files at hand."""
        self._manifests[release.sha256] = release.manifest
        self._files |= release.files

    def _answer(self, device: str, ask: Ask) -> None:
        with self._spoiling(ask.sha256):
            super()._answer(device, ask)

    def _send_chunks(self, device: str, need: Need) -> None:
        with self._spoiling(need.sha256):
            super()._send_chunks(device, need)

    @contextmanager
    def _spoiling(self, sha256: str) -> Iterator[None]:
        """With other bytes than were asked for, where they are to be spoiled."""
        kept = dict(self._manifests), dict(self._files)
        if sha256 in self.spoil:
            self._manifests = {sha256: self.spoil[sha256]}
            self._files = {sha256: self.spoil[sha256]}
        yield
        self._manifests, self._files = kept

    def _connect(self) -> mqtt.Client:
        address = read_gateway(self._site.home)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="thief", protocol=mqtt.MQTTv5)
        client.username_pw_set(address.username, address.password)
        ready = threading.Event()
        client.on_connect = lambda c, *_: c.subscribe(ALL_UP, qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._message
        client.connect(LOOPBACK, address.port, keepalive=20)
        client.loop_start()
        assert ready.wait(10)
        return client
