"""A client in C, written from docs/protocol.md alone, runs the vectors and applies patches."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from backports import zstd

from edge_client.patch import apply as patch_apply
from schemas.patch import FrameHeader, Method, PatchHeader, encode_frame, encode_header
from schemas.transfer import CHUNK_BYTES

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
GOOD, FAILED, DAMAGED, NO_ZSTD = 0, 1, 3, 4


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The program; with sanitizers and libcrypto where this machine has them, plain otherwise."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    out = tmp_path_factory.mktemp("client") / "client"
    sources, libraries = sorted(str(path) for path in HERE.glob("*.c")), ["-ldl", "-lm"]
    crypto = (["-DARGOSY_LIBCRYPTO"], ["-lcrypto"])
    for flags, linked in (
        ([*STRICT, *SANITIZED, *crypto[0]], crypto[1]),
        ([*STRICT, *SANITIZED], []),
        ([*STRICT, *crypto[0]], crypto[1]),
        (STRICT, []),
    ):
        command = [compiler, *flags, *sources, "-o", str(out), *libraries, *linked]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode == 0:
            return out
    raise AssertionError(built.stderr)


def run(client, *words):
    return subprocess.run(
        [client, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_client_agrees_with_every_vector(client):
    done = run(client, VECTORS)
    assert done.returncode == GOOD, done.stdout + done.stderr
    passed = {line.split(":")[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    index = {
        one["file"]: one["cases"]
        for one in json.loads((VECTORS / "index.json").read_text())["files"]
    }
    # What the server makes of reports is no device's to judge; telemetry only leaves a device, and
    # whoever wants it takes a library for MessagePack. A device need not let updates wait.
    others = {"executions.json", "telemetry.json", "windows.json"}
    assert set(passed) == set(index) - others | {"patch/index.json"}
    for file in ("topics.json", "chunks.json", "leaves.json", "ranges.json", "histogram.json"):
        assert passed[file] == index[file], file
    assert passed["messages.json"] > 40


def test_the_client_notices_a_vector_that_is_wrong(client, tmp_path):
    shutil.copytree(VECTORS, tmp_path / "vectors", ignore=shutil.ignore_patterns("*.py"))
    for name, old, new in (
        ("chunks.json", '"index": 762', '"index": 763'),
        ("leaves.json", '"chunks": 4', '"chunks": 5'),
        ("texts.json", '"fingerprint": "', '"fingerprint": "0'),
    ):
        path = tmp_path / "vectors" / name
        kept = path.read_text()
        assert old in kept
        path.write_text(kept.replace(old, new))
        done = run(client, tmp_path / "vectors")
        path.write_text(kept)
        assert done.returncode == FAILED, name
        assert f"{name}: " in done.stdout
        assert "FAILED" in done.stdout


def rng():
    return np.random.default_rng(6)


def packed(plain, dictionary=b""):
    raw = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    return zstd.compress(plain, zstd_dict=raw)


def differences(target, base, width, lead):
    """The data of a frame, as the document has it: lead, planes, rest."""
    count = (len(target) - lead) // width
    end = lead + width * count
    a = np.frombuffer(target, f"<u{width}", count, lead)
    b = np.frombuffer(base, f"<u{width}", count, lead)
    planes = (a - b).view(np.uint8).reshape(count, width).T.tobytes()
    rest = (np.frombuffer(target, np.uint8) - np.frombuffer(base, np.uint8)).tobytes()
    return packed(rest[:lead] + planes + rest[end:])


def frame(first, chunks, method, offset, base_bytes, data, lead=0):
    head = FrameHeader(first, chunks, method, offset, base_bytes, len(data), lead)
    return encode_frame(head) + data


@pytest.fixture(scope="module")
def pair():
    """A base, and a target of 7 chunks and a bit that is a little different throughout."""
    base = rng().integers(0, 2**32, 120_000, dtype=np.uint32)
    target = base + rng().integers(0, 5, len(base), dtype=np.uint32)
    before, after = base.tobytes() + b"tail of the base", target.tobytes() + b"of a target"
    moved = slice(4 * CHUNK_BYTES, 6 * CHUNK_BYTES)  # what a dictionary is for
    return before, after[: moved.start] + before[100 : 100 + 2 * CHUNK_BYTES] + after[moved.stop :]


def whole(pair):
    """A patch with a frame of each method."""
    base, target = pair
    size, frames, first = CHUNK_BYTES, [], 0
    for method, lead in (
        (Method.DIFF4, 0),
        (Method.DIFF2, 1),
        (Method.DIFF1, 0),
        (Method.DIFF4, 3),
    ):
        part = slice(first * size, (first + 1) * size)
        data = differences(target[part], base[part], int(method), lead)
        frames.append(frame(first, 1, method, first * size, size, data, lead))
        first += 1
    part = slice(first * size, (first + 2) * size)
    frames.append(
        frame(
            first, 2, Method.DICT, 100, 3 * size, packed(target[part], base[100 : 100 + 3 * size])
        )
    )
    rest = target[(first + 2) * size :]
    mixed = base[-len(rest) :]
    frames.append(
        frame(
            first + 2,
            2,
            Method.DIFF4,
            len(base) - len(rest),
            len(rest),
            differences(rest, mixed, 4, 2),
            2,
        )
    )
    return encode_header(PatchHeader(len(frames), len(base), len(target))) + b"".join(frames)


def apply(client, tmp_path, patch, base):
    for name, data in (("patch", patch), ("base", base)):
        (tmp_path / name).write_bytes(data)
    done = run(client, "apply", tmp_path / "patch", tmp_path / "base", tmp_path / "out")
    if done.returncode == NO_ZSTD:
        pytest.skip("there is no libzstd.so.1")
    return done


def test_patches_of_every_method_are_applied(client, tmp_path, pair):
    base, target = pair
    done = apply(client, tmp_path, whole(pair), base)
    assert done.returncode == GOOD, done.stderr
    assert (tmp_path / "out").read_bytes() == target
    ours = bytearray(len(target))

    def write(index, data):
        ours[index * CHUNK_BYTES : index * CHUNK_BYTES + len(data)] = data
        return True

    patch_apply(BytesIO(whole(pair)), BytesIO(base), wanted=lambda _: True, write=write)
    assert bytes(ours) == target, "both programs understand the same"


def test_chunks_that_no_frame_makes_are_left_alone(client, tmp_path, pair):
    base, target = pair
    size = CHUNK_BYTES
    data = differences(target[size : 2 * size], base[size : 2 * size], 4, 0)
    patch = encode_header(PatchHeader(1, len(base), len(target)))
    patch += frame(1, 1, Method.DIFF4, size, size, data)
    assert apply(client, tmp_path, patch, base).returncode == GOOD
    made = (tmp_path / "out").read_bytes()
    assert made[size : 2 * size] == target[size : 2 * size]
    assert made[:size] + made[2 * size :] == bytes(len(target) - size)


def test_damaged_patches_end_and_nothing_else(client, tmp_path, pair):
    """Under a sanitizer: a read or a write beyond its bounds would be another exit code."""
    base, _ = pair
    patch = whole(pair)
    first = struct.calcsize(">2sBBIQQ")
    damaged = {
        "nothing": b"",
        "another magic": b"XX" + patch[2:],
        "another version": patch[:2] + b"\x02" + patch[3:],
        "cut in a head": patch[: first + 10],
        "cut in the data": patch[:-1],
        "more behind": patch + b"\0",
        "another base": patch[:15] + bytes([patch[15] ^ 1]) + patch[16:],
        "too many frames": patch[:4] + b"\xff\xff\xff\xff" + patch[8:],
        "a frame beyond the file": patch[:first] + b"\xff\xff\xff\xf0" + patch[first + 4 :],
        "no chunks": patch[: first + 4] + b"\0\0" + patch[first + 6 :],
        "an unknown method": patch[: first + 6] + b"\x03" + patch[first + 7 :],
        "a lead as wide as the integers": patch[: first + 7] + b"\x04" + patch[first + 8 :],
        "a slice beyond the base": patch[: first + 8] + b"\xff" * 8 + patch[first + 16 :],
        "data that never end": patch[: first + 20] + b"\xff" * 4 + patch[first + 24 :],
        "frames out of order": patch[:4]
        + struct.pack(">I", 2)
        + patch[8:first]
        + 2 * frame(0, 1, Method.DICT, 0, 0, packed(bytes(CHUNK_BYTES))),
        "another length": encode_header(PatchHeader(1, len(base), 9 * CHUNK_BYTES))
        + frame(0, 1, Method.DICT, 0, 0, packed(bytes(CHUNK_BYTES + 1))),
        "no zstd": encode_header(PatchHeader(1, len(base), 9 * CHUNK_BYTES))
        + frame(0, 1, Method.DICT, 0, 0, b"\0" * 100),
    }
    for what, bad in damaged.items():
        done = apply(client, tmp_path, bad, base)
        assert done.returncode == DAMAGED, (what, done.returncode, done.stderr)


def test_flipped_bits_never_break_it(client, tmp_path, pair):
    base, _ = pair
    patch, draw = whole(pair), rng()
    for _ in range(12):
        bad = bytearray(patch)
        bad[int(draw.integers(0, 600))] ^= 1 << int(draw.integers(0, 8))
        done = apply(client, tmp_path, bytes(bad), base)
        assert done.returncode in {GOOD, DAMAGED}, done.stderr
