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


def read_pointer(path: Path) -> Pointer:
    """Read the pointer; an empty one when there is none or it is damaged."""
    try:
        return _POINTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Pointer()


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Swap the pointer: the one step by which another model becomes the active one."""
    write_atomic(path, _POINTER.dump_json(pointer, indent=1))
