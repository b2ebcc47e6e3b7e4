from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    TargetFile,
    Targets,
)

from orchestrator.adapters.trust import Offline, TrustStore
from orchestrator.adapters.trust.ceremony import change_keys, sign_root
from orchestrator.adapters.trust.documents import MODELS_ROLE, next_of, sign
from orchestrator.adapters.trust.keys import Keyring, load_keys, make_keys, ring_of
from orchestrator.adapters.trust.planning import model_files
from orchestrator.errors import Conflict, Forbidden, Invalid, Unavailable
from orchestrator.home import write_atomic
from orchestrator.services.ports import Standing
from schemas.ids import new_id
from schemas.rollout import Assignment, Probation
from schemas.trust import DIRECTOR_ROLE, desired_target, manifest_target
from tests.fakes.tuf_reader import Reader, sha256_of

MANIFEST = b'{"schema_version": 1}'
DAY = timedelta(days=1)


class Clock:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "trust"


@pytest.fixture
def store(folder, clock):
    return TrustStore.open_or_create(folder, clock)


@pytest.fixture
def away(tmp_path, folder, clock):
    """A store whose root (2 of 3), targets and release keys are elsewhere."""
    return TrustStore.open_or_create(folder, clock, offline=Offline(tmp_path / "keys", 3, 2))


def stand(model: str, version: int = 1) -> Standing:
    return Standing(model, version, sha256_of(model, version), 100)


def finds(store, clock, *versions):
    reader = Reader(store.metadata("1.root.json"), store.metadata, clock)
    found = [target is not None for target in reader.find(*versions)]
    reader.close()
    return found


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


def test_a_device_reads_its_assignment_back(store, clock):
    wanted, expires = assignment(), clock() + timedelta(hours=1)
    signed = store.sign_assignment(wanted, len(MANIFEST), sequence=7, expires=expires)
    document = Metadata[Targets].from_bytes(signed)
    store.state.roles["targets"].verify_delegate(DIRECTOR_ROLE, document)

    (path,) = document.signed.targets
    assert path == desired_target(wanted.device, wanted.execution)
    assert list(store.state.targets.delegations.get_roles_for_target(path)) == [
        (DIRECTOR_ROLE, True)
    ]
    target = document.signed.targets[path]
    target.verify_length_and_hashes(MANIFEST)
    assert Assignment.model_validate(target.custom) == wanted
    assert (document.signed.version, document.signed.expires) == (7, expires)

    changed = signed.replace(b'"variant":"int8"', b'"variant":"fp32"')
    assert changed != signed
    with pytest.raises(UnsignedMetadataError):
        store.state.roles["targets"].verify_delegate(
            DIRECTOR_ROLE, Metadata[Targets].from_bytes(changed)
        )


def test_a_revoked_version_leaves_and_the_rest_stays(store, clock):
    store.publish([stand("digits"), stand("digits", 2), stand("ocr")])
    store.publish([stand("digits", 2), stand("ocr")])
    assert finds(store, clock, ("digits", 1), ("digits", 2), ("ocr", 1)) == [False, True, True]
    store.publish([])
    assert finds(store, clock, ("digits", 2), ("ocr", 1)) == [False, False]
    assert not store.published("ocr", 1)


def test_one_change_touches_one_model(store):
    store.publish([stand(name) for name in ("a", "b", "c")])
    before = store.state.versions()
    store.publish([stand(name) for name in ("a", "b", "c")] + [stand("b", 2)])
    after = store.state.versions()
    assert {role for role in after if after[role] != before[role]} == {"model-b"}


def test_nothing_is_written_while_nothing_changes(folder, clock):
    written: list[str] = []

    def write(path: Path, data: bytes, _mode: int) -> None:
        written.append(path.name)
        path.write_bytes(data)

    store = TrustStore.open_or_create(folder, clock, write=write)
    store.publish([stand("a")])
    written.clear()
    for _ in range(3):
        store.publish([stand("a")])
    clock.now += timedelta(hours=11)
    store.publish([stand("a")])
    assert written == []
    clock.now += timedelta(hours=1)
    store.publish([stand("a")])
    assert written == ["timestamp.json"]
    written.clear()
    clock.now += 4 * DAY
    store.publish([stand("a")])
    assert written == ["3.snapshot.json", "timestamp.json"]


def test_roles_of_a_year_are_signed_anew_before_they_expire(store, clock):
    store.publish([stand("a")])
    clock.now += 280 * DAY
    store.publish([stand("a")])
    assert store.status().problems == ()
    assert all(doc.signed.expires > clock() + 300 * DAY for doc in store.state.roles.values())
    assert store.state.root.signed.version == 2
    assert finds(store, clock, ("a", 1)) == [True]


def test_a_clock_that_went_back_signs_nothing_until_somebody_says_so(store, clock):
    store.publish([stand("a")])
    right = clock.now
    clock.now = datetime(2020, 1, 1, tzinfo=UTC)
    store.publish([stand("a"), stand("b")])
    assert not store.published("b", 1)
    assert "argosy trust renew --anew" in store.status().problems[0]
    clock.now = right
    store.publish([stand("a"), stand("b")])
    assert finds(store, clock, ("b", 1)) == [True]

    clock.now = datetime(2090, 1, 1, tzinfo=UTC)
    store.publish([stand("a")])
    clock.now = right
    assert store.status().problems
    store.renew_online()
    assert store.status().problems == ()
    store.publish([])
    assert finds(store, clock, ("a", 1)) == [False]


def test_versions_wait_for_the_release_key_and_say_so(away, tmp_path, clock):
    away.publish([stand("digits")])
    assert not away.published("digits", 1)
    assert not away.releases()
    (unsigned,) = away.status().unsigned
    assert (unsigned.model, unsigned.version, unsigned.length) == ("digits", 1, 100)
    assert "argosy trust sign" in away.status().problems[0]
    assert away.fault() is None

    files = model_files(away.state, [stand("digits")], load_keys(tmp_path / "keys"), clock())
    away.accept(files, [stand("digits")])
    away.accept(files, [stand("digits")])  # the same again changes nothing
    assert away.published("digits", 1)
    assert finds(away, clock, ("digits", 1)) == [True]
    away.publish([])
    assert "revoked" in away.status().problems[0]


def uploads(store, ring, clock):
    """Uploads that must be refused, each with what it is refused for."""
    state = store.state
    good = model_files(state, [stand("digits")], ring, clock())
    stranger = ring_of([CryptoSigner.generate_ed25519()])
    leaf = "1.model-digits.json"
    models = "2.models.json"
    other = Targets(1, None, clock() + DAY, {})
    path = manifest_target("other", 1)
    outside = TargetFile(100, {"sha256": sha256_of("other", 1)}, path)
    release = list(ring.signers.values())
    forged = next_of(state.models, MODELS_ROLE, clock())
    key = next(iter(stranger.signers.values()))
    forged.delegations = Delegations(
        {key.public_key.keyid: key.public_key},
        {
            "model-digits": DelegatedRole(
                "model-digits", [key.public_key.keyid], 1, terminating=True, paths=["models/*/*/*"]
            )
        },
    )
    expired = Targets(1, None, clock() - DAY, {})
    return {
        "not signed": (Forbidden, good | {leaf: sign(other, stranger.signers.values())}),
        "not json": (Invalid, {leaf: b"{"}),
        "a hole": (Invalid, {models: good[models]}),
        "no next version": (
            Conflict,
            {
                "3.models.json": sign(
                    next_of(next_of(state.models, MODELS_ROLE, clock()), MODELS_ROLE, clock()),
                    release,
                )
            },
        ),
        "version inside": (Invalid, {"2.models.json": sign(state.models, release)}),
        "another's path": (
            Invalid,
            good | {leaf: sign(Targets(1, None, clock() + DAY, {path: outside}), release)},
        ),
        "does not stand": (Invalid, model_files(state, [stand("digits", 9)], ring, clock())),
        "wrong length": (
            Invalid,
            model_files(state, [Standing("digits", 1, sha256_of("digits", 1), 101)], ring, clock()),
        ),
        "foreign keys": (Invalid, {models: sign(forged, release), leaf: good[leaf]}),
        "expired": (Invalid, good | {leaf: sign(expired, release)}),
        "timestamp": (Invalid, {"timestamp.json": store.metadata("timestamp.json")}),
        "another name": (Invalid, {"1.evil.json": sign(other, release)}),
        "a path": (Invalid, {"../x.json": b"{}"}),
    }


def test_what_does_not_fit_is_refused_and_changes_nothing(away, tmp_path, clock):
    ring = load_keys(tmp_path / "keys")
    before = away.state
    for name, (error, files) in uploads(away, ring, clock).items():
        with pytest.raises(error):
            away.accept(files, [stand("digits"), stand("other")])
        assert away.state is before, name


def test_a_standing_version_is_not_left_out_by_an_upload(away, tmp_path, clock):
    ring = load_keys(tmp_path / "keys")
    both = [stand("digits"), stand("digits", 2)]
    away.accept(model_files(away.state, both, ring, clock()), both)
    with pytest.raises(Invalid, match="would not be listed"):
        away.accept(model_files(away.state, both[:1], ring, clock()), both)
    away.accept(model_files(away.state, both[:1], ring, clock()), both[:1])


def test_two_of_three_holders_change_a_root(away, tmp_path, clock):
    ring = load_keys(tmp_path / "keys")
    roots = [ring.signers[k] for k in away.state.root.signed.roles["root"].keyids]
    made = make_keys(away.keys_folder, "timestamp")
    keys = {"timestamp": [made[0].public_key]}
    files = change_keys(away.state, keys, ring_of(roots[:1]), clock())
    with pytest.raises(Forbidden, match="2 of the root before it"):
        away.accept(files, None)
    files["2.root.json"] = sign_root(files["2.root.json"], ring_of(roots[1:2]))
    pinned = away.root_sha256()
    away.accept(files, None)
    assert away.state.root.signed.version == 2
    assert away.root_of(pinned) == away.metadata("1.root.json").decode()
    assert away.root_of("0" * 64) is None
    assert finds(away, clock) == []
    # The old key is gone from the server, and what it signs counts for nobody.
    assert len(list(away.keys_folder.glob("timestamp-*.pem"))) == 1


def test_a_root_that_the_server_could_not_follow_is_refused(away, tmp_path, clock):
    ring = load_keys(tmp_path / "keys")
    stranger = CryptoSigner.generate_ed25519().public_key
    files = change_keys(away.state, {"snapshot": [stranger]}, ring, clock())
    with pytest.raises(Invalid, match="snapshot that the server does not have"):
        away.accept(files, None)


def test_keys_move_offline_while_devices_follow(store, tmp_path, clock):
    store.publish([stand("digits")])
    reader = Reader(store.metadata("1.root.json"), store.metadata, clock)
    reader.refresh()
    made = {role: make_keys(tmp_path / "keys", role) for role in ("root", "targets", "models")}
    keys = {role: [s.public_key for s in found] for role, found in made.items()}
    ring = store.keyring | load_keys(tmp_path / "keys")
    store.accept(change_keys(store.state, keys, ring, clock()), None)
    assert reader.find(("digits", 1)) != [None]
    reader.close()
    assert not store.releases()
    left = {path.name.partition("-")[0] for path in store.keys_folder.iterdir()}
    assert left == {"snapshot", "timestamp", "director"}


class Killed(BaseException):
    """The process ended here."""


class Knife:
    """Writes so many files, then kills."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left

    def __call__(self, path: Path, data: bytes, mode: int) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        write_atomic(path, data, mode)


def change(store, clock, roles):
    made = {role: make_keys(store.keys_folder, role) for role in roles}
    keys = {role: [s.public_key for s in found] for role, found in made.items()}
    ring = store.keyring | ring_of(s for found in made.values() for s in found)
    store.accept(change_keys(store.state, keys, ring, clock()), None)


CHANGES = {
    "a new model": lambda store, _: store.publish([stand("digits"), stand("ocr")]),
    "every key": lambda store, clock: change(
        store, clock, ["root", "targets", "models", "director", "snapshot", "timestamp"]
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_killed_at_each_write_devices_verify_what_there_is(tmp_path, clock, what):
    for writes in range(20):
        knife, folder = Knife(), tmp_path / str(writes)
        store = TrustStore.open_or_create(folder, clock, write=knife)
        store.publish([stand("digits")])
        reader = Reader(store.metadata("1.root.json"), store.metadata, clock)
        reader.refresh()
        knife.left = writes
        try:
            CHANGES[what](store, clock)
        except Killed:
            pass
        else:
            assert writes > 2
            return
        assert [found is not None for found in reader.find(("digits", 1))] == [True]
        assert finds(store, clock, ("digits", 1)) == [True]
        again = TrustStore.open_or_create(folder, clock)
        again.publish([stand("digits"), stand("ocr")])
        CHANGES[what](again, clock)
        assert reader.find(("digits", 1)) != [None]
        assert finds(again, clock, ("digits", 1)) == [True]
        reader.close()
    pytest.fail("it never came to an end")


def test_killed_while_it_is_made_it_is_made_again(tmp_path, clock):
    for writes in range(5):
        with pytest.raises(Killed):
            TrustStore.open_or_create(tmp_path, clock, write=Knife(writes))
        assert not (tmp_path / "metadata" / "1.root.json").exists()
    store = TrustStore.open_or_create(tmp_path, clock)
    assert finds(store, clock) == []


def test_a_full_disk_changes_nothing(folder, clock):
    def full(path: Path, data: bytes, mode: int) -> None:
        if done:
            raise OSError(28, "No space left on device")
        write_atomic(path, data, mode)

    done: list[bool] = []
    store = TrustStore.open_or_create(folder, clock, write=full)
    store.publish([stand("digits")])
    done.append(True)
    with pytest.raises(Unavailable, match="No space left"):
        store.publish([stand("digits"), stand("ocr")])
    assert finds(store, clock, ("digits", 1), ("ocr", 1)) == [True, False]
    done.clear()
    store.publish([stand("digits"), stand("ocr")])
    assert finds(store, clock, ("ocr", 1)) == [True]


def test_another_process_is_noticed(folder, clock, store):
    other = TrustStore.open(folder, clock)
    other.publish([stand("digits")])
    assert store.published("digits", 1)
    store.publish([stand("digits"), stand("ocr")])
    assert other.published("ocr", 1)


@pytest.mark.parametrize("name", ["targets", "models", "snapshot"])
def test_damage_is_told_before_anything_is_signed(folder, clock, store, name):
    (folder / "metadata" / f"1.{name}.json").write_bytes(b"{}")
    with pytest.raises(Unavailable, match="trust store"):
        TrustStore.open_or_create(folder, clock)


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director"])
def test_a_missing_online_key_is_told(folder, clock, store, role):
    for path in store.keys_folder.glob(f"{role}-*.pem"):
        path.unlink()
    with pytest.raises(Unavailable, match=f"the key of {role}"):
        TrustStore.open_or_create(folder, clock)


def test_keys_are_private(store):
    assert {path.stat().st_mode & 0o777 for path in store.keys_folder.iterdir()} == {0o600}


def test_a_folder_with_keys_is_not_written_over(tmp_path, clock):
    make_keys(tmp_path / "keys", "root")
    with pytest.raises(Conflict, match="has keys already"):
        TrustStore.open_or_create(tmp_path / "trust", clock, offline=Offline(tmp_path / "keys"))
    with pytest.raises(Invalid, match="--threshold 3 of 2"):
        TrustStore.open_or_create(
            tmp_path / "trust", clock, offline=Offline(tmp_path / "other", 2, 3)
        )


def legacy(folder: Path, clock: Clock) -> tuple[bytes, Keyring]:
    """A store as the first release made it."""
    roles = ("root", "targets", "snapshot", "timestamp")
    signers = {role: CryptoSigner.generate_ed25519() for role in (*roles, "models", "director")}
    (folder / "keys").mkdir(parents=True)
    for role, signer in signers.items():
        (folder / "keys" / f"{role}.pem").write_bytes(signer.private_bytes)
    root = Root(1, None, clock() + 3650 * DAY, consistent_snapshot=False)
    for role in roles:
        root.add_key(signers[role].public_key, role)
    paths = {"models": "models/*/*/*", "director": "device/*/*"}
    delegations = Delegations(
        {signers[role].public_key.keyid: signers[role].public_key for role in paths},
        {
            role: DelegatedRole(
                role, [signers[role].public_key.keyid], 1, terminating=True, paths=[pattern]
            )
            for role, pattern in paths.items()
        },
    )
    targets = Targets(1, None, clock() + 3650 * DAY, {}, delegations)
    raw = sign(root, [signers["root"]])
    (folder / "root.json").write_bytes(raw)
    (folder / "targets.json").write_bytes(sign(targets, [signers["targets"]]))
    return raw, ring_of(signers.values())


def test_a_home_of_the_earlier_layout_is_taken_over(folder, clock):
    old, ring = legacy(folder, clock)
    store = TrustStore.open_or_create(folder, clock)
    store.publish([stand("digits")])
    assert store.metadata("1.root.json") == old
    assert finds(store, clock, ("digits", 1)) == [True]
    assert store.keyring.signers.keys() == ring.signers.keys()
    assert not (folder / "root.json").exists()
    assert TrustStore.open(folder, clock).published("digits", 1)


def test_a_home_of_the_earlier_layout_without_its_root_key_is_refused(folder, clock):
    legacy(folder, clock)
    key = (folder / "keys" / "root.pem").read_bytes()
    (folder / "keys" / "root.pem").unlink()
    with pytest.raises(Unavailable, match="the key of root is needed"):
        TrustStore.open_or_create(folder, clock)
    (folder / "keys" / "root.pem").write_bytes(key)
    TrustStore.open_or_create(folder, clock)


def test_a_model_of_many_versions_does_not_outgrow_its_file(store, folder, clock):
    store.publish([stand("digits", version) for version in range(1, 2001)])
    assert not store.state.bins
    store.publish([stand("digits", version) for version in range(1, 4501)])
    assert store.state.bins
    assert finds(store, clock, ("digits", 1), ("digits", 4500)) == [True, True]
    assert len(TrustStore.open(folder, clock).state.listed()) == 4500


def test_a_file_that_could_not_be_sent_is_not_written(folder, clock, store, monkeypatch):
    store.publish([stand("digits")])
    monkeypatch.setattr("orchestrator.adapters.trust.store.MAX_METADATA_BYTES", 2000)
    with pytest.raises(Unavailable, match="can be sent"):
        store.publish([stand("digits", version) for version in range(1, 30)])
    assert finds(TrustStore.open(folder, clock), clock, ("digits", 1), ("digits", 2)) == [
        True,
        False,
    ]
