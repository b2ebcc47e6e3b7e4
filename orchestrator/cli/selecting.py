"""What commands make of options and words that say which devices are meant."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from orchestrator.errors import Invalid
from schemas.device import MAX_TAGS
from schemas.selector import And, Node, Op, SelectorError, Term, parse, write
from schemas.selector_fields import FIELDS, value_of

STDIN = "-"
MAX_IDS = 10_000
_MAX_LINE = 200
_PORTION = 80
"""Ids in one selector, which has at most 2,000 characters."""


def narrowed(where: str | None, device_class: str | None, tags: Sequence[str]) -> str | None:
    """One selector of ``--where``, ``--class`` and ``--tag``; None where none is given.

    Raises:
        Invalid: one of them is none; the message names the option.
    """
    nodes: list[Node] = [] if where is None else [_parsed(where)]
    named = [] if device_class is None else [("class", device_class)]
    for name, word in (*named, *(("tag", tag) for tag in tags)):
        field = FIELDS[name]
        try:
            nodes.append(Term(field, Op.EQ, (value_of(field, word),)))
        except ValueError as error:
            msg = f"--{name}: {word!r} is not {error}"
            raise Invalid(msg, hint="lower-case letters, digits and hyphens") from error
    if not nodes:
        return None
    return write(nodes[0] if len(nodes) == 1 else And(tuple(nodes)))


def _parsed(where: str) -> Node:
    try:
        return parse(where)
    except SelectorError as error:
        msg = f"--where: {error}"
        hint = 'the language stands in docs/rollouts.md, "Which devices"'
        raise Invalid(msg, hint=hint) from error


@dataclass(frozen=True, slots=True)
class TagWords:
    """Devices that are named, and the tags that they get and lose."""

    devices: tuple[str, ...]
    add: tuple[str, ...]
    remove: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([*(f"+{tag}" for tag in self.add), *(f"-{tag}" for tag in self.remove)])


def ids_of(stream: TextIO) -> tuple[str, ...]:
    """Read ids of devices, one a line, as `argosy device ls -o name` writes them.

    Raises:
        Invalid: a line is no id, or there are none, or more than ``MAX_IDS``.
    """
    found: dict[str, None] = {}
    for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), ""), start=1):
        if not (one := line.strip()):
            continue
        if FIELDS["id"].pattern.fullmatch(one) is None:
            msg = f"stdin:{number}: {one[:40]!r} is no id of a device"
            raise Invalid(msg, hint="one a line, as `argosy device ls -o name` writes them")
        found[one] = None
        if len(found) > MAX_IDS:
            msg = f"stdin:{number}: these are more than {MAX_IDS} devices"
            raise Invalid(msg, hint="say --where for that many")
    if not found:
        msg = "stdin names no device"
        raise Invalid(msg, hint="as in `argosy device ls -o name | argosy device tag - +lab`")
    return tuple(found)


def portions(devices: Sequence[str]) -> Iterator[str]:
    """Selectors of these devices, each no longer than a selector may be."""
    for start in range(0, len(devices), _PORTION):
        yield f"id in ({', '.join(devices[start : start + _PORTION])})"


def tag_words(words: Sequence[str], where: str | None = None) -> TagWords:
    """Read ``dev_… +lab -old``, or ``+lab -old`` where a selector says which devices.

    A ``-`` alone stands for the ids that stdin has.

    Raises:
        Invalid: no device or both, no change, or what is no tag.
    """
    words = [*(ids_of(sys.stdin) if STDIN in words else ()), *(w for w in words if w != STDIN)]
    devices = tuple(word for word in words if word[:1] not in {"+", "-"})
    add = tuple(dict.fromkeys(word[1:] for word in words if word.startswith("+")))
    remove = tuple(dict.fromkeys(word[1:] for word in words if word.startswith("-")))
    if devices and where is not None:
        msg = f"{devices[0]} is named, and --where says which devices too"
        raise Invalid(msg, hint="name devices, or say --where")
    if not (devices or where) or not (add or remove):
        msg = "name the devices or say --where, and tags with + or - before them"
        raise Invalid(msg, hint="as in `argosy device tag dev_… +lab -old`")
    for word in (*add, *remove):
        if FIELDS["tag"].pattern.fullmatch(word) is None:
            msg = f"{word!r} is no tag"
            raise Invalid(msg, hint="tags are lower-case letters, digits, . _ and -, at most 63")
    both = set(add) & set(remove)
    if both:
        msg = f"{min(both)} cannot be given and taken away at once"
        raise Invalid(msg)
    if max(len(add), len(remove)) > MAX_TAGS:
        msg = f"more than {MAX_TAGS} tags: a device has no more"
        raise Invalid(msg)
    return TagWords(devices, add, remove)
