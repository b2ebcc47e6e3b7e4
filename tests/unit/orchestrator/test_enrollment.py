"""Enrollment and presence."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from orchestrator.errors import Conflict, Revoked, TokenSpent
from schemas.device import Birth, Death
from schemas.enroll import Enrolled, EnrollRequest, JoinToken, TokenRequest
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT, HARDWARE, csr


def body(token: str, request: str | None = None) -> dict:
    enroll = EnrollRequest(token=token, csr_pem=request or csr(), hardware=HARDWARE)
    return enroll.model_dump(mode="json")


def test_a_join_token_makes_a_device_with_its_class_and_tags(platform, admin):
    made = admin.post("/v1/tokens", json={"device_class": "pi", "tags": ["lab"]}).json()
    answer = platform.client().post("/v1/enroll", json=body(made["token"]))
    enrolled = Enrolled.model_validate(answer.json())
    device = admin.get(f"/v1/devices/{enrolled.device}").json()
    assert (device["device_class"], device["tags"], device["state"]) == ("pi", ["lab"], "ACTIVE")
    certificate = x509.load_pem_x509_certificate(enrolled.certificate_pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == [enrolled.device]
    assert admin.get("/v1/tokens").json()["items"][0]["uses"] == 1


def test_the_token_pins_the_authority_and_the_trust_root(platform):
    token = JoinToken.parse(platform.tokens.create(TokenRequest()).token)
    assert token.ca_sha256 == platform.ca.ca_sha256()
    assert token.root_sha256 == platform.trust.root_sha256()
    assert JoinToken.parse(str(token)) == token


def test_a_spent_token_makes_no_second_device(platform, admin):
    token = platform.tokens.create(TokenRequest()).token
    client = platform.client()
    assert client.post("/v1/enroll", json=body(token)).status_code == 201
    answer = client.post("/v1/enroll", json=body(token))
    assert answer.json()["code"] == "token_spent"
    assert len(admin.get("/v1/devices").json()["items"]) == 1


def test_an_expired_token_says_when(platform):
    token = platform.tokens.create(TokenRequest(ttl_seconds=60)).token
    platform.clock.forward(61)
    answer = platform.client().post("/v1/enroll", json=body(token))
    assert answer.json()["code"] == "token_expired"
    assert "argosy token create" in answer.json()["hint"]


def wrong_secret(text: str) -> str:
    token = JoinToken.parse(text)
    return str(JoinToken(token.id, "A" * 43, token.ca_sha256, token.root_sha256))


@pytest.mark.parametrize("damage", [lambda t: t[:-5], lambda _: "x", wrong_secret])
def test_a_damaged_token_is_refused(platform, damage):
    token = platform.tokens.create(TokenRequest()).token
    answer = platform.client().post("/v1/enroll", json=body(damage(token)))
    assert answer.json()["code"] == "token_invalid"


def test_a_bad_certificate_request_spends_nothing(platform):
    token = platform.tokens.create(TokenRequest()).token
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
    for request in (csr(weak), "not a request"):
        answer = platform.client().post("/v1/enroll", json=body(token, request))
        assert answer.json()["code"] == "csr_invalid"
    assert platform.tokens.list(None, 1)[0].uses == 0


def test_the_subject_a_device_asks_for_is_ignored(platform):
    token = platform.tokens.create(TokenRequest()).token
    request = body(token, csr(name="gateway"))
    enrolled = Enrolled.model_validate(platform.client().post("/v1/enroll", json=request).json())
    assert enrolled.device.startswith("dev_")
    assert "gateway" not in str(
        x509.load_pem_x509_certificate(enrolled.certificate_pem.encode()).subject
    )


def test_a_device_of_another_protocol_is_told_before_its_token_is_spent(platform):
    token = platform.tokens.create(TokenRequest()).token
    answer = platform.client().post("/v1/enroll", json=body(token) | {"protocol": 99})
    assert "protocol 99" in answer.json()["detail"]
    assert platform.tokens.list(None, 1)[0].uses == 0


def test_a_use_lost_to_a_race_after_the_check_makes_no_device(platform, monkeypatch):
    token = platform.tokens.create(TokenRequest()).token
    issue = platform.ca.issue_device

    def racing(*args, **kwargs):
        with platform.uow() as tx:
            tx.devices.spend(JoinToken.parse(token).id, platform.clock())
        return issue(*args, **kwargs)

    monkeypatch.setattr(platform.ca, "issue_device", racing)
    with pytest.raises(TokenSpent):
        platform.enrollment.enroll(EnrollRequest(token=token, csr_pem=csr(), hardware=HARDWARE))
    assert list(platform.devices.page(None, 5)) == []


def presence(platform, device):
    return platform.devices.get(device).presence


def death(session: int) -> Death:
    return Death(boot=BOOT, session=session)


def test_who_comes_back_with_the_key_that_was_shut_out_is_told_that_it_is_the_key(platform):
    request = csr()
    device = platform.join(platform.tokens.create(TokenRequest()).token, request).device
    platform.admission.revoke(device, "lost")
    meant, other = (
        platform.tokens.create(TokenRequest(device=name)).token for name in (device, None)
    )
    with pytest.raises(Conflict) as told:
        platform.join(meant, request)
    assert told.value.hint == "enroll with a new key"
    with pytest.raises(Revoked, match="lost"):
        platform.join(other, request)
    assert platform.join(meant).device == device


def test_a_device_is_online_from_its_birth_to_its_death(platform):
    (device,) = platform.enroll()
    assert presence(platform, device) == "NEVER"
    platform.birth(device)
    assert presence(platform, device) == "ONLINE"
    platform.receive(device, Up.DEATH, death(1))
    assert presence(platform, device) == "OFFLINE"


def test_the_death_of_an_older_connection_means_nothing(platform):
    (device,) = platform.enroll()
    platform.birth(device, session=1)
    platform.birth(device, session=2)
    platform.receive(device, Up.DEATH, death(1))
    assert presence(platform, device) == "ONLINE"


def test_a_retained_birth_does_not_raise_the_dead(platform):
    (device,) = platform.enroll()
    platform.birth(device)
    platform.receive(device, Up.DEATH, death(1))
    with platform.uow() as tx:
        record = tx.devices.get(device)
    birth = {"boot": BOOT, "session": 1, "uptime": 1, "hardware": HARDWARE}
    platform.receive(device, Up.BIRTH, Birth(**birth), retained=True)
    assert presence(platform, device) == "OFFLINE"
    assert record.boot == BOOT


def test_missing_heartbeats_take_a_device_offline(platform):
    (device,) = platform.enroll()
    platform.birth(device)
    platform.clock.forward(29)
    assert platform.devices.sweep() == 0
    platform.clock.forward(2)
    assert platform.devices.sweep() == 1
    assert presence(platform, device) == "OFFLINE"
