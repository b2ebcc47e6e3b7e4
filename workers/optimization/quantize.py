"""INT8: static quantization of the exported graph, chosen for an instruction set.

Activations and weights are quantized after training, per channel, with ranges from
real training samples (Jacob et al., CVPR 2018, as implemented by ONNX Runtime).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from schemas.measure import Accuracy
from workers.files import write_atomic
from workers.optimization.session import Array, batches

CALIBRATION_BATCH = 32

QUANTIZED = (
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Reshape",
    "Flatten",
    "Transpose",
)
"""Operators that run in INT8. Casting, scaling and softmax stay in float."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How to quantize. activations_signed: S8 rather than U8. reduce_range: 7-bit weights."""

    name: str
    arch: str
    activations_signed: bool
    reduce_range: bool


def choose_scheme(arch: str) -> Scheme:
    """The scheme whose kernels every processor of an architecture has.

    x86 multiplies U8 by S8. Without VNNI the 16-bit sums of vpmaddubsw saturate, so
    weights get 7 bits: a package goes to devices of which this machine knows only the
    architecture. ARM64 has S8 by S8 kernels.

    Args:
        arch: as ``platform.machine()`` says.
    """
    if arch.lower() in {"aarch64", "arm64"}:
        return Scheme("s8s8-qdq-per-channel", arch, activations_signed=True, reduce_range=False)
    return Scheme("u8s8-qdq-per-channel-7bit", arch, activations_signed=False, reduce_range=True)


class _Reader(CalibrationDataReader):  # type: ignore[misc] # comes without types
    def __init__(self, name: str, x: Array) -> None:
        self._parts: Iterator[Array] = batches(x, CALIBRATION_BATCH)
        self._name = name

    def get_next(self) -> dict[str, Array] | None:
        part = next(self._parts, None)
        return None if part is None else {self._name: part}


@dataclass(frozen=True, slots=True)
class Quantized:
    """preprocessed: the graph that was quantized (folded, shapes inferred), as bytes."""

    path: Path
    preprocessed: bytes


def quantize(source: Path, target: Path, scheme: Scheme, calibration: Array) -> Quantized:
    """Quantize ``source`` into ``target``.

    Args:
        source: a single-file FP32 ONNX model with one input.
        target: where to write.
        scheme: from ``choose_scheme``.
        calibration: real training inputs, (n, …), never evaluation ones.
    """
    quiet = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer logs to the root
    try:
        with tempfile.TemporaryDirectory(prefix="argosy-int8-") as folder:
            prepared = Path(folder) / "prepared.onnx"
            raw = Path(folder) / "int8.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(prepared).graph
            present = {node.op_type for node in graph.node}
            quantize_static(
                str(prepared),
                str(raw),
                _Reader(onnx.load(source).graph.input[0].name, calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=QuantType.QInt8 if scheme.activations_signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=[name for name in QUANTIZED if name in present],
                nodes_to_exclude=stacked_products(graph),
            )
            data = prepared.read_bytes()
            write_atomic(target, raw.read_bytes())
    finally:
        logging.getLogger().setLevel(quiet)
    return Quantized(target, data)


def stacked_products(graph: onnx.GraphProto) -> list[str]:
    """The MatMul nodes whose constant weights are several matrices, one per feature or head.

    ONNX Runtime's INT8 product takes scales per column of one matrix alone; with others it
    fails when it runs. They stay in FP32.
    """
    dims = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and any(dims.get(name, 2) > 2 for name in node.input)  # noqa: PLR2004 - a matrix
    ]


def accuracy_gate(reference: Accuracy, candidate: Accuracy, max_drop: float) -> str | None:
    """Why a variant is not kept, or None when it is good enough.

    Both figures must come from the same set. max_drop: 0..1, of accuracy.
    """
    if reference.set_sha256 != candidate.set_sha256:
        msg = "the two accuracies were not measured on the same samples"
        raise ValueError(msg)
    drop = reference.value - candidate.value
    if drop > max_drop:
        return (
            f"accuracy on {candidate.split} fell by {drop:.4f} "
            f"({reference.value:.4f} to {candidate.value:.4f}, n={candidate.n}), "
            f"allowed is {max_drop:.4f}"
        )
    return None
