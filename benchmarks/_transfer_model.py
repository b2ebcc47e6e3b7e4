"""A model whose file is as large as one likes: a tiny net, and random bytes that it carries."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.signature import Signature, TensorSpec
from schemas.transfer import CHUNK_BYTES, leaves_digest, leaves_of

FEATURES, CLASSES = 4, 3


@dataclass(frozen=True, slots=True)
class Package:
    """A version: its manifest as JSON, and the files by SHA-256."""

    manifest: bytes
    files: dict[str, bytes]


def package(name: str, padding: int, seed: int) -> Package:
    """A version of a model, with so many random bytes in its file."""
    model = _model(padding, seed)
    golden = _golden(model)
    variant = Variant(
        id="fp32",
        precision="fp32",
        scheme="none",
        opset=20,
        file=_file("model.onnx", model),
        golden=Golden(file=_file("golden.npz", golden), samples=4, tolerance=1e-3),
        accuracy=(Accuracy(value=0, n=1, low=0, high=1, split="none", set_sha256="0" * 64),),
    )
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES), range=(-100, 100)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, CLASSES)),),
    )
    manifest = Manifest(model=name, signature=signature, variants=(variant,))
    files = {hashlib.sha256(data).hexdigest(): data for data in (model, golden)}
    return Package(manifest.model_dump_json().encode(), files)


def _model(padding: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    noise = rng.integers(0, 256, size=padding, dtype=np.uint8)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["raw"]),
            helper.make_node("Softmax", ["raw"], ["y"], axis=-1),
            helper.make_node("Identity", ["noise"], ["unused"]),
        ],
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(noise, "noise")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _golden(model: bytes) -> bytes:
    x = np.random.default_rng(0).uniform(0.1, 3, size=(4, FEATURES)).astype(np.float32)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    buffer = io.BytesIO()
    np.savez(buffer, in_0=x, out_0=session.run(None, {"x": x})[0])
    return buffer.getvalue()


def _file(path: str, data: bytes) -> ModelFile:
    blocks = (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))
    return ModelFile(
        path=path,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        leaves_sha256=leaves_digest(leaves_of(blocks)),
    )
