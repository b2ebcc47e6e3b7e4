"""What is exported for MLflow, MLflow itself loads: it gives what bare ONNX Runtime gives."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from argosy_fake_platform import State, model_file, variant, version_view

from orchestrator.client import Argosy
from orchestrator.client.export import MODEL, export
from orchestrator.errors import Conflict, DigestMismatch, Invalid
from schemas.measure import Golden
from schemas.model import Lineage, ModelVersionView
from schemas.signature import DType

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
mlflow = pytest.importorskip("mlflow")


def net() -> bytes:
    """uint8 images (n, 8, 8) to probabilities (n, 10), normalization and softmax inside."""
    rng = np.random.default_rng(7)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weights = rng.normal(size=(64, 10)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["f"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Div", ["f", "scale"], ["scaled"]),
            helper.make_node("Flatten", ["scaled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "digits",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", 8, 8])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(np.float32(255), "scale"),
            numpy_helper.from_array(weights, "w"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return made.SerializeToString()


@pytest.fixture
def golden() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    session = onnxruntime.InferenceSession(net(), providers=["CPUExecutionProvider"])
    return images, session.run(None, {"image": images})[0]


@pytest.fixture
def view(fake: State, golden: tuple[np.ndarray, np.ndarray]) -> ModelVersionView:
    archive = BytesIO()
    np.savez(archive, in_0=golden[0], out_0=golden[1])
    vectors = Golden(
        file=model_file(fake, "golden.npz", archive.getvalue()), samples=5, tolerance=1e-3
    )
    made = variant(fake, file=model_file(fake, "fp32.onnx", net()), golden=vectors)
    versions = {"python": "3.11.7", "onnx": onnx.__version__, "onnxruntime": "1.20.0"}
    return version_view(fake, 3, variants=(made,), lineage=Lineage(environment=versions))


def written(argosy: Argosy, view: ModelVersionView, folder: Path) -> Path:
    export(argosy.artifacts, view, view.manifest.variants[0], folder, "mlflow")
    return folder


def test_mlflow_loads_it_and_predicts_the_same(
    argosy: Argosy,
    view: ModelVersionView,
    tmp_path: Path,
    golden: tuple[np.ndarray, np.ndarray],
) -> None:
    folder = written(argosy, view, tmp_path / "out")
    images, expected = golden
    loaded = mlflow.pyfunc.load_model(str(folder))
    np.testing.assert_array_equal(loaded.predict({"image": images})["probabilities"], expected)
    raw = mlflow.onnx.load_model(str(folder))
    assert raw.graph.input[0].name == "image"
    with np.load(folder / "golden.npz") as vectors:
        answer = loaded.predict({"image": vectors["in_0"]})["probabilities"]
        np.testing.assert_array_equal(answer, vectors["out_0"])


def test_mlflow_reads_the_signature_and_enforces_it(
    argosy: Argosy, view: ModelVersionView, tmp_path: Path
) -> None:
    folder = written(argosy, view, tmp_path / "out")
    info = mlflow.models.get_model_info(str(folder))
    (given,), (got,) = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (given.name, given.type, given.shape) == ("image", np.dtype("uint8"), (-1, 8, 8))
    assert (got.name, got.type, got.shape) == ("probabilities", np.dtype("float32"), (-1, 10))
    assert info.metadata["argosy_version"] == "digits@3"
    loaded = mlflow.pyfunc.load_model(str(folder))
    with pytest.raises(mlflow.exceptions.MlflowException):
        loaded.predict({"image": np.zeros((2, 9, 9), np.uint8)})


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool"]
)
def test_every_dtype_of_a_signature_is_one_of_mlflows(fake: State, dtype: DType) -> None:
    from orchestrator.client.export import _tensor
    from schemas.signature import TensorSpec

    spec = TensorSpec(name="x", dtype=dtype, shape=(-1, 2))
    told: dict[str, Any] = dict(_tensor(spec))
    read = mlflow.types.TensorSpec.from_json_dict(**told)
    assert (read.name, read.type, read.shape) == ("x", np.dtype(dtype), (-1, 2))


def test_the_requirements_are_what_made_it(
    argosy: Argosy, view: ModelVersionView, tmp_path: Path
) -> None:
    folder = written(argosy, view, tmp_path / "out")
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines == ["mlflow>=2.10", f"onnx=={onnx.__version__}", "onnxruntime==1.20.0", "numpy"]


def test_the_same_version_gives_the_same_bytes(
    argosy: Argosy, view: ModelVersionView, tmp_path: Path
) -> None:
    one, other = written(argosy, view, tmp_path / "a"), written(argosy, view, tmp_path / "b")
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert all((one / n).read_bytes() == (other / n).read_bytes() for n in names)


def test_a_folder_with_something_in_it_is_left_alone(
    argosy: Argosy, view: ModelVersionView, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    written(argosy, view, tmp_path / "out")
    with pytest.raises(Conflict, match="is there already"):
        written(argosy, view, tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Conflict):
        written(argosy, view, tmp_path / "file")
    with pytest.raises(Invalid, match="cannot be written"):
        written(argosy, view, tmp_path / "file" / "below")


def test_nothing_is_left_of_an_export_that_failed(
    argosy: Argosy, fake: State, view: ModelVersionView, tmp_path: Path
) -> None:
    file = view.manifest.variants[0].file
    fake.served[file.sha256] = b"x" * file.size
    with pytest.raises(DigestMismatch, match=MODEL):
        written(argosy, view, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
