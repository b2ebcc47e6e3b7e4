"""From a slot on the disk to a model that is warm and can serve."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.errors import (
    EdgeError,
    InferenceError,
    InputError,
    LoadError,
    OutOfMemoryError,
    UpdateError,
)
from edge_client.inference import Array, Loaded, load_model, says_no_memory
from edge_client.probe import MAX_GOLDEN_BYTES, read_golden
from edge_client.providers import CPU
from edge_client.sessions import SessionSettings
from edge_client.slots import Slot
from edge_client.store import Store
from schemas.errors import DeviceCause
from schemas.model import Manifest, Variant

if TYPE_CHECKING:
    from edge_client.busy import Busy

log = logging.getLogger(__name__)


def load_slot(store: Store, slot: Slot, session: SessionSettings | None = None) -> Loaded:
    """Load a slot from the store, hashing everything again first, and warm it up.

    Args:
        store: where its files are.
        slot: which variant.
        session: how it runs; as for small machines when left out.

    Raises:
        UpdateError: it is missing, damaged or not loadable, fails on its golden inputs, or memory
            is short.
    """
    try:
        manifest = Manifest.model_validate_json(store.manifest(slot.manifest_sha256))
        settings = session or SessionSettings()
        variant = manifest.variant(slot.variant)
        model = load_model(
            store.read(slot.sha256),
            manifest,
            slot.variant,
            settings=settings,
            profile_in=_profile_in(settings, variant),
        )
        loaded = Loaded(slot, model, manifest)
        _warm_up(store, loaded, variant)
    except MemoryError as error:
        msg = "there is not enough memory to load the model"
        raise OutOfMemoryError(msg) from error
    except ValueError as error:
        msg = f"the manifest cannot be read: {error}"
        raise LoadError(msg) from error
    return loaded


def _profile_in(settings: SessionSettings, variant: Variant | None) -> Path | None:
    """Where to count which provider runs which nodes: only where it need not be the CPU."""
    required = () if variant is None else variant.requires.providers
    beside = settings.provider not in {None, CPU, "cpu"} or set(required) - {CPU}
    return Path(tempfile.gettempdir()) if beside else None


def _warm_up(store: Store, loaded: Loaded, variant: Variant | None) -> None:
    """Run it as its first requests would: by its golden inputs, else by zeros."""
    golden = None if variant is None else _golden_inputs(store, loaded, variant)
    try:
        loaded.model.warm_up(golden)
    except InputError as error:
        log.warning("%s: the golden inputs do not fit: %s", loaded.slot.model, error)
    except InferenceError as error:
        msg = f"it fails on its golden inputs: {error}"
        raise (OutOfMemoryError if says_no_memory(str(error)) else LoadError)(msg) from error


def _golden_inputs(store: Store, loaded: Loaded, variant: Variant) -> dict[str, Array] | None:
    """The golden inputs; None where the file is gone, which nothing that serves depends on."""
    with contextlib.suppress(UpdateError, KeyError):
        arrays = read_golden(store.read(variant.golden.file.sha256, MAX_GOLDEN_BYTES))
        specs = loaded.model.signature.inputs
        return {spec.name: arrays[f"in_{i}"] for i, spec in enumerate(specs)}
    return None


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Why a slot could not be loaded."""

    slot: Slot
    cause: DeviceCause
    why: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.slot.model} v{self.slot.version}: {self.why}"


def _in_full(error: Exception) -> str:
    """With its hint: such as which package brings a provider."""
    hint = error.hint if isinstance(error, EdgeError) else None
    return f"{error} ({hint})" if hint else str(error)


def load_first(
    store: Store, *slots: Slot | None, busy: Busy, session: SessionSettings | None = None
) -> tuple[Loaded | None, list[Unloadable]]:
    """Load the first slot that can be loaded, with what went wrong before it."""
    problems: list[Unloadable] = []
    for slot in slots:
        if slot is None:
            continue
        try:
            with busy.doing("a load", slot.sha256):
                return load_slot(store, slot, session), problems
        except (EdgeError, OSError) as error:
            cause = error.cause if isinstance(error, UpdateError) else DeviceCause.LOAD_FAILED
            problems.append(Unloadable(slot, cause, _in_full(error)))
    return None, problems
