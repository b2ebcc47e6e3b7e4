"""The language of selectors: what it means, and what it says of what is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.device import Presence
from schemas.selector import Facts, SelectorError, SelectorText, matches, parse, refusing, write
from schemas.selector_fields import FIELDS, parts_of, version_key

CAM = Facts(
    id="dev_0000000000000001",
    device_class="cam",
    tags=("lab", "hall"),
    presence=Presence.ONLINE,
    arch="aarch64",
    isa=("neon",),
    providers=("CPUExecutionProvider",),
    board="Pi 5",
    cpus=4,
    ram_mb=1024,
    ort="1.20.1",
    agent="0.1.10",
    models={"digits": 3},
    last_seen=60.0,
    enrolled=86400.0,
    certificate=3 * 86400.0,
)
SILENT = Facts(id="dev_0000000000000002", device_class="cam", enrolled=10.0)


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "class = cam and tag = lab and not tag = old",
        "tag in (old, hall)",
        "tag not in (old, new)",
        "tag != old",
        "model.digits < 4",
        "model.digits in (3, 4)",
        "model.parts = none",
        "ram_mb >= 512 and cpus = 4",
        "isa = neon and isa != avx2 and arch = aarch64",
        "seen < 2h and seen >= 1m",
        "enrolled <= 1d and certificate > 2d",
        "presence = online",
        "id in (dev_0000000000000001, dev_0000000000000009)",
        "ort >= 1.20 and ort < 1.20.2 and agent > 0.1.9",
        "board = 'Pi 5' or board = none",
        "(class=pi or class=cam)and(not tag=old)",
    ],
)
def test_a_camera_that_told_everything_is_meant(text):
    assert matches(parse(text), CAM)
    assert not matches(parse(f"not ({text})"), CAM)


@pytest.mark.parametrize("op", ["=", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("field", ["ram_mb", "ort", "model.digits"])
def test_what_is_unknown_matches_no_comparison_and_every_denial(field, op):
    assert not matches(parse(f"{field} {op} 1"), SILENT)
    assert matches(parse(f"not {field} {op} 1"), SILENT)


@pytest.mark.parametrize("field", ["tag", "isa", "provider", "arch", "board", "seen", "agent"])
def test_none_asks_for_the_unknown(field):
    assert matches(parse(f"{field} = none"), SILENT)
    assert not matches(parse(f"{field} != none"), SILENT)


def test_and_binds_closer_than_or_and_not_closest():
    assert write(parse("not tag = a and tag = b or tag = c")) == write(
        parse("((not tag = a) and tag = b) or tag = c")
    )


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 1, "found the end where a field"),
        ("tga = lab", 1, "did you mean tag?"),
        ("tag = lab AND class = cam", 11, "did you mean and?"),
        ("cpus > ٣", 8, "a whole number"),  # digits that no database reads as such
        ("ort > ٢", 7, "a dotted version"),
        ("seen < ٢h", 8, "a span of time"),
        ("tag == lab", 5, "equality is written with one ="),
        ("tag < lab", 5, "tag has no order"),
        ("tag = lab class = cam", 11, "and, or, or the end"),
        ("presence = onlin", 12, "did you mean online?"),
        ("seen < 2 h", 8, "a span of time, as 30s, 5m, 2h, 7d or 1w"),
        ("seen = 2h", 8, "seen is compared with < <= > >="),
        ("seen < 99999w", 8, "at most 10000d"),
        ("class = none", 9, "every device has a class"),
        ("model.digits < none", 16, "none goes with = and != alone"),
        ("tag in (a, none)", 12, "none stands alone, as in tag = none"),
        ("modell.x = 3", 1, "fields are id, class, tag"),
        ("model = 3", 1, "model.NAME"),
        ("board = 'Pi", 9, "the quote ' has no end"),
        ("(tag = a", 9, "and, or, or )"),
        ("tag in a", 8, "( and values between commas"),
        ("id = dev_1", 6, "a device's id"),
        ("ram_mb > 1e3", 10, "a whole number of MiB"),
        ("ort > 1.x", 7, "a dotted version"),
        ("not " * 30 + "tag = a", 85, "more than 20 levels"),
        (" or ".join(["tag = a"] * 65), 705, "more than 64 comparisons"),
        ("*" * 2001, 2001, "at most 2000 characters"),
    ],
)
def test_what_is_no_selector_is_refused_with_place_and_reason(text, position, words):
    with pytest.raises(SelectorError, match="at ") as caught:
        parse(text)
    assert caught.value.position == position
    assert words in str(caught.value)


def test_selector_text_is_checked_where_it_is_written():
    read = TypeAdapter(SelectorText).validate_python
    assert read("tag = lab") == "tag = lab"
    with pytest.raises(ValidationError, match="at 5: found '~'"):
        read("tag ~ lab")


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("1.20.0", (1, 20)),
        ("1.20.1+cu12", (1, 20, 1)),
        ("0.2.0rc1", (0, 2)),
        ("0", (0,)),
        ("dev", None),
        ("", None),
        ("1" * 10, None),
        (None, None),
    ],
)
def test_versions_are_compared_by_their_leading_numbers(version, parts):
    assert parts_of(version) == parts


def test_keys_of_versions_sort_as_their_parts_do():
    versions = ["0", "0.1", "0.1.9", "0.1.10", "0.2", "1", "1.9", "1.20", "1.20.1", "10"]
    keys = [version_key(one) for one in versions]
    assert keys == sorted(keys)


def test_the_part_that_refuses_is_named():
    node = parse("class = cam and (tag = x or tag = y) and seen < 2h")
    part = refusing(node, CAM)
    assert part is not None
    assert write(part) == "tag = x or tag = y"
    assert refusing(parse("class = cam"), CAM) is None


def _documented() -> str:
    text = (Path(__file__).parents[3] / "docs/rollouts.md").read_text()
    return text.partition("### Selectors")[2].partition("## Devices that come later")[0]


def test_the_document_names_every_field_and_its_selectors_are_some():
    section = _documented()
    table = {word for row in section.splitlines() if row.startswith("|") for word in _spans(row)}
    assert {*FIELDS, "model.NAME"} <= table
    selectors = [word for word in _spans(section) if re.search(r"\w (=|!=|<|>=) \w", word)]
    assert len(selectors) > 5
    for text in selectors:
        parse(text)


def _spans(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
