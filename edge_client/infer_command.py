"""What ``argosy-edge infer`` does: one input, or a few, and what the model says of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_client.batch_arrays import IMAGES, is_batched
from edge_client.errors import InputError, UsageError
from edge_client.files import read_limited
from edge_client.inference import Array, Loaded, Prediction
from edge_client.ops import Postprocessor, Preprocessor
from edge_client.own_runtime import find_slot, own_runtime
from edge_client.sessions import SessionSettings
from edge_client.settings import MIB, Home
from edge_client.slots import require_pointers
from schemas.signature import TensorSpec

MAX_INPUT_BYTES = 256 * MIB
STDIN = "-"
_DAMAGED = (zipfile.BadZipFile, EOFError, RecursionError)


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says of one sample. outputs: where they were asked for, or are no scores."""

    input: str
    sample: int
    record: dict[str, Any]
    outputs: dict[str, Any] | None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        more = {} if self.outputs is None else {"outputs": self.outputs}
        return {"input": self.input, "sample": self.sample, **self.record, **more}


def split(home: Home, words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Which of the words is the model: the first, where it is one's name and not the only word.

    Raises:
        UsageError: there is no input.
    """
    names = {slot.model for slot in require_pointers(home.pointer).active}
    if len(words) > 1 and words[0] in names:
        return words[0], tuple(words[1:])
    if not words or (words[0] in names and not Path(words[0]).exists()):
        msg = "there is no input"
        raise UsageError(msg, hint="give npy, npz, json, png or jpg files, or - for JSON on stdin")
    if len(words) > 1 and words[0] != STDIN and names and not Path(words[0]).exists():
        msg = f"{words[0]} is neither a model of this device nor a file"
        raise UsageError(msg, hint=f"its models: {', '.join(sorted(names))}")
    return None, tuple(words)


def infer(
    home: Home,
    words: Sequence[str],
    stdin: bytes | None,
    *,
    version: str | None = None,
    raw: bool = False,
    telemetry: bool = True,
    say: Any,
) -> list[Said]:
    """Infer.

    Args:
        home: of the device.
        words: the model, where there are several, and inputs.
        stdin: what ``-`` stands for.
        version: as for ``find_slot``.
        raw: give outputs too.
        telemetry: count it.
        say: hears of what is not counted.

    Raises:
        EdgeError: it cannot be done; says for which input.
    """
    model, inputs = split(home, words)
    slot = find_slot(home, model, version)
    with own_runtime(home, slot, SessionSettings(), telemetry=telemetry, say=say) as runtime:
        loaded = runtime.loaded(slot.model)
        assert loaded is not None  # noqa: S101 - it was swapped in
        found = []
        for name in inputs:
            try:
                feed = read_input(name, stdin, loaded)
                prediction = runtime.predict(feed, model=slot.model)
            except InputError as error:
                msg = f"{name}: {error}"
                raise InputError(msg, hint=error.hint) from error
            found += say_of(name, prediction, loaded, raw=raw)
        return found


def read_input(name: str, stdin: bytes | None, loaded: Loaded) -> dict[str, Array]:
    """What a file, or stdin, gives the model.

    Raises:
        InputError: it cannot be read, or is not what the model takes.
    """
    path = Path(name)
    suffix = ".json" if name == STDIN else path.suffix.lower()
    try:
        data = (stdin or b"") if name == STDIN else read_limited(path, MAX_INPUT_BYTES)
        if suffix in IMAGES:
            return Preprocessor(loaded.manifest).prepare(data)
        if suffix == ".json":
            given = _json_arrays(data, loaded)
        elif suffix in {".npy", ".npz"}:
            given = _arrays(path, loaded)
        else:
            msg = "it is of no form that can be read"
            raise InputError(msg, hint="give npy, npz, json, png or jpg")
    except OSError as error:
        msg = f"it cannot be read: {error.strerror or error}"
        raise InputError(msg) from error
    except MemoryError as error:
        msg = "there is not enough memory for it"
        raise InputError(msg) from error
    except (ValueError, TypeError, OverflowError, *_DAMAGED) as error:
        msg = f"it cannot be read: {str(error).splitlines()[0] if str(error) else 'damaged'}"
        raise InputError(msg) from error
    specs = {spec.name: spec for spec in loaded.manifest.signature.inputs}
    batched = is_batched(loaded.manifest.signature)
    return {
        key: _with_batch(value, specs.get(key)) if batched else value
        for key, value in given.items()
    }


def say_of(name: str, prediction: Prediction, loaded: Loaded, *, raw: bool) -> list[Said]:
    """What a prediction says, sample by sample."""
    scored = prediction.scores is not None
    records: list[dict[str, Any]] = [{}] * prediction.n
    if scored:
        records = [f.record() for f in Postprocessor(loaded.manifest).finish(prediction)]
    outputs = prediction.outputs if raw or not scored else None
    return [
        Said(name, i, record, None if outputs is None else _sample(outputs, i, prediction.n))
        for i, record in enumerate(records)
    ]


def table(found: Sequence[Said]) -> list[str]:
    """For people: a line per sample, and one more for each further guess."""
    rows: list[tuple[str, ...]] = [("input", "class", "label", "probability")]
    for said in found:
        head = f"{said.input}[{said.sample}]"
        for guess in said.record.get("top", ()):
            known = said.record["class"] is not None
            label = guess["label"] or ""
            shown = label if known or head == "" else f"unknown ({label})"
            rows.append((head, str(guess["class"]), shown, f"{guess['probability']:.4f}"))
            head = ""
        if said.outputs is not None:  # as wide as they are: they set no column's width
            rows += [(head, f"{name} {value}") for name, value in said.outputs.items()]
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[i]) for row in full) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)) for row in rows)
    return [line.rstrip() for line in lines]


def _sample(outputs: dict[str, Array], i: int, n: int) -> dict[str, Any]:
    return {
        name: (value[i] if value.shape[:1] == (n,) else value).tolist()
        for name, value in outputs.items()
    }


def _json_arrays(data: bytes, loaded: Loaded) -> dict[str, Array]:
    specs = loaded.manifest.signature.inputs
    given = json.loads(data)
    if not isinstance(given, dict):
        if len(specs) > 1:
            msg = f"the model has {len(specs)} inputs: give an object with each by its name"
            raise InputError(msg)
        given = {specs[0].name: given}
    kinds = {spec.name: spec.dtype for spec in specs}
    return {str(name): np.array(value, kinds.get(name)) for name, value in given.items()}


def _arrays(path: Path, loaded: Loaded) -> dict[str, Array]:
    specs = loaded.manifest.signature.inputs
    with path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {specs[0].name: found}
        arrays = {name: found[name] for name in found.files}
    if len(arrays) == len(specs) == 1:
        return {specs[0].name: next(iter(arrays.values()))}
    return {name: value for name, value in arrays.items() if name != "y"}


def _with_batch(value: Array, spec: TensorSpec | None) -> Array:
    """One sample, where it comes without the batch, becomes a batch of one."""
    alone = spec is not None and value.ndim == len(spec.shape) - 1
    return value[None] if alone else value
