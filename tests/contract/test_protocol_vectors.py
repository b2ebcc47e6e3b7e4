"""The vectors are what the code makes, and the programs do what the vectors say."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

import schemas.clock
import schemas.device
import schemas.enroll
import schemas.errors
import schemas.measure
import schemas.rollout
import schemas.telemetry
import schemas.transfer
import schemas.trust
from edge_client.errors import TrustError
from edge_client.metadata import MetadataClient
from edge_client.transfer import ranges
from edge_client.trust import Reader, confirm, read_desired, target_of
from orchestrator.domain import execution as machine
from schemas import PROTOCOL, sample, topics, window
from schemas.enroll import JoinToken, fingerprint, renewal_text
from schemas.errors import DeviceCause
from schemas.maintenance import Look, look
from schemas.pace import MaintenanceWindow
from schemas.rollout import ExecReport, ExecState
from schemas.telemetry import bucket_of
from schemas.transfer import decode_chunk, leaves_digest, leaves_of
from tests.fakes.edge_trust import MemoryCache, MemoryFloors
from tests.vectors import make
from tests.vectors.telemetry import named
from tests.vectors.transfer import file_of

FOLDER = Path(make.__file__).parent
MODULES = (
    schemas.clock, schemas.device, schemas.enroll, schemas.errors, schemas.measure,
    schemas.rollout, schemas.telemetry, schemas.transfer, schemas.trust,
)  # fmt: skip


def read(name):
    return json.loads((FOLDER / name).read_text())


def cases(name):
    return [pytest.param(one, id=one["name"]) for one in read(name)["cases"]]


def test_the_files_are_what_the_code_makes():
    made = make.every()
    there = {path.name for path in FOLDER.glob("*.json")}
    assert there == set(made)
    stale = [
        name for name in sorted(made) if (FOLDER / name).read_text() != make.text_of(made[name])
    ]
    assert stale == [], "run: python -m tests.vectors.make"


def test_the_index_names_every_file_and_the_protocol():
    index = read("index.json")
    assert index["protocol"] == PROTOCOL
    for file in index["files"]:
        names = [case["name"] for case in read(file["file"])["cases"]]
        assert len(names) == file["cases"] == len(set(names)) > 0


@pytest.mark.parametrize("case", cases("topics.json"))
def test_topics(case):
    topic = case["topic"]
    up, down = topics.parse_up(topic), topics.parse_down(topic)
    shared = topics.parse_broadcast(topic)
    found = {"kind": None}
    if up is not None:
        found = {"kind": "up", "device": up.device, "leaf": up.leaf}
    elif down is not None:
        found = {"kind": "down", "device": down.device, "leaf": down.leaf}
    elif shared is not None:
        found = {"kind": "broadcast", "sha256": shared}
    assert {**found, "name": case["name"], "topic": topic} == case


@pytest.mark.parametrize("case", cases("chunks.json"))
def test_chunks(case):
    payload = bytes.fromhex(case["head"]) + bytes([case["fill"]]) * case["count"]
    chunk = decode_chunk(payload)
    found = None
    if chunk is not None:
        digest = hashlib.sha256(chunk.data).hexdigest()
        found = {"batch": chunk.batch, "index": chunk.index, "tag": chunk.tag.hex()}
        found["data_sha256"] = digest
    assert found == case["chunk"]


@pytest.mark.parametrize("case", cases("leaves.json"))
def test_leaves(case):
    data, size = file_of(case["size"], case["seed"]), read("leaves.json")["chunk_bytes"]
    blocks = [data[i : i + size] for i in range(0, len(data), size)]
    assert len(blocks) == case["chunks"]
    assert [leaf.hex() for leaf in leaves_of(blocks)] == case["leaves"]
    assert leaves_digest(leaves_of(blocks)) == case["leaves_sha256"]
    assert hashlib.sha256(data).hexdigest() == case["sha256"]


@pytest.mark.parametrize("case", cases("ranges.json"))
def test_ranges(case):
    assert [list(one) for one in ranges(case["indices"])] == case["ranges"]


@pytest.mark.parametrize("case", cases("histogram.json"))
def test_histogram(case):
    assert bucket_of(case["value"]) == case["bucket"]


@pytest.mark.parametrize("case", cases("messages.json"))
def test_messages(case):
    model = next(
        getattr(module, case["type"]) for module in MODULES if hasattr(module, case["type"])
    )
    try:
        model.model_validate_json(case["json"])
        valid = True
    except ValidationError:
        valid = False
    assert valid is case["valid"]


@pytest.mark.parametrize("case", cases("telemetry.json"))
def test_telemetry(case):
    module = window if case["type"] == "Envelope" else sample
    try:
        found = named(module.decode(bytes.fromhex(case["hex"])))
    except window.WindowError:
        assert not case["valid"]
    else:
        assert case["valid"]
        assert found == case["holds"]


def test_texts():
    token, printed, request, renewal = read("texts.json")["cases"]
    parsed = JoinToken.parse(token["token"])
    assert {
        name: getattr(parsed, name) for name in ("id", "secret", "ca_sha256", "root_sha256")
    } == {name: value for name, value in token.items() if name not in {"name", "token"}}
    assert hashlib.sha256(bytes.fromhex(printed["spki_der"])).hexdigest() == printed["spki_sha256"]
    assert fingerprint(printed["spki_sha256"]) == printed["fingerprint"]
    assert hashlib.sha256(request["csr_pem"].encode()).hexdigest() == request["csr_sha256"]
    text = renewal_text(renewal["device"], renewal["csr_pem"], renewal["signed_at"])
    assert text.decode() == renewal["text"]
    key = serialization.load_pem_public_key(renewal["public_key_pem"].encode())
    key.verify(bytes.fromhex(renewal["signature"]), text, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("case", cases("desired.json"))
def test_desired_documents(case):
    given = read("desired.json")
    now = dt.datetime.fromisoformat(case["now"])
    me = Reader(device=case["device"], device_class=case["device_class"], floor=case["floor"])
    files = given["files"]
    client = MetadataClient(
        files[given["pinned_root"]].encode(),
        cache=MemoryCache(),
        floors=MemoryFloors(),
        clock=lambda: now,
        fetch=lambda name, _limit: files[name].encode() if name in files else None,
    )
    cause = None
    try:
        client.refresh()
        document = case["document"].encode()
        offer = read_desired(document, director=client.delegated("director"), me=me, now=now)
        last = None
        steps = client.finding(target_of(offer))
        while True:
            try:
                wanted = steps.send(last)
            except StopIteration as end:
                confirm(offer, end.value)
                break
            last = files[wanted.name].encode()
    except TrustError as error:
        cause = error.cause
    assert (cause is None, cause) == (case["accept"], case["cause"])


def test_what_is_signed_is_canonical_json():
    signed = read("desired.json")["signed"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed["ed25519_public"]))
    key.verify(bytes.fromhex(signed["signature"]), signed["canonical"].encode())
    document = json.loads(read("desired.json")["cases"][0]["document"])
    written = json.dumps(document["signed"], sort_keys=True, separators=(",", ":"))
    assert written == signed["canonical"]


def event_of(given):
    kinds = {"offered": machine.Offered, "retried": machine.Retried, "vanished": machine.Vanished}
    if "server" in given:
        name = given["server"]
        return kinds[name]() if name in kinds else machine.Ended(ExecState(name))
    told = dict(given.get("report") or given["birth"])
    told["state"] = ExecState(told["state"])
    if "birth" in given:
        return machine.Found(**told)
    if "cause" in told:
        told["cause"] = DeviceCause(told["cause"])
    return machine.Reported(**told)


@pytest.mark.parametrize("case", cases("executions.json"))
def test_executions(case):
    now = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    record = machine.Execution()
    for number, given in enumerate(case["steps"]):
        if "report" in given:
            filled = {"execution": "exe_01jqz3k5m7n9p1r5", "boot": "0f" * 16, "uptime": 1}
            ExecReport.model_validate(filled | given["report"])
        record, actions = machine.step(record, event_of(given), now)
        found = {name: getattr(record, name) for name in given["expect"]}
        assert found == given["expect"], (number, given)
        cancels = any(isinstance(one, machine.SendCancel) for one in actions)
        assert cancels is given["cancel"], (number, given)


@pytest.mark.parametrize("case", cases("windows.json"))
def test_windows(case):
    windows = tuple(MaintenanceWindow.model_validate(one) for one in case["windows"])
    until = case["until"]
    wanted = Look(case["open"], None if until is None else dt.datetime.fromisoformat(until))
    assert look(windows, dt.datetime.fromisoformat(case["at"])) == wanted
