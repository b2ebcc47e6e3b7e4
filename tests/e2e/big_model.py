"""A real ONNX model of a size of one's choice, packed as a version."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.signature import Signature, TensorSpec
from schemas.transfer import CHUNK_BYTES, leaves_digest, leaves_of

CLASSES = 10


def model_bytes(megabytes: float, seed: int) -> bytes:
    """A two-layer net on 8 by 8 images with random weights of about that size."""
    hidden = int(megabytes * 1024**2 / 4 / (64 + CLASSES))
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(64, hidden)).astype(np.float32) / 8
    second = rng.normal(size=(hidden, CLASSES)).astype(np.float32) / 100
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["v"]),
        helper.make_node("MatMul", ["v", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["l"]),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def golden_bytes(model: bytes) -> bytes:
    """What the model really answers to four images, as the npz of a package."""
    x = np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8), dtype=np.uint8)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    buffer = io.BytesIO()
    np.savez(buffer, in_0=x, out_0=session.run(None, {"x": x})[0])
    return buffer.getvalue()


def file_of(path: str, data: bytes) -> ModelFile:
    blocks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    return ModelFile(
        path=path,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        leaves_sha256=leaves_digest(leaves_of(blocks)),
    )


def package(name: str, model: bytes, golden: bytes) -> Manifest:
    """A manifest with the model as its only variant."""
    return Manifest(
        model=name,
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype="uint8", shape=(-1, 1, 8, 8), range=(0, 16)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, CLASSES)),),
        ),
        variants=(
            Variant(
                id="fp32",
                precision="fp32",
                scheme="none",
                opset=20,
                file=file_of("model.onnx", model),
                accuracy=(
                    Accuracy(value=0.1, n=10, low=0, high=1, split="none", set_sha256="0" * 64),
                ),
                golden=Golden(file=file_of("golden.npz", golden), samples=4, tolerance=1e-3),
            ),
        ),
    )


def register(client, name: str, megabytes: float, seed: int = 0) -> Manifest:
    """Upload and register over the public API."""
    model = model_bytes(megabytes, seed)
    golden = golden_bytes(model)
    for data in (model, golden):
        digest = hashlib.sha256(data).hexdigest()
        answer = client.put(f"/v1/artifacts/{digest}", content=data, timeout=60)
        answer.raise_for_status()
    manifest = package(name, model, golden)
    answer = client.post(f"/v1/models/{name}/versions", json=manifest.model_dump(mode="json"))
    answer.raise_for_status()
    return manifest
