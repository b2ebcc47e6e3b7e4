"""The metadata client against a repository that lies, and a cache that was tampered with."""

from __future__ import annotations

import copy
import datetime as dt
import json

import pytest
from tuf.api.metadata import Metadata, MetaFile, Targets

from edge_client.errors import JournalError, MetadataUnavailableError, TrustError
from edge_client.metadata_cache import MetadataCache
from edge_client.metadata_floors import FileFloors
from edge_client.metadata_walk import MAX_NEW_ROOTS
from schemas.errors import DeviceCause
from schemas.trust import (
    DIRECTOR_ROLE,
    MAX_METADATA_BYTES,
    MODELS_ROLE,
    manifest_target,
    model_role,
)
from tests.fakes.edge_trust import NOW, YEAR, MemoryCache, MemoryFloors, Signer, new_signer

PATH = manifest_target("digits", 1)
C = DeviceCause
YEARS = 10 * YEAR
WALKED = ("timestamp.json", "2.snapshot.json", "1.targets.json", "2.models.json",
          "1.model-digits.json")  # fmt: skip


class Device:
    """A client with what it keeps, and a record of what it asked for."""

    def __init__(self, signer: Signer) -> None:
        self.cache, self.floors, self.signer = MemoryCache(), MemoryFloors(), signer
        self.asked: list[str] = []
        self.lies: dict[str, bytes | None] = {}

    def fetch(self, name: str, limit: int) -> bytes | None:
        self.asked.append(name)
        assert limit <= MAX_METADATA_BYTES
        return self.lies[name] if name in self.lies else self.signer.files.get(name)

    def look(self, path: str = PATH, *, now: dt.datetime = NOW):
        """Refresh and find a target, as after a restart."""
        self.asked.clear()
        self.client = self.signer.client(self.cache, self.floors, now=now, fetch=self.fetch)
        self.client.refresh()
        return self.client.target(path)

    def refused(self, **kwargs) -> DeviceCause:
        before = copy.deepcopy(self.floors.floors)
        with pytest.raises(TrustError) as caught:
            self.look(**kwargs)
        after = self.floors.floors
        assert all(after.of(role) >= version for role, version in before.versions.items())
        return caught.value.cause


@pytest.fixture
def signer():
    signer = Signer()
    signer.add(b"first", "digits", 1)
    return signer


@pytest.fixture
def device(signer):
    return Device(signer)


def resigned(data: bytes, *signers, **changes) -> bytes:
    """Metadata with other contents, signed by somebody."""
    document = Metadata.from_bytes(data)
    for name, value in changes.items():
        setattr(document.signed, name, value)
    document.signatures.clear()
    for signer in signers:
        document.sign(signer, append=True)
    return document.to_bytes()


# --- what is asked for ---------------------------------------------------------------------


def test_a_target_is_found_through_the_roles_that_may_sign_it(device):
    assert device.look().length == 5
    role = model_role("digits")
    assert device.asked == [
        "2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json",
        "2.models.json", f"1.{role}.json",
    ]  # fmt: skip
    versions = device.floors.floors.versions
    assert versions == {
        "root": 1, "timestamp": 2, "snapshot": 2, "targets": 1, "models": 2, role: 1,
    }  # fmt: skip
    assert device.look(manifest_target("digits", 2)) is None
    assert device.look(manifest_target("letters", 1)) is None
    assert device.look("elsewhere") is None


def test_what_did_not_change_is_not_asked_for_again(device, signer):
    device.look()
    device.look()
    assert device.asked == ["2.root.json", "timestamp.json"]
    signer.add(b"second", "digits", 2)
    device.look()
    assert device.asked == [
        "2.root.json", "timestamp.json", "3.snapshot.json", f"2.{model_role('digits')}.json",
    ]  # fmt: skip


def test_a_version_that_was_taken_out_is_found_no_more(device, signer):
    device.look()
    del signer.roles[model_role("digits")].targets[PATH]
    signer.grow(model_role("digits"))
    signer.publish()
    assert device.look() is None


def test_a_missing_file_is_no_refusal(device, signer):
    for name in WALKED:
        device.cache.clear()
        device.lies = {name: None}
        with pytest.raises(MetadataUnavailableError, match=name):
            device.look()
    device.lies = {}
    assert device.look() is not None


def test_a_fetch_that_fails_ends_the_walk_with_its_own_error(device):
    def fail(_name: str, _limit: int) -> bytes | None:
        raise ConnectionResetError

    client = device.signer.client(device.cache, device.floors, fetch=fail)
    with pytest.raises(ConnectionResetError):
        client.refresh()
    with pytest.raises(MetadataUnavailableError, match="refreshed"):
        client.target(PATH)


# --- roots ---------------------------------------------------------------------------------


def test_roots_are_walked_from_the_pinned_one_and_kept(device, signer):
    signer.rotate("root")
    signer.rotate("root", "targets")
    assert device.look() is not None
    assert device.asked[:4] == ["2.root.json", "3.root.json", "4.root.json", "timestamp.json"]
    device.look()
    assert device.asked == ["4.root.json", "timestamp.json"]
    device.cache["2.root.json"] = b"rot"
    device.look()
    assert device.asked == ["2.root.json", "4.root.json", "timestamp.json"]


def test_a_new_root_needs_the_old_keys_and_its_own(device, signer):
    old = signer.keys["root"][0]
    signer.rotate("root")
    new = signer.keys["root"][0]
    both = signer.files["2.root.json"]
    for signers in ((old,), (new,), (new_signer(),), ()):
        device.lies = {"2.root.json": resigned(both, *signers)}
        assert device.refused() is C.BAD_SIGNATURE
    device.lies = {"2.root.json": signer.files["1.root.json"]}
    assert device.refused() is C.BELOW_FLOOR


def test_a_root_that_skips_a_version_is_refused(device, signer):
    signer.rotate("root")
    signer.rotate("snapshot")
    device.lies = {"2.root.json": signer.files["3.root.json"]}
    assert device.refused() in {C.BAD_SIGNATURE, C.BELOW_FLOOR}


def test_roots_without_end_are_walked_a_part_at_a_time(device, signer):
    for _ in range(MAX_NEW_ROOTS + 3):
        signer.root.version += 1
        signer.write_root()
    with pytest.raises(MetadataUnavailableError, match="goes on"):
        device.look()
    assert len(device.asked) == MAX_NEW_ROOTS
    assert device.look() is not None
    assert device.floors.floors.of("root") == MAX_NEW_ROOTS + 4


def test_an_expired_root_installs_nothing(signer):
    signer = Signer(expires=NOW)
    assert Device(signer).refused() is C.EXPIRED


# --- floors --------------------------------------------------------------------------------


def test_wiping_the_cache_lets_no_older_version_pass(device, signer):
    old = dict(signer.files)
    signer.add(b"second", "digits", 2)
    signer.rotate("root")
    device.look()
    device.cache.clear()
    device.lies = {name: old.get(name) for name in signer.files}
    assert device.refused() is C.BELOW_FLOOR  # the root
    device.lies.pop("2.root.json")
    assert device.refused() is C.BELOW_FLOOR  # the timestamp
    device.lies.clear()
    assert device.look() is not None


def test_putting_an_old_cache_back_lets_no_older_version_pass(device, signer):
    device.look()
    files, cache = dict(signer.files), dict(device.cache)
    signer.add(b"second", "digits", 2)
    device.look()
    device.cache.clear()
    device.cache.update(cache)
    device.lies = {name: files.get(name) for name in signer.files}
    assert device.refused() is C.BELOW_FLOOR
    device.lies.clear()
    assert device.look(manifest_target("digits", 2)) is not None


@pytest.mark.parametrize("what", ["older", "gone"])
def test_stolen_online_keys_take_no_role_back(device, signer, what):
    """Whoever holds snapshot and timestamp signs a newer snapshot of an older role."""
    role = model_role("digits")
    signer.add(b"second", "digits", 2)
    device.look()
    device.cache.clear()
    if what == "older":
        signer.written[role] = 1
    else:
        del signer.written[role]
        del signer.snapshot.meta[f"{role}.json"]
    signer.publish()
    assert device.refused() is C.BELOW_FLOOR


def test_stolen_online_keys_ship_no_new_model(device, signer):
    thief = new_signer()
    role = model_role("digits")
    forged = Targets(9, None, NOW + YEAR, dict(signer.roles[role].targets))
    signer.roles[role] = forged
    signer.write(role, thief, *signer.keys["snapshot"], *signer.keys["timestamp"])
    signer.publish()
    assert device.refused() is C.BAD_SIGNATURE
    assert device.floors.floors.of(role) == 0


def test_floors_rise_only_with_what_was_verified_whole(device, signer):
    device.look()
    signer.snapshot.version = signer.timestamp.version = 1_000_000
    signer.grow("targets")
    signer.publish()
    targets = f"{signer.roles['targets'].version}.targets.json"
    device.lies = {targets: resigned(signer.files[targets], new_signer())}
    assert device.refused() is C.BAD_SIGNATURE
    assert device.floors.floors.of("timestamp") == device.floors.floors.of("snapshot") == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_a_rotated_online_key_ends_a_fast_forward_attack(device, signer, role):
    """Specification 1.0, 5.3.11: what the taken-out key signed counts no more."""
    before = (signer.snapshot.version, signer.timestamp.version)
    signer.snapshot.version = signer.timestamp.version = 2**40
    signer.publish()
    device.look()
    assert device.floors.floors.of(role) == 2**40 + 1
    signer.snapshot.version, signer.timestamp.version = before
    signer.publish()
    assert device.refused() is C.BELOW_FLOOR
    signer.rotate(role)
    assert device.look() is not None
    assert device.floors.floors.of("snapshot") == signer.snapshot.version
    assert device.floors.floors.of("timestamp") == signer.timestamp.version
    assert device.floors.floors.of("root") == 2


def test_an_added_online_key_takes_nothing_back(device, signer):
    device.look()
    old = dict(signer.files)
    signer.add(b"second", "digits", 2)
    device.look()
    signer.root.version += 1
    signer.root.add_key(new_signer().public_key, "timestamp")
    signer.write_root()
    device.cache.clear()
    device.lies = {name: data for name, data in old.items() if name == "timestamp.json"}
    assert device.refused() is C.BELOW_FLOOR


def test_a_rotated_director_begins_its_sequence_anew(device, signer):
    device.look()
    assert device.client.delegated(DIRECTOR_ROLE).role.keyids == [signer.director.public_key.keyid]
    signer.rotate_director()
    device.look()
    assert device.floors.anew[-1] == frozenset({DIRECTOR_ROLE})
    assert device.client.delegated(DIRECTOR_ROLE).role.keyids == [signer.director.public_key.keyid]
    signer.grow("targets")
    signer.publish()
    device.look()
    assert device.floors.anew[-1] == frozenset()


def test_floors_that_cannot_be_written_let_nothing_be_believed(device, signer):
    def full(*_args, **_kwargs) -> None:
        msg = "database or disk is full"
        raise JournalError(msg)

    device.floors.save = full
    with pytest.raises(JournalError):
        device.look()
    with pytest.raises(MetadataUnavailableError):
        device.client.delegated(DIRECTOR_ROLE)


def test_a_program_of_its_own_keeps_floors_in_a_file(tmp_path, signer):
    cache, floors = MetadataCache(tmp_path / "cache"), FileFloors(tmp_path / "kept" / "floors.json")
    signer.client(cache, floors).refresh()
    assert floors.load().of("snapshot") == 2
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "cache").iterdir()} == {0o600}
    (tmp_path / "kept" / "floors.json").write_text("{")
    with pytest.raises(JournalError, match="cannot be read"):
        signer.client(cache, floors).refresh()


# --- lies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WALKED)
@pytest.mark.parametrize(
    ("lie", "causes"),
    [
        ("truncated", {C.BAD_SIGNATURE, C.DIGEST_MISMATCH}),
        ("empty", {C.BAD_SIGNATURE, C.DIGEST_MISMATCH}),
        ("another file", {C.BAD_SIGNATURE, C.DIGEST_MISMATCH}),
        ("oversized", {C.BAD_SIGNATURE}),
        ("nested", {C.BAD_SIGNATURE, C.DIGEST_MISMATCH}),
        ("of another platform", {C.BAD_SIGNATURE, C.DIGEST_MISMATCH}),
        ("unsigned", {C.BAD_SIGNATURE, C.DIGEST_MISMATCH}),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(device, signer, name, lie, causes):
    data = signer.files[name]
    if lie == "of another platform":
        other = Signer()
        other.add(b"first", "digits", 1)
    device.lies[name] = {
        "truncated": lambda: data[: len(data) // 2],
        "empty": lambda: b"",
        "another file": lambda: signer.files[WALKED[WALKED.index(name) - 1]],
        "oversized": lambda: data + b" " * MAX_METADATA_BYTES,
        "nested": lambda: b"[" * 100_000,
        "of another platform": lambda: other.files[name],
        "unsigned": lambda: resigned(data),
    }[lie]()
    assert device.refused() in causes
    assert device.cache.get(name) != device.lies[name]
    device.lies.clear()
    assert device.look() is not None


def test_a_replayed_timestamp_is_refused(device, signer):
    old = signer.files["timestamp.json"]
    signer.publish()
    device.look()
    device.lies["timestamp.json"] = old
    assert device.refused() is C.BELOW_FLOOR


def test_files_of_two_publications_do_not_mix(device, signer):
    old = dict(signer.files)
    signer.add(b"second", "digits", 2)
    device.lies = {"3.snapshot.json": old["2.snapshot.json"]}
    assert device.refused() is C.DIGEST_MISMATCH
    device.lies = {"2.model-digits.json": old["1.model-digits.json"]}
    assert device.refused() is C.BELOW_FLOOR
    device = Device(signer)
    device.lies = {
        "timestamp.json": resigned(
            signer.files["timestamp.json"], *signer.keys["timestamp"],
            snapshot_meta=MetaFile(3), version=9,
        ),
        "3.snapshot.json": old["2.snapshot.json"],
    }  # fmt: skip
    assert device.refused() is C.BELOW_FLOOR


@pytest.mark.parametrize("name", WALKED)
def test_each_expired_file_stops_installing(device, signer, name):
    role = name.removesuffix(".json").rpartition(".")[2]
    document = {
        "timestamp": signer.timestamp,
        "snapshot": signer.snapshot,
        **signer.roles,
    }[role]
    document.expires = NOW
    if role in signer.roles:
        signer.grow(role)
    signer.publish()
    assert device.refused() is C.EXPIRED


@pytest.mark.parametrize("clock", [NOW + YEARS, dt.datetime(2090, 1, 1, tzinfo=dt.UTC)])
def test_a_clock_that_is_ahead_is_named_in_the_refusal(device, clock):
    with pytest.raises(TrustError, match=f"clock says {clock:%Y-%m-%d}") as caught:
        device.look(now=clock)
    assert caught.value.cause is C.EXPIRED
    assert device.look() is not None  # once it is right again


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json",
                                  "models.json", "model-digits.json"])  # fmt: skip
@pytest.mark.parametrize("rot", [b"", b"rot", b"{}", b"[" * 5000, b"\x00" * 100])
def test_a_damaged_kept_file_is_asked_for_again(device, name, rot):
    device.look()
    device.cache[name] = rot
    assert device.look() is not None
    assert json.loads(device.cache[name])


def test_a_role_with_a_hostile_name_is_never_a_file(device, signer):
    for role in ("../../etc/passwd", "a/b", "A", "x" * 200):
        signer._delegate(MODELS_ROLE, role, "models/digits/*/*", signer.models)
        delegations = signer.roles[MODELS_ROLE].delegations
        delegations.roles = {role: delegations.roles[role]}
        signer.grow(MODELS_ROLE)
        signer.written[role] = 1
        signer.publish()
        assert device.refused() is C.BAD_SIGNATURE
        assert not any("/" in name or "A" in name for name in device.asked)


def test_delegations_in_a_circle_end(device, signer):
    role = model_role("digits")
    signer._delegate(role, MODELS_ROLE, "models/*/*/*", signer.models)
    del signer.roles[role].targets[PATH]
    signer.grow(role)
    signer.keys[MODELS_ROLE] = [signer.keys[MODELS_ROLE][0], signer.models]
    signer.write(MODELS_ROLE, *signer.keys[MODELS_ROLE])
    signer.publish()
    assert device.look() is None
