from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest
from tuf.api.metadata import TargetFile

from edge_client.errors import TrustError
from edge_client.metadata import MetadataClient
from edge_client.metadata_floors import Floors
from edge_client.trust import (
    MAX_DESIRED_BYTES,
    Reader,
    _assignment,
    claimed_key,
    confirm,
    read_desired,
    read_genuine,
    require_clock,
    require_current,
    target_of,
)
from schemas.errors import DeviceCause
from schemas.trust import DIRECTOR_ROLE
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import (
    NOW,
    YEAR,
    MemoryCache,
    MemoryFloors,
    Signer,
    assignment,
    new_signer,
)

DEVICE = "dev_0000000000000001"
ME = Reader(device=DEVICE, device_class="default", floor=5)
BUILT = NOW - YEAR
C = DeviceCause


@pytest.fixture(scope="module")
def version():
    return release(linear_onnx())


@pytest.fixture(scope="module")
def signer(version):
    signer = Signer()
    signer.add(version.manifest)
    return signer


@pytest.fixture(scope="module")
def client(signer):
    client = signer.client(MemoryCache(), MemoryFloors())
    client.refresh()
    return client


@pytest.fixture(scope="module")
def director(client):
    return client.delegated(DIRECTOR_ROLE)


@pytest.fixture
def wanted(version):
    return assignment(DEVICE, version.manifest)


def found(client, offer):
    steps = client.finding(target_of(offer))
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(client._fetch(wanted.name, wanted.limit))
    except StopIteration as end:
        return end.value


def refused(call, *args, **kwargs):
    with pytest.raises(TrustError) as caught:
        call(*args, **kwargs)
    return caught.value.cause


def test_a_good_document_becomes_an_offer_while_all_that_signed_it_stands(
    signer, client, director, version, wanted
):
    length = len(version.manifest)
    soon = NOW + dt.timedelta(days=30)
    document = signer.desired(wanted, sequence=5, length=length, expires=soon)
    offer = read_desired(document, director=director, me=ME, now=NOW)
    offer = confirm(offer, found(client, offer))
    assert (offer.assignment, offer.sequence, offer.length) == (wanted, 5, length)
    assert offer.expires == soon
    require_current(offer, soon - dt.timedelta(seconds=1))
    assert refused(require_current, offer, soon) is C.EXPIRED
    of_an_older_program = dataclasses.replace(offer, expires=None)
    assert refused(require_current, of_an_older_program, NOW) is C.EXPIRED
    assert read_genuine(version.manifest, offer).variant.id == "fp32"


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
def test_a_document_that_is_not_right_is_refused(signer, director, wanted, changes, cause):
    document = signer.desired(wanted, **({"sequence": 6} | changes))
    assert refused(read_desired, document, director=director, me=ME, now=NOW) is cause


def test_a_models_role_may_not_sign_for_the_director(signer, director, wanted):
    by_models = signer.desired(wanted, sequence=6, signer=signer.models)
    assert refused(read_desired, by_models, director=director, me=ME, now=NOW) is C.BAD_SIGNATURE


def test_a_document_for_another_device_or_class_is_refused(signer, director, version):
    other = assignment("dev_0000000000000002", version.manifest)
    for wanted, cause in (
        (other, C.WRONG_DEVICE),
        (assignment(DEVICE, version.manifest, device_class="grand"), C.WRONG_CLASS),
    ):
        document = signer.desired(wanted, sequence=6)
        assert refused(read_desired, document, director=director, me=ME, now=NOW) is cause


@pytest.mark.parametrize("year", [1970, 2020])
def test_a_clock_that_is_behind_decides_nothing(year):
    clock = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    assert refused(require_clock, clock, built=BUILT, good=None) is C.EXPIRED
    require_clock(NOW, built=BUILT, good=None)


def test_a_clock_may_not_be_set_back_behind_the_last_good_time():
    good = NOW.timestamp()
    require_clock(NOW - dt.timedelta(minutes=4), built=BUILT, good=good)
    behind = NOW - dt.timedelta(minutes=6)
    assert refused(require_clock, behind, built=BUILT, good=good) is C.EXPIRED


@pytest.mark.parametrize("cut", [0, 1, 10, 200, -1])
def test_a_truncated_document_is_refused(signer, director, wanted, cut):
    document = signer.desired(wanted, sequence=6)[:cut]
    assert refused(read_desired, document, director=director, me=ME, now=NOW) is C.BAD_SIGNATURE


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
def test_hostile_bytes_are_refused(director, raw):
    assert refused(read_desired, raw, director=director, me=ME, now=NOW) is C.BAD_SIGNATURE
    assert claimed_key(raw) is None


def test_a_changed_field_breaks_the_signature(signer, director, wanted):
    document = json.loads(signer.desired(wanted, sequence=6))
    for field, value in (("version", 7), ("extra", 1.5)):  # canonical JSON knows no floats
        changed = {**document, "signed": {**document["signed"], field: value}}
        raw = json.dumps(changed).encode()
        assert refused(read_desired, raw, director=director, me=ME, now=NOW) is C.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("not listed", C.BAD_SIGNATURE),
        ("other bytes listed", C.DIGEST_MISMATCH),
        ("other length", C.DIGEST_MISMATCH),
        ("tampered", C.DIGEST_MISMATCH),
        ("no such variant", C.LOAD_FAILED),
        ("other model", C.DIGEST_MISMATCH),
    ],
)
def test_a_manifest_that_is_not_right_is_refused(version, what, cause):
    signer, text, length = Signer(), version.manifest, len(version.manifest)
    wanted = assignment(DEVICE, version.manifest)
    if what == "other model":
        wanted = wanted.model_copy(update={"model": "letters"})
    elif what == "no such variant":
        wanted = wanted.model_copy(update={"variant": "int4"})
    elif what == "other length":
        length += 1
    if what != "not listed":
        listed = text + b" " if what == "other bytes listed" else text
        signer.add(listed, wanted.model, 1)
    if what == "tampered":
        text = text.replace(b"1e-3", b"1e+3").replace(b"0.001", b"1.001")
        assert text != version.manifest
    client = signer.client(MemoryCache(), MemoryFloors())
    client.refresh()
    director = client.delegated(DIRECTOR_ROLE)
    document = signer.desired(wanted, sequence=6, length=length)
    offer = read_desired(document, director=director, me=ME, now=NOW)

    def go_on():
        read_genuine(text, confirm(offer, found(client, offer)))

    assert refused(go_on) is cause


def test_a_refusal_names_the_execution_that_was_claimed(signer, wanted):
    document = signer.desired(wanted, signer=new_signer())
    assert claimed_key(document) == (wanted.execution, wanted.attempt)


def test_the_floor_is_inclusive_so_that_a_repeat_is_not_refused(signer, director, wanted):
    document = signer.desired(wanted, sequence=6)
    raised = dataclasses.replace(ME, floor=6)
    assert read_desired(document, director=director, me=raised, now=NOW).sequence == 6


def test_an_older_device_reads_a_newer_assignment(wanted):
    newer = wanted.model_dump(mode="json")
    newer["probation"]["invented_later"] = 1
    target = TargetFile(1, {"sha256": "0" * 64}, "device/x/y", {"custom": {**newer, "more": 2}})
    assert _assignment(target) == wanted


def test_a_root_to_be_pinned_needs_the_threshold_of_its_own_keys():
    signer = Signer(root_keys=3, threshold=2)
    MetadataClient(signer.root_json(), cache=MemoryCache(), floors=MemoryFloors(Floors()))
    signer.write_root(signer.keys["root"][0])
    with pytest.raises(TrustError):
        MetadataClient(signer.root_json(), cache=MemoryCache(), floors=MemoryFloors())
