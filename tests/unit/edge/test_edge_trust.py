from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest
from tuf.api.metadata import TargetFile

from edge_client.errors import TrustError
from edge_client.trust import MAX_DESIRED_BYTES, Reader, Trust, _assignment, claimed_key
from schemas.errors import DeviceCause
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import NOW, YEAR, Signer, assignment, new_signer

DEVICE = "dev_0000000000000001"
ME = Reader(device=DEVICE, device_class="default", floor=5, earliest=NOW - YEAR)
C = DeviceCause


@pytest.fixture(scope="module")
def signer():
    return Signer()


@pytest.fixture(scope="module")
def trust(signer):
    return Trust(signer.root_json(), signer.targets_json())


@pytest.fixture(scope="module")
def version():
    return release(linear_onnx())


@pytest.fixture
def wanted(version):
    return assignment(DEVICE, version.manifest)


def refused(call, *args, **kwargs):
    with pytest.raises(TrustError) as caught:
        call(*args, **kwargs)
    return caught.value.cause


def test_a_good_document_becomes_an_offer(signer, trust, wanted):
    offer = trust.desired(signer.desired(wanted, sequence=5, length=77), me=ME, now=NOW)
    assert (offer.assignment, offer.sequence, offer.length) == (wanted, 5, 77)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"sequence": 4}, C.BELOW_FLOOR),
        ({"expires": NOW}, C.EXPIRED),
        ({"signer": new_signer()}, C.BAD_SIGNATURE),
        ({"path": "models/digits/1/manifest.json"}, C.WRONG_DEVICE),
        ({"path": f"device/{DEVICE}/exe_0000000000000009"}, C.BAD_SIGNATURE),
        ({"path": f"device/{DEVICE}/a/b"}, C.BAD_SIGNATURE),
        ({"sha256": "0" * 64}, C.DIGEST_MISMATCH),
        ({"length": 2**40}, C.DIGEST_MISMATCH),
    ],
)
def test_a_document_that_is_not_right_is_refused(signer, trust, wanted, changes, cause):
    document = signer.desired(wanted, **({"sequence": 6} | changes))
    assert refused(trust.desired, document, me=ME, now=NOW) is cause


def test_a_role_may_not_sign_for_another(signer, trust, wanted, version):
    by_models = signer.desired(wanted, sequence=6, signer=signer.models)
    assert refused(trust.desired, by_models, me=ME, now=NOW) is C.BAD_SIGNATURE
    offer = trust.desired(
        signer.desired(wanted, sequence=6, length=len(version.manifest)), me=ME, now=NOW
    )
    by_director = signer.listing(version.manifest, "digits", 1, signer=signer.director)
    cause = refused(trust.manifest, version.manifest, by_director, offer=offer, now=NOW)
    assert cause is C.BAD_SIGNATURE


def test_a_document_for_another_device_or_class_is_refused(signer, trust, version):
    other = assignment("dev_0000000000000002", version.manifest)
    assert refused(trust.desired, signer.desired(other, sequence=6), me=ME, now=NOW) is (
        C.WRONG_DEVICE
    )
    grand = assignment(DEVICE, version.manifest, device_class="grand")
    assert refused(trust.desired, signer.desired(grand, sequence=6), me=ME, now=NOW) is (
        C.WRONG_CLASS
    )


@pytest.mark.parametrize("clock", [NOW - 2 * YEAR, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)])
def test_a_clock_that_was_not_set_stops_updates(signer, trust, wanted, clock):
    assert refused(trust.desired, signer.desired(wanted, sequence=6), me=ME, now=clock) is C.EXPIRED


def test_an_expired_root_stops_updates(wanted):
    signer = Signer(expires=NOW)
    trust = Trust(signer.root_json(), signer.targets_json())
    document = signer.desired(wanted, sequence=6)
    assert refused(trust.desired, document, me=ME, now=NOW) is C.EXPIRED


@pytest.mark.parametrize("cut", [0, 1, 10, 200, -1])
def test_a_truncated_document_is_refused(signer, trust, wanted, cut):
    document = signer.desired(wanted, sequence=6)[:cut]
    assert refused(trust.desired, document, me=ME, now=NOW) is C.BAD_SIGNATURE


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 50_000,
        b"{}",
        b"\xff\xfe",
        b'{"signed": {"_type": "root"}, "signatures": []}',
        b"x" * (MAX_DESIRED_BYTES + 1),
    ],
)
def test_hostile_bytes_are_refused(trust, raw):
    assert refused(trust.desired, raw, me=ME, now=NOW) is C.BAD_SIGNATURE
    assert claimed_key(raw) is None


def test_a_changed_field_breaks_the_signature(signer, trust, wanted):
    document = json.loads(signer.desired(wanted, sequence=6))
    document["signed"]["version"] = 7
    assert refused(trust.desired, json.dumps(document).encode(), me=ME, now=NOW) is C.BAD_SIGNATURE
    document["signed"]["version"] = 6
    document["signed"]["extra"] = 1.5  # canonical JSON knows no floats
    assert refused(trust.desired, json.dumps(document).encode(), me=ME, now=NOW) is C.BAD_SIGNATURE


def test_a_manifest_passes_both_roles(signer, trust, wanted, version):
    document = signer.desired(wanted, sequence=6, length=len(version.manifest))
    offer = trust.desired(document, me=ME, now=NOW)
    listing = signer.listing(version.manifest, "digits", 1)
    genuine = trust.manifest(version.manifest, listing, offer=offer, now=NOW)
    assert genuine.variant.id == "fp32"


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("tampered", C.DIGEST_MISMATCH),
        ("other listed", C.DIGEST_MISMATCH),
        ("other path", C.BAD_SIGNATURE),
        ("wrong key", C.BAD_SIGNATURE),
        ("expired", C.EXPIRED),
        ("truncated", C.BAD_SIGNATURE),
        ("no such variant", C.LOAD_FAILED),
        ("other model", C.DIGEST_MISMATCH),
    ],
)
def test_a_manifest_that_is_not_right_is_refused(signer, trust, wanted, version, what, cause):
    text, listing = version.manifest, signer.listing(version.manifest, "digits", 1)
    if what == "tampered":
        text = text.replace(b"1e-3", b"1e+3").replace(b"0.001", b"1.001")
        assert text != version.manifest
    elif what == "other listed":
        listing = signer.listing(text + b" ", "digits", 1)
    elif what == "other path":
        listing = signer.listing(text, "digits", 1, path="models/digits/2/manifest.json")
    elif what == "wrong key":
        listing = signer.listing(text, "digits", 1, signer=new_signer())
    elif what == "expired":
        listing = signer.listing(text, "digits", 1, expires=NOW)
    elif what == "truncated":
        listing = listing[:-20]
    elif what == "no such variant":
        wanted = wanted.model_copy(update={"variant": "int4"})
    elif what == "other model":
        wanted = wanted.model_copy(update={"model": "letters"})
        listing = signer.listing(text, "letters", 1)
    document = signer.desired(wanted, sequence=6, length=len(version.manifest))
    offer = trust.desired(document, me=ME, now=NOW)
    assert refused(trust.manifest, text, listing, offer=offer, now=NOW) is cause


def test_delegations_need_the_threshold_of_the_root():
    first, second, stranger = new_signer(), new_signer(), new_signer()
    signer = Signer(targets=[first, second], threshold=2)
    Trust(signer.root_json(), signer.targets_json())
    with pytest.raises(TrustError):
        Trust(signer.root_json(), signer.targets_json(first))
    with pytest.raises(TrustError):
        Trust(signer.root_json(), signer.targets_json(first, stranger))
    with pytest.raises(TrustError):
        Trust(Signer().root_json(), signer.targets_json())


def test_a_refusal_names_the_execution_that_was_claimed(signer, wanted):
    document = signer.desired(wanted, signer=new_signer())
    assert claimed_key(document) == (wanted.execution, wanted.attempt)


def test_the_floor_is_inclusive_so_that_a_repeat_is_not_refused(signer, trust, wanted):
    document = signer.desired(wanted, sequence=6)
    raised = dataclasses.replace(ME, floor=6)
    assert trust.desired(document, me=raised, now=NOW).sequence == 6


def test_an_older_device_reads_a_newer_assignment(wanted):
    newer = wanted.model_dump(mode="json")
    newer["probation"]["invented_later"] = 1
    target = TargetFile(1, {"sha256": "0" * 64}, "device/x/y", {"custom": {**newer, "more": 2}})
    assert _assignment(target) == wanted
