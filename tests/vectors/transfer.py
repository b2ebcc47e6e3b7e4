"""Vectors of topics, chunks, leaves, ranges and histogram buckets."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from schemas import topics
from schemas.telemetry import GAMMA, MAX_BUCKET, bucket_of
from schemas.transfer import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Chunk,
    chunk_count,
    encode_chunk,
    leaves_digest,
    leaves_of,
    tag_of,
)

DEVICE = "dev_01jqz3k5m7n9p1r3"
SHA = hashlib.sha256(b"argosy").hexdigest()


def file_of(size: int, seed: int) -> bytes:
    """The bytes that ``leaves.json`` describes."""
    return bytes((7 * i + i // 251 + seed) % 256 for i in range(size))


def vectors() -> dict[str, dict[str, Any]]:
    """Each file's content by its name."""
    return {
        "topics.json": {"cases": _topics()},
        "chunks.json": {"cases": _chunks()},
        "leaves.json": {"chunk_bytes": CHUNK_BYTES, "cases": [_leaves(*one) for one in FILES]},
        "ranges.json": {"cases": [_ranges(*one) for one in RANGES]},
        "histogram.json": {"gamma": "2^(1/8)", "cases": _buckets()},
    }


def _topics() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for leaf in topics.Up:
        topic = topics.up(DEVICE, leaf)
        found.append(_topic(f"up {leaf}", topic, kind="up", device=DEVICE, leaf=leaf.value))
    for down in topics.Down:
        topic = topics.down(DEVICE, down)
        found.append(_topic(f"down {down}", topic, kind="down", device=DEVICE, leaf=down.value))
    found.append(
        _topic("broadcast", topics.broadcast(SHA), kind="broadcast", sha256=SHA),
    )
    for name, topic in {
        "an unknown leaf": f"d/{DEVICE}/up/other",
        "a letter that no id has": "d/dev_01jqz3k5m7n9p1ru/up/birth",
        "an id in upper case": f"d/{DEVICE.upper()}/up/birth",
        "an id that is too short": "d/dev_01jqz3k5m7n9p1r/up/birth",
        "another level": f"d/{DEVICE}/up/birth/x",
        "a slash in front": f"/d/{DEVICE}/up/birth",
        "up with a leaf of down": f"d/{DEVICE}/up/desired",
        "a digest in upper case": f"m/{SHA.upper()}/chunk",
        "a digest that is too short": f"m/{SHA[:-1]}/chunk",
        "nothing": "",
    }.items():
        found.append(_topic(name, topic, kind=None))
    return found


def _topic(name: str, topic: str, **parts: str | None) -> dict[str, Any]:
    return {"name": name, "topic": topic, **parts}


def _chunks() -> list[dict[str, Any]]:
    tag = tag_of(SHA)

    def case(name: str, batch: int, index: int, count: int, fill: int = 0x5A) -> dict[str, Any]:
        whole = encode_chunk(Chunk(batch, index, tag, bytes([fill]) * count))
        digest = hashlib.sha256(whole[HEADER_BYTES:]).hexdigest()
        chunk = {"batch": batch, "index": index, "tag": tag.hex(), "data_sha256": digest}
        head = whole[:HEADER_BYTES].hex()
        return {"name": name, "head": head, "fill": fill, "count": count, "chunk": chunk}

    def bad(name: str, head: str, count: int) -> dict[str, Any]:
        return {"name": name, "head": head, "fill": 0x5A, "count": count, "chunk": None}

    good = "4143" + "01" + "00" + "00000001" + "00000002" + tag.hex()
    return [
        case("the first chunk of the first batch", 0, 0, 1),
        case("a whole chunk", 7, 3, CHUNK_BYTES),
        case("the last chunk of a file", 8, 762, 61_440, 0),
        case("the largest numbers", 2**32 - 1, 2**32 - 1, 2, 0xFF),
        {
            **case("flags of a later version are ignored", 1, 2, 3),
            "head": good[:6] + "80" + good[8:],
        },
        bad("another magic", "4144" + good[4:], 4),
        bad("another version", good[:4] + "02" + good[6:], 4),
        bad("version 0", good[:4] + "00" + good[6:], 4),
        bad("no data", good, 0),
        bad("a byte too many", good, CHUNK_BYTES + 1),
        bad("a head that is cut", good[:-2], 0),
        bad("nothing", "", 0),
    ]


FILES = (
    ("one byte", 1, 0),
    ("a byte less than a chunk", CHUNK_BYTES - 1, 1),
    ("exactly one chunk", CHUNK_BYTES, 2),
    ("a chunk and a byte", CHUNK_BYTES + 1, 3),
    ("three chunks and some", 3 * CHUNK_BYTES + 1000, 4),
)


def _leaves(name: str, size: int, seed: int) -> dict[str, Any]:
    data = file_of(size, seed)
    leaves = leaves_of(data[i : i + CHUNK_BYTES] for i in range(0, size, CHUNK_BYTES))
    return {
        "name": name,
        "size": size,
        "seed": seed,
        "chunks": chunk_count(size),
        "sha256": hashlib.sha256(data).hexdigest(),
        "leaves": [leaf.hex() for leaf in leaves],
        "leaves_sha256": leaves_digest(leaves),
    }


RANGES = (
    ("one", [4], [[4, 5]]),
    ("neighbours", [0, 1, 2, 3], [[0, 4]]),
    ("with gaps", [0, 1, 5, 7, 8, 9], [[0, 2], [5, 6], [7, 10]]),
    ("none", [], []),
)


def _ranges(name: str, indices: list[int], ranges: list[list[int]]) -> dict[str, Any]:
    return {"name": name, "indices": indices, "ranges": ranges}


def _buckets() -> list[dict[str, Any]]:
    """Values well inside of their bucket, and bounds that doubles hold exactly."""
    inside = [
        {"name": f"inside of bucket {b}", "value": round(GAMMA ** (b - 0.5), 6), "bucket": b}
        for b in (1, 2, 8, 9, 64, 65, 100, 255, 256)
    ]
    bounds = [
        {
            "name": f"2^{power}, the upper bound of its bucket",
            "value": 2**power,
            "bucket": 8 * power,
        }
        for power in (1, 2, 10, 20, 32)
    ]
    ends = [
        {"name": "zero", "value": 0, "bucket": 0},
        {"name": "half a unit", "value": 0.5, "bucket": 0},
        {"name": "one unit", "value": 1, "bucket": 0},
        {"name": "just beyond one unit", "value": 1.001, "bucket": 1},
        {"name": "beyond all", "value": 1e12, "bucket": MAX_BUCKET},
    ]
    for case in (*inside, *bounds, *ends):
        value = float(case["value"])  # type: ignore[arg-type]  # all are numbers
        if bucket_of(value) != case["bucket"] or math.isnan(value):
            raise AssertionError(case)
    return [*ends, *inside, *bounds]
