"""Aliases: what may be one, and whether one may be moved."""

from __future__ import annotations

from collections.abc import Mapping

LATEST = "latest"
MAX_ALIASES = 100
"""Of a model."""


def unfit(alias: str) -> str | None:
    """Why a name cannot be an alias: ``digits@7`` and ``digits@latest`` mean versions by age."""
    if alias.isdigit():
        return "a number means the version of that number"
    if alias == LATEST:
        return f"{LATEST!r} means the newest version"
    return None


def refused(model: str, aliases: Mapping[str, int], alias: str, expected: int | None) -> str | None:
    """Why an alias is not moved to another version, or taken away.

    Args:
        model: for the text.
        aliases: the model's, as they are.
        alias: the one to move.
        expected: the version it must be at; None: whatever it is at.
    """
    at = aliases.get(alias)
    if expected is not None and at != expected:
        now = "is not there" if at is None else f"is at {model}@{at}"
        return f"the alias {alias} {now}, not at {model}@{expected}"
    if at is None and len(aliases) >= MAX_ALIASES:
        return f"{model} has {len(aliases)} aliases, and may have {MAX_ALIASES}"
    return None
