"""A slot names a runnable model on the device; the pointer says which ones serve.

``active.json`` holds, by the name of each model, what serves and its fallback, and is swapped as a
whole. One that an older agent wrote, for one model, is read too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge_client.errors import PointerError, UsageError
from edge_client.files import write_atomic
from schemas.device import ActiveModel
from schemas.ids import Name, Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One variant of one version. sha256: of the model file."""

    model: Name
    version: int
    variant: Name
    sha256: Sha256
    manifest_sha256: Sha256

    def as_active(self) -> ActiveModel:
        """The form in which a birth message carries it."""
        return ActiveModel(
            model=self.model, version=self.version, variant=self.variant, sha256=self.sha256
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Of one model: what serves, and what served before it."""

    active: Slot | None = None
    fallback: Slot | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Both, as far as they are there."""
        return tuple(slot for slot in (self.active, self.fallback) if slot is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointers:
    """``active.json``: the pointer of each model, by its name."""

    models: Mapping[Name, Pointer] = field(default_factory=dict)

    def of(self, model: Name) -> Pointer:
        """The pointer of a model; an empty one where there is none."""
        return self.models.get(model, Pointer())

    def put(self, model: Name, pointer: Pointer) -> Pointers:
        """The same with another pointer for one model; an empty one takes the model out.

        What is of another model, as in the journal of an agent that served one at a time, is
        nobody's fallback.
        """
        active, fallback = (
            slot if slot is not None and slot.model == model else None
            for slot in (pointer.active, pointer.fallback)
        )
        pointer = Pointer(active=active, fallback=fallback)
        others = {name: kept for name, kept in self.models.items() if name != model}
        new = {model: pointer} if pointer.slots else {}
        return Pointers(models=dict(sorted((others | new).items())))

    @property
    def active(self) -> tuple[Slot, ...]:
        """What serves, sorted by model."""
        found = (self.models[name].active for name in sorted(self.models))
        return tuple(slot for slot in found if slot is not None)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All that are named."""
        return tuple(slot for name in sorted(self.models) for slot in self.models[name].slots)

    def one(self, model: Name | None, what: str) -> Name | None:
        """The model that is meant.

        Args:
            model: what was said; None means the only one.
            what: is to be done with it, for the error.

        Returns:
            Its name; None when there is none at all.

        Raises:
            UsageError: there are several, and none was named.
        """
        if model is not None or not self.models:
            return model
        if len(self.models) > 1:
            msg = f"this device has several models ({', '.join(sorted(self.models))})"
            raise UsageError(msg, hint=f"name the one {what}")
        return next(iter(self.models))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    """``active.json`` of an agent that served one model."""

    active: Slot | None
    fallback: Slot | None

    def migrated(self) -> Pointers:
        """In today's form. What served before another model is not that one's fallback."""
        if self.active is None:
            return Pointers()
        same = self.fallback is not None and self.fallback.model == self.active.model
        pointer = Pointer(active=self.active, fallback=self.fallback if same else None)
        return Pointers(models={self.active.model: pointer})


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """``active.json``."""

    models: dict[Name, Pointer]


_FILE: TypeAdapter[_File] = TypeAdapter(_File)
_OLD: TypeAdapter[_Old] = TypeAdapter(_Old)
_MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is on the disk of the pointer.

    pointers: None when nothing readable is left of it; empty when it was never
    written. damage: what is wrong with the file or its copy; None when both are whole.
    """

    pointers: Pointers | None
    damage: str | None = None


def copy_of(path: Path) -> Path:
    """The pointer's copy, written after it: good when a power cut tore the pointer."""
    return path.with_name(f"{path.name}.prev")


def find_pointers(path: Path) -> Found:
    """Read the pointer, or else its copy, telling a missing one from a damaged one."""
    pointers, wrong = _read(path)
    copy, copy_wrong = _read(copy_of(path))
    if pointers is not None:
        stale = None if copy == pointers else (copy_wrong or "it is older")
        damage = None if stale is None else f"the copy of {path.name} is not usable: {stale}"
        return Found(pointers=pointers, damage=damage)
    if copy is not None:
        return Found(pointers=copy, damage=f"{path.name} is not usable: {wrong}")
    if wrong == copy_wrong == _MISSING:
        return Found(pointers=Pointers())
    return Found(pointers=None, damage=f"{path.name} is not usable, nor is its copy: {wrong}")


def read_pointers(path: Path) -> Pointers:
    """The pointer or its copy; an empty one when there is none or both are damaged."""
    return find_pointers(path).pointers or Pointers()


def require_pointers(path: Path) -> Pointers:
    """The pointer or its copy, for whom what cannot be read must not look like nothing.

    Raises:
        PointerError: neither can be read.
    """
    found = find_pointers(path)
    if found.pointers is not None:
        return found.pointers
    hint = "start the agent, and roll out a version to this device: it writes the pointer anew"
    if not os.access(path, os.R_OK):
        hint = f"run this as the user to whom {path.parent} belongs; others ask the local server"
    msg = f"{path.parent}: {found.damage}"
    raise PointerError(msg, hint=hint)


def read_pointer(path: Path, model: Name | None = None) -> Pointer:
    """The pointer of one model; an empty one when there is none. model: None means the only one.

    Raises:
        UsageError: there are several, and none was named.
    """
    pointers = read_pointers(path)
    name = pointers.one(model, "that is meant")
    return Pointer() if name is None else pointers.of(name)


def write_pointers(path: Path, pointers: Pointers) -> None:
    """Swap the pointer: the one step by which another model becomes the active one.

    Raises:
        OSError: it or its copy could not be written; do it again.
    """
    text = _FILE.dump_json(_File(models=dict(pointers.models)), indent=1)
    write_atomic(path, text)
    write_atomic(copy_of(path), text)


def _read(path: Path) -> tuple[Pointers | None, str]:
    """A pointer file, or what is wrong with it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, _MISSING
    except OSError as error:
        return None, str(error.strerror)
    try:
        pointers = _parse(data)
    except ValidationError:
        return None, "damaged"
    wrong = [name for name, one in pointers.models.items() for slot in one.slots
             if slot.model != name]  # fmt: skip
    return (None, "damaged") if wrong else (pointers, "")


def _parse(data: bytes) -> Pointers:
    """Either form.

    Raises:
        ValidationError: it is neither.
    """
    try:
        return _OLD.validate_json(data).migrated()
    except ValidationError:
        return Pointers(models=_FILE.validate_json(data).models)
