"""Metadata and director documents, changed in every way Hypothesis thinks of.

Whatever comes, a device either says in one of the declared errors that it does not
believe it, or it believes exactly what was signed: nothing else may be raised, and nothing
whose meaning differs may be accepted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError, SerializationError

from edge_client.errors import MetadataUnavailableError, TrustError
from edge_client.trust import Reader, claimed_key, confirm, read_desired, target_of
from schemas.trust import DIRECTOR_ROLE, MODELS_ROLE, model_role
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import (
    NOW,
    MemoryCache,
    MemoryFloors,
    Signer,
    assignment,
    new_signer,
)

DEVICE = "dev_0000000000000001"
DESIRED = "desired"
VERSION = release(linear_onnx())


def _platform() -> tuple[Signer, dict[str, bytes], dict[str, bytes]]:
    """A platform, its files, and those of earlier times that a liar may have kept."""
    signer = Signer(root_keys=3, threshold=2)
    signer.add(b"another", "letters", 1)
    old = dict(signer.files)
    signer.rotate("root", "targets")
    signer.add(VERSION.manifest, "digits", 1)
    old |= {f"old {name}": data for name, data in old.items()}
    signer.add(b"later", "letters", 2)
    wanted = assignment(DEVICE, VERSION.manifest)
    document = signer.desired(wanted, sequence=7, length=len(VERSION.manifest))
    other = signer.desired(wanted.model_copy(update={"device": "dev_0000000000000002"}), sequence=8)
    old["of another device"] = other
    return signer, {**signer.files, DESIRED: document}, old


SIGNER, FILES, OLD = _platform()
WALKED = (
    "2.root.json",
    "timestamp.json",
    f"{SIGNER.snapshot.version}.snapshot.json",
    *(f"{document.version}.{role}.json" for role, document in SIGNER.roles.items()),
    DESIRED,
)
ME = Reader(device=DEVICE, device_class="default", floor=7)
STRANGER = new_signer()


def _meaning(signed: Any) -> str:
    return encode_canonical(signed.to_dict())


GENUINE = {_meaning(Metadata.from_bytes(data).signed) for data in FILES.values()}


def _look(files: dict[str, bytes | None], cache: MemoryCache, floors: MemoryFloors):
    """What a device does with a desired document."""
    client = SIGNER.client(cache, floors, fetch=lambda name, _limit: files.get(name))
    client.refresh()
    document = files[DESIRED] or b""
    offer = read_desired(document, director=client.delegated(DIRECTOR_ROLE), me=ME, now=NOW)
    steps = client.finding(target_of(offer))
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(files.get(wanted.name))
    except StopIteration as end:
        return confirm(offer, end.value), client._walk.trusted


KEPT, REACHED = MemoryCache(), MemoryFloors()
OFFER, TRUSTED = _look(FILES, KEPT, REACHED)

# --- mutations: (file's bytes, its name) → bytes -------------------------------------------

_JUNK = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [[], {}, [[]], {"": {}}, "\ud800", "../x", 2**63, -1, 0, "2090-01-01T00:00:00Z"]
    )
)


@st.composite
def _bits(draw: Any, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) * 8 - 1)))
        if changed:
            changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


@st.composite
def _pieces(draw: Any, data: bytes) -> bytes:
    a, b = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    put = draw(st.binary(max_size=20) | st.just(data[a:b] * 2) | st.just(b"[" * 2000))
    return data[:a] + put + data[b:]


@st.composite
def _edit(draw: Any, data: bytes) -> bytes:
    """Change, add or remove one thing somewhere in the JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    at = document
    for _ in range(draw(st.integers(0, 6))):
        inner = list(at.values()) if isinstance(at, dict) else at if isinstance(at, list) else []
        inner = [value for value in inner if isinstance(value, dict | list) and value]
        if not inner:
            break
        at = draw(st.sampled_from(inner))
    if not isinstance(at, dict | list):
        return data
    keys = list(at) if isinstance(at, dict) else list(range(len(at)))
    what = draw(st.sampled_from(["set", "remove", "add", "copy"]))
    if what == "add" and isinstance(at, dict):
        at[draw(st.text(max_size=8) | st.sampled_from(["version", "custom", "x"]))] = draw(_JUNK)
    elif keys and what == "remove":
        del at[draw(st.sampled_from(keys))]
    elif keys and what == "copy":
        at[draw(st.sampled_from(keys))] = at[draw(st.sampled_from(keys))]
    elif keys:
        key = draw(st.sampled_from(keys))
        number = isinstance(at[key], int)
        at[key] = draw(st.integers(0, 2**63) if number and draw(st.booleans()) else _JUNK)
    return json.dumps(document).encode()


@st.composite
def _resign(draw: Any, data: bytes, name: str) -> bytes:
    """Another version, signed by keys that are not this role's; or too few signatures."""
    try:
        document = Metadata.from_bytes(data)
    except DeserializationError:
        return data
    document.signed.version = draw(st.integers(1, 2**40) | st.just(document.signed.version))
    role = DIRECTOR_ROLE if name == DESIRED else name.removesuffix(".json").rpartition(".")[2]
    mine = "release" if role.startswith("model-") else role
    if draw(st.booleans()):
        document.signatures.clear()
    others = [keys for held, keys in SIGNER.keys.items() if held != mine]
    for signer in (STRANGER, *draw(st.sampled_from(others))):
        try:
            document.sign(signer, append=True)
        except SerializationError:
            return data
    if document.signatures and draw(st.booleans()):
        first = next(iter(document.signatures.values()))
        named = draw(st.sampled_from(list(SIGNER.keys.values())))[0].public_key.keyid
        document.signatures[named] = type(first)(named, first.signature)
    return document.to_bytes()


@st.composite
def worlds(draw: Any) -> tuple[dict[str, bytes | None], bool, bool]:
    """What a device is given; whether it has its cache, and its floors, of better times."""
    files: dict[str, bytes | None] = dict(FILES)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(WALKED))
        data = files[name] or b""
        kind = draw(st.sampled_from(["bits", "pieces", "edit", "edit", "resign", "swap", "gone"]))
        if kind == "bits":
            files[name] = draw(_bits(data))
        elif kind == "pieces":
            files[name] = draw(_pieces(data))
        elif kind == "edit":
            files[name] = draw(_edit(data))
        elif kind == "resign":
            files[name] = draw(_resign(data, name))
        elif kind == "swap":
            files[name] = draw(st.sampled_from([*FILES.values(), *OLD.values()]))
        else:
            files[name] = None
    return files, draw(st.booleans()), draw(st.booleans())


def _believes_only_what_was_signed(world: tuple[dict[str, bytes | None], bool, bool]) -> None:
    files, keeps_cache, keeps_floors = world
    cache = MemoryCache(KEPT if keeps_cache else {})
    floors = MemoryFloors(REACHED.floors if keeps_floors else None)
    claimed_key(files[DESIRED] or b"")
    refusal, trusted = None, []
    try:
        offer, trusted = _look(files, cache, floors)
    except (TrustError, MetadataUnavailableError) as error:
        refusal = str(error)
    if refusal is not None:
        assert refusal
        assert "\n" not in refusal
    else:
        assert offer == OFFER
        assert {_meaning(signed) for signed in trusted} <= GENUINE
    reached = REACHED.floors
    for role, version in floors.floors.versions.items():
        assert version <= reached.of(role)
        assert version == reached.of(role) or not keeps_floors
    for data in cache.values():
        assert _meaning(Metadata.from_bytes(data).signed) in GENUINE | {
            _meaning(Metadata.from_bytes(old).signed) for old in OLD.values()
        }


def test_the_genuine_world_is_believed():
    assert OFFER.sequence == 7
    assert OFFER.assignment.device == DEVICE
    assert set(REACHED.floors.versions) == {
        "root", "timestamp", "snapshot", "targets", MODELS_ROLE, model_role("digits"),
    }  # fmt: skip
    assert all(_meaning(signed) in GENUINE for signed in TRUSTED)


@given(worlds())
@example(({**FILES, "timestamp.json": b"[" * 5000}, True, True))
@example(({**FILES, DESIRED: b'{"signed":{"_type":"targets"},"signatures":[]}'}, True, True))
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_but_what_was_signed_is_believed(world):
    _believes_only_what_was_signed(world)


@pytest.mark.slow
@given(worlds())
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_but_what_was_signed_is_believed_many_times(world):
    _believes_only_what_was_signed(world)
