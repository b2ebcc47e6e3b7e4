"""Quantized forms of an exported graph, each for an instruction set.

Static: activations and weights get 8 bits after training, per channel, with ranges from real
training samples (Jacob et al., CVPR 2018, as implemented by ONNX Runtime). Dynamic: weights
alone, activations as they come. FP16: the same graph in half precision. Which operators stay
in float is the caller's choice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

from workers.files import write_atomic
from workers.optimization.point import SchemeName, normal_arch
from workers.optimization.quantizing.layers import (
    QUANTIZED,
    Layer,
    layers_of,
    name_nodes,
    stacked_products,
    wants_dynamic,
)
from workers.optimization.session import Array, batches, fixed_batch, open_session

CALIBRATION_BATCH = 32

PER_CHANNEL_OPSET = 13
"""Below it the graph of weights quantized per channel cannot be loaded."""

CONVERTED_OPSET = 17


@dataclass(frozen=True, slots=True)
class Kind:
    """How a static scheme quantizes.

    activations_signed: S8 rather than U8. reduce_range: weights of 7 bits: without VNNI the
    16-bit sums of vpmaddubsw saturate with 8.
    """

    activations_signed: bool
    reduce_range: bool


STATIC: dict[str, Kind] = {
    "u8s8": Kind(activations_signed=False, reduce_range=False),
    "u8s8-7bit": Kind(activations_signed=False, reduce_range=True),
    "s8s8": Kind(activations_signed=True, reduce_range=False),
}
"""x86 multiplies U8 by S8, ARM64 has kernels for S8 by S8; other pairs fall back to float."""


class Quantizer:
    """One FP32 graph, made ready once; every form of it is made from the same ranges.

    Args:
        source: a single-file FP32 ONNX model with one input.
        calibration: real training inputs, (n, …), never evaluation ones; None: no static form.
        folder: for the prepared graph and the ranges; the caller removes it.
    """

    def __init__(self, source: Path, calibration: Array | None, folder: Path) -> None:
        self.source = source
        self._calibration = calibration
        self._ranges = folder / "ranges.json"
        self.prepared = folder / "prepared.onnx"
        with _quiet():
            prepare(source, self.prepared)
        graph = onnx.load(self.prepared).graph
        self.layers: tuple[Layer, ...] = layers_of(graph)
        self.forced = tuple(stacked_products(graph))
        self.dynamic = wants_dynamic(graph)
        self._input = graph.input[0].name
        self._present = {node.op_type for node in graph.node}
        self._nodes = {node.name for node in graph.node if node.op_type in QUANTIZED}

    def static(
        self,
        target: Path,
        scheme: SchemeName,
        float_nodes: Sequence[str] = (),
        *,
        only: Sequence[str] | None = None,
    ) -> None:
        """Write a static form.

        Args:
            target: where to.
            scheme: of ``STATIC``.
            float_nodes: operators to leave in float.
            only: of the others, those to quantize; None: all.

        Raises:
            ValueError: there is nothing to calibrate with, or an operator is not there.
        """
        if self._calibration is None and not self._ranges.exists():
            msg = "static quantization needs samples of the training data"
            raise ValueError(msg)
        if unknown := set(float_nodes) - self._nodes:
            msg = f"the graph has no operator {min(unknown)!r} that could stay in float"
            raise ValueError(msg)
        kind = STATIC[scheme]
        keep = set(float_nodes) if only is None else self._nodes - set(only)
        with _quiet(), TemporaryDirectory(prefix="argosy-int8-") as scratch:
            raw = Path(scratch) / "int8.onnx"
            quantize_static(
                str(self.prepared),
                str(raw),
                self._reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=kind.reduce_range,
                activation_type=QuantType.QInt8 if kind.activations_signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=[name for name in QUANTIZED if name in self._present],
                nodes_to_exclude=sorted(keep | set(self.forced)),
                calibration_cache_path=self._ranges,
            )
            write_atomic(target, raw.read_bytes())

    def dynamic_to(self, target: Path, arch: str, float_nodes: Sequence[str] = ()) -> None:
        """Write the form whose weights alone are quantized.

        arch: whose processors are to run it; on x86 weights get 7 bits (see ``Kind``).
        """
        with _quiet(), TemporaryDirectory(prefix="argosy-int8-") as scratch:
            bare, raw = Path(scratch) / "bare.onnx", Path(scratch) / "int8.onnx"
            model = onnx.load(self.prepared)
            # Shapes that the exporter noted make the quantizer fail on its own tensors.
            model.graph.ClearField("value_info")
            onnx.save(model, bare)
            quantize_dynamic(
                str(bare),
                str(raw),
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=normal_arch(arch) == "x86_64",
                nodes_to_exclude=sorted({*float_nodes, *self.forced}),
            )
            write_atomic(target, raw.read_bytes())

    def ranges(self) -> dict[str, tuple[float, float]]:
        """What the calibration found of each tensor: lowest and highest value.

        Empty before the first static form.
        """
        if not self._ranges.exists():
            return {}
        from onnxruntime.quantization.quant_utils import load_tensors_data  # noqa: PLC0415 - rare

        found = load_tensors_data(self._ranges)
        return {
            name: (float(found[name].range_value[0]), float(found[name].range_value[1]))
            for name in found.keys()  # noqa: SIM118 - no mapping
        }

    def _reader(self) -> CalibrationDataReader | None:
        if self._ranges.exists() or self._calibration is None:
            return None
        fixed = fixed_batch(open_session(self.prepared))
        size = fixed or CALIBRATION_BATCH
        if fixed is not None and len(self._calibration) < fixed:
            msg = f"the graph takes batches of {fixed}, there are {len(self._calibration)} samples"
            raise ValueError(msg)
        whole = len(self._calibration) // size * size if fixed else len(self._calibration)
        return _Reader(self._input, self._calibration[:whole], size)


class _Reader(CalibrationDataReader):  # type: ignore[misc] # comes without types
    def __init__(self, name: str, x: Array, size: int) -> None:
        self._parts: Iterator[Array] = batches(x, size)
        self._name = name

    def get_next(self) -> dict[str, Array] | None:
        part = next(self._parts, None)
        return None if part is None else {self._name: part}


def prepare(source: Path, target: Path) -> None:
    """Fold constants and batch norms, infer shapes, and give every node a name."""
    model = onnx.load(source)
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    if opset < PER_CHANNEL_OPSET:
        model = version_converter.convert_version(model, CONVERTED_OPSET)
        onnx.save(model, target)
        source = target
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    model = onnx.load(target)
    name_nodes(model.graph)
    onnx.save(model, target)


def to_fp16(source: Path, target: Path) -> None:
    """Write a graph in half precision; its inputs and outputs stay as they are.

    Raises:
        ImportError: ONNX Runtime came without its converter.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - rare

    with _quiet():
        half = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    write_atomic(target, half.SerializeToString())


def quantize(
    source: Path,
    target: Path,
    scheme: SchemeName,
    calibration: Array,
    float_nodes: Sequence[str] = (),
) -> None:
    """One static form of a graph, where no other is wanted; see ``Quantizer``."""
    with TemporaryDirectory(prefix="argosy-int8-") as folder:
        Quantizer(source, calibration, Path(folder)).static(target, scheme, float_nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs to the root; a job's log is for the job."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
