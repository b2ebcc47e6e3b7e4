"""Models made elsewhere, from the file to the package; hostile ones are refused in the job."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from edge_client.inference import load_model
from edge_client.probe import check_golden, read_golden
from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.signature import TensorSpec
from tests.fakes.edge_models import linear_onnx, quantized_onnx, samples
from tests.fakes.hostile_onnx import (
    FLOAT,
    GUARDED,
    INT,
    RUNNING,
    constant,
    lying_npz,
    model,
    node,
    npz_bomb,
    plain,
)
from workers.errors import JobFailed
from workers.optimization.executor import LocalExecutor
from workers.optimization.importing import given, imported, smoke
from workers.optimization.importing.given import read_given
from workers.optimization.importing.imported import build_imported, precision_of
from workers.optimization.importing.imported_costs import cost_of_each
from workers.optimization.importing.smoke import Limits

SMALL = Limits(memory_bytes=2 * 1024**3, cpu_seconds=3, wall_seconds=60)


def spec_of(content: bytes, **more) -> JobSpec:
    digest = hashlib.sha256(content).hexdigest()
    source = {"file": digest, "size": max(1, len(content)), **more}
    return JobSpec.model_validate({"name": "foreign", "onnx": source})


def build(tmp_path: Path, content: bytes, *, limits: Limits | None = SMALL, **more):
    file = tmp_path / "fetched"
    file.write_bytes(content)
    states: list[JobState] = []
    package = build_imported(
        spec_of(content, **more),
        file,
        tmp_path / "package",
        enter=states.append,
        executor=LocalExecutor(),
        limits=limits,
    )
    return package, states


def serve(package, variant) -> None:
    """What a device does: load it, and run its golden vectors."""
    data = (package.folder / variant.file.path).read_bytes()
    served = load_model(data, package.manifest, variant.id)
    arrays = read_golden((package.folder / variant.golden.file.path).read_bytes())
    check_golden(served, variant.golden, arrays)


@pytest.fixture
def quick(monkeypatch):
    """Times that nobody reads need few rounds."""
    from workers.optimization.importing import imported_variants

    def few(models, feed):
        return cost_of_each(models, feed, rounds=1, starts=1)

    monkeypatch.setattr(imported_variants, "cost_of_each", few)


def test_a_model_without_samples_is_packed_as_it_came(tmp_path, quick):
    data = linear_onnx()
    package, states = build(tmp_path, data, name="net.onnx", labels=["a", "b", "c"])
    manifest = package.manifest
    assert states == [JobState.EXPORTING, JobState.OPTIMIZING]
    assert [v.id for v in manifest.variants] == ["fp32"]
    assert (package.folder / manifest.variants[0].file.path).read_bytes() == data
    assert manifest.signature.inputs[0].shape == (-1, 4)
    assert manifest.signature.outputs[0].shape == (-1, 3)
    assert manifest.lineage.source == "net.onnx"
    assert manifest.lineage.source_sha256 == hashlib.sha256(data).hexdigest()
    assert manifest.variants[0].accuracy == ()
    assert manifest.variants[0].golden.samples == 16
    serve(package, manifest.variants[0])


def test_weights_alone_are_quantized_on_demand(tmp_path, quick):
    big = model(
        [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])],
        [
            constant("w", np.random.default_rng(0).normal(size=(4, 512)), np.float32),
            constant("v", np.random.default_rng(1).normal(size=(512, 64)), np.float32),
        ],
    )
    package, _ = build(tmp_path, big, dynamic=True)
    by_id = {v.id: v for v in package.manifest.variants}
    assert set(by_id) == {"fp32", "int8-dynamic"}
    assert by_id["int8-dynamic"].file.size < 0.5 * by_id["fp32"].file.size
    (made,) = (p for p in package.manifest.lineage.passes if p.name == "quantize_dynamic")
    assert 0 < made.parameters["max_abs_difference"] < 10
    for variant in package.manifest.variants:
        serve(package, variant)


def stateful() -> bytes:
    """Several inputs, one a scalar, none with the batch alone in front; two outputs."""
    graph = helper.make_graph(
        [
            node("Add", ["x", "state"], ["sum"]),
            node("Cast", ["rate"], ["r"], to=FLOAT),
            node("Mul", ["sum", "r"], ["y"]),
            node("Identity", ["sum"], ["next"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, ["n", 8]),
            helper.make_tensor_value_info("state", FLOAT, [1, "n", 8]),
            helper.make_tensor_value_info("rate", INT, []),
        ],
        [
            helper.make_tensor_value_info("y", FLOAT, [1, "n", 8]),
            helper.make_tensor_value_info("next", FLOAT, [1, "n", 8]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def test_a_model_of_several_inputs_reaches_a_device_and_says_what_is_not_served(
    tmp_path, quick, caplog
):
    caplog.set_level("INFO")
    package, _ = build(tmp_path, stateful())
    manifest = package.manifest
    assert [s.name for s in manifest.signature.inputs] == ["x", "state", "rate"]
    assert [s.shape for s in manifest.signature.inputs] == [(-1, 8), (1, -1, 8), ()]
    assert [s.shape for s in manifest.signature.outputs] == [(1, -1, 8)] * 2
    assert "3 inputs" in caplog.text
    serve(package, manifest.variants[0])


def test_samples_are_scored_and_lead_to_quantized_variants(tmp_path):
    x = samples(400, seed=5)
    data = linear_onnx(seed=2)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": x})[0].argmax(axis=1)
    y[::10] = (y[::10] + 1) % 3  # it is right in nine of ten cases
    np.savez(tmp_path / "data.npz", x=x, y=y)
    package, _ = build(tmp_path, data, data=str(tmp_path / "data.npz"), labels=["a", "b", "c"])
    manifest = package.manifest
    reference = manifest.variant("fp32")
    test = reference.accuracy_on("test")
    assert test.n == 160
    assert reference.accuracy_on("validation").n == 160
    assert abs(test.value - 0.9) < 0.06
    assert test.outcomes is not None
    assert manifest.baseline is not None
    assert manifest.lineage.dataset_sha256
    tried = {v.id for v in manifest.variants} | {r.id for r in manifest.rejected}
    assert any(name.startswith("int8") for name in tried)
    for variant in manifest.variants:
        serve(package, variant)


def test_a_quantized_file_is_known_as_one():
    assert precision_of(quantized_onnx()) == "int8"
    assert precision_of(linear_onnx()) == "fp32"
    half = constant("w", np.eye(4), np.float16)
    assert precision_of(model([node("MatMul", ["x", "w"], ["y"])], [half])) == "fp16"


@pytest.mark.parametrize("case", GUARDED, ids=lambda case: case.name)
def test_a_hostile_file_is_refused_before_anything_opens_it(tmp_path, monkeypatch, case):
    started: list[object] = []
    monkeypatch.setattr(imported, "smoke", lambda *a, **_: started.append(a))
    with pytest.raises(JobFailed, match=case.says) as refused:
        build(tmp_path, case.build(), name="third party.onnx")
    assert refused.value.cause is JobCause.USER_CODE
    assert "third party.onnx is refused" in refused.value.detail
    assert not started
    assert not list((tmp_path / "package").iterdir())


@pytest.mark.parametrize("case", RUNNING, ids=lambda case: case.name)
def test_what_only_running_shows_ends_in_the_limits_of_its_first_run(tmp_path, case):
    with pytest.raises(JobFailed, match=case.says) as refused:
        build(tmp_path, case.build(), name="third party.onnx")
    assert refused.value.cause is JobCause.USER_CODE


def test_what_is_not_served_is_said(tmp_path):
    text = helper.make_graph(
        [node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.STRING, ["n"])],
    )
    made = helper.make_model(text, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(JobFailed, match="only tensors of numbers are served"):
        build(tmp_path, made.SerializeToString())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "z"}, "has the inputs 'x', and the signature names 'z'"),
        ({"dtype": "float64"}, r"takes float32.* the signature says float64"),
        ({"shape": [-1, 5]}, r"the signature says float32\[-1, 5\]"),
        ({"range": [-1e39, 1e39]}, "gives NaN or an infinity"),
    ],
)
def test_a_signature_must_be_the_files(tmp_path, changed, says):
    signature = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 4], **changed}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [-1, 3]}],
    }
    with pytest.raises(JobFailed, match=says):
        build(tmp_path, linear_onnx(), signature=signature)


def test_other_bytes_than_the_job_names_are_refused(tmp_path):
    (tmp_path / "fetched").write_bytes(plain())
    with pytest.raises(JobFailed, match="other bytes"):
        build_imported(
            spec_of(linear_onnx()),
            tmp_path / "fetched",
            tmp_path / "package",
            enter=lambda _: None,
            executor=LocalExecutor(),
        )


SPEC = TensorSpec(name="x", dtype="float32", shape=(-1, 4))


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (lambda: npz_bomb(64), "x would need 64 MiB; at most 16 are read"),
        (lying_npz, "x would need 65,536 MiB"),
        (lambda: b"PK\x03\x04 not one", "cannot be read"),
        (lambda: packed(x=samples(20)), "no array 'y'"),
        (lambda: packed(x=samples(20), y=np.zeros(19, np.int64)), "20 inputs and 19 classes"),
        (lambda: packed(x=samples(20), y=np.zeros(20)), "one whole number each"),
        (lambda: packed(x=samples(20)[:, :3], y=np.zeros(20, np.int64)), r"x is float32\[20, 3\]"),
        (lambda: packed(x=np.array([{}] * 20), y=np.zeros(20, np.int64)), "objects, not numbers"),
    ],
    ids=["bomb", "lying", "garbage", "no y", "lengths", "floats", "shape", "pickle"],
)
def test_samples_that_are_none_are_refused(tmp_path, monkeypatch, archive, says):
    monkeypatch.setattr(given, "MAX_DATA_BYTES", 16 * 1024**2)
    path = tmp_path / "data.npz"
    path.write_bytes(archive())
    with pytest.raises(JobFailed, match=says) as refused:
        read_given(str(path), SPEC)
    assert refused.value.cause is JobCause.BAD_DATA


def packed(**arrays) -> bytes:
    import io

    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_samples_of_a_model_without_classes_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=samples(20), y=np.zeros(20, np.int64))
    with pytest.raises(JobFailed, match=r"accuracy is measured of models with one input") as failed:
        build(tmp_path, stateful(), data=str(tmp_path / "data.npz"))
    assert failed.value.cause is JobCause.BAD_DATA


def test_the_first_run_sees_no_secret_and_no_folder_of_the_job(monkeypatch):
    monkeypatch.setenv("ARGOSY_JOB_TOKEN", "arg_secret")
    seen = smoke._environment("/empty")
    assert "arg_secret" not in json.dumps(seen)
    assert seen["HOME"] == "/empty"
    assert os.environ["ARGOSY_JOB_TOKEN"] == "arg_secret"
