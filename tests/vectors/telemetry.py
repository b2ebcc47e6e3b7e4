"""Vectors of what goes in MessagePack: envelopes of windows, and samples."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas import sample, window
from schemas.sample import Sample, Tensor
from schemas.window import About, Envelope, Window, pack

BOOT = bytes.fromhex("0f" * 16)

ABOUT = About(boot=BOOT, model="digits", version=3, variant="int8")
SHADOW = About(
    boot=BOOT,
    model="digits",
    version=4,
    variant="int8",
    role="shadow",
    provider="CPUExecutionProvider",
    wanted="OpenVINOExecutionProvider",
    nodes={"CPUExecutionProvider": 12},
)
WINDOW = Window(
    about=0,
    seq=0,
    start_ms=1_780_315_200_000,
    synced=True,
    length_ms=60_000,
    n=600,
    errors=1,
    runs=599,
    latency=pack({72: 300, 73: 290, 81: 9}),
    confidence=[0, 0, 0, 0, 0, 1, 20, 40, 120, 418],
    entropy=[400, 120, 60, 19],
    classes=pack({0: 200, 7: 399}),
    features=[[0, 2, 0, 300, 297], []],
    raw_bytes=38_336,
    cpu_ms=210,
    rss_mib=41,
    energy_mj=900,
    method="cpu_time",
)
SAMPLE = Sample(
    format=1,
    boot=BOOT,
    seq=0,
    model="digits",
    version=3,
    variant="int8",
    stream="uniform",
    probability=0.01,
    at_ms=1_780_315_200_000,
    synced=True,
    inputs=[Tensor("image", "uint8", [1, 2, 2], bytes([0, 1, 2, 255]))],
    predicted=7,
    confidence=0.5,
)


def _with(**changes: Any) -> list[Any]:
    """An envelope as plain values, with other fields in its window."""
    one = msgspec.structs.replace(WINDOW, **changes)
    return [1, [_plain(ABOUT)], [_plain(one)]]


def _plain(one: Any) -> list[Any]:
    return [getattr(one, name) for name in one.__struct_fields__]


def _bytes(value: Any) -> str:
    return msgspec.msgpack.encode(value).hex()


def vectors() -> dict[str, dict[str, Any]]:
    """The file's content by its name."""
    short = [1, [_plain(ABOUT)[:4]], [_plain(WINDOW)[:6]]]
    longer = [1, [[*_plain(ABOUT), "new"]], [[*_plain(WINDOW), 5]], "new"]
    both = Envelope(
        format=1,
        about=[ABOUT, SHADOW],
        windows=[
            WINDOW,
            Window(
                about=1, seq=1, start_ms=1_780_315_200_000, synced=False, length_ms=60_000,
                n=30, compared=30, agreed=29, celsius=-5,
            ),
        ],
    )  # fmt: skip
    lost = Window(about=0, seq=9, start_ms=0, synced=False, length_ms=0, n=5, errors=2, lost=3)
    good = [
        ("a window", window.encode(Envelope(1, [ABOUT], [WINDOW])).hex()),
        (
            "two models, one of them a shadow without the provider it wanted",
            window.encode(both).hex(),
        ),
        ("what a killed process left", window.encode(Envelope(1, [ABOUT], [lost])).hex()),
        ("only what must be there", _bytes(short)),
        ("more at the ends than is known", _bytes(longer)),
    ]
    bad = [
        ("nothing", ""),
        ("JSON", b"{}".hex()),
        ("the last byte is missing", good[0][1][:-2]),
        ("another format", _bytes([2, [_plain(ABOUT)], [_plain(WINDOW)]])),
        ("no windows", _bytes([1, [_plain(ABOUT)], []])),
        ("more windows than 64", _bytes([1, [_plain(ABOUT)], [_plain(WINDOW)] * 65])),
        ("a reference to what is not there", _bytes(_with(about=1))),
        ("a negative count", _bytes(_with(errors=-1))),
        ("a count beyond 63 bits", _bytes(_with(n=2**63))),
        ("more failed than tried", _bytes(_with(errors=601))),
        ("more lost and failed than tried", _bytes(_with(lost=600))),
        ("more correct than labelled", _bytes(_with(correct=1))),
        ("more agreed than compared", _bytes(_with(agreed=1))),
        ("half a pair", _bytes(_with(latency=[72]))),
        ("more than ten bins", _bytes(_with(confidence=[0] * 11))),
        (
            "a boot id that is too short",
            _bytes([1, [[BOOT[:8], "digits", 1, "int8"]], [_plain(WINDOW)]]),
        ),
        ("a map in place of an array", _bytes([1, [{"boot": BOOT}], [_plain(WINDOW)]])),
        ("a month and a day", _bytes(_with(length_ms=32 * 86_400_000))),
    ]
    change = msgspec.structs.replace
    samples = [
        ("a sample", SAMPLE, True),
        ("with its true class", change(SAMPLE, truth=1), True),
        ("a probability of 0", change(SAMPLE, probability=0.0), False),
        ("a stream that there is not", change(SAMPLE, stream="best"), False),
        ("no inputs", change(SAMPLE, inputs=[]), False),
    ]
    cases = [
        *(_case("Envelope", name, raw, valid=True) for name, raw in good),
        *(_case("Envelope", name, raw, valid=False) for name, raw in bad),
        *(
            _case("Sample", name, sample.encode(one).hex(), valid=valid)
            for name, one, valid in samples
        ),
    ]
    return {"telemetry.json": {"cases": cases}}


def _case(kind: str, name: str, raw: str, *, valid: bool) -> dict[str, Any]:
    """With what is in it, by name, where it is valid; bytes as hex."""
    case: dict[str, Any] = {"name": f"{kind}: {name}", "type": kind, "hex": raw, "valid": valid}
    if valid:
        data = bytes.fromhex(raw)
        read = window.decode(data) if kind == "Envelope" else sample.decode(data)
        case["holds"] = named(read)
    return case


def named(value: Any) -> Any:
    """Structs as maps by field, bytes as hex, for a reader of JSON."""
    if isinstance(value, msgspec.Struct):
        return {name: named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [named(one) for one in value]
    return value.hex() if isinstance(value, bytes) else value
