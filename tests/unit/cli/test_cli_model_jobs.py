"""Importing and optimizing: what is asked of the platform, and what is refused before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from argosy_fake_platform import State, job_view, model_file, variant, version_view

from orchestrator.errors import TooLarge
from schemas.job import JobState
from schemas.jobfile import JobSpec
from schemas.measure import MAX_FILE_BYTES
from schemas.model import Lineage
from schemas.signature import Signature

onnx = pytest.importorskip("onnx")

TRAINED = {
    "name": "digits", "task": "task:Digits", "seed": 7, "config": {"lr": 0.1, "layers": 2},
    "code": {"sha256": "c" * 64, "size": 9, "files": 1}, "stop": {"target": 0.9},
    "optimize": {"max_accuracy_drop": 0.01, "prune": [0.5]}, "promote": {"alias": "champion"},
    "sweep": {"config.lr": [0.1, 0.2]}, "resources": {"workers": 2},
}  # fmt: skip


@pytest.fixture
def net(tmp_path: Path) -> Path:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 4])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    made = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    path = tmp_path / "net.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def only_job(fake: State) -> JobSpec:
    ((view,),) = fake.jobs.values()
    return view.spec


def trained(fake: State, **fields: Any) -> None:
    job = job_view(JobState.SUCCEEDED, spec=JobSpec.model_validate(TRAINED))
    fake.jobs[job.id] = [job]
    fake.artifacts["c" * 64] = b"the code"
    lineage = Lineage(job=job.id, task="task:Digits", parameters={"config.lr": 0.2, "seed": 9})
    weights = model_file(fake, "weights.pt", b"weights")
    version_view(fake, 3, **{"lineage": lineage, "weights": weights, **fields})


def submitted(fake: State) -> JobSpec:
    (spec,) = (s[0].spec for s in fake.jobs.values() if s[0].spec.base or s[0].spec.onnx)
    return spec


def test_a_file_is_uploaded_and_its_job_queued(
    argosy: Any, fake: State, net: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n\n")
    data = tmp_path / "data.npz"
    data.write_bytes(b"PK")
    answer = argosy(
        "model", "register", str(net), "--name", "pets", "--labels", str(labels), "--data",
        str(data), "--dynamic", "--max-accuracy-drop", "0.01", "--alias", "next",
        "--class", "cam:max_size_mb=0.1,max_latency_ms=5", "--class", "gate:max-rss-mb=9",
    )  # fmt: skip
    assert (answer.code, answer.out.strip()) == (0, *fake.jobs), answer.err
    spec = only_job(fake)
    assert spec.onnx is not None
    assert fake.artifacts[spec.onnx.file] == net.read_bytes()
    assert (spec.onnx.name, spec.onnx.labels, spec.onnx.data) == (
        "net.onnx",
        ("cat", "dog"),
        str(data),
    )
    assert (spec.onnx.dynamic, spec.model_name, spec.promote.alias) == (True, "pets", "next")
    assert spec.optimize.classes["cam"].max_latency_ms == 5
    assert spec.optimize.classes["gate"].max_rss_mb == 9


def test_a_signature_is_read_as_it_is_downloaded(
    argosy: Any, fake: State, net: Path, tmp_path: Path
) -> None:
    view = version_view(fake, 1)
    argosy("model", "download", "digits@1", str(tmp_path / "d"))
    path = tmp_path / "d" / "signature.yaml"
    argosy("model", "register", str(net), "--name", "a", "--signature", str(path))
    assert only_job(fake).onnx.signature == view.manifest.signature  # type: ignore[union-attr]
    path.write_text("inputs:\n- {name: x, dtype: float33, shape: [-1]}\noutputs: []\n")
    answer = argosy("model", "register", str(net), "--name", "a", "--signature", str(path))
    assert answer.code == 2
    assert f"{path}:2: inputs.0.dtype: must be 'uint8'" in answer.err
    path.write_text("inputs:\n- {name: x, dtype: float32, shape: [-1], sahpe: 1}\noutputs: []\n")
    answer = argosy("model", "register", str(net), "--name", "a", "--signature", str(path))
    assert "sahpe" in answer.err
    assert isinstance(view.manifest.signature, Signature)


OTHERS = [
    (b"", "is empty"),
    (b"PK\x03\x04rest", "a zip archive"),
    (b"\x89HDF\r\n", "HDF5"),
    (b"\x1c\0\0\0TFL3", "LiteRT"),
    (b"\x80\x04\x95", "a pickle"),
    (b"{}", "JSON"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"hello world, this is text", "is refused"),
    (bytes((7 * i * i + 3) % 251 for i in range(300)), "is refused"),
]


@pytest.mark.parametrize(("raw", "words"), OTHERS)
def test_what_is_no_onnx_file_is_never_uploaded(
    argosy: Any, fake: State, tmp_path: Path, raw: bytes, words: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(raw)
    answer = argosy("model", "register", str(path), "--name", "a")
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.startswith("error: ")
    assert fake.seen == []


def test_files_that_cannot_be_taken(
    argosy: Any, fake: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    answer = argosy("model", "register", str(huge), "--name", "a")
    assert answer.code == TooLarge("").exit
    assert "at most 512 are taken" in answer.err
    os.mkfifo(tmp_path / "pipe.onnx")
    for name, words in (
        ("none.onnx", "cannot be read"),
        ("pipe.onnx", "is not a file"),
        ("", "is not"),
    ):
        answer = argosy("model", "register", str(tmp_path / name), "--name", "a")
        assert (answer.code, words in answer.err) == (2, True), answer.err
    assert fake.seen == []


def test_a_hostile_model_is_refused_before_it_travels(argosy: Any, fake: State, net: Path) -> None:
    model = onnx.load(net)
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    model.graph.initializer.append(tensor)
    net.write_bytes(model.SerializeToString())
    answer = argosy("model", "register", str(net), "--name", "a")
    assert answer.code == 2
    assert "is refused: " in answer.err
    assert fake.seen == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--name", "a/b"], "--name: name cannot be 'a/b'"),
        (["--name", "A"], "--name: name cannot be 'A'"),
        (["--name", "a", "--labels", "none.txt"], "no file 'none.txt'"),
        (["--name", "a", "--budget", "size=1"], "--budget: 'size=1' is no limit"),
        (["--name", "a", "--budget", "max_size_mb=x"], "'x' is not a number"),
        (["--name", "a", "--budget", "max_size_mb=1,max_size_mb=2"], "is given twice"),
        (["--name", "a", "--budget", "max_size_mb=-1"], "--budget: optimize.budget.max_size_mb"),
        (["--name", "a", "--class", "cam"], "not of the form NAME:LIMITS"),
        (["--name", "a", "--class", "A_b:max_size_mb=1"], "--class A_b:max_size_mb=1: "),
        (["--name", "a", "--prune", "0.5,2"], "--prune: optimize.prune.1 must be less than 1"),
        (["--name", "a", "--formats", "pickle"], "--formats: "),
        (["--name", "a", "--max-accuracy-drop", "5"], "--max-accuracy-drop: "),
        (["--name", "a", "--alias", "no/one"], "--alias: "),
    ],
)
def test_wrong_options_are_named(
    argosy: Any, fake: State, net: Path, argv: list[str], words: str
) -> None:
    answer = argosy("model", "register", str(net), *argv)
    assert answer.code == 2
    assert words in answer.err
    assert fake.seen == []


def test_a_trained_version_is_optimized_from_its_weights(argosy: Any, fake: State) -> None:
    trained(fake)
    answer = argosy(
        "model", "optimize", "digits@3", "--budget", "max_size_mb=0.1,max_latency_ms=5",
        "--prune", "0.5,0.75", "--qat-epochs", "3", "--no-int8", "--set", "resources.workers=1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    spec = submitted(fake)
    assert (spec.base, spec.task, spec.model_name, spec.sweep) == (
        "digits@3",
        "task:Digits",
        "digits",
        None,
    )
    assert (spec.config, spec.seed) == ({"lr": 0.2, "layers": 2}, 9), "as the sweep chose"
    assert (spec.optimize.prune, spec.optimize.qat_epochs) == ((0.5, 0.75), 3)
    assert (spec.optimize.int8, spec.optimize.max_accuracy_drop) == (False, 0.01)
    assert spec.optimize.budget.max_size_mb == 0.1
    assert spec.promote.alias is None, "an alias moves only when it is asked for"
    assert spec.resources.workers.max == 1
    assert spec.cloned_from is not None
    assert spec.code is not None


def test_an_alias_is_moved_when_it_is_asked_for(argosy: Any, fake: State) -> None:
    trained(fake)
    assert argosy("model", "optimize", "digits@champion", "--alias", "edge").code == 0
    assert submitted(fake).promote.alias == "edge"


def test_an_imported_version_is_optimized_from_its_file(
    argosy: Any, fake: State, tmp_path: Path
) -> None:
    source = {"file": "f" * 64, "size": 9, "data": "/data/set.npz", "dynamic": True}
    spec = {"name": "pets", "onnx": source, "optimize": {"fp16": True}}
    job = job_view(JobState.SUCCEEDED, spec=JobSpec.model_validate(spec))
    fake.jobs[job.id] = [job]
    lineage = Lineage(job=job.id, source="net.onnx", source_sha256="f" * 64)
    int8 = variant(fake, "int8", precision="int8")
    view = version_view(fake, 2, lineage=lineage, variants=(int8, variant(fake)))
    fake.jobs[job.id][0] = job
    assert argosy("model", "optimize", "digits@2", "--max-trials", "3").code == 0
    made = next(s[0].spec for s in fake.jobs.values() if s[0].spec.cloned_from == job.id)
    assert made.onnx is not None
    fp32 = view.manifest.variants[1].file
    assert (made.onnx.file, made.onnx.size, made.onnx.name) == (fp32.sha256, fp32.size, "net.onnx")
    assert (made.onnx.data, made.onnx.dynamic) == ("/data/set.npz", True)
    assert made.onnx.signature == view.manifest.signature
    assert (made.model_name, made.optimize.fp16, made.optimize.max_trials) == ("digits", True, 3)


def test_an_imported_version_whose_job_is_gone(argosy: Any, fake: State, tmp_path: Path) -> None:
    data = tmp_path / "set.npz"
    lineage = Lineage(job="job_0000000000000001", source="net.onnx")
    version_view(fake, 2, lineage=lineage)
    answer = argosy("model", "optimize", "digits@2", "--data", str(data), "--alias", "x")
    assert answer.code == 0, answer.err
    spec = only_job(fake)
    assert spec.onnx is not None
    assert (spec.onnx.data, spec.onnx.labels) == (str(data), tuple("0123456789"))
    assert spec.promote.alias == "x"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": None}, "digits@3 has no weights kept with it"),
        ({"purged": True}, "the files of digits@3 were collected"),
        ({"revoked": True, "revoked_reason": "leaks"}, "digits@3 is revoked: leaks"),
        ({"lineage": Lineage()}, "was not made by a job"),
        ({"lineage": Lineage(job="job_0000000000000001", task="a:B")}, "is gone"),
    ],
)
def test_what_cannot_be_optimized_says_why(
    argosy: Any, fake: State, fields: dict[str, Any], words: str
) -> None:
    trained(fake, **fields)
    answer = argosy("model", "optimize", "digits@3")
    assert answer.code == 6
    assert words in answer.err
    assert len(fake.jobs) == 1, "nothing was queued"


def test_code_that_is_gone_is_said_by_the_platform(argosy: Any, fake: State) -> None:
    trained(fake)
    del fake.artifacts["c" * 64]
    answer = argosy("model", "optimize", "digits@3")
    assert answer.code == 2
    assert "the code was not uploaded" in answer.err


def test_a_job_file_imports_a_file_beside_it(
    argosy: Any, fake: State, net: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    for text in ("onnx: net.onnx\n", "onnx: {file: net.onnx, dynamic: true}\n"):
        fake.jobs.clear()
        job.write_text(f"name: pets\n{text}")
        assert argosy("job", "submit", str(job)).code == 0
        spec = only_job(fake)
        assert spec.onnx is not None
        assert fake.artifacts[spec.onnx.file] == net.read_bytes()
        assert (spec.onnx.name, spec.onnx.size) == ("net.onnx", net.stat().st_size)
    answer = argosy("job", "get", next(iter(fake.jobs)))
    assert "begins with  net.onnx" in answer.out
    assert "epoch" not in answer.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("onnx: none.onnx\n", ":2: onnx.file: no file 'none.onnx'"),
        ("onnx: {file: ../job.yaml}\n", "no file '../job.yaml'"),
        ("onnx: {file: job.yaml}\n", "job.yaml is refused"),
        ("onnx: {file: net.onnx, dynmic: true}\n", ":2: there is no key 'onnx.dynmic'"),
        ("onnx: {dynamic: true}\n", ":2: the key 'onnx.file' is missing"),
        ("onnx: 3\n", "onnx must be a mapping, or the path of an ONNX file"),
        ("onnx: net.onnx\ntask: a:B\n", "only one of them"),
        ("base: digits\ntask: a:B\n", "base cannot be 'digits'"),
        ("base: digits@3\nonnx: net.onnx\n", "base needs a task"),
        (
            "onnx: {file: net.onnx, signature: {inputs: [{name: x, dtype: float32, shap: []}]}}\n",
            "shap",
        ),
        ("onnx: net.onnx\noptimize: {classes: {cam: {size: 1}}}\n", "'optimize.classes.cam.size'"),
    ],
)
def test_a_wrong_import_in_a_job_file(
    argosy: Any, fake: State, net: Path, tmp_path: Path, text: str, words: str
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"name: pets\n{text}")
    answer = argosy("job", "submit", str(job))
    assert answer.code == 2
    assert words in answer.err
    assert fake.seen == []


def test_budgets_of_classes_can_be_set_by_key(argosy: Any, fake: State, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: a\ntask: workers.recipes.digits:Digits\nstop: {target: 0.9}\n")
    key = "optimize.classes.cam.max_size_mb=0.1"
    argosy("job", "submit", str(job), "--set", key, "--set", "optimize.budget.max_rss_mb=9")
    optimize = only_job(fake).optimize
    assert optimize.classes["cam"].max_size_mb == 0.1
    assert optimize.budget.max_rss_mb == 9
    answer = argosy("job", "submit", str(job), "--set", "optimize.classes.cam.size=1")
    assert (answer.code, "no key" in answer.err) == (2, True)


def test_nothing_runs_here_that_needs_the_registry(argosy: Any, net: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: pets\nonnx: net.onnx\n")
    answer = argosy("job", "run-local", str(job), "--out", str(tmp_path / "out"))
    assert (answer.code, "argosy job submit" in answer.err) == (2, True)
