"""Keys that are brought to a platform which lies, and uploads of which nobody knows the end."""

from __future__ import annotations

import json

import pytest
from tuf.api.metadata import Targets

from orchestrator.adapters.trust import Offline, TrustStore
from orchestrator.adapters.trust.documents import read, role_of, sign
from orchestrator.adapters.trust.keys import load_keys, ring_of
from orchestrator.adapters.trust.planning import model_files, online_files, versions_of
from orchestrator.cli.main import run
from orchestrator.client import Argosy
from orchestrator.client.errors import InterruptedAnswerError
from orchestrator.client.trust import Trust
from orchestrator.errors import Conflict
from orchestrator.services.ports import Standing
from schemas.access import Role
from schemas.errors import Exit
from tests.fakes.tuf_reader import sha256_of
from tests.unit.orchestrator.platform import Platform

EVIL = Standing("digits", 66, sha256_of("evil", 66), 100)


@pytest.fixture
def away(tmp_path):
    TrustStore.open_or_create(tmp_path / "trust", offline=Offline(tmp_path / "keys"))
    platform = Platform(tmp_path)
    platform.models.register("digits", platform.manifest(), None)
    platform.signing.tick()
    return platform


@pytest.fixture
def command(away, tmp_path, monkeypatch, capsys):
    """The command line of somebody elsewhere."""
    token = away.key(Role.ADMIN)
    made = lambda *_: Argosy(  # noqa: E731 - one expression
        "http://testserver", token, http=away.client()._transport
    )
    monkeypatch.setattr(Argosy, "from_profile", made)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def call(*args: str) -> tuple[int, str]:
        code = run(
            ["trust", *args, "--keys", str(tmp_path / "keys"), "--home", str(tmp_path / "no")]
        )
        found = capsys.readouterr()
        return code, found.out + found.err

    return call


@pytest.fixture
def signed(away, command):
    """The first version is signed, by one who compared the root."""
    code, said = command("sign", "--yes", "--root", away.trust.root_sha256())
    assert code == Exit.OK, said
    away.models.register("digits", away.manifest(content=b"other"), None)
    away.signing.tick()
    return away


def lie(monkeypatch, files):
    honest = Trust.metadata
    monkeypatch.setattr(Trust, "metadata", lambda self, name: files.get(name) or honest(self, name))
    sent = []
    upload = Trust.upload

    def watched(self, uploaded):
        sent.append(uploaded)
        return upload(self, uploaded)

    monkeypatch.setattr(Trust, "upload", watched)
    return sent


def test_at_the_first_time_the_root_is_compared(away, command):
    code, said = command("sign", "--yes")
    assert (code, "--root HEX" in said) == (Exit.USAGE, True), said
    code, said = command("sign", "--yes", "--root", "0" * 64)
    assert (code, "sign nothing" in said) == (Exit.CONFLICT, True), said
    assert away.trust.status().unsigned
    code, said = command("sign", "--yes", "--root", away.trust.root_sha256())
    assert (code, away.trust.status().unsigned) == (Exit.OK, ()), said
    assert command("sign", "--yes")[0] == Exit.OK


def test_nothing_that_was_slipped_in_is_signed(signed, command, monkeypatch):
    state = signed.trust.state
    role = "model-digits"
    forged = json.loads(signed.trust.metadata(f"{state.versions()[role]}.{role}.json"))
    forged["signed"]["targets"]["models/digits/66/manifest.json"] = {
        "hashes": {"sha256": EVIL.manifest_sha256},
        "length": EVIL.length,
    }
    raw = json.dumps(forged).encode()
    sent = lie(monkeypatch, {f"{state.versions()[role]}.{role}.json": raw})
    for args in (("sign", "--yes"), ("renew", "--all"), ("rotate", "models")):
        code, said = command(*args)
        assert (code, "is not signed by the keys" in said) == (Exit.CONFLICT, True), said
    assert sent == []


def other_chain(signed, tmp_path, keys):
    """Metadata of another root, which names the true release key beside its own."""
    store = TrustStore.open_or_create(tmp_path / "mine", offline=Offline(tmp_path / "evil"))
    ring = store.keyring | load_keys(tmp_path / "evil")
    true = role_of(signed.trust.state.targets, "models").keyids[0]
    key = load_keys(keys).signers[true].public_key
    targets = store.state.targets
    targets.delegations.keys[key.keyid] = key
    targets.delegations.roles["models"].keyids.append(key.keyid)
    targets.version += 1
    signing = ring.of(store.state.root.signed.roles["targets"])
    files = {f"{targets.version}.targets.json": sign(targets, signing)}
    files |= online_files(store.state, versions_of(files), ring, signed.clock())
    for name, raw in files.items():
        (tmp_path / "mine" / "metadata" / name).write_bytes(raw)
    state = TrustStore.open(tmp_path / "mine").state
    files = model_files(state, [EVIL], ring, signed.clock())
    files |= online_files(state, versions_of(files), ring, signed.clock())
    for name, raw in files.items():
        (tmp_path / "mine" / "metadata" / name).write_bytes(raw)
    store = TrustStore.open(tmp_path / "mine")
    assert store.state.listed() == {EVIL}
    assert not store.state.unsound
    return {p.name: p.read_bytes() for p in (tmp_path / "mine" / "metadata").iterdir()}


def test_another_root_is_not_followed(signed, command, monkeypatch, tmp_path):
    sent = lie(monkeypatch, other_chain(signed, tmp_path, tmp_path / "keys"))
    for args in (("sign", "--yes"), ("renew", "--all"), ("rotate", "root")):
        code, said = command(*args)
        assert (code, "does not follow" in said) == (Exit.CONFLICT, True), said
    assert sent == []


def test_an_older_role_is_not_signed_again(signed, command, monkeypatch):
    old = {
        name: signed.trust.metadata(name)
        for name in (
            "timestamp.json",
            f"{signed.trust.state.snapshot.signed.version}.snapshot.json",
        )
    }
    assert command("sign", "--yes")[0] == Exit.OK
    sent = lie(monkeypatch, old)
    code, said = command("sign", "--yes")
    assert (code, "older than version" in said) == (Exit.CONFLICT, True), said
    assert sent == []


@pytest.mark.parametrize("role", ["root", "models"])
def test_new_keys_stay_where_the_end_of_an_upload_is_not_known(
    signed, command, monkeypatch, tmp_path, role
):
    upload = Trust.upload

    def cut_off(self, files):
        upload(self, files)
        msg = "no answer"
        raise InterruptedAnswerError(msg)

    monkeypatch.setattr(Trust, "upload", cut_off)
    code, said = command("rotate", role)
    assert (code, "may be in force" in said) == (Exit.FAILED, True), said
    state = signed.trust.state
    ring = load_keys(tmp_path / "keys")
    assert ring.can_sign(role_of(state.delegator(role), role))


def test_new_keys_go_where_the_change_was_refused(signed, command, monkeypatch, tmp_path):
    before = sorted(path.name for path in (tmp_path / "keys").iterdir())

    def refused(self, files):
        msg = "somebody signed meanwhile"
        raise Conflict(msg)

    monkeypatch.setattr(Trust, "upload", refused)
    assert command("rotate", "root")[0] == Exit.CONFLICT
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == before


def test_a_role_that_nobody_delegates_to_is_not_taken(signed, tmp_path):
    raw = sign(Targets(1), ring_of([]).signers.values())
    assert read(raw, Targets, "it").signatures == {}
    answer = signed.client(signed.key(Role.ADMIN)).post(
        "/v1/trust/metadata", json={"files": {"1.model-nobody.json": raw.decode()}}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "model-nobody" not in signed.trust.state.versions()
