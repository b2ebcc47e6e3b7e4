"""A runtime of real models without a device around it, and the local server in front of it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_client.batching import Batcher, BatchSettings
from edge_client.inference import Loaded, load_model
from edge_client.meter import NoMeter
from edge_client.runtime import Runtime
from edge_client.server.addresses import parse_address
from edge_client.server.limits import Limits
from edge_client.server.local import LocalServer
from edge_client.slots import Slot
from schemas.measure import Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.signature import Signature, TensorSpec

_TYPES = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "bool": TensorProto.BOOL,
}


class Counting(NoMeter):
    """counted: (what, model) → samples."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def served(self, loaded, *, n, **_figures):
        self._count("served", loaded, n)

    def failed(self, loaded, n=1, **_more):
        self._count("failed", loaded, n)

    def rejected(self, loaded, n=1):
        self._count("rejected", loaded, n)

    def shed(self, loaded, n=1):
        self._count("shed", loaded, n)

    def _count(self, what, loaded, n):
        with self._lock:
            self.counted[what, loaded.slot.model] += n


class Models(Runtime):
    """A device's runtime. hold: inferences wait until it is set; begun: one has come so far."""

    def __init__(self, *models: Loaded) -> None:
        self.meter = Counting()
        super().__init__(self.meter)
        self.hold: threading.Event | None = None
        self.begun = threading.Event()
        for loaded in models:
            self.swap(loaded.slot.model, loaded)

    @property
    def counted(self) -> Counter[tuple[str, str]]:
        return self.meter.counted

    def infer(self, loaded, feed, **told):
        self.begun.set()
        if self.hold is not None:
            self.hold.wait(20)
        return super().infer(loaded, feed, **told)


@contextlib.contextmanager
def serving(
    *models: Loaded,
    addresses: tuple[str, ...] = ("127.0.0.1:0",),
    grpc: tuple[str, ...] = (),
    limits: Limits | None = None,
    batches: BatchSettings | None = None,
) -> Iterator[tuple[LocalServer, Models]]:
    """A running server with its models."""
    runtime = Models(*models)
    batcher = Batcher(runtime, batches)
    server = LocalServer(
        runtime,
        batcher,
        [parse_address(a) for a in addresses],
        grpc=[parse_address(a) for a in grpc],
        limits=limits,
    )
    server.start()
    try:
        yield server, runtime
    finally:
        server.stop()
        batcher.close()


def packaged(
    onnx_bytes: bytes, signature: Signature, *, name: str, version: int = 1, labels=(), **more
) -> Loaded:
    """A model of any signature, loaded."""
    sha256 = hashlib.sha256(onnx_bytes).hexdigest()
    file = ModelFile(path="model.onnx", size=len(onnx_bytes), sha256=sha256, leaves_sha256="0" * 64)
    variant = Variant(
        id="fp32",
        precision="fp32",
        scheme="test",
        opset=20,
        file=file,
        golden=Golden(file=file, samples=1, tolerance=1e-3),
    )
    manifest = Manifest(model=name, signature=signature, labels=labels, variants=(variant,), **more)
    digest = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    slot = Slot(model=name, version=version, variant="fp32", sha256=sha256, manifest_sha256=digest)
    return Loaded(slot, load_model(onnx_bytes, manifest, "fp32"), manifest)


def echo(dtype: str, *, name: str, version: int = 1) -> Loaded:
    """[n, 3] in, the same out."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "echo",
        [helper.make_tensor_value_info("x", _TYPES[dtype], ["n", 3])],
        [helper.make_tensor_value_info("y", _TYPES[dtype], ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype=dtype, shape=(-1, 3)),),
        outputs=(TensorSpec(name="y", dtype=dtype, shape=(-1, 3)),),
    )
    return packaged(model.SerializeToString(), signature, name=name, version=version)


def scaled(factor: float, *, version: int, name: str = "scale") -> Loaded:
    """[n, 3] times a factor: what answered can be told from the numbers."""
    constant = helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 3)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 3)),),
    )
    return packaged(model.SerializeToString(), signature, name=name, version=version)


def some(dtype: str, n: int = 4) -> np.ndarray:
    """[n, 3] values that every dtype can hold."""
    return (
        (np.arange(n * 3) % 2 if dtype == "bool" else np.arange(n * 3)).reshape(n, 3).astype(dtype)
    )
