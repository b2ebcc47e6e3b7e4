"""``--set key=value``: one key of a job file, changed from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.job_faults import known_keys, nearest
from orchestrator.cli.yamlfile import Place, value_of
from orchestrator.errors import Invalid
from schemas.budget import Budget
from schemas.sweep import Sweep

_SWEEP, _SPACE, _CONFIG = "sweep", "space", "config"
_CLASSES = ("optimize", "classes")


@dataclass(frozen=True, slots=True)
class Override:
    """A key and its value. option: how it was given, for messages."""

    place: tuple[str, ...]
    value: Any
    option: str

    @property
    def key(self) -> str:
        """The place with dots."""
        return ".".join(self.place)


def parse(pairs: Sequence[str]) -> list[Override]:
    """Read ``key=value`` pairs; values are YAML.

    Raises:
        Invalid: a pair has another form, or there is no such key.
    """
    return [_parse(pair) for pair in pairs]


def named(option: str, key: str, value: Any) -> list[Override]:
    """The override of an option of its own; none when it was not given."""
    return [] if value is None else [Override((key,), value, option)]


def _parse(pair: str) -> Override:
    key, equals, text = pair.partition("=")
    key = key.strip()
    if not key or not equals:
        detail = f"--set {pair!r} is not of the form key=value"
        raise Invalid(detail, hint="as in `--set stop.max_epochs=20` or `--set config.lr=0.01`")
    place = _place(key)
    if place is None:
        guess = nearest(key, known_keys())
        hint = f"did you mean {guess!r}?" if guess else "keys are those of a job file, with dots"
        detail = f"--set: a job file has no key {key!r}"
        raise Invalid(detail, hint=hint)
    return Override(place, value_of(text, f"--set {key}"), f"--set {key}")


def _place(key: str) -> tuple[str, ...] | None:
    """A key's path; the keys of a sweep's space have dots themselves."""
    parts = tuple(key.split("."))
    if not all(parts):
        return None
    if parts[0] == _CONFIG:
        return parts
    if parts[0] == _SWEEP and len(parts) > 1:
        if parts[1] == _SPACE:
            return (*parts[:2], ".".join(parts[2:])) if len(parts) > 2 else parts  # noqa: PLR2004
        if parts[1] not in Sweep.model_fields:
            swept = ".".join(parts[1:])
            can = swept == "seed" or parts[1] in {_CONFIG, "training"}
            return (_SWEEP, _SPACE, swept) if can else None
    if parts[:2] == _CLASSES and len(parts) > 2:  # noqa: PLR2004 - a class, then its budget's keys
        known = (*_CLASSES, *parts[3:]) == _CLASSES or ".".join(parts[3:]) in Budget.model_fields
        return parts if known else None
    return parts if key in known_keys() else None


def apply(job: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """The job with its keys changed; what is not there yet is added.

    Raises:
        Invalid: a key lies below something that is no mapping.
    """
    made: dict[str, Any] = deepcopy(dict(job))
    for one in overrides:
        if one.place[0] == _SWEEP and len(one.place) > 1:
            made[_SWEEP] = _long(made.get(_SWEEP))
        inner = made
        for index, part in enumerate(one.place[:-1]):
            if inner.get(part) is None:
                inner[part] = {}
            if not isinstance(inner[part], dict):
                detail = f"{one.option}: {'.'.join(one.place[: index + 1])} is no mapping of keys"
                raise Invalid(detail, hint="set it whole, or change the file")
            inner = inner[part]
        inner[one.place[-1]] = one.value
    return made


def _long(sweep: Any) -> Any:
    """A sweep in its long form, to which keys can be added."""
    if isinstance(sweep, dict) and sweep and not set(sweep) & set(Sweep.model_fields):
        return {_SPACE: dict(sweep)}
    return sweep


def doubts(job: Mapping[str, Any], overrides: Sequence[Override]) -> list[str]:
    """What a person should know of keys that only the task can judge: those of config."""
    config = job.get(_CONFIG)
    there = [str(key) for key in config] if isinstance(config, dict) else []
    found = []
    for one in overrides:
        if one.place[0] == _CONFIG and len(one.place) > 1 and there and one.place[1] not in there:
            guess = nearest(one.place[1], there)
            meant = f"; did you mean config.{guess}?" if guess else ""
            found.append(f"{one.key} is not among the job's config keys: it is added{meant}")
    return found


def option_at(place: Place, overrides: Sequence[Override]) -> str | None:
    """The option that set what is at a place, or lies around or below it."""
    for one in reversed(overrides):
        if one.place == place[: len(one.place)] or (place and one.place[: len(place)] == place):
            return one.option
    return None
