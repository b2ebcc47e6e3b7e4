"""Approval, named keys, devices that come back, and devices that are shut out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority.parts import spki_sha256
from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import (
    ArgosyError,
    Conflict,
    Invalid,
    NotFound,
    Rejected,
    Revoked,
    TokenExpired,
    TokenInvalid,
    TokenSpent,
)
from orchestrator.services.ports.access import AuditQuery
from schemas.access import Role
from schemas.device import Birth, DeviceState
from schemas.enroll import (
    Enrolled,
    EnrollPending,
    EnrollRequest,
    JoinToken,
    RenewAsk,
    TokenRequest,
    fingerprint,
)
from schemas.ids import new_id
from schemas.rollout import ExecState, RolloutSpec
from schemas.topics import Up
from tests.unit.orchestrator.platform import HARDWARE, SERVER, csr


def pair():
    private = ec.generate_private_key(ec.SECP256R1())
    return csr(private), spki_sha256(private.public_key())


def token(platform, **asked) -> str:
    return platform.tokens.create(TokenRequest(**asked)).token


def uses(platform, text: str) -> int:
    with platform.uow.read() as tx:
        return tx.devices.token(JoinToken.parse(text).id).uses


def actions(platform, subject: str) -> list[str]:
    with platform.uow.read() as tx:
        entries = tx.audit.entries(AuditQuery())
    return [entry.action for entry in entries if entry.subject == subject]


def revoked(platform) -> set[str]:
    with platform.uow.read() as tx:
        return {one.serial for one in tx.devices.revoked_serials(platform.clock())}


def test_a_lost_answer_is_given_again_and_spends_nothing(platform):
    text, (request, _) = token(platform), pair()
    first = platform.join(text, request)
    platform.tokens.revoke(JoinToken.parse(text).id)
    platform.clock.forward(2 * 86400)
    assert platform.join(text, request) == first
    assert uses(platform, text) == 1
    platform.clock.forward(10 * 86400)
    later = platform.join(text, request)
    assert (later.device, later == first) == (first.device, False)
    platform.clock.forward(120 * 86400)
    with pytest.raises(ArgosyError, match="expired too long ago"):
        platform.join(text, request)


def test_an_older_key_gets_nothing_once_the_device_has_another(platform):
    text, (request, _) = token(platform), pair()
    device = platform.join(text, request).device
    assert platform.renewals.over_mqtt(device, RenewAsk(csr_pem=csr())).certificate_pem
    with pytest.raises(Conflict, match="another key since"):
        platform.join(text, request)


def test_a_key_that_is_known_makes_no_second_device(platform):
    request, _ = pair()
    first = platform.join(token(platform), request)
    again = token(platform)
    with pytest.raises(Conflict, match="another device"):
        platform.join(again, request)
    platform.admission.revoke(first.device, "stolen")
    with pytest.raises(Revoked, match="revoked: stolen"):
        platform.join(again, request)
    assert uses(platform, again) == 0


def test_a_device_waits_until_it_is_approved(platform, admin):
    text, (request, key) = token(platform, approval=True, max_uses=3), pair()
    body = EnrollRequest(token=text, csr_pem=request, hardware=HARDWARE).model_dump(mode="json")
    client = platform.client()
    answers = [client.post("/v1/enroll", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    pending = EnrollPending.model_validate(answers[1].json())
    assert pending.fingerprint == fingerprint(key)
    assert uses(platform, text) == 1
    (view,) = admin.get("/v1/devices", params={"state": "PENDING"}).json()["items"]
    assert (view["id"], view["fingerprint"]) == (pending.device, pending.fingerprint)
    assert view["certificate_expires_at"] is None
    assert admin.get("/v1/devices", params={"state": "ACTIVE"}).json()["items"] == []
    for _ in range(2):
        assert admin.post(f"/v1/devices/{pending.device}/approve").json()["state"] == "ACTIVE"
    enrolled = client.post("/v1/enroll", json=body)
    assert enrolled.status_code == 201
    assert Enrolled.model_validate(enrolled.json()).device == pending.device
    assert client.post("/v1/enroll", json=body).json() == enrolled.json()
    assert actions(platform, pending.device) == [
        "device.enroll",
        "device.approve",
        "device.enroll",
    ]
    refused = admin.post(f"/v1/devices/{pending.device}/reject")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_a_rejected_device_is_told_so_and_stays_out(platform):
    text, (request, _) = token(platform, approval=True), pair()
    device = platform.join(text, request).device
    for _ in range(2):
        assert platform.admission.reject(device).state is DeviceState.REVOKED
    with pytest.raises(Rejected):
        platform.join(text, request)
    with pytest.raises(Conflict):
        platform.admission.approve(device)
    assert actions(platform, device) == ["device.enroll", "device.reject"]


def test_named_keys_come_in_once_each_and_no_others(platform):
    (one, one_key), (two, two_key), (other, _) = pair(), pair(), pair()
    text = token(platform, keys=(one_key, two_key))
    with pytest.raises(TokenInvalid, match="other keys"):
        platform.join(text, other)
    ids = {platform.join(text, request).device for request in (one, one, two, two)}
    assert len(ids) == 2
    assert uses(platform, text) == 2


def test_a_lost_device_comes_back_in_its_own_place(platform):
    made = token(platform, device_class="pi", tags=("lab",))
    old = platform.join(made, pair()[0])
    with platform.uow.read() as tx:
        serial = tx.devices.get(old.device).certificate_serial
    text, (request, key) = token(platform, device=old.device), pair()
    new = platform.join(text, request)
    assert (new.device, new.device_class) == (old.device, "pi")
    assert revoked(platform) == {serial}
    with platform.uow.read() as tx:
        record = tx.devices.get(old.device)
    assert (record.tags, record.spki_sha256) == (("lab",), key)
    assert platform.join(text, request) == new
    with pytest.raises(TokenSpent):
        platform.join(text, pair()[0])
    platform.admission.revoke(old.device, "again")
    with pytest.raises(Revoked):
        platform.join(text, request)
    assert platform.join(token(platform, device=old.device), pair()[0]).device == old.device
    assert platform.devices.get(old.device).revoked_at is None


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"approval": True, "keys": ("a" * 64,)}, Invalid, "need none"),
        ({"keys": ("a" * 64, "a" * 64)}, Invalid, "named twice"),
        ({"keys": ("a" * 64,), "max_uses": 2}, Invalid, "more than the 1 keys"),
        ({"device": "own", "approval": True}, Invalid, "needs none"),
        ({"device": "own", "max_uses": 2}, Invalid, "used once"),
        ({"device": "own", "device_class": "other"}, Invalid, "of class 'default'"),
        ({"device": "own", "tags": ("other",)}, Invalid, "has none"),
        ({"device": new_id("dev")}, NotFound, "there is no device"),
    ],
)
def test_a_token_that_contradicts_itself_is_not_made(platform, asked, error, words):
    if asked.get("device") == "own":
        asked = asked | {"device": platform.enroll()[0]}
    with pytest.raises(error, match=words):
        platform.tokens.create(TokenRequest(**asked))


def test_what_is_wrong_with_a_token_is_told_to_whoever_has_its_secret_alone(platform):
    text = token(platform)
    parsed = JoinToken.parse(text)
    unknown = JoinToken(new_id("tok"), parsed.secret, parsed.ca_sha256, parsed.root_sha256)
    guessed = JoinToken(parsed.id, "A" * 43, parsed.ca_sha256, parsed.root_sha256)
    platform.tokens.revoke(parsed.id)
    said = []
    for one in (text, str(unknown), str(guessed)):
        with pytest.raises(TokenInvalid) as refused:
            platform.join(one)
        said.append((refused.value.detail, refused.value.hint))
    assert len(set(said)) == 1
    short = JoinToken.parse(token(platform, ttl_seconds=60))
    platform.clock.forward(61)
    with pytest.raises(TokenExpired):
        platform.join(str(short))
    with pytest.raises(TokenInvalid):
        platform.join(str(JoinToken(short.id, "A" * 43, short.ca_sha256, short.root_sha256)))


def test_a_token_that_pins_what_is_not_ours_is_refused(platform):
    parsed = JoinToken.parse(token(platform))
    for strange in (
        JoinToken(parsed.id, parsed.secret, "0" * 64, parsed.root_sha256),
        JoinToken(parsed.id, parsed.secret, parsed.ca_sha256, "0" * 64),
    ):
        with pytest.raises(TokenInvalid, match="pins a root"):
            platform.join(str(strange))


def test_a_token_is_revoked_once_and_says_where_to_go(platform, admin):
    made = admin.post("/v1/tokens", json={"note": "lab"}).json()
    assert made["server"] == SERVER
    path = f"/v1/tokens/{made['view']['id']}/revoke"
    assert [admin.post(path).json()["revoked"] for _ in range(2)] == [True, True]
    assert actions(platform, made["view"]["id"]) == ["token.create", "token.revoke"]
    assert admin.post("/v1/tokens/tok_x/revoke").status_code == 404
    viewer = platform.client(platform.key(Role.VIEWER))
    assert viewer.post(path).status_code == 403
    assert viewer.get("/v1/tokens").status_code == 200


def test_40_that_race_for_5_uses_make_5_devices(platform):
    text = token(platform, max_uses=5)
    requests = [csr() for _ in range(40)]

    def join(request):
        try:
            return platform.join(text, request).device
        except TokenSpent:
            return None

    with ThreadPoolExecutor(8) as threads:
        devices = [device for device in threads.map(join, requests) if device]
    assert len(set(devices)) == len(devices) == 5
    assert len(platform.devices.page(None, 50)) == 5


def test_one_key_that_races_with_itself_is_one_device(platform):
    text, (request, _) = token(platform, max_uses=5), pair()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: platform.join(text, request), range(8)))
    assert len({answer.certificate_pem for answer in answers}) == 1
    assert uses(platform, text) == 1


def test_a_revoked_device_is_out_with_everything(platform):
    (device,) = platform.enroll()
    platform.birth(device)
    platform.models.register("digits", platform.manifest(), None)
    rollout = platform.rollouts.plan(RolloutSpec(model="digits", version=1))
    platform.rollouts.operate(rollout.id, RolloutEvent.START)
    platform.tick()
    (execution,) = platform.rollouts.get(rollout.id).waves[0].executions
    assert execution.state is ExecState.OFFERED
    with platform.uow.read() as tx:
        serial = tx.devices.get(device).certificate_serial
    platform.admission.revoke(device, "stolen")
    view = platform.admission.revoke(device, "another reason")
    assert (view.state, view.presence, view.revoke_reason) == ("REVOKED", "OFFLINE", "stolen")
    assert revoked(platform) == {serial}
    (execution,) = platform.rollouts.get(rollout.id).waves[0].executions
    assert (execution.state, execution.detail) == (
        ExecState.REMOVED,
        "the device was revoked: stolen",
    )
    platform.tick()
    desired = [sent for sent in platform.broker.sent if sent[0] == f"d/{device}/down/desired"]
    assert desired[-1][1:] == (b"", True)
    platform.birth(device, session=2)
    platform.report(device, execution.id, 5, ExecState.SUCCEEDED)
    platform.window(device)
    assert platform.renewals.over_mqtt(device, RenewAsk(csr_pem=csr())) is None
    assert platform.devices.get(device).presence == "OFFLINE"
    assert platform.summary() == []
    assert actions(platform, device).count("device.revoke") == 1


def test_a_token_made_for_a_device_before_it_was_revoked_lets_nobody_in(platform):
    device = platform.join(token(platform), pair()[0]).device
    before, other = token(platform, device=device), token(platform)
    platform.admission.revoke(device, "stolen")
    with pytest.raises(TokenInvalid):
        platform.join(before, pair()[0])
    assert platform.join(other, pair()[0]).device != device
    assert platform.join(token(platform, device=device), pair()[0]).device == device


def test_a_device_that_waits_is_not_heard_either(platform):
    device = platform.join(token(platform, approval=True)).device
    platform.birth(device)
    assert platform.devices.get(device).presence == "NEVER"
    assert platform.renewals.over_mqtt(device, RenewAsk(csr_pem=csr())) is None
    assert not platform.devices.admits(device)
    assert not platform.devices.admits("dev_/+#$")
    platform.admission.approve(device)
    assert platform.devices.admits(device)


@pytest.mark.parametrize("act", ["approve", "reject", "revoke", "clear-alert"])
@pytest.mark.parametrize("name", ["dev_%2F%2B%23%24", "+", "%23", "$SYS", "x" * 101])
def test_odd_ids_in_paths_find_no_device(admin, act, name):
    answer = admin.post(f"/v1/devices/{name}/{act}", json={})
    assert answer.status_code in {404, 405, 422}
    assert admin.get(f"/v1/devices/{name}").status_code in {404, 422}


def test_two_boots_that_take_turns_are_an_alert_until_somebody_looked(platform, admin):
    (device,) = platform.enroll()

    def born(boot: str, uptime: float) -> None:
        birth = Birth(boot=boot * 32, session=1, uptime=uptime, hardware=HARDWARE)
        platform.clock.forward(10)
        platform.receive(device, Up.BIRTH, birth)

    born("a", 10)
    born("b", 10)
    born("b", 20)
    assert platform.devices.get(device).clone_suspected_at is None
    born("a", 40)
    born("b", 50)
    assert admin.get(f"/v1/devices/{device}").json()["clone_suspected_at"]
    assert actions(platform, device).count("device.clone_suspected") == 1
    cleared = admin.post(f"/v1/devices/{device}/clear-alert").json()
    assert cleared["clone_suspected_at"] is None
    born("b", 60)
    assert platform.devices.get(device).clone_suspected_at is None
