"""What commands make of options and words that say which devices are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import Invalid
from schemas.device import MAX_TAGS
from schemas.selector import And, Node, Op, SelectorError, Term, parse, write
from schemas.selector_fields import FIELDS, value_of


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
class TagChanges:
    """Tags that devices get and lose."""

    devices: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def applied(self, tags: Sequence[str]) -> tuple[str, ...]:
        """The tags of a device afterwards.

        Raises:
            Invalid: they are too many.
        """
        kept = [tag for tag in tags if tag not in self.removed]
        after = tuple(dict.fromkeys((*kept, *self.added)))
        if len(after) > MAX_TAGS:
            msg = f"a device has at most {MAX_TAGS} tags; it would have {len(after)}"
            raise Invalid(msg, hint="take some away in the same command: -TAG")
        return after


def tag_changes(words: Sequence[str]) -> TagChanges:
    """Read ``dev_… +lab -old``.

    Raises:
        Invalid: no device, no change, or what is no tag.
    """
    devices = tuple(word for word in words if word[:1] not in {"+", "-"})
    added = tuple(word[1:] for word in words if word.startswith("+"))
    removed = tuple(word[1:] for word in words if word.startswith("-"))
    if not devices or not (added or removed):
        msg = "name the devices, and tags with + or - before them"
        raise Invalid(msg, hint="as in `argosy device tag dev_… +lab -old`")
    for word in (*added, *removed):
        if FIELDS["tag"].pattern.fullmatch(word) is None:
            msg = f"{word!r} is no tag"
            raise Invalid(msg, hint="tags are lower-case letters, digits, . _ and -, at most 63")
    both = set(added) & set(removed)
    if both:
        msg = f"{min(both)} cannot be given and taken away at once"
        raise Invalid(msg)
    return TagChanges(devices, added, removed)
