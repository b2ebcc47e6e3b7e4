"""Identities on disk: whole or not at all, wherever the writing ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_client.certificates import key_pem
from edge_client.errors import DiskFullError, NotEnrolledError
from edge_client.identity import (
    Identity,
    IdentityRecord,
    Material,
    NewIdentity,
    add_generation,
    fall_back,
    is_enrolled,
    load_identity,
    save_identity,
    settle,
)
from edge_client.settings import Home
from schemas.enroll import BrokerAddress
from schemas.ids import new_id
from tests.fakes.edge_certificates import certificate, enrolled, pem
from tests.fakes.edge_kill import full_from, killed_at_each_step, without_fsync
from tests.fakes.gateway import Ca

CA = Ca()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    without_fsync(monkeypatch)
    return Home(tmp_path / "home")


def material(identity: Identity) -> Material:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificate(identity.record.device, key.public_key(), CA)
    return Material(key_pem=key_pem(key), certificate_pem=pem(leaf), ca_pem=CA.pem)


def belongs_together(identity: Identity) -> bool:
    """Whether key and certificate are a pair, and the record tells of that certificate."""
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    leaf = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    told = identity.record.serial in {"", f"{leaf.serial_number:x}"}
    return leaf.public_key() == key.public_key() and told


def test_a_renewal_is_tried_beside_the_old_certificate_and_then_settled(home):
    first = enrolled(home, CA)
    second = add_generation(home, first, material(first))
    assert load_identity(home) == second
    assert second.unproven
    assert second.seen.serial != first.seen.serial
    assert first.key.exists()
    settled = settle(home, second)
    assert load_identity(home) == settled
    assert not settled.unproven
    assert not first.key.exists()
    assert settled.root_json == first.root_json


def test_a_certificate_that_nobody_takes_is_left_again(home):
    first = enrolled(home, CA)
    second = add_generation(home, first, material(first))
    back = fall_back(home, second)
    assert (back.key, back.seen) == (first.key, first.seen)
    assert not back.unproven
    assert load_identity(home) == back
    assert not second.key.exists()


def test_a_damaged_new_certificate_leaves_the_old_one_in_use(home):
    first = enrolled(home, CA)
    second = add_generation(home, first, material(first))
    second.certificate.write_bytes(b"damaged")
    assert load_identity(home).seen == first.seen
    first.key.unlink()
    with pytest.raises(NotEnrolledError, match="cannot be read") as caught:
        load_identity(home)
    assert "--force" in str(caught.value.hint)


def test_only_the_owner_may_look(home):
    first = enrolled(home, CA)
    add_generation(home, first, material(first))
    for path in home.identity.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert stat.S_IMODE(home.identity.stat().st_mode) == 0o700


def test_a_home_from_before_there_were_generations_goes_on(home):
    first = enrolled(home, CA)
    for path in first.key.parent.iterdir():
        path.rename(home.identity / path.name)
    record = json.loads((home.identity / "identity.json").read_text())
    for newer in ("generation", "fallback", "serial", "expires_at", "token"):
        del record[newer]
    (home.identity / "identity.json").write_text(json.dumps(record))
    (home.identity / "targets.json").write_text("{}")

    old = load_identity(home)
    assert old.seen == first.seen
    settled = settle(home, add_generation(home, old, material(old)))
    assert load_identity(home) == settled
    names = sorted(path.name for path in home.identity.iterdir())
    assert names == [settled.key.parent.name, "identity.json"]


def enrollment(device: str) -> NewIdentity:
    key = ec.generate_private_key(ec.SECP256R1())
    return NewIdentity(
        record=IdentityRecord(
            device=device,
            device_class="default",
            broker=BrokerAddress(host="127.0.0.1", port=1),
            heartbeat_seconds=5,
            server="http://127.0.0.1:1",
        ),
        key_pem=key_pem(key),
        certificate_pem=pem(certificate(device, key.public_key(), CA)),
        ca_pem=CA.pem,
        root_json=b"{}",
    )


class Case:
    """A home, and something that is written into it."""

    def __init__(self, home: Home, prepare, action) -> None:
        self.home, self._prepare, self._action = home, prepare, action

    def prepare(self) -> None:
        shutil.rmtree(self.home.root, ignore_errors=True)
        self._prepare(self.home)

    def act(self) -> None:
        self._action(self.home)


def first(home: Home) -> None:
    enrolled(home, CA)


def two(home: Home) -> None:
    identity = enrolled(home, CA)
    add_generation(home, identity, material(identity))


def renew(home: Home) -> None:
    identity = load_identity(home)
    add_generation(home, identity, material(identity))


ACTIONS = {
    "renew": (first, renew),
    "settle": (two, lambda home: settle(home, load_identity(home))),
    "fall back": (two, lambda home: fall_back(home, load_identity(home))),
    "enroll anew": (two, lambda home: save_identity(home, enrollment(new_id("dev")))),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_any_step_there_is_one_whole_identity(home, name):
    prepare, action = ACTIONS[name]
    case = Case(home, prepare, action)
    seen = set()
    for _ in killed_at_each_step(case.prepare, case.act):
        identity = load_identity(home)
        assert belongs_together(identity)
        seen.add((identity.record.generation, identity.unproven))
        case.act()  # what was cut off can be done again
        assert belongs_together(load_identity(home))
        drafts = [path.name for path in home.identity.iterdir() if path.name.startswith(".gen")]
        assert drafts == []
    assert len(seen) > 1  # before the switch, and after it


def test_killed_at_any_step_of_a_first_enrollment_there_is_all_of_it_or_nothing(home):
    new = enrollment(new_id("dev"))
    case = Case(home, lambda home: home.create(), lambda home: save_identity(home, new))
    outcomes = set()
    for _ in killed_at_each_step(case.prepare, case.act):
        outcomes.add(is_enrolled(home))
        if is_enrolled(home):
            assert belongs_together(load_identity(home))
        case.act()
        assert belongs_together(load_identity(home))
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", ["renew", "enroll anew"])
def test_a_disk_that_fills_up_leaves_what_was_there(home, name):
    prepare, action = ACTIONS[name]
    case = Case(home, prepare, action)
    for step in range(1, 100):
        case.prepare()
        before = load_identity(home)
        with full_from(step) as hit, contextlib.suppress(DiskFullError):
            case.act()
        now = load_identity(home)
        assert belongs_together(now)
        if not hit[0]:
            assert now.seen != before.seen
            assert step > 5
            return
    pytest.fail("it never came to its end")
