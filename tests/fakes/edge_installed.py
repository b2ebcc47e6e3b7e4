"""A device's home with models that are active, as an agent leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_client.settings import Home
from edge_client.slots import Pointer, Pointers, Slot, write_pointers
from schemas.model import Manifest
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_models import Release, golden_npz, linear_onnx, model_file, release, run_onnx


def install(root: Path, *releases: Release, version: int = 1) -> Home:
    """Put releases into a home; the second of a model becomes its fallback."""
    home = Home(root)
    home.create()
    pointers: dict[str, list[Slot]] = {}
    for i, one in enumerate(releases):
        for sha256, data in one.files.items():
            (home.blobs / sha256).write_bytes(data)
        (home.manifests / f"{one.sha256}.json").write_bytes(one.manifest)
        manifest = Manifest.model_validate_json(one.manifest)
        variant = manifest.variants[0]
        slot = Slot(
            model=manifest.model,
            version=version + i,
            variant=variant.id,
            sha256=variant.file.sha256,
            manifest_sha256=one.sha256,
        )
        pointers.setdefault(manifest.model, []).append(slot)
    models = {name: Pointer(active=s[0], fallback=(*s, None)[1]) for name, s in pointers.items()}
    write_pointers(home.pointer, Pointers(models=models))
    return home


def flat_onnx(shape: tuple[int, ...], dtype: int = TensorProto.FLOAT) -> bytes:
    """softmax(flat x @ w): [n, *shape] → [n, 3]."""
    size = int(np.prod(shape))
    weights = np.random.default_rng(0).normal(size=(size, 3)).astype(np.float32) / 100
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["real"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info("x", dtype, ["n", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def release_of(data: bytes, golden: np.ndarray, **more: Any) -> Release:
    """A release of a graph from x to three probabilities. more: other fields of its manifest."""
    base = Manifest.model_validate_json(release(linear_onnx()).manifest)
    model = model_file("model.onnx", data)
    packed = golden_npz(golden, run_onnx(data, golden))
    vectors = model_file("golden.npz", packed)
    spec = TensorSpec(name="x", dtype=golden.dtype.name, shape=(-1, *golden.shape[1:]))
    variant = base.variants[0]
    kept = variant.golden.model_copy(update={"file": vectors, "samples": len(golden)})
    manifest = base.model_copy(
        update={
            "signature": Signature(inputs=(spec,), outputs=base.signature.outputs),
            "variants": (variant.model_copy(update={"file": model, "golden": kept}),),
            **more,
        }
    )
    files = {model.sha256: data, vectors.sha256: packed}
    return Release(manifest.model_dump_json().encode(), files, data)
