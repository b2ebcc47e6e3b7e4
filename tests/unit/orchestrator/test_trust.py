from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Targets

from orchestrator.adapters.trust import TrustStore
from orchestrator.errors import Unavailable
from schemas.ids import new_id
from schemas.rollout import Assignment, Probation
from schemas.trust import DIRECTOR_ROLE, MODELS_ROLE, desired_target, manifest_target

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANIFEST = b'{"schema_version": 1}'


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore.open_or_create(tmp_path / "trust", clock=lambda: NOW)


def assignment(**changes: Any) -> Assignment:
    fields = {
        "device": new_id("dev"),
        "device_class": "default",
        "execution": new_id("exe"),
        "attempt": 1,
        "rollout": new_id("rol"),
        "model": "digits",
        "version": 3,
        "variant": "int8",
        "manifest_sha256": hashlib.sha256(MANIFEST).hexdigest(),
        "probation": Probation(max_error_rate=0.125),
    }
    return Assignment(**{**fields, **changes})


def delegations_as_a_device_reads_them(store: TrustStore) -> Metadata[Targets]:
    root = Metadata[Root].from_bytes(store.root_json.encode())
    root.verify_delegate("root", root)
    targets = Metadata[Targets].from_bytes(store.targets_json.encode())
    root.verify_delegate("targets", targets)
    assert not root.signed.is_expired(NOW)
    assert not targets.signed.is_expired(NOW)
    return targets


def test_a_device_verifies_a_manifest_from_the_pinned_root_down(store: TrustStore) -> None:
    targets = delegations_as_a_device_reads_them(store)
    document = Metadata[Targets].from_bytes(store.sign_manifest("digits", 3, MANIFEST))
    targets.verify_delegate(MODELS_ROLE, document)

    path = manifest_target("digits", 3)
    assert list(document.signed.targets) == [path]
    assert targets.signed.delegations is not None
    assert list(targets.signed.delegations.get_roles_for_target(path)) == [(MODELS_ROLE, True)]
    document.signed.targets[path].verify_length_and_hashes(MANIFEST)
    assert document.signed.version == 3
    assert not document.signed.is_expired(NOW)


def test_a_device_reads_its_assignment_back(store: TrustStore) -> None:
    targets = delegations_as_a_device_reads_them(store)
    wanted = assignment()
    expires = NOW + timedelta(hours=1)
    signed = store.sign_assignment(wanted, len(MANIFEST), sequence=7, expires=expires)
    document = Metadata[Targets].from_bytes(signed)
    targets.verify_delegate(DIRECTOR_ROLE, document)

    (path,) = document.signed.targets
    assert path == desired_target(wanted.device, wanted.execution)
    assert targets.signed.delegations is not None
    assert list(targets.signed.delegations.get_roles_for_target(path)) == [(DIRECTOR_ROLE, True)]
    target = document.signed.targets[path]
    target.verify_length_and_hashes(MANIFEST)
    assert Assignment.model_validate(target.custom) == wanted
    assert document.signed.version == 7
    assert document.signed.expires == expires


def test_neither_role_can_sign_for_the_other(store: TrustStore) -> None:
    targets = delegations_as_a_device_reads_them(store)
    models = Metadata[Targets].from_bytes(store.sign_manifest("digits", 1, MANIFEST))
    with pytest.raises(UnsignedMetadataError):
        targets.verify_delegate(DIRECTOR_ROLE, models)


def test_a_changed_document_does_not_verify(store: TrustStore) -> None:
    targets = delegations_as_a_device_reads_them(store)
    signed = store.sign_assignment(assignment(), len(MANIFEST), 1, NOW + timedelta(hours=1))
    changed = signed.replace(b'"variant":"int8"', b'"variant":"fp32"')
    assert changed != signed
    with pytest.raises(UnsignedMetadataError):
        targets.verify_delegate(DIRECTOR_ROLE, Metadata[Targets].from_bytes(changed))


def test_opening_again_gives_the_same_root(tmp_path: Path) -> None:
    first = TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    again = TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    assert again.root_json == first.root_json
    assert again.root_sha256() == hashlib.sha256(first.root_json.encode()).hexdigest()


def test_keys_are_private_and_the_root_key_may_be_moved_away(tmp_path: Path) -> None:
    TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    for key in (tmp_path / "keys").iterdir():
        assert key.stat().st_mode & 0o777 == 0o600
    for offline in ("root", "targets", "snapshot", "timestamp"):
        (tmp_path / "keys" / f"{offline}.pem").unlink()
    store = TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    assert store.sign_manifest("digits", 1, MANIFEST)


def test_making_it_goes_on_after_a_crash_before_the_root_was_written(tmp_path: Path) -> None:
    TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    (tmp_path / "root.json").unlink()
    store = TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    delegations_as_a_device_reads_them(store)


@pytest.mark.parametrize("name", ["targets.json", "keys/models.pem", "keys/director.pem"])
def test_damage_is_told_before_anything_is_signed(tmp_path: Path, name: str) -> None:
    TrustStore.open_or_create(tmp_path, clock=lambda: NOW)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(Unavailable, match="trust store"):
        TrustStore.open_or_create(tmp_path, clock=lambda: NOW)


def test_a_key_of_another_store_is_refused(tmp_path: Path) -> None:
    TrustStore.open_or_create(tmp_path / "a", clock=lambda: NOW)
    TrustStore.open_or_create(tmp_path / "b", clock=lambda: NOW)
    (tmp_path / "b/keys/models.pem").replace(tmp_path / "a/keys/models.pem")
    with pytest.raises(Unavailable):
        TrustStore.open_or_create(tmp_path / "a", clock=lambda: NOW)
