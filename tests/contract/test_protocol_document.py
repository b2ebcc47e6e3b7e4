"""The document says all that the code has, and nothing else."""

from __future__ import annotations

import json
import re

import pytest

from edge_client.uplink import ENVELOPES_AT_ONCE, ENVELOPES_PER_SECOND
from orchestrator.adapters.intake import ASKED, MAX_BYTES, QUESTIONS, STORED
from orchestrator.adapters.sender import SENT
from orchestrator.adapters.transfer_line import MAX_NEED_BYTES
from orchestrator.domain.enrollment import MAX_RENEWALS
from orchestrator.domain.link import LIFETIME_SECONDS
from orchestrator.services.links import MAX_OF_DEVICE
from schemas import PROTOCOL, patch, sample, transfer, window
from schemas.errors import DeviceCause
from schemas.measure import MAX_FILE_BYTES
from schemas.model import MAX_MANIFEST_BYTES
from schemas.rollout import DEVICE_REPORTED, Probation
from schemas.topics import Down, Up
from schemas.transfer import Way
from schemas.trust import MAX_METADATA_BYTES
from tests.contract.test_protocol_vectors import MODULES
from tests.vectors.make import DOCUMENT, documented
from tests.vectors.messages import EXAMPLES

TEXT = DOCUMENT.read_text()
MODELS = {
    name: next(getattr(module, name) for module in MODULES if hasattr(module, name))
    for name in EXAMPLES
}


def often(rate):
    return f"{rate.count / rate.seconds:.0f} a second, {rate.count} at once"


LIMITS = {
    "a message to the server": f"{MAX_BYTES} bytes",
    "a request for chunks": f"{MAX_NEED_BYTES} bytes",
    "stored messages of one device": often(STORED),
    "questions about files and metadata": often(QUESTIONS),
    "other requests of one device": often(ASKED),
    "chunks to one device": f"{SENT.count} at once, as many again in {SENT.seconds:.0f} seconds",
    "a manifest, a metadata file": f"{MAX_MANIFEST_BYTES} bytes",
    "a file": f"{MAX_FILE_BYTES} bytes",
    "a chunk": f"{transfer.CHUNK_BYTES} bytes",
    "chunks outstanding, or in one request": f"{transfer.MAX_WINDOW}",
    "files named in `held`": f"{transfer.MAX_HELD}",
    "a link by HTTPS": f"{LIFETIME_SECONDS} seconds",
    "downloads by HTTPS of one device": f"{MAX_OF_DEVICE}",
}


def test_the_examples_are_those_of_the_vectors():
    assert documented(TEXT) == TEXT, "run: python -m tests.vectors.make"
    shown = re.findall(r"```json (\w+)\n(.*?)```", TEXT, re.DOTALL)
    assert [json.loads(body) for _, body in shown] == [EXAMPLES[name] for name, _ in shown]
    assert sorted(name for name, _ in shown) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_have_no_field_that_the_type_lacks(name):
    MODELS[name].model_validate(EXAMPLES[name], extra="forbid")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_field_is_in_the_document(name):
    missing = [
        field
        for field in MODELS[name].model_fields
        if f'"{field}"' not in TEXT and f"`{field}`" not in TEXT
    ]
    assert missing == []


def test_the_fields_of_telemetry_are_in_the_document_at_their_places():
    for kind in (window.About, window.Window):
        for place, name in enumerate(kind.__struct_fields__):
            assert f"| {place} | `{name}` |" in TEXT
    for name in (*sample.Sample.__struct_fields__, *sample.Tensor.__struct_fields__):
        assert f"`{name}`" in TEXT
    assert f"at most {window.MAX_WINDOWS} windows and {window.MAX_ENVELOPE_BYTES} bytes" in TEXT
    assert f"at most {sample.MAX_SAMPLE_BYTES} bytes" in TEXT
    pace = f"{ENVELOPES_PER_SECOND:.0f} envelopes a second, {ENVELOPES_AT_ONCE:.0f} at once"
    assert pace in TEXT


def test_every_topic_state_cause_and_way_is_in_the_document():
    for leaf in Up:
        assert f"| `d/<device>/up/{leaf}` | device" in TEXT
    for leaf in Down:
        assert f"| `d/<device>/down/{leaf}` | server" in TEXT
    rows = set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE))
    assert rows == {state.value for state in DEVICE_REPORTED}
    causes = re.search(r"A `cause` is one of `(.*?)`", TEXT, re.DOTALL)[1].split()
    assert sorted(causes) == sorted(DeviceCause)
    for way in Way:
        assert f"`{way}`" in TEXT
    for field in Probation.model_fields:
        assert f"`{field}`" in TEXT


def test_the_limits_are_those_of_the_code():
    section = TEXT[TEXT.index("## Limits") :]
    table = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE))
    assert {name: table.get(name) for name in LIMITS} == LIMITS
    assert f"`protocol` is {PROTOCOL}." in TEXT
    assert f"at most {MAX_RENEWALS} certificates an hour" in TEXT
    assert MAX_METADATA_BYTES == MAX_MANIFEST_BYTES


def test_the_binary_layouts_are_those_of_the_code():
    chunk = transfer.encode_chunk(transfer.Chunk(1, 2, b"t" * 8, b"x"))
    assert (chunk[:3], len(chunk)) == (b"AC\x01", 21)
    assert "| 20 | 1 to 65536 | the data" in TEXT
    header = patch.encode_header(patch.PatchHeader(1, 2, 3))
    assert (header[:3], len(header), patch.FRAME_BYTES) == (b"AP\x01", 24, 24)
    for limit in (patch.MAX_FRAMES, patch.MAX_FRAME_CHUNKS, patch.MAX_SLICE_BYTES):
        assert str(limit) in TEXT
    assert f"(2^{patch.MAX_WINDOW_LOG})" in TEXT
    assert f"at least {patch.MIN_DICTIONARY_BYTES} bytes" in TEXT
    assert {int(method) for method in patch.Method} == {0, 1, 2, 4}
