"""The next certificate: over the connection, and by proof of the old key."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from orchestrator.adapters.authority.embedded import CertificateAuthority
from orchestrator.domain.proof import is_signed_by
from orchestrator.errors import Forbidden, Revoked, Unauthenticated, Unavailable
from schemas.device import Birth, CertificateSeen, DeviceState
from schemas.enroll import RenewAsk, Renewed, RenewRequest, TokenRequest, renewal_text
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT, HARDWARE, csr

DAY = 86400


class Device:
    """What a device has: its key, its certificate."""

    def __init__(self, platform, private=None, **asked) -> None:
        self.platform = platform
        self.key = private or ec.generate_private_key(ec.SECP256R1())
        token = platform.tokens.create(TokenRequest(**asked)).token
        answer = platform.join(token, csr(self.key))
        self.id, self.pem = answer.device, answer.certificate_pem

    def ask(self, key=None, request: str | None = None) -> Renewed | None:
        return self.platform.renewals.over_mqtt(
            self.id, RenewAsk(csr_pem=request or csr(key or self.key))
        )

    def proof(self, request: str | None = None, **more) -> RenewRequest:
        values = {
            "device": self.id,
            "certificate_pem": self.pem,
            "csr_pem": request or csr(),
            "signed_at": self.platform.clock(),
            "signature": "",
        }
        draft = RenewRequest(**(values | more))
        said = draft.model_dump(mode="json")["signed_at"]
        text = renewal_text(draft.device, draft.csr_pem, said)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            made = self.key.sign(text, ec.ECDSA(hashes.SHA256()))
        elif isinstance(self.key, rsa.RSAPrivateKey):
            made = self.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        else:
            made = self.key.sign(text)
        return draft.model_copy(update={"signature": base64.b64encode(made).decode()})

    def born(self, pem: str) -> None:
        serial = f"{leaf_of(pem).serial_number:x}"
        seen = CertificateSeen(serial=serial, roots=("a" * 64,))
        birth = Birth(boot=BOOT, session=1, uptime=1, hardware=HARDWARE, certificate=seen)
        self.platform.receive(self.id, Up.BIRTH, birth)


def leaf_of(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem.encode())[0]


def set_state(platform, device: str, state: DeviceState) -> None:
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(device), state=state))


def test_a_device_renews_and_a_repeat_gets_the_same(platform):
    device, request = Device(platform), csr()
    first, again = device.ask(request=request), device.ask(request=request)
    assert first == again
    assert first.certificate_pem != device.pem
    assert first.ca_pem == platform.ca.pem
    leaf = leaf_of(first.certificate_pem)
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == device.id
    view = platform.devices.get(device.id)
    assert view.certificate_serial == f"{leaf.serial_number:x}"
    with platform.uow.read() as tx:
        # The one before stays valid until its own end.
        assert tx.devices.revoked_serials() == []
    platform.clock.forward(5 * DAY)
    assert device.ask(request=request).certificate_pem != first.certificate_pem


def test_who_was_replaced_gets_nothing_by_the_session_that_is_open_yet(platform):
    stolen = Device(platform)
    platform.shutting_out.tick()
    heir = Device(platform, device=stolen.id)
    for _ in range(3):
        with pytest.raises(Unavailable, match="may still be connected"):
            stolen.ask(request=csr())
        platform.clock.forward(1)
    assert platform.devices.get(heir.id).certificate_serial == (
        f"{leaf_of(heir.pem).serial_number:x}"
    )
    for _ in range(3):
        platform.shutting_out.tick()
        platform.clock.forward(1)
    assert platform.gate.over == [(heir.id, False)]
    assert heir.ask(request=csr()).certificate_pem


def test_a_session_that_cannot_be_ended_holds_renewals_up_no_longer_than_it_could_last(platform):
    stolen = Device(platform)
    heir = Device(platform, device=stolen.id)
    platform.clock.forward(8 * DAY)
    assert heir.ask(request=csr()).certificate_pem


def test_what_is_wrong_with_a_request_is_the_answer(platform):
    device, other = Device(platform), Device(platform)
    weak = csr(rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505 - it must be refused
    for request, words in (
        ("not a request", "PKCS #10"),
        (weak, "not accepted"),
        (csr(other.key), "another device"),
    ):
        answer = device.ask(request=request)
        assert answer.certificate_pem is None
        assert words in answer.error
    ask = RenewAsk(csr_pem=csr(), protocol=99)
    assert "protocol 99" in platform.renewals.over_mqtt(device.id, ask).error
    assert platform.devices.get(device.id).certificate_serial == (
        f"{leaf_of(device.pem).serial_number:x}"
    )


def test_a_device_in_a_loop_gets_20_in_an_hour(platform):
    device = Device(platform)
    key = ec.generate_private_key(ec.SECP256R1())
    answers = [device.ask(key) for _ in range(20)]
    assert sum(answer.error is None for answer in answers) == 19
    assert "too many" in answers[-1].error
    platform.clock.forward(3601)
    assert device.ask(key).error is None


def test_an_expired_certificate_is_renewed_by_its_key(platform):
    device, request = Device(platform), csr()
    platform.clock.forward(60 * DAY)
    body = device.proof(request).model_dump(mode="json")
    answers = [platform.client().post("/v1/renew", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    renewed = Renewed.model_validate(answers[0].json())
    assert answers[1].json() == answers[0].json()
    assert leaf_of(renewed.certificate_pem).not_valid_after_utc > platform.clock()


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
)
def test_every_kind_of_key_that_may_enroll_can_prove_itself(platform, make):
    device = Device(platform, make())
    assert platform.renewals.by_proof(device.proof()).certificate_pem


def test_a_proof_that_is_none_is_refused(platform, tmp_path):
    device, other = Device(platform), Device(platform)
    rogue = CertificateAuthority.open_or_create(tmp_path / "rogue", platform.clock)
    foreign = rogue.issue_device(csr(device.key), device.id, 7).pem
    for request in (
        device.proof().model_copy(update={"csr_pem": csr()}),
        device.proof().model_copy(update={"device": other.id}),
        device.proof().model_copy(update={"signature": "AAAA"}),
        device.proof().model_copy(update={"signature": "not base64"}),
        device.proof(certificate_pem=other.pem),
        device.proof(certificate_pem=foreign),
        device.proof(certificate_pem=platform.ca.pem),
        device.proof(certificate_pem=""),
        device.proof(certificate_pem=foreign + device.pem),
    ):
        with pytest.raises(Unauthenticated):
            platform.renewals.by_proof(request)
    assert not is_signed_by("", b"", "")


def test_a_certificate_that_is_too_old_or_was_replaced_renews_nothing(platform):
    device = Device(platform)
    platform.clock.forward(5 * DAY)
    fresh = device.ask(request=csr()).certificate_pem
    # Its answer may have been lost: until the new one is seen, the old one still speaks.
    assert platform.renewals.by_proof(device.proof()).certificate_pem
    device.born(fresh)
    with pytest.raises(Forbidden, match="newer certificate"):
        platform.renewals.by_proof(device.proof())
    late = Device(platform)
    platform.clock.forward((7 + 90) * DAY)
    with pytest.raises(Forbidden, match="expired too long ago"):
        platform.renewals.by_proof(late.proof())


def test_a_birth_with_another_devices_certificate_says_nothing_of_that_one(platform):
    device, other = Device(platform), Device(platform)
    fresh = device.ask(request=csr()).certificate_pem
    other.born(fresh)
    assert platform.renewals.by_proof(device.proof()).certificate_pem


def test_a_revoked_device_proves_nothing_also_once_its_place_is_taken(platform):
    device = Device(platform)
    platform.clock.forward(20 * DAY)
    platform.admission.revoke(device.id, "stolen")
    with pytest.raises(Revoked, match="stolen"):
        platform.renewals.by_proof(device.proof())
    Device(platform, device=device.id)
    with pytest.raises(Revoked):
        platform.renewals.by_proof(device.proof())


def test_who_waits_or_is_suspended(platform):
    device = Device(platform)
    set_state(platform, device.id, DeviceState.PENDING)
    assert device.ask(request=csr()) is None
    set_state(platform, device.id, DeviceState.SUSPENDED)
    assert device.ask(request=csr()).certificate_pem
    assert platform.renewals.over_mqtt("dev_/+#$", RenewAsk(csr_pem=csr())) is None


def test_old_certificates_are_forgotten_once_they_renew_nothing(platform):
    device = Device(platform)
    assert platform.renewals.tick() == 0
    platform.clock.forward(DAY)
    assert device.ask(request=csr()).certificate_pem
    platform.clock.forward((7 + 91) * DAY)
    assert platform.renewals.tick() == 1
    assert platform.renewals.tick() == 0
    with pytest.raises(Forbidden, match="no such certificate"):
        platform.renewals.by_proof(device.proof())


def test_a_spent_token_and_an_old_key_yield_nothing_once_the_certificate_is_forgotten(platform):
    token, request = platform.tokens.create(TokenRequest()).token, csr()
    platform.join(token, request)
    platform.clock.forward((7 + 91) * DAY)
    for _ in range(2):
        with pytest.raises(Forbidden, match="expired too long ago"):
            platform.join(token, request)
        platform.renewals.tick()


def test_a_clock_that_jumps_ahead_and_back_lets_nobody_in_again(platform):
    stolen = Device(platform)
    platform.admission.revoke(stolen.id, "stolen")
    other = Device(platform)
    years = 64 * 365 * DAY
    platform.clock.forward(years)
    platform.renewals.tick()
    platform.shutting_out.tick()
    platform.clock.forward(-years)
    for _ in range(3):
        platform.shutting_out.tick()
        platform.clock.forward(1)
    assert platform.gate.loaded.shut == {stolen.id}
    assert len(platform.gate.loaded.serials) == 1
    platform.admission.revoke(other.id, "")
    platform.shutting_out.tick()
    assert platform.gate.loaded.shut == {stolen.id, other.id}


def test_only_the_key_is_taken_from_a_request(platform):
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev_/+#$")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway")]), critical=False)
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    device = Device(platform)
    leaf = leaf_of(device.ask(request=pem + csr()).certificate_pem)
    assert leaf.public_key() == key.public_key()
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject.rfc4514_string() == f"CN={device.id}"
    assert "gateway" not in str(leaf.extensions)


def test_oversized_requests_are_refused_at_the_door(platform):
    client = platform.client()
    body = {"token": "x", "csr_pem": "x" * 9000, "hardware": HARDWARE.model_dump(mode="json")}
    assert client.post("/v1/enroll", json=body).status_code == 422
    body = {"device": "dev_/+#$", "certificate_pem": "", "csr_pem": "", "signature": ""}
    answer = client.post("/v1/renew", json=body | {"signed_at": "2026-01-01T00:00:00Z"})
    assert answer.status_code == 422
    assert "device" in answer.text
