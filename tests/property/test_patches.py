"""Whatever becomes of a file, its patch makes exactly it; whatever becomes of a patch, no error
but PatchError, and only chunks that were checked."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.errors import PatchError
from edge_client.patch import apply
from orchestrator.domain.patch_frames import frame, planes
from orchestrator.domain.patch_plan import MARGIN, RUN_CHUNKS, Run, rank, runs
from schemas.patch import (
    MAX_SLICE_BYTES,
    Method,
    PatchHeader,
    decode_frame,
    decode_header,
    encode_frame,
    encode_header,
)
from schemas.transfer import CHUNK_BYTES, chunk_count

NAMES = b"".join(f"layer.{i}.weight/conv2d/kernel".encode() for i in range(8))


def weights(kind: str, count: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    if kind == "i1":
        return random.integers(-60, 60, count, dtype=np.int8).tobytes()
    return random.normal(0, 0.1, count).astype(kind).tobytes()


def model(kind: str, layers: int, seed: int) -> bytes:
    """Tensors after their names, as in a model's file; about 40 KiB each."""
    size = {"i1": 40_000, "f2": 20_003, "f4": 10_007}[kind]
    parts = (
        f"layer.{i}.weight/conv2d".encode() + weights(kind, size, seed + i) for i in range(layers)
    )
    return b"onnx" + b"".join(parts)


def perturbed(data: bytes, kind: str, seed: int) -> bytes:
    """Every number a little different, also where the file holds something else."""
    random = np.random.default_rng(seed)
    rest = len(data) % np.dtype(kind).itemsize
    body = np.frombuffer(data[: len(data) - rest], kind)
    if kind == "i1":
        moved = body + random.integers(-1, 2, len(body), dtype=np.int8)
    else:
        with np.errstate(all="ignore"):
            moved = (body * (1 + random.normal(0, 1e-3, len(body)))).astype(kind)
    return moved.tobytes() + data[len(data) - rest :]


def made(base: bytes, target: bytes) -> bytes:
    """The patch, as the server makes it."""
    one, other = np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8)
    frames = [found for run in runs(one, other) if (found := frame(run, one, other)) is not None]
    head = encode_header(PatchHeader(len(frames), len(base), len(target)))
    return head + b"".join(encode_frame(header) + data for header, data in frames)


def applied(patch: bytes, base: bytes, target: bytes) -> dict[int, bytes]:
    """The chunks that the device takes: those with the signed digest."""
    leaves = [
        hashlib.sha256(target[at : at + CHUNK_BYTES]).digest()
        for at in range(0, len(target), CHUNK_BYTES)
    ]
    taken: dict[int, bytes] = {}

    def write(index: int, data: bytes) -> bool:
        if hashlib.sha256(data).digest() != leaves[index]:
            return False
        taken[index] = data
        return True

    apply(io.BytesIO(patch), io.BytesIO(base), wanted=lambda i: i not in taken, write=write)
    return taken


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "perturb", "truncate", "extend", "move", "zero"]),
        st.floats(0, 1),
        st.integers(1, 90_000),
    ),
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[str, float, int]], kind: str) -> bytes:
    for what, where, size in edits:
        at = int(where * len(data))
        match what:
            case "insert":
                data = data[:at] + weights("i1", size % 5000 + 1, size) + data[at:]
            case "delete":
                data = data[:at] + data[at + size % 5000 :]
            case "perturb":
                data = (
                    data[:at]
                    + perturbed(data[at : at + 3 * size], kind, size)
                    + data[at + 3 * size :]
                )
            case "truncate":
                data = data[: max(1, at)]
            case "extend":
                data += weights(kind, size, size)
            case "move":
                data = data[at:] + data[:at]
            case _:
                data = data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]
    return data or b"x"


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["i1", "f2", "f4"]),
    layers=st.integers(0, 8),
    seed=st.integers(0, 9),
    edits=EDITS,
)
def test_a_patch_makes_the_target_and_nothing_else(kind, layers, seed, edits):
    base = model(kind, layers, seed)
    target = edited(base, edits, kind)
    patch = made(base, target)
    header = decode_header(patch[:24])
    assert header == PatchHeader(header.frames, len(base), len(target))
    taken = applied(patch, base, target)
    at, planned = 24, set()
    while at < len(patch):
        head = decode_frame(patch[at : at + 24])
        planned |= set(range(head.first, head.end))
        at += 24 + head.data_bytes
    assert set(taken) == planned  # every frame makes what it is for
    assert len(patch) < 24 + len(target)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_patch_ends_in_a_patch_error_and_never_in_wrong_bytes(data: Any):
    base = model("f4", 3, 1)
    patch = bytearray(DAMAGED_PATCH or made(base, DAMAGED_TARGET))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(patch) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "head"])):
            case "flip":
                patch[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del patch[at : at + data.draw(st.integers(1, 60))]
            case _:
                patch[24 + at % 24] = data.draw(st.integers(0, 255))
        if len(patch) < 60:
            break
    try:
        taken = applied(bytes(patch), base, DAMAGED_TARGET)
    except PatchError:
        return
    for index, chunk in taken.items():
        assert chunk == DAMAGED_TARGET[index * CHUNK_BYTES :][:CHUNK_BYTES]


DAMAGED_TARGET = perturbed(model("f4", 3, 1), "f4", 7)
DAMAGED_PATCH = made(model("f4", 3, 1), DAMAGED_TARGET)


@settings(max_examples=100, deadline=None)
@given(
    piece=st.binary(min_size=1, max_size=40),
    seed=st.integers(0, 99),
    method=st.sampled_from([Method.DIFF1, Method.DIFF2, Method.DIFF4]),
    lead=st.integers(0, 3),
)
def test_differences_are_undone_by_the_device_at_any_length_and_lead(piece, seed, method, lead):
    from edge_client.patch import _added

    wanted = np.random.default_rng(seed).integers(0, 256, len(piece), dtype=np.uint8)
    lead %= method
    plain = planes(np.frombuffer(piece, np.uint8), wanted, method, lead)
    assert len(plain) == len(piece)
    assert _added(plain, piece, method, lead) == wanted.tobytes()


@settings(max_examples=20, deadline=None)
@given(layers=st.integers(1, 8), kind=st.sampled_from(["i1", "f4"]), edits=EDITS)
def test_runs_cover_every_chunk_once_and_stay_within_the_base(layers, kind, edits):
    base = model(kind, layers, 3)
    target = edited(base, edits, kind)
    found = runs(np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8))
    covered = [index for run in found for index in range(run.first, run.first + run.chunks)]
    assert covered == list(range(chunk_count(len(target))))
    for run in found:
        assert 1 <= run.chunks <= RUN_CHUNKS
        low, high = run.dictionary
        assert 0 <= low <= high <= len(base)
        assert high - low <= MAX_SLICE_BYTES
        if run.offset is not None:
            end = min((run.first + run.chunks) * CHUNK_BYTES, len(target)) - run.first * CHUNK_BYTES
            assert 0 <= run.offset <= len(base) - end


@pytest.mark.parametrize("kind", ["i1", "f2", "f4"])
@pytest.mark.parametrize("moved", [1, 37, 4096, -5])
def test_an_insertion_at_the_beginning_costs_one_chunk_and_no_more(kind, moved):
    base = model(kind, 8, 5)
    target = (
        base[:10] + bytes(range(1, 38)) * (moved // 37 + 1) + base[10:]
        if moved > 0
        else base[:10] + base[10 - moved :]
    )
    assert len(made(base, target)) < 6000 + moved
    slight = perturbed(base[4:], kind, 1)
    changed = target[: len(target) - len(slight)] + slight
    assert len(made(base, changed)) < 1.05 * len(made(base, base[:4] + slight)) + CHUNK_BYTES


def test_noise_is_not_patched_and_equal_files_cost_almost_nothing():
    base, other = weights("f4", 200_000, 1), np.random.default_rng(2).bytes(800_000)
    assert len(made(base, other)) == 24
    assert len(made(base, base)) < 200
    sparse = bytes(600_000) + other[:1000]
    assert len(made(base, sparse)) < 3000  # from nothing, where the base is no use


def test_bases_are_ranked_by_what_they_have_in_common():
    target = [b"a", b"b", b"c", b"d"]
    bases = {
        "near": [b"a", b"b"],
        "nearer": [b"a", b"b", b"x", b"y"],
        "far": [b"x"] * 40,
        "odd": [b"x"],
    }
    assert rank(target, bases) == ("nearer", "near", "odd", "far")
    assert rank(target, {}) == ()


def test_a_mixed_chunk_finds_its_strings_within_the_margin():
    base = model("i1", 6, 1)
    cut = 3 * CHUNK_BYTES + 1000
    target = base[:cut] + b"-" * 50_000 + base[cut:]
    found = runs(np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8))
    mixed = next(run for run in found if run.first <= 3 < run.first + run.chunks)
    low, high = mixed.dictionary
    assert low <= 3 * CHUNK_BYTES
    assert high >= cut
    assert high - low <= MARGIN * 2 + (RUN_CHUNKS + 1) * CHUNK_BYTES
    assert isinstance(mixed, Run)
    assert len(made(base, target)) < 20_000
