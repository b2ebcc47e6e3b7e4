"""The process that a model from elsewhere runs in first; see ``smoke`` beside this.

It reads an order as JSON from standard input and answers with one line of JSON: what the
model takes and gives, or the reason why it cannot be used.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.signature import Signature, TensorSpec
from workers.optimization.importing.drawn import TooLargeError, concrete, draw
from workers.optimization.session import Array, open_session

SIZES = (1, 8, 32, 64, 128, 224, 256, 320, 512, 640, 1024)
"""Tried in turn for dimensions other than the batch that nobody fixed."""

_GIB = 1024**3
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
_BATCH = "batch"


class UnusableError(Exception):
    """Why the model cannot be used: the rest of a sentence that begins with it."""


@dataclass(frozen=True, slots=True)
class _Side:
    """A tensor as the file describes it: its size, or its name, per dimension."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


def main() -> int:
    """Do what standard input says."""
    order = json.loads(sys.stdin.read())
    # onnxruntime prints what it likes: the answer goes where nothing else goes.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    limits = order["limits"]
    _limit(limits)
    try:
        told = _try(Path(order["model"]), order["signature"], order["seed"])
    except UnusableError as error:
        told = {"reason": str(error)}
    except (MemoryError, TooLargeError) as error:
        told = {"reason": _memory(limits, str(error))}
    except Exception as error:  # noqa: BLE001 - onnxruntime's share no other base
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        out = "bad_alloc" in str(error) or "allocate memory" in str(error)
        told = {"reason": _memory(limits, "") if out else f"does not run: {first}"}
    print(json.dumps(told), file=answer, flush=True)
    return 0


def _limit(limits: Mapping[str, int]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    cpu = limits["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"], limits["memory_bytes"]))


def _memory(limits: Mapping[str, int], why: str) -> str:
    return f"needs more than {limits['memory_bytes'] / _GIB:g} GiB" + (f": {why}" if why else "")


def _try(model: Path, said: Any, seed: int) -> dict[str, Any]:
    signature = None if said is None else Signature.model_validate(said)
    session = open_session(model)
    inputs = [_side("input", node) for node in session.get_inputs()]
    outputs = _outputs(session, signature)
    specs = _specs(inputs, signature)
    names = [side.name for side in outputs]
    sizes = _first_sizes(session, inputs, specs, names, seed)
    one = _run(session, specs, sizes, names, seed)
    double = _doubled(inputs, specs, sizes)
    two = None if double is None else _both(session, specs, double, names, seed)
    found = [
        _given(side, one[side.name], None if two is None else two[side.name], open_=_open(specs))
        for side in outputs
    ]
    final = signature or Signature(inputs=tuple(specs), outputs=tuple(found))
    if signature is not None:
        _compare(signature.outputs, one)
    return {
        "signature": final.model_dump(mode="json"),
        "sizes": sizes,
        "batched": two is not None and _in_front(specs, one, two),
    }


def _side(what: str, node: Any) -> _Side:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        msg = (
            f"has the {what} {node.name!r} of type {node.type}; only tensors of numbers are served"
        )
        raise UnusableError(msg)
    open_ = (f"{node.name}:{i}" for i in range(len(node.shape)))
    dims = tuple(
        d if isinstance(d, int) and d > 0 else (d or n)
        for d, n in zip(node.shape, open_, strict=True)
    )
    return _Side(
        node.name, dtype, tuple(str(d) if not isinstance(d, int) or d < 1 else d for d in dims)
    )


def _outputs(session: Any, signature: Signature | None) -> list[_Side]:
    """What is to be computed: what the signature names, else every tensor of numbers."""
    nodes = session.get_outputs()
    if signature is None:
        usable = [node for node in nodes if node.type in _DTYPES]
        return [_side("output", node) for node in usable or nodes]
    by_name = {node.name: node for node in nodes}
    missing = [spec.name for spec in signature.outputs if spec.name not in by_name]
    if missing:
        msg = f"has no output {missing[0]!r}; it has {', '.join(map(repr, by_name))}"
        raise UnusableError(msg)
    return [_side("output", by_name[spec.name]) for spec in signature.outputs]


def _specs(inputs: list[_Side], signature: Signature | None) -> list[TensorSpec]:
    """The inputs, -1 where a size is open; a signature must fit the file."""
    if signature is None:
        return [
            TensorSpec.model_validate(
                {
                    "name": s.name,
                    "dtype": s.dtype,
                    "shape": [d if isinstance(d, int) else -1 for d in s.dims],
                }
            )
            for s in inputs
        ]
    said = {spec.name: spec for spec in signature.inputs}
    if set(said) != {side.name for side in inputs}:
        there = ", ".join(repr(side.name) for side in inputs)
        msg = f"has the inputs {there}, and the signature names {', '.join(map(repr, said))}"
        raise UnusableError(msg)
    for side in inputs:
        spec = said[side.name]
        fits = len(spec.shape) == len(side.dims) and all(
            not isinstance(there, int) or wanted in {-1, there}
            for wanted, there in zip(spec.shape, side.dims, strict=True)
        )
        if spec.dtype != side.dtype or not fits:
            msg = (
                f"takes {side.dtype}{list(side.dims)} as {side.name!r}, "
                f"and the signature says {spec.dtype}{list(spec.shape)}"
            )
            raise UnusableError(msg)
    return [said[side.name] for side in inputs]


def _first_sizes(
    session: Any, inputs: list[_Side], specs: list[TensorSpec], names: list[str], seed: int
) -> dict[str, list[int]]:
    """The concrete shapes that run, a single sample: open sizes are tried in turn."""
    problem: Exception | None = None
    for sizes in _guesses(inputs, specs):
        try:
            _run(session, specs, sizes, names, seed)
        except (MemoryError, UnusableError):
            raise
        except Exception as error:  # noqa: BLE001 - another size may do
            problem = problem or error
        else:
            return sizes
    if problem is None:
        msg = "could not be tried"
        raise UnusableError(msg)
    raise problem


def _guesses(inputs: list[_Side], specs: list[TensorSpec]) -> Iterator[dict[str, list[int]]]:
    batch = _batch_name(inputs, specs)
    for size in SIZES:
        yield {
            spec.name: [
                want if want != -1 else 1 if there == batch else size
                for want, there in zip(spec.shape, side.dims, strict=True)
            ]
            for side, spec in zip(inputs, specs, strict=True)
        }
        if not _open(specs):
            return


def _batch_name(inputs: list[_Side], specs: list[TensorSpec]) -> int | str | None:
    """What the file calls the batch: the first dimension of the first input, if it is open."""
    shape = specs[0].shape
    return inputs[0].dims[0] if shape and shape[0] == -1 else None


def _open(specs: list[TensorSpec]) -> bool:
    """Whether dimensions are open that are not the first of an input."""
    return any(-1 in spec.shape[1:] for spec in specs)


def _doubled(
    inputs: list[_Side], specs: list[TensorSpec], sizes: dict[str, list[int]]
) -> dict[str, list[int]] | None:
    """The same shapes with two samples; None where the batch is fixed.

    Where no input leaves more than one size open, that is the batch, wherever it stands.
    """
    batch = _batch_name(inputs, specs)
    if batch is None:
        return None
    single = all(spec.shape.count(-1) <= 1 for spec in specs)
    return {
        spec.name: [
            2 * size if want == -1 and (single or there == batch) else size
            for want, there, size in zip(spec.shape, side.dims, sizes[spec.name], strict=True)
        ]
        for side, spec in zip(inputs, specs, strict=True)
    }


def _both(
    session: Any, specs: list[TensorSpec], sizes: dict[str, list[int]], names: list[str], seed: int
) -> dict[str, Array]:
    """Two samples at once, which an open batch promises."""
    try:
        return _run(session, specs, sizes, names, seed)
    except (MemoryError, UnusableError, TooLargeError):
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0][:200]
        msg = f"does not run with two samples at once; say 1 for the batch in a signature: {first}"
        raise UnusableError(msg) from error


def _run(
    session: Any, specs: list[TensorSpec], sizes: dict[str, list[int]], names: list[str], seed: int
) -> dict[str, Array]:
    feed = draw([concrete(spec, tuple(sizes[spec.name])) for spec in specs], seed)
    outputs = dict(zip(names, session.run(names, feed), strict=True))
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            msg = (
                f"gives NaN or an infinity in {name!r} on drawn inputs; "
                "say the range of its inputs in a signature"
            )
            raise UnusableError(msg)
    return outputs


def _given(side: _Side, one: Array, two: Array | None, *, open_: bool) -> TensorSpec:
    """An output: a size is open where it differs between one and two samples, or may."""
    pairs = zip(side.dims, one.shape, (one if two is None else two).shape, strict=True)
    shape = [
        there if isinstance(there, int) else -1 if first != second or open_ else first
        for there, first, second in pairs
    ]
    return TensorSpec.model_validate({"name": side.name, "dtype": side.dtype, "shape": shape})


def _compare(said: tuple[TensorSpec, ...], outputs: dict[str, Array]) -> None:
    for spec in said:
        value = outputs[spec.name]
        fits = len(value.shape) == len(spec.shape) and all(
            want in {-1, got} for want, got in zip(spec.shape, value.shape, strict=True)
        )
        if value.dtype.name != spec.dtype or not fits:
            msg = (
                f"gives {value.dtype.name}{list(value.shape)} as {spec.name!r}, "
                f"and the signature says {spec.dtype}{list(spec.shape)}"
            )
            raise UnusableError(msg)


def _in_front(specs: list[TensorSpec], one: dict[str, Array], two: dict[str, Array]) -> bool:
    """Whether every input and output has the batch in front, and nothing else of it."""
    return all(spec.shape and spec.shape[0] == -1 for spec in specs) and all(
        value.ndim > 0 and two[name].shape == (2 * value.shape[0], *value.shape[1:])
        for name, value in one.items()
    )


if __name__ == "__main__":
    sys.exit(main())
