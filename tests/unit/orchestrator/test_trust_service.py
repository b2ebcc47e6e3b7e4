"""The trust metadata between the registry, the API, the devices and the command line."""

from __future__ import annotations

import hashlib
import json

import pytest

from orchestrator.adapters.trust import Offline, TrustStore
from orchestrator.cli.main import run
from orchestrator.client import Argosy
from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import NotSigned
from orchestrator.services.ports.access import AuditQuery
from orchestrator.services.rollouts import RolloutService
from schemas.access import Role
from schemas.errors import Exit
from schemas.rollout import RolloutSpec, WaveSpec
from schemas.topics import Down, down
from schemas.trust import MetadataAsk
from tests.fakes.tuf_reader import Reader
from tests.unit.orchestrator.platform import Platform


@pytest.fixture
def away(tmp_path):
    """A platform whose offline and release keys are in ``tmp_path / "keys"``."""
    TrustStore.open_or_create(tmp_path / "trust", offline=Offline(tmp_path / "keys"))
    return Platform(tmp_path)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """The command line, spoken to a platform without a network."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def call(platform, *args: str) -> tuple[int, str]:
        token = platform.key(Role.ADMIN)
        made = lambda *_: Argosy(  # noqa: E731 - one expression
            "http://testserver", token, http=platform.client()._transport
        )
        monkeypatch.setattr(Argosy, "from_profile", made)
        code = run(["trust", *args])
        found = capsys.readouterr()
        return code, found.out + found.err

    return call


def rollout(platform):
    platform.models.register("digits", platform.manifest(), None)
    (device,) = platform.enroll()
    platform.birth(device)
    waves = (WaveSpec(percent=100),)
    spec = RolloutSpec(model="digits", version=1, waves=waves)
    return device, platform.rollouts.plan(spec)


def reader(platform):
    return Reader(platform.trust.metadata("1.root.json"), platform.trust.metadata, platform.clock)


def offers(platform, device):
    topic = down(device, Down.DESIRED)
    return [payload for to, payload, _ in platform.broker.sent if to == topic and payload]


def test_what_is_registered_is_signed_at_the_next_tick(platform):
    platform.models.register("digits", platform.manifest(), None)
    platform.signing.tick()
    view = platform.models.get("digits", 1)
    (target,) = reader(platform).find(("digits", 1))
    text = platform.models.manifest(view.manifest_sha256)
    target.verify_length_and_hashes(text.encode())
    with platform.uow() as tx:
        tx.models.set_purged("digits", 1)
    platform.signing.tick()
    assert reader(platform).find(("digits", 1)) == [None]


def test_a_rollout_of_an_unsigned_version_says_what_to_do(away, tmp_path, command):
    device, planned = rollout(away)
    away.tick()
    with pytest.raises(NotSigned) as refused:
        away.rollouts.operate(planned.id, RolloutEvent.START)
    assert refused.value.hint == "sign it with: argosy trust sign --keys FOLDER"
    token = away.key(Role.ADMIN)
    answer = away.client(token).post(f"/v1/rollouts/{planned.id}/start")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_signed")

    pinned = ("--root", away.trust.root_sha256())
    code, said = command(away, "sign", "--keys", str(tmp_path / "keys"), "--yes", *pinned)
    assert (code, "1 new" in said) == (Exit.OK, True), said
    away.rollouts.operate(planned.id, RolloutEvent.START)
    away.tick()
    assert len(offers(away, device)) == 1
    with away.uow.read() as tx:
        (entry,) = tx.audit.entries(AuditQuery(action="trust.sign"))
    assert entry.actor.startswith("admin:")


def test_an_offer_waits_until_its_version_can_be_found(platform):
    device, planned = rollout(platform)
    platform.rollouts.operate(planned.id, RolloutEvent.START)
    for _ in range(4):
        platform.engine.tick()
        platform.publisher.tick()
    assert offers(platform, device) == []
    platform.signing.tick()
    platform.publisher.tick()
    assert len(offers(platform, device)) == 1


def test_what_was_offered_is_signed_anew_by_a_new_director(platform, tmp_path, command):
    device, planned = rollout(platform)
    platform.rollouts.operate(planned.id, RolloutEvent.START)
    platform.tick()
    (first,) = offers(platform, device)
    code, said = command(platform, "rotate", "director", "--home", str(tmp_path))
    assert code == Exit.OK, said
    platform.tick()
    second = offers(platform, device)[-1]
    old, new = (json.loads(raw)["signatures"][0]["keyid"] for raw in (first, second))
    assert (old != new, new) == (True, platform.trust.director_keys()[0])
    assert json.loads(first)["signed"]["version"] == json.loads(second)["signed"]["version"]


def test_routes_serve_metadata_and_older_roots(platform, command, tmp_path):
    open_ = platform.client()
    pinned = platform.trust.root_sha256()
    assert command(platform, "rotate", "timestamp", "--home", str(tmp_path))[0] == Exit.OK
    newest = open_.get("/v1/trust/root.json").text
    assert hashlib.sha256(newest.encode()).hexdigest() == platform.trust.root_sha256() != pinned
    old = open_.get("/v1/trust/root.json", params={"sha256": pinned}).text
    assert hashlib.sha256(old.encode()).hexdigest() == pinned
    assert open_.get("/v1/trust/root.json", params={"sha256": "0" * 64}).status_code == 404
    assert open_.get("/v1/trust/metadata/2.root.json").text == newest
    assert open_.get("/v1/trust/metadata/3.root.json").status_code == 404
    assert open_.get("/v1/trust/metadata/..%2Fkeys.json").status_code in {404, 422}
    assert open_.get("/v1/trust").status_code == 401
    viewer = platform.client(platform.key(Role.VIEWER))
    assert viewer.get("/v1/trust").json()["root_sha256"] == platform.trust.root_sha256()
    body = {"files": {"9.models.json": "{}"}}
    assert viewer.post("/v1/trust/metadata", json=body).status_code == 403


def test_devices_are_answered_by_name(platform):
    known = platform.transfer.metadata(MetadataAsk(name="timestamp.json"))
    assert known.text.encode() == platform.trust.metadata("timestamp.json")
    gone = platform.transfer.metadata(MetadataAsk(name="2.root.json"))
    assert (gone.text, gone.error) == (None, None)


def test_the_command_tells_what_is_missing(away, tmp_path, command):
    away.models.register("digits", away.manifest(), None)
    away.signing.tick()
    home = ("--home", str(tmp_path / "nowhere"))
    code, said = command(away, "status", *home)
    assert (code, "unsigned" in said, "digits@1" in said) == (Exit.FAILED, True, True), said
    pinned = ("--root", away.trust.root_sha256())
    code, said = command(away, "rotate", "snapshot", *pinned, *home)
    assert (code, "platform's machine" in said) == (Exit.USAGE, True), said
    code, said = command(away, "sign", "--keys", str(tmp_path / "none"), *home)
    assert (code, "there is no folder" in said) == (Exit.USAGE, True), said
    keys = str(tmp_path / "keys")
    code, said = command(away, "sign", "digits@9", "--keys", keys, "-y", *home)
    assert (code, "does not wait" in said) == (Exit.NOT_FOUND, True), said
    (tmp_path / "other").mkdir()
    code, said = command(away, "sign", "--keys", str(tmp_path / "other"), "-y", *home)
    assert (code, "release key" in said) == (Exit.USAGE, True), said


def test_two_holders_sign_a_root_in_turn(tmp_path, command, platform):
    home, keys = tmp_path / "home", tmp_path / "three"
    where = ("--home", str(home))
    options = ("--keys", "3", "--threshold", "2")
    assert command(platform, "init", "--offline", str(keys), *options, *where)[0] == Exit.OK
    for number, path in enumerate(sorted(keys.glob("root-*.pem"))):
        (tmp_path / f"stick{number}").mkdir()
        path.rename(tmp_path / f"stick{number}" / path.name)
    lost = next((tmp_path / "stick2").iterdir()).stem.partition("-")[2]
    store = TrustStore.open(home / "trust")
    out = ("--out", str(tmp_path / "out"))
    code, said = command(
        platform, "rotate", "root", "--replace", lost, "--keys", str(tmp_path / "stick0"),
        *out, *where,
    )  # fmt: skip
    assert (code, "sign-root" in said) == (Exit.OK, True), said
    assert store.state.root.signed.version == 1
    file = str(tmp_path / "out" / "2.root.json")
    code, said = command(platform, "upload", file, *where)
    assert (code, "not signed by enough keys" in said) == (Exit.AUTH, True), said
    stick = str(tmp_path / "stick1")
    assert command(platform, "sign-root", file, "--keys", stick, "--yes")[0] == Exit.OK
    assert command(platform, "upload", file, *where)[0] == Exit.OK
    root = store.state.root.signed
    assert (root.version, root.roles["root"].threshold) == (2, 2)
    assert not any(keyid.startswith(lost) for keyid in root.roles["root"].keyids)


def test_starting_needs_no_signature_where_the_release_keys_are(platform):
    service = RolloutService(platform.uow, platform.clock, platform.trust)
    _, planned = rollout(platform)
    assert service.operate(planned.id, RolloutEvent.START).state == "RUNNING"


def test_nothing_starts_while_devices_would_refuse_whatever_is_signed(away, tmp_path, command):
    _, planned = rollout(away)
    away.tick()
    pinned = ("--root", away.trust.root_sha256())
    assert command(away, "sign", "--keys", str(tmp_path / "keys"), "-y", *pinned)[0] == Exit.OK
    away.clock.forward(400 * 86400)  # nobody renewed what the server has no keys for
    away.tick()
    with pytest.raises(NotSigned) as refused:
        away.rollouts.operate(planned.id, RolloutEvent.START)
    assert ("expired" in refused.value.detail, "trust status" in refused.value.hint) == (True, True)
