"""Small real ONNX models, packaged as a version is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edge_client.inference import Loaded, load_model
from edge_client.slots import Pointer, Pointers, Slot
from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Requires, Variant
from schemas.signature import Signature, TensorSpec
from schemas.transfer import CHUNK_BYTES, leaves_digest, leaves_of

FEATURES, CLASSES = 4, 3


def model_file(name: str, data: bytes) -> ModelFile:
    return ModelFile(
        path=name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        leaves_sha256=leaves_digest(leaves_of(blocks(data))),
    )


def blocks(data: bytes) -> list[bytes]:
    return [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]


def linear_onnx(seed: int = 0, *, padding: int = 0, log_input: bool = False) -> bytes:
    """softmax(x @ w), [n, 4] → [n, 3]. padding: bytes of weights that do nothing.

    log_input: the logarithm of x first, so that a negative input gives NaN.
    """
    rng = np.random.default_rng(seed)
    weights = numpy_helper.from_array(
        rng.normal(size=(FEATURES, CLASSES)).astype(np.float32), "weights"
    )
    initializers, nodes = [weights], []
    first = "x"
    if log_input:
        nodes.append(helper.make_node("Log", ["x"], ["logged"]))
        first = "logged"
    nodes += [
        helper.make_node("MatMul", [first, "weights"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=-1),
    ]
    if padding:
        noise = rng.integers(0, 256, size=padding, dtype=np.uint8)
        initializers.append(numpy_helper.from_array(noise, "noise"))
        nodes.append(helper.make_node("Identity", ["noise"], ["unused"]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def slow_onnx(seed: int = 0, *, width: int = 512, depth: int = 60) -> bytes:
    """The shapes of ``linear_onnx``, by way of ``depth`` products with the same large matrix."""
    rng = np.random.default_rng(seed)
    constants = {
        "first": rng.normal(size=(FEATURES, width)).astype(np.float32),
        "wide": (rng.normal(size=(width, width)) / width**0.5).astype(np.float32),
        "last": rng.normal(size=(width, CLASSES)).astype(np.float32),
    }
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    for i in range(depth):
        nodes.append(helper.make_node("MatMul", [f"h{i}", "wide"], [f"p{i}"]))
        nodes.append(helper.make_node("Tanh", [f"p{i}"], [f"h{i + 1}"]))
    nodes += [
        helper.make_node("MatMul", [f"h{depth}", "last"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def unloadable_onnx(seed: int = 0) -> bytes:
    """Well formed, but of a product whose shapes do not fit: no runtime can load it."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(FEATURES + 1, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["probabilities"])],
        "unloadable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def quantized_onnx(seed: int = 0) -> bytes:
    """The same net with QDQ weights and activations: uint8 and int8."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    scale = np.float32(np.abs(weights).max() / 127)
    constants = {
        "w8": np.clip(np.round(weights / scale), -127, 127).astype(np.int8),
        "w_scale": scale,
        "w_zero": np.int8(0),
        "x_scale": np.float32(8 / 255),
        "x_zero": np.uint8(128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["w8", "w_scale", "w_zero"], ["wq"]),
        helper.make_node("MatMul", ["xq", "wq"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def run_onnx(data: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"x": x})[0]


def golden_npz(x: np.ndarray, y: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, in_0=x, out_0=y)
    return file.getvalue()


SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES), range=(-100, 100)),),
    outputs=(TensorSpec(name="probabilities", dtype="float32", shape=(-1, CLASSES)),),
)


def samples(n: int = 32, seed: int = 1) -> np.ndarray:
    """[n, 4] float32, all positive."""
    return np.random.default_rng(seed).uniform(0.1, 3, size=(n, FEATURES)).astype(np.float32)


@dataclass(frozen=True)
class Release:
    """A version with its bytes: the manifest's JSON, and the files by SHA-256."""

    manifest: bytes
    files: dict[str, bytes]
    onnx: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.manifest).hexdigest()


def release(
    onnx_bytes: bytes,
    *,
    name: str = "digits",
    variant: str = "fp32",
    golden_error: float = 0.0,
    requires: Requires | None = None,
    more: Iterable[tuple[str, bytes]] = (),
    promises: bytes | None = None,
) -> Release:
    """Package a model. golden_error is added to the golden outputs; promises: whose they are."""
    variants, files = [], {}
    for variant_id, data in ((variant, onnx_bytes), *more):
        x = samples(8)
        golden = golden_npz(x, run_onnx(promises or data, x) + np.float32(golden_error))
        model, vectors = model_file("model.onnx", data), model_file("golden.npz", golden)
        files |= {model.sha256: data, vectors.sha256: golden}
        accuracy = Accuracy(value=0.9, n=10, low=0.6, high=0.98, split="test", set_sha256="0" * 64)
        variants.append(
            Variant(
                id=variant_id,
                precision="int8" if variant_id == "int8" else "fp32",
                scheme="test",
                opset=20,
                file=model,
                requires=requires or Requires(),
                accuracy=(accuracy,),
                golden=Golden(file=vectors, samples=8, tolerance=1e-3),
            )
        )
    manifest = Manifest(
        model=name, signature=SIGNATURE, labels=("a", "b", "c"), variants=tuple(variants)
    )
    return Release(manifest.model_dump_json().encode(), files, onnx_bytes)


def loaded(data: bytes, version: int = 1, **more) -> Loaded:
    manifest = Manifest.model_validate_json(release(data, **more).manifest)
    slot = Slot(
        model="digits", version=version, variant="fp32", sha256="0" * 64, manifest_sha256="1" * 64
    )
    return Loaded(slot, load_model(data, manifest, "fp32"), manifest)


def pointing(*, active: Slot, fallback: Slot | None = None) -> Pointers:
    """A pointer file's content for one model."""
    return Pointers(models={active.model: Pointer(active=active, fallback=fallback)})
