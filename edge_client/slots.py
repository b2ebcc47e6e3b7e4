"""A slot names a runnable model on the device; the pointer says which one serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

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
    """``active.json``: what serves, and what served before it."""

    active: Slot | None = None
    fallback: Slot | None = None


_POINTER = TypeAdapter(Pointer)
_MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is on the disk of the pointer.

    pointer: None when nothing readable is left of it; an empty one when it was never
    written. damage: what is wrong with the file or its copy; None when both are whole.
    """

    pointer: Pointer | None
    damage: str | None = None


def copy_of(path: Path) -> Path:
    """The pointer's copy, written after it: good when a power cut tore the pointer."""
    return path.with_name(f"{path.name}.prev")


def find_pointer(path: Path) -> Found:
    """Read the pointer, or else its copy, telling a missing one from a damaged one."""
    pointer, wrong = _read(path)
    copy, copy_wrong = _read(copy_of(path))
    if pointer is not None:
        stale = None if copy == pointer else (copy_wrong or "it is older")
        damage = None if stale is None else f"the copy of {path.name} is not usable: {stale}"
        return Found(pointer=pointer, damage=damage)
    if copy is not None:
        return Found(pointer=copy, damage=f"{path.name} is not usable: {wrong}")
    if wrong == copy_wrong == _MISSING:
        return Found(pointer=Pointer())
    return Found(pointer=None, damage=f"{path.name} is not usable, nor is its copy: {wrong}")


def read_pointer(path: Path) -> Pointer:
    """The pointer or its copy; an empty one when there is none or both are damaged."""
    return find_pointer(path).pointer or Pointer()


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Swap the pointer: the one step by which another model becomes the active one.

    Raises:
        OSError: it or its copy could not be written; do it again.
    """
    text = _POINTER.dump_json(pointer, indent=1)
    write_atomic(path, text)
    write_atomic(copy_of(path), text)


def _read(path: Path) -> tuple[Pointer | None, str]:
    """A pointer file, or what is wrong with it."""
    try:
        return _POINTER.validate_json(path.read_bytes()), ""
    except FileNotFoundError:
        return None, _MISSING
    except OSError as error:
        return None, str(error.strerror)
    except ValidationError:
        return None, "damaged"
