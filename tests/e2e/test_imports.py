"""Models of other people's packages: imported by a job, rolled out, run on a device.

They are found where the packages are installed, without importing those: file typing
(magika), the angle of a line of text (rapidocr), voice activity (silero-vad, which has a
state and two rates). Install them without what they depend on:
``pip install --no-deps -r tests/e2e/packages.txt``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import yaml

from edge_client import Edge
from schemas.enroll import TokenRequest
from schemas.job import JobState
from schemas.rollout import ExecState, RolloutSpec
from tests.e2e.conftest import alone, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Foreign:
    """A model of a package. file: within it. signature: where the file says too little."""

    name: str
    package: str
    file: str
    inputs: list[Mapping[str, Any]] = field(default_factory=list)
    outputs: list[Mapping[str, Any]] = field(default_factory=list)
    labels: str | None = None


def tensor(name: str, dtype: str, *shape: int, **more: Any) -> Mapping[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape), **more}


FILE_TYPES = Foreign(
    "file-types",
    "magika",
    "magika/models/standard_v3_3/model.onnx",
    labels="magika/models/standard_v3_3/config.min.json",
)
ANGLES = Foreign(
    "text-angle",
    "rapidocr-onnxruntime",
    "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    [tensor("x", "float32", -1, 3, 48, 192, range=[-1, 1])],
    [tensor("save_infer_model/scale_0.tmp_1", "float32", -1, 2)],
)
VOICE = Foreign(
    "voice",
    "silero-vad",
    "silero_vad/data/silero_vad.onnx",
    [
        tensor("input", "float32", -1, 576, range=[-1, 1]),
        tensor("state", "float32", 2, -1, 128),
        tensor("sr", "int64", range=[16000, 16000]),
    ],
    [tensor("output", "float32", -1, 1), tensor("stateN", "float32", 2, -1, 128)],
)
ALL = (FILE_TYPES, ANGLES, VOICE)


def located(package: str, file: str) -> Path:
    try:
        found = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        pytest.fail(f"{package} is not installed: `make setup`", pytrace=False)
    assert found.is_file(), found
    return found


@pytest.fixture(scope="module")
def platform():
    """A platform of its own: other tests count their devices."""
    for one in ALL:
        located(one.package, one.file)
    with alone() as running:
        yield running


@pytest.fixture(scope="module")
def client(platform):
    return platform.start()


@pytest.fixture(scope="module")
def devices(platform, client):
    """One for each model, in a class of its own, with inputs such as that model takes."""
    for one in ALL:
        source = platform.folder / f"{one.name}.npz"
        np.savez(source, **sensed(one))
        token = client.tokens.create(TokenRequest(device_class=one.name)).token
        enrolled = platform.enroll(client, one.name, token)
        assert enrolled.returncode == 0, enrolled.stderr
        more = ("--source", str(source), "--rate", "10", "--window", "1", "--no-bench")
        platform.run_device(one.name, *more)
    until(lambda: sum(d.presence == "ONLINE" for d in client.devices.list()) == len(ALL), 60)
    return {one.name: Edge(platform.folder / one.name) for one in ALL}


def sensed(one: Foreign, n: int = 8) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(1)
    if one is FILE_TYPES:
        return {"x": chance.integers(0, 257, (n, 2048)).astype(np.int32)}
    if one is ANGLES:
        return {"x": chance.uniform(-1, 1, (n, 3, 48, 192)).astype(np.float32)}
    return {
        "input": chance.uniform(-1, 1, (n, 576)).astype(np.float32),
        "state": np.zeros((n, 2, 1, 128), np.float32),
        "sr": np.full(n, 16000),
    }


def register(platform, one: Foreign) -> str:
    """Hand the file in as an operator does; the job's id."""
    args = [str(located(one.package, one.file)), "--name", one.name, "-o", "json"]
    if one.inputs:
        signature = platform.folder / f"{one.name}.yaml"
        signature.write_text(yaml.safe_dump({"inputs": one.inputs, "outputs": one.outputs}))
        args += ["--signature", str(signature)]
    if one.labels:
        labels = platform.folder / f"{one.name}.txt"
        known = json.loads(located(one.package, one.labels).read_text())["target_labels_space"]
        labels.write_text("\n".join(known))
        args += ["--labels", str(labels)]
    done = platform.argosy("model", "register", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["id"]


@pytest.fixture(scope="module")
def jobs(platform, client):
    """All three at once, in the order of the queue."""
    ids = {one.name: register(platform, one) for one in ALL}
    return {name: client.jobs.wait(job, timeout=400) for name, job in ids.items()}


def serving(client, job, device):
    """Roll a version out to its device, and give the model once it serves."""
    spec = RolloutSpec.model_validate(
        {
            "model": job.model,
            "version": job.version,
            "device_class": job.model,
            "waves": [{"percent": 100}],
        }
    )
    planned = client.rollouts.create(spec)
    client.rollouts.start(planned.id)

    def succeeded():
        (execution,) = [e for w in client.rollouts.get(planned.id).waves for e in w.executions]
        failed = {ExecState.FAILED, ExecState.REJECTED, ExecState.ROLLED_BACK}
        assert execution.state not in failed, execution
        return execution.state is ExecState.SUCCEEDED

    until(succeeded, 90)
    client.rollouts.abort(planned.id)
    return device.model()


def bare(one: Foreign) -> ort.InferenceSession:
    """The package's own file in onnxruntime, with nothing of ours around it."""
    path = str(located(one.package, one.file))
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def checked(one: Foreign, client, jobs, devices):
    job = jobs[one.name]
    assert job.state is JobState.SUCCEEDED, job.detail
    manifest = client.models.version(job.model, job.version).manifest
    source = located(one.package, one.file)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest.lineage.source == source.name
    assert manifest.lineage.source_sha256 == digest
    assert manifest.lineage.job == job.id
    assert manifest.variants[0].benchmarks[0].runs > 0
    model = serving(client, job, devices[one.name])
    assert model.slot.sha256 == digest
    return model


def test_file_types_are_told_on_the_device(client, jobs, devices):
    model = checked(FILE_TYPES, client, jobs, devices)
    content = Path(__file__).read_bytes().strip()
    x = np.full((1, 2048), 256, np.int32)
    x[0, :1024] = np.frombuffer(content[:1024], np.uint8)
    x[0, 1024:] = np.frombuffer(content[-1024:], np.uint8)
    found = model.predict(x)
    assert found.label() == "python"
    expected = bare(FILE_TYPES).run(None, {"bytes": x})[0]
    np.testing.assert_allclose(found.outputs["target_label"], expected, atol=1e-6)


def test_the_angle_of_text_is_told_on_the_device(client, jobs, devices):
    model = checked(ANGLES, client, jobs, devices)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3, 48, 192)).astype(np.float32)
    found = model.predict(x)
    expected = bare(ANGLES).run(None, {"x": x})[0]
    np.testing.assert_allclose(next(iter(found.outputs.values())), expected, atol=1e-5)
    assert found.n == 4


def test_a_model_with_a_state_hears_on_from_where_it_was(client, jobs, devices):
    model, session = checked(VOICE, client, jobs, devices), bare(VOICE)
    state = mine = np.zeros((2, 1, 128), np.float32)
    rate = np.array(16000, np.int64)
    chance = np.random.default_rng(0)
    for _ in range(3):
        sound = chance.uniform(-0.5, 0.5, (1, 576)).astype(np.float32)
        found = model.predict({"input": sound, "state": mine, "sr": rate}).outputs
        expected, state = session.run(None, {"input": sound, "state": state, "sr": rate})
        mine = found["stateN"]
        np.testing.assert_allclose(found["output"], expected, atol=1e-5)
        np.testing.assert_allclose(mine, state, atol=1e-5)
