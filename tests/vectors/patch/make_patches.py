"""Makes the vectors of patches: ``python tests/vectors/patch/make_patches.py`` writes them anew.

What zstd compresses to may differ between its versions, so the patches are kept as files, and
a test reads them as they are. Each case of index.json names a base and a patch; ``makes`` are
the chunks that it makes (others are pulled), ``wrong`` those of them that are not as signed;
``error`` says that the patch is to be refused, and why.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from backports import zstd

FOLDER = Path(__file__).parent
CHUNK = 65536
DICT, DIFF1, DIFF2, DIFF4 = 0, 1, 2, 4


def packed(plain: bytes, dictionary: bytes = b"", **options: int) -> bytes:
    chosen = {zstd.CompressionParameter[name]: value for name, value in options.items()}
    raw = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    return zstd.compress(plain, options={100: 19, **chosen}, zstd_dict=raw)


def stored(plain: bytes, window_log: int) -> bytes:
    """A zstd frame by hand: 256 to 65,791 bytes in one raw block, with any window."""
    head = struct.pack("<IBBH", 0xFD2FB528, 0x40, (window_log - 10) << 3, len(plain) - 256)
    return head + (len(plain) << 3 | 1).to_bytes(3, "little") + plain


def header(frames: int, base: int, target: int, *, magic: bytes = b"AP", version: int = 1) -> bytes:
    return struct.pack(">2sBBIQQ", magic, version, 0, frames, base, target)


def frame(
    first: int, chunks: int, method: int, lead: int, offset: int, length: int, data: bytes
) -> bytes:
    return struct.pack(">IHBBQII", first, chunks, method, lead, offset, length, len(data)) + data


def planes(base: bytes, target: bytes, width: int, lead: int) -> bytes:
    """Written for reading: one integer after the other."""
    count = (len(target) - lead) // width
    end = lead + count * width
    out = bytearray(len(target))
    for i in (*range(lead), *range(end, len(target))):
        out[i] = (target[i] - base[i]) % 256
    for n in range(count):
        at = lead + n * width
        one, other = (int.from_bytes(x[at : at + width], "little") for x in (target, base))
        for k, byte in enumerate(((one - other) % 256**width).to_bytes(width, "little")):
            out[lead + k * count + n] = byte
    return bytes(out)


def weights(count: int, kind: str, step: float) -> tuple[bytes, bytes]:
    random = np.random.default_rng(count)
    if kind == "i1":
        one = random.integers(-60, 60, count)
        return one.astype(kind).tobytes(), (one + random.integers(-1, 2, count)).astype(
            kind
        ).tobytes()
    one = random.normal(0, 0.1, count)
    return one.astype(kind).tobytes(), (one + random.normal(0, step, count)).astype(kind).tobytes()


class Index:
    """The cases, and the files that they name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cases: list[dict[str, Any]] = []

    def add(self, name: str, base: bytes, target: bytes, patch: bytes, **more: Any) -> None:
        found = {"name": name}
        for part, content in (("base", base), ("target", target), ("patch", patch)):
            file = f"{hashlib.sha256(content).hexdigest()[:12]}.bin"
            self.files[file] = content
            found[part] = file
        self.cases.append({**found, **more})


def floats() -> tuple[bytes, bytes]:
    """A base and its target: float32 after three other bytes."""
    base, target = weights(1000, "f4", 1e-4)
    return b"\x0a\x09x" + base, b"\x0a\x09y" + target


def larger() -> tuple[bytes, bytes, bytes, bytes]:
    """A base and a target of three chunks, and frames for the first and the last of them."""
    old = bytes(70) + bytes(range(200)) * 800
    new = bytearray(old[:CHUNK] + b"+" * CHUNK + old[:5000])
    new[100:104] = b"true"
    new = bytes(new)
    first = frame(0, 1, DIFF1, 0, 0, CHUNK, packed(planes(old[:CHUNK], new[:CHUNK], 1, 0)))
    tail = frame(2, 1, DICT, 0, 0, 6000, packed(new[2 * CHUNK :], old[:6000]))
    return old, new, first, tail


def sound(index: Index) -> None:
    """Patches that are to be applied."""
    case = index.add
    base, target = floats()
    diff4 = frame(0, 1, DIFF4, 3, 0, len(base), packed(planes(base, target, 4, 3)))
    good = header(1, len(base), len(target)) + diff4
    case("float32 after a lead of three bytes", base, target, good, makes=[0])
    for width in (1, 2):
        data = packed(planes(base, target, width, width - 1))
        one = frame(0, 1, width, width - 1, 0, len(base), data)
        whole = header(1, len(base), len(target)) + one
        case(f"the same by integers of {8 * width} bits", base, target, whole, makes=[0])
    half, newer = weights(501, "f2", 1e-3)
    half, newer = half + b"end", newer + b"END"
    data = packed(planes(half, newer, 2, 0))
    whole = header(1, len(half), len(newer)) + frame(0, 1, DIFF2, 0, 0, len(half), data)
    case("float16 with a rest of one byte", half, newer, whole, makes=[0])
    shifted = b"a longer name" + base[1:]
    data = packed(shifted, base)
    whole = header(1, len(base), len(shifted)) + frame(0, 1, DICT, 0, 0, len(base), data)
    case("strings of the base", base, shifted, whole, makes=[0])
    plain = bytes(range(256)) * 8
    data = packed(plain)
    whole = header(1, len(base), len(plain)) + frame(0, 1, DICT, 0, 0, 0, data)
    case("no slice at all", base, plain, whole, makes=[0])
    data = stored(plain, 23)
    whole = header(1, len(base), len(plain)) + frame(0, 1, DICT, 0, 0, 0, data)
    case("the largest window", base, plain, whole, makes=[0])
    old, new, first, tail = larger()
    two = header(2, len(old), len(new)) + first + tail
    case("two frames, and a chunk between them that is pulled", old, new, two, makes=[0, 2])
    damaged = bytearray(old)
    damaged[5] ^= 1
    case("a base with a wrong byte", bytes(damaged), new, two, makes=[0, 2], wrong=[0, 2])
    none = header(0, len(old), len(new))
    case("no frames", old, new, none, makes=[])


def hostile(index: Index) -> None:
    """Patches that are to be refused."""
    case = index.add
    base, target = floats()
    old, new, first, tail = larger()
    diff4 = frame(0, 1, DIFF4, 3, 0, len(base), packed(planes(base, target, 4, 3)))
    good = header(1, len(base), len(target)) + diff4

    def refused(name: str, error: str, patch: bytes, on: bytes = base, to: bytes = target) -> None:
        case(name, on, to, patch, error=error)

    size, small = (len(base), len(target)), len(packed(target))
    head = header(1, *size)
    refused("another magic", "no patch", header(1, *size, magic=b"AC") + diff4)
    refused("another version", "no patch", header(1, *size, version=2) + diff4)
    refused("too many frames", "no patch", header(65537, *size) + diff4)
    refused("a header that is cut off", "no patch", head[:-1])
    refused("a base of another size", "for a file of", header(1, size[0] + 1, size[1]) + diff4)
    refused("a frame's header that is cut off", "cut off", head + diff4[:20])
    refused("data that are cut off", "cut off", good[:-1])
    refused("fewer frames than it says", "cut off", header(2, *size) + diff4)
    refused("bytes after the last frame", "goes on", good + b"\0")
    refused("a frame of no chunks", "limit", head + frame(0, 0, DICT, 0, 0, 0, packed(target)))
    many = frame(0, 33, DICT, 0, 0, 0, packed(target))
    refused("a frame of 33 chunks", "limit", header(1, size[0], 33 * CHUNK) + many)
    other = frame(0, 1, 3, 0, 0, len(base), diff4[24:])
    refused("a method that there is not", "limit", head + other)
    refused(
        "a lead as long as an integer", "limit", head + frame(0, 1, 4, 4, 0, len(base), diff4[24:])
    )
    refused("a lead before strings", "limit", head + frame(0, 1, 0, 1, 0, 0, packed(target)))
    refused("a dictionary of seven bytes", "limit", head + frame(0, 1, 0, 0, 0, 7, packed(target)))
    big = struct.pack(">IHBBQII", 0, 1, 0, 0, 0, 4 * 1024**2 + 1, small) + packed(target)
    refused("a slice that is too long", "limit", head + big)
    long = struct.pack(">IHBBQII", 0, 1, 0, 0, 0, 0, CHUNK) + bytes(CHUNK)
    refused("data as long as the chunk", "limit", head + long)
    refused("no data", "limit", head + frame(0, 1, 0, 0, 0, 0, b""))
    refused("a slice beyond the base", "beyond", head + frame(0, 1, 4, 3, 1, len(base), diff4[24:]))
    far = frame(0, 1, 0, 0, 2**63, len(base), packed(target))
    refused("a slice far beyond the base", "beyond", head + far)
    refused("chunks beyond the file", "not its", head + frame(1, 1, 0, 0, 0, 0, packed(target)))
    refused(
        "the same chunk twice", "not its", header(2, len(old), len(new)) + first + first, old, new
    )
    refused(
        "frames out of order", "not its", header(2, len(old), len(new)) + tail + first, old, new
    )
    short = frame(0, 1, 4, 3, 0, len(base) - 1, diff4[24:])
    refused("a slice of another length", "another length", head + short)
    for name, data in (
        ("more content than it makes", packed(bytes(1024**2))),
        ("less content than it makes", packed(target[:-1])),
        ("no content size", packed(target, content_size_flag=0)),
        ("two zstd frames", packed(target[:9]) + packed(target[9:])),
        ("something after the zstd frame", packed(target) + b"\0"),
        ("a skippable frame", struct.pack("<II", 0x184D2A50, 4) + b"skip"),
    ):
        refused(name, "does not decompress", head + frame(0, 1, 0, 0, 0, 0, data))
    lying = bytearray(packed(bytes(1024**2)))
    at = 5 if lying[4] & 0x20 else 6
    lying[at : at + 4] = struct.pack("<I", len(target))
    for name, data in (
        ("a bomb that states a small size", bytes(lying)),
        ("no zstd frame", b"\xff" * 100),
        ("data with a wrong byte", packed(target)[:40] + b"\xff" * 8 + packed(target)[48:]),
    ):
        refused(name, "damaged", head + frame(0, 1, 0, 0, 0, 0, data))


def main() -> None:
    """Write the index and the files, and remove what no case names."""
    index = Index()
    sound(index)
    hostile(index)
    for path in FOLDER.glob("*.bin"):
        path.unlink()
    for name, content in index.files.items():
        (FOLDER / name).write_bytes(content)
    (FOLDER / "index.json").write_text(json.dumps({"cases": index.cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
