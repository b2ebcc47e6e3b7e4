"""Enrollment as a machine: whatever order things happen in, nobody is in who should not be.

The real services over SQLite, with real keys and certificates. The database is shared by all
examples, whose tokens, keys and devices have nothing in common.
"""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import event

from orchestrator.adapters.authority.parts import spki_sha256
from orchestrator.errors import ArgosyError, Unavailable
from orchestrator.services.renewal import RenewalService
from schemas.device import Birth, CertificateSeen, DeviceState
from schemas.enroll import (
    Enrolled,
    EnrollPending,
    RenewAsk,
    Renewed,
    RenewRequest,
    TokenRequest,
    renewal_text,
)
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT, GRACE, HARDWARE, Platform, csr

DAY = 86400
START = datetime.now(UTC).replace(microsecond=0)
pick = st.integers(0, 5)

_WORLD: list[Platform] = []


def world() -> Platform:
    """One platform for all examples, on a disk that need not survive a power cut."""
    if not _WORLD:
        folder = tempfile.TemporaryDirectory(prefix="argosy-machine-")
        made = Platform(Path(folder.name))
        made.folder = folder  # it goes with the platform
        made.ended = set()
        made.renewals = RenewalService(
            made.uow,
            made.clock,
            made.ca,
            certificate_days=7,
            grace=GRACE,
            session_ended=made.ended.__contains__,
        )

        @event.listens_for(made.database, "connect")
        def fast(connection, _record):
            connection.execute("PRAGMA synchronous=OFF")

        made.database.dispose()
        _WORLD.append(made)
    return _WORLD[0]


@dataclass
class Key:
    private: ec.EllipticCurvePrivateKey
    request: str
    spki: str


@dataclass
class Held:
    """A certificate as the device has it."""

    serial: str
    pem: str
    key: Key
    expires: object


@dataclass
class Model:
    """What must be true of a device, as the test sees it."""

    state: DeviceState
    key: Key
    certificates: list[Held] = field(default_factory=list)
    shut: set[str] = field(default_factory=set)
    sequence: int = 0


@dataclass
class Token:
    text: str
    id: str
    max_uses: int
    device: str | None
    named: tuple[str, ...]
    approval: bool
    took: set[str] = field(default_factory=set)


def of(items: list, number: int):
    return items[number % len(items)]


class EnrollmentMachine(RuleBasedStateMachine):
    """Tokens, keys and devices, in any order."""

    @initialize()
    def begin(self) -> None:
        self.platform = world()
        self.platform.clock.now = START
        self.keys: list[Key] = []
        self.tokens: list[Token] = []
        self.devices: dict[str, Model] = {}
        self.owner: dict[str, str] = {}
        # Two devices to begin with: what is interesting happens between them.
        for approval in (False, True):
            self._made(TokenRequest(max_uses=2, approval=approval, ttl_seconds=30 * DAY))
            self.enroll(len(self.tokens) - 1, len(self.keys), 1)

    def _key(self, number: int) -> Key:
        """One of the keys, or a new one."""
        if number < len(self.keys):
            return self.keys[number]
        private = ec.generate_private_key(ec.SECP256R1())
        made = Key(private, csr(private), spki_sha256(private.public_key()))
        self.keys.append(made)
        return made

    @rule(
        uses=st.integers(1, 2),
        approval=st.booleans(),
        named=st.booleans(),
        days=st.sampled_from((1, 30)),
        number=pick,
    )
    def token(self, *, uses: int, approval: bool, named: bool, days: int, number: int) -> None:
        keys = (self._key(number).spki,) if named else ()
        request = TokenRequest(
            max_uses=1 if named else uses,
            approval=approval and not named,
            keys=keys,
            ttl_seconds=days * DAY,
        )
        self._made(request)

    @precondition(lambda self: self.devices)
    @rule(number=pick)
    def token_for_a_lost_device(self, number: int) -> None:
        device = of(sorted(self.devices), number)
        try:
            self._made(TokenRequest(device=device, ttl_seconds=DAY))
        except ArgosyError:
            assert self.devices[device].state is DeviceState.PENDING
        else:
            assert self.devices[device].state is not DeviceState.PENDING

    def _made(self, request: TokenRequest) -> None:
        made = self.platform.tokens.create(request)
        view = made.view
        self.tokens.append(
            Token(made.token, view.id, view.max_uses, view.device, request.keys, view.approval)
        )

    @precondition(lambda self: self.tokens)
    @rule(number=pick)
    def revoke_token(self, number: int) -> None:
        self.platform.tokens.revoke(of(self.tokens, number).id)

    @precondition(lambda self: self.tokens)
    @rule(number=pick, key_number=pick, times=st.integers(1, 2))
    def enroll(self, number: int, key_number: int, times: int) -> None:
        token, key = of(self.tokens, number), self._key(key_number)
        for _ in range(times):
            try:
                answer = self.platform.join(token.text, key.request)
            except Unavailable:
                raise
            except ArgosyError:
                return
            self._joined(token, key, answer)

    def _joined(self, token: Token, key: Key, answer: Enrolled | EnrollPending) -> None:
        name = answer.device
        assert self.owner.setdefault(key.spki, name) == name, "one key became two devices"
        assert not token.named or key.spki in token.named
        assert token.device in {None, name}
        model = self.devices.get(name)
        replaced = model is not None and token.device == name and key.spki not in token.took
        if replaced:
            model.shut |= {held.serial for held in model.certificates}
            model.state, model.key = DeviceState.ACTIVE, key
        elif model is None:
            state = DeviceState.PENDING if token.approval else DeviceState.ACTIVE
            model = self.devices[name] = Model(state, key)
        token.took.add(key.spki)
        if isinstance(answer, EnrollPending):
            assert model.state is DeviceState.PENDING
            return
        assert model.state is DeviceState.ACTIVE, "a certificate for who may not take part"
        assert model.key is key
        assert answer.root_json == self.platform.trust.root_json
        self._got(name, key, answer.certificate_pem)

    def _got(self, name: str, key: Key, pem: str) -> None:
        leaf = x509.load_pem_x509_certificates(pem.encode())[0]
        assert spki_sha256(leaf.public_key()) == key.spki
        assert leaf.subject.rfc4514_string() == f"CN={name}"
        serial = f"{leaf.serial_number:x}"
        model = self.devices[name]
        assert serial not in model.shut, "a revoked certificate was given again"
        assert leaf.not_valid_after_utc > self.platform.clock()
        if serial not in {held.serial for held in model.certificates}:
            model.certificates.append(Held(serial, pem, key, leaf.not_valid_after_utc))
        model.key = key
        self.owner.setdefault(key.spki, name)

    @precondition(lambda self: self.devices)
    @rule(number=pick)
    def approve(self, number: int) -> None:
        name = of(sorted(self.devices), number)
        model = self.devices[name]
        try:
            self.platform.admission.approve(name)
        except ArgosyError:
            assert model.state is DeviceState.REVOKED
        else:
            assert model.state is not DeviceState.REVOKED, "a revoked device was approved"
            model.state = DeviceState.ACTIVE

    @precondition(lambda self: self.devices)
    @rule(number=pick)
    def reject(self, number: int) -> None:
        name = of(sorted(self.devices), number)
        model = self.devices[name]
        try:
            self.platform.admission.reject(name)
        except ArgosyError:
            assert model.state is not DeviceState.PENDING
        else:
            assert model.state is not DeviceState.ACTIVE
            model.state = DeviceState.REVOKED

    @precondition(lambda self: self.devices)
    @rule(number=pick)
    def revoke(self, number: int) -> None:
        name = of(sorted(self.devices), number)
        self.platform.admission.revoke(name, "the test says so")
        model = self.devices[name]
        if model.state is not DeviceState.REVOKED:
            model.state = DeviceState.REVOKED
            model.shut |= {held.serial for held in model.certificates}

    @precondition(lambda self: self.devices)
    @rule(number=pick, key_number=pick, times=st.integers(1, 2))
    def renew(self, number: int, key_number: int, times: int) -> None:
        name, key = of(sorted(self.devices), number), self._key(key_number)
        serials = set()
        for _ in range(times):
            model = self.devices[name]
            try:
                answer = self.platform.renewals.over_mqtt(name, RenewAsk(csr_pem=key.request))
            except Unavailable:
                assert self._open(model), "nobody is connected who should not be"
                return
            assert model.state is not DeviceState.ACTIVE or not self._open(model)
            if model.state is not DeviceState.ACTIVE:
                assert answer is None, "who may not take part was answered"
                return
            assert answer is not None
            if answer.certificate_pem is None:
                assert answer.error
                return
            self._renewed(name, key, answer)
            serials.add(model.certificates[-1].serial)
        assert len(serials) == 1, "the same request got two certificates"

    def _open(self, model: Model) -> set[str]:
        """Revoked certificates by which somebody may be connected yet."""
        now = self.platform.clock()
        shut = {held.serial for held in model.certificates if held.expires > now} & model.shut
        return shut - self.platform.ended

    @rule()
    def sessions_end(self) -> None:
        for model in self.devices.values():
            self.platform.ended |= model.shut

    def _renewed(self, name: str, key: Key, answer: Renewed) -> None:
        assert self.owner.get(key.spki, name) == name, "one key in two devices"
        assert answer.certificate_pem is not None
        self._got(name, key, answer.certificate_pem)

    @precondition(lambda self: any(m.certificates for m in self.devices.values()))
    @rule(number=pick, old_number=pick, key_number=pick, forged=st.booleans())
    def renew_by_proof(
        self, *, number: int, old_number: int, key_number: int, forged: bool
    ) -> None:
        names = [name for name in sorted(self.devices) if self.devices[name].certificates]
        name, key = of(names, number), self._key(key_number)
        model = self.devices[name]
        old = of(model.certificates, old_number)
        signer = self.keys[-1].private if forged else old.key.private
        forged = forged and self.keys[-1] is not old.key
        try:
            answer = self.platform.renewals.by_proof(self._proof(name, old, key, signer))
        except ArgosyError:
            return
        assert not forged
        assert model.state is DeviceState.ACTIVE
        assert old.serial not in model.shut
        assert old.expires + GRACE > self.platform.clock()
        with self.platform.uow.read() as tx:
            seen = {one.serial for one in tx.devices.certificates(name) if one.seen_at}
        newer = model.certificates[model.certificates.index(old) + 1 :]
        assert not seen & {held.serial for held in newer if held.expires > old.expires}
        self._renewed(name, key, answer)

    def _proof(self, name: str, old: Held, key: Key, signer) -> RenewRequest:
        draft = RenewRequest(
            device=name,
            certificate_pem=old.pem,
            csr_pem=key.request,
            signed_at=self.platform.clock(),
            signature="",
        )
        said = draft.model_dump(mode="json")["signed_at"]
        text = renewal_text(name, key.request, said)
        made = signer.sign(text, ec.ECDSA(hashes.SHA256()))
        return draft.model_copy(update={"signature": base64.b64encode(made).decode()})

    @precondition(lambda self: any(m.certificates for m in self.devices.values()))
    @rule(number=pick, session=st.integers(1, 3))
    def birth(self, number: int, session: int) -> None:
        names = [name for name in sorted(self.devices) if self.devices[name].certificates]
        name = of(names, number)
        model = self.devices[name]
        seen = CertificateSeen(serial=model.certificates[-1].serial, roots=("a" * 64,))
        message = Birth(boot=BOOT, session=session, uptime=1, hardware=HARDWARE, certificate=seen)
        self.platform.receive(name, Up.BIRTH, message)
        if model.state is not DeviceState.ACTIVE:
            assert self.platform.devices.get(name).presence != "ONLINE"

    @precondition(lambda self: self.devices)
    @rule(number=pick)
    def offer(self, number: int) -> None:
        """As the rollout engine does it."""
        name = of(sorted(self.devices), number)
        with self.platform.uow() as tx:
            record = tx.devices.get(name, lock=True)
            tx.devices.save(replace(record, sequence=record.sequence + 1))
        self.devices[name].sequence += 1

    @rule(days=st.sampled_from((0.01, 1, 4, 8, 91)))
    def time_passes(self, days: float) -> None:
        if self.platform.clock.now + timedelta(days=days) < START + timedelta(days=365):
            self.platform.clock.forward(days * DAY)

    @invariant()
    def holds(self) -> None:
        if not getattr(self, "tokens", None):
            return
        now = self.platform.clock()
        with self.platform.uow.read() as tx:
            revoked = {one.serial for one in tx.devices.revoked_serials(now)}
            for token in self.tokens:
                record = tx.devices.token(token.id)
                assert len(token.took) == record.uses <= token.max_uses
            for name, model in self.devices.items():
                record = tx.devices.get(name)
                assert record.state is model.state
                assert record.sequence == model.sequence, "the sequence fell or jumped"
                assert record.spki_sha256 == model.key.spki
                if model.state is DeviceState.PENDING:
                    assert not tx.devices.certificates(name)
                for held in model.certificates:
                    shut = held.expires > now and held.serial in model.shut
                    assert (held.serial in revoked) == shut


TestEnrollment = EnrollmentMachine.TestCase
TestEnrollment.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_device_that_was_away_for_weeks_comes_back_by_its_old_key():
    """The machine shows that nobody gets in wrongly; this, that the right one does get in."""
    machine = EnrollmentMachine()
    machine.begin()
    name = next(name for name, model in machine.devices.items() if model.certificates)
    (old,) = machine.devices[name].certificates
    machine.platform.clock.forward(80 * DAY)
    answer = machine.platform.renewals.by_proof(
        machine._proof(name, old, machine._key(2), old.key.private)
    )
    machine._renewed(name, machine.keys[2], answer)
    machine.holds()
