"""Between table rows and the services' records, by field name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from orchestrator.adapters.tables import Base
from schemas.stored_spec import MendedSpec

R = TypeVar("R")


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def to_record(kind: type[R], row: Base) -> R:
    """The record of a row; enums, tuples and wire types are rebuilt and validated."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # records are dataclasses
    adapter = _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    record: R = adapter.validate_python({name: getattr(row, name) for name in names})
    return record


def fill(row: Base, record: Any) -> None:
    """Write a record's fields into a row; only those that differ become an UPDATE."""
    for field in fields(record):
        value = plain(getattr(record, field.name))
        if getattr(row, field.name) != value:
            setattr(row, field.name, value)


def differences(before: Any, after: Any) -> dict[str, Any]:
    """The fields in which two records differ, as the database takes those of the second."""
    pairs = ((f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(after))
    return {name: plain(new) for name, old, new in pairs if new is not old and new != old}


def to_row(kind: type[Base], record: Any) -> Base:
    """A new row of a record."""
    return kind(**row_of(record))


def row_of(record: Any) -> dict[str, Any]:
    """A record's fields as the database takes them, for many rows at once."""
    return {f.name: plain(getattr(record, f.name)) for f in fields(record)}


def plain(value: Any) -> Any:
    """A value as the database takes it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, MendedSpec):
        return value.stored  # what cannot be read stays as it is
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
