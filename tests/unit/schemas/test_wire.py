"""The wire types: tolerant between programs, strict towards people, bounded towards all."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

import schemas
from schemas import topics
from schemas.base import Authored, Wire
from schemas.clock import TimeAsk
from schemas.enroll import JoinToken
from schemas.ids import DeviceId, new_id
from schemas.jobfile import JobSpec
from schemas.rollout import ExecReport, RolloutSpec
from schemas.topics import Down, Up
from schemas.transfer import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Chunk,
    Need,
    chunk_count,
    decode_chunk,
    encode_chunk,
    tag_of,
)
from schemas.trust import signable

DEVICE = new_id("dev", now_ms=1_700_000_000_000, entropy=1)
BOOT = "0" * 32


def models():
    found = set()
    for module in pkgutil.iter_modules(schemas.__path__):
        loaded = importlib.import_module(f"schemas.{module.name}")
        for _, kind in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(kind, BaseModel) and kind not in {BaseModel, Wire, Authored}:
                found.add(kind)
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", models(), ids=lambda kind: kind.__name__)
def test_every_type_is_frozen_and_either_sent_or_written(kind):
    assert kind.model_config["frozen"]
    expected = "forbid" if issubclass(kind, Authored) else "ignore"
    assert kind.model_config["extra"] == expected
    assert kind.__doc__


def test_an_older_program_reads_a_newer_message():
    assert TimeAsk.model_validate({"id": 3, "invented_later": 1}).id == 3


def test_a_misspelt_key_in_a_file_is_refused():
    job = {"name": "x", "task": "m:T", "stop": {"target": 0.9, "patiense": 3}}
    with pytest.raises(ValidationError, match="patiense"):
        JobSpec.model_validate(job)
    with pytest.raises(ValidationError, match="wavse"):
        RolloutSpec.model_validate({"model": "x", "version": 1, "wavse": []})


def test_a_device_cannot_report_a_state_that_is_the_servers():
    report = {"execution": new_id("exe"), "attempt": 1, "seq": 0, "boot": BOOT, "uptime": 1}
    with pytest.raises(ValidationError, match="does not report"):
        ExecReport.model_validate(report | {"state": "TIMED_OUT"})


@pytest.mark.parametrize(
    "ranges", [[], [[3, 3]], [[5, 2]], [[0, 65]], [[0, 40], [50, 90]]], ids=str
)
def test_credit_is_bounded(ranges):
    with pytest.raises(ValidationError):
        Need.model_validate({"kind": "chunks", "sha256": "0" * 64, "ranges": ranges})


@given(st.sampled_from(Up), st.sampled_from(Down))
def test_topics_are_read_as_they_were_built(up, down):
    assert topics.parse_up(topics.up(DEVICE, up)) == topics.UpTopic(DEVICE, up)
    assert topics.parse_down(topics.down(DEVICE, down)) == topics.DownTopic(DEVICE, down)


@pytest.mark.parametrize(
    "topic",
    ["d/+/up/exec", "d/#", f"d/{DEVICE}/up/exec/more", f"d/{DEVICE}/up/none", "d//up/exec", "x"],
)
def test_no_other_topic_is_taken_for_one(topic):
    assert topics.parse_up(topic) is None


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1))
def test_ids_have_their_form_and_sort_by_age(ms, entropy):
    made = new_id("dev", now_ms=ms, entropy=entropy)
    assert TypeAdapter(DeviceId).validate_python(made) == made
    if ms:
        assert new_id("dev", now_ms=ms - 1, entropy=2**32 - 1) < made


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=1, max_size=300),
)
def test_chunks_are_read_as_they_were_written(batch, index, data):
    chunk = Chunk(batch, index, tag_of("ab" * 32), data)
    assert decode_chunk(encode_chunk(chunk)) == chunk


@given(st.binary(max_size=60))
def test_noise_is_never_taken_for_a_chunk_of_another_form(noise):
    chunk = decode_chunk(noise)
    assert chunk is None or encode_chunk(chunk)[: HEADER_BYTES - 16] == noise[: HEADER_BYTES - 16]


def test_a_chunk_has_a_largest_size():
    whole = encode_chunk(Chunk(0, 0, b"0" * 8, b"x" * CHUNK_BYTES))
    assert decode_chunk(whole) is not None
    assert decode_chunk(whole + b"x") is None
    assert [chunk_count(size) for size in (1, CHUNK_BYTES, CHUNK_BYTES + 1)] == [1, 1, 2]


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_join_tokens_are_read_as_they_were_written(ca, root):
    token = JoinToken(new_id("tok"), "s" * 43, ca.hex(), root.hex())
    assert JoinToken.parse(f"  {token}\n") == token


@given(st.text(max_size=200))
def test_no_text_but_a_token_is_taken_for_one(text):
    if not text.strip().startswith("aj1.tok_"):
        with pytest.raises(ValueError, match="join token"):
            JoinToken.parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    )
)
def test_what_is_signed_is_unchanged_unless_it_holds_floats(value):
    assert json.dumps(signable(value), sort_keys=True) == json.dumps(value, sort_keys=True)
