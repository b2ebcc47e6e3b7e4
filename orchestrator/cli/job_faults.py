"""What is wrong in a job, for a person: where, what, and what is allowed there."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.cli.authored import plain
from orchestrator.cli.failures import Located
from orchestrator.cli.yamlfile import Place
from schemas.jobfile import JobSpec
from schemas.lineage import Code
from schemas.signature import Signature
from schemas.workers import WorkerRange

MAX_FAULTS = 10

_NUMBERS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}

_HINTS: dict[tuple[str, ...], str] = {
    ("name",): "lower-case letters, digits and hyphens, at most 63, as in DNS: `name: digits`",
    ("model",): "lower-case letters, digits and hyphens, at most 63, as in DNS: `model: digits`",
    (
        "project",
    ): "lower-case letters, digits and hyphens, at most 63, as in DNS: `project: vision`",
    ("task",): "the import path of a task class, as in `task: package.module:Class`",
    ("resources", "workers"): "as in `workers: 2`, or `workers: 2..8`",
    ("code",): "relative to the job file, as in `code: .`",
    ("base",): "a model and the number of its version, as in digits@3",
    ("onnx", "file"): "relative to the job file, as in `onnx: {file: model.onnx}`",
    ("optimize", "prune"): "shares of the channels, one trial each, as in `prune: [0.5, 0.75]`",
    ("optimize", "classes"): "by device class, as in `classes: {cam: {max_size_mb: 0.1}}`",
    ("batch", "model"): "a model and the number of its version, as in digits@3",
    ("sweep", "space"): "the keys to try with their values, as in `config.lr: [0.1, 0.01]`",
}
_SWEPT = "a list of values, or a span as in {min: 0.001, max: 0.1, log: true}"
_FORMS = {
    "resources.workers": "a number or a range",
    "code": "the path of a folder",
    "onnx": "a mapping, or the path of an ONNX file",
}
_VERBS = ("must ", "needs ", "has ", "should ")
# Written as one word, and not as the mapping that they are inside.
_WORDS = (WorkerRange, Code, Signature)


def faults(error: ValidationError, where: Callable[[Place], tuple[int, str]]) -> Located:
    """Every fault of a job, in the order of where they stand.

    Args:
        error: from ``JobSpec``.
        where: the line of a place, and how it is said.
    """
    found = sorted(_folded(error), key=lambda one: where(one["loc"])[0])
    told = [_fault(where(one["loc"])[1], one) for one in found]
    return Located(list(dict.fromkeys(told))[:MAX_FAULTS])


def known_keys() -> list[str]:
    """Every key of a job file, with dots."""
    return [".".join(place) for place in _keys(JobSpec, ()) if place != ("cloned_from",)]


def _keys(model: type[BaseModel], place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*place, name)
        inner = _model_of(field.annotation)
        if inner is not None:
            yield from _keys(inner, (*place, name))


def _folded(error: ValidationError) -> Iterator[dict[str, Any]]:
    """The errors, with one for what pydantic tells of each way in which a value may be read."""
    found = error.errors(include_url=False)
    values = {one["loc"][:3]: one["input"] for one in found if one["loc"][4:] == ()}
    for one in found:
        place = one["loc"]
        if place[:2] == ("sweep", "space") and len(place) > 3:  # noqa: PLR2004 - below a swept key
            is_span = isinstance(values.get(place[:3]), Mapping)
            of_span = "Span" in str(place[3])
            if place[3] == "[key]":
                yield {**one, "loc": place[:3], "type": "swept_key"}
            elif is_span and of_span:
                yield {**one, "loc": (*place[:3], *place[4:])}
            elif not is_span and not of_span:
                yield {**one, "loc": place[:3], "type": "swept_values"}
        elif place[:2] == ("resources", "workers"):
            yield {**one, "loc": place[:2]}
        else:
            yield dict(one)


def _fault(where: str, error: Mapping[str, Any]) -> tuple[str, str | None]:
    place: Place = tuple(error["loc"])
    name, kind = ".".join(map(str, place)), error["type"]
    given = error.get("input")
    shown = f", not {given!r}"[:120] if isinstance(given, str | int | float | None) else ""
    if kind == "extra_forbidden":
        return f"{where}: there is no key {name!r}", keys_hint(place)
    if kind == "missing":
        return f"{where}: the key {name!r} is missing", _hint_of(place)
    if not place:
        return f"{where}: {plain(error)}", None
    if kind == "string_pattern_mismatch":
        return f"{where}: {name} cannot be {given!r}", _hint_of(place)
    return f"{where}: {_sentence(name, kind, error, shown)}", _allowed(place, kind)


def _sentence(name: str, kind: str, error: Mapping[str, Any], shown: str) -> str:
    if kind == "swept_key":
        return f"{name.removeprefix('sweep.space.')} cannot be swept"
    if kind == "swept_values":
        return f"{name} must be {_SWEPT}"
    if kind in {"model_type", "dict_type"}:
        return f"{name} must be {_FORMS.get(name, 'a mapping')}{shown}"
    if kind in _NUMBERS:
        return f"{name} must be {_NUMBERS[kind]}{shown}"
    text = plain(error)
    return f"{name}{' ' if text.startswith(_VERBS) else ': '}{text}{shown}"


def _allowed(place: Place, kind: str) -> str | None:
    if kind == "swept_key":
        return "keys of config and training, and seed, as in `config.lr: [0.1, 0.01]`"
    if kind in {"model_type", "dict_type"}:
        keys = ", ".join(_fields_at(place))
        return f"its keys: {keys}" if keys else _hint_of(place)
    return _hint_of(place)


def _hint_of(place: Place) -> str | None:
    return _HINTS.get(tuple(str(part) for part in place))


def keys_hint(place: Place) -> str | None:
    """What a key that is not known may have meant, and the keys that are."""
    fields = [name for name in _fields_at(place[:-1]) if name != "cloned_from"]
    wrong = str(place[-1])
    elsewhere = [key for key in known_keys() if key.rpartition(".")[2] == wrong]
    close = difflib.get_close_matches(wrong, fields, n=1)
    guess = next(iter((*elsewhere, *close)), None)
    allowed = f"allowed here: {', '.join(fields)}"
    return f"did you mean {guess!r}? {allowed}" if guess else allowed


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The known key that a wrong one most looks like, by itself or by its last part."""
    last = key.rpartition(".")[2]
    by_last = [one for one in known if one.rpartition(".")[2] == last]
    lasts = {one.rpartition(".")[2]: one for one in known}
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    close_last = [lasts[one] for one in difflib.get_close_matches(last, lasts, n=1, cutoff=0.75)]
    return next(iter((*by_last, *close, *close_last)), None)


def _fields_at(place: Place) -> list[str]:
    model: type[BaseModel] = JobSpec
    parts = iter(place)
    for part in parts:
        field = model.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        if get_origin(annotation) is dict:  # by a name of one's own, which says nothing here
            next(parts, None)
            annotation = get_args(annotation)[1]
        inner = _model_of(annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    is_choice = get_origin(annotation) in {UnionType, Union}
    options = get_args(annotation) if is_choice else (annotation,)
    found = (o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return next((model for model in found if model not in _WORDS), None)
