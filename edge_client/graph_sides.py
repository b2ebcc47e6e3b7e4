"""A graph's inputs and outputs, as ONNX Runtime tells them, against the signature."""

from __future__ import annotations

from typing import Any

from edge_client.errors import LoadError
from schemas.signature import TensorSpec

_ORT_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}


def batched(inputs: list[Any]) -> tuple[str, ...]:
    """The inputs whose first axis bears the name that the first input's does."""
    first = inputs[0].shape[:1]
    if not first or not isinstance(first[0], str):
        return ()
    return tuple(node.name for node in inputs if node.shape[:1] == first)


def apart(inputs: list[Any], outputs: list[Any]) -> bool:
    """Whether samples of several requests come apart again after one run, as the graph says.

    Not where inputs have batches of their own, where an output's rows are something else than
    samples (the boxes that were found, say), or where a side of an output may depend on what
    else is in the batch. Axes without a name are taken for the batch in front, else not.
    """
    front, *others = (node.shape[:1] for node in inputs)
    batch = front[0] if front else 0
    if isinstance(batch, int) or (others and (batch is None or any(f != front for f in others))):
        return False
    sides = {side for node in inputs for side in node.shape[1:]} - {batch, None}
    for node in outputs:
        first, rest = node.shape[:1], node.shape[1:]
        if not first or (None not in {first[0], batch} and first[0] != batch):
            return False
        if any(not isinstance(side, int) and side not in sides for side in rest):
            return False
    return True


def compare(side: str, specs: tuple[TensorSpec, ...], actual: list[Any]) -> None:
    """See that the graph's inputs or outputs (``side``) are what the signature says.

    Raises:
        LoadError: they are not.
    """
    found = {node.name: node for node in actual}
    if side == "input" and set(found) != {spec.name for spec in specs}:
        msg = f"the file has inputs {sorted(found)}, the signature says otherwise"
        raise LoadError(msg)
    for spec in specs:
        node = found.get(spec.name)
        if node is None:
            msg = f"the file has no {side} {spec.name}"
            raise LoadError(msg)
        dtype = _ORT_TYPES.get(node.type)
        if dtype != spec.dtype or not _same_shape(spec.shape, node.shape):
            msg = (
                f"{side} {spec.name} is {node.type}{node.shape} in the file and"
                f" {spec.dtype}{list(spec.shape)} in the signature"
            )
            raise LoadError(msg)


def _same_shape(spec: tuple[int, ...], actual: list[int | str | None]) -> bool:
    if len(spec) != len(actual):
        return False
    pairs = zip(spec, actual, strict=True)
    return all(not isinstance(b, int) or b <= 0 or a in {-1, b} for a, b in pairs)
