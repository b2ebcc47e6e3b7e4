"""The training loop, export, quantization and the package, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from schemas.errors import Exit
from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec, StopRules
from schemas.model import Manifest
from schemas.optimize import Optimize
from schemas.transfer import leaves_digest, leaves_of
from workers.errors import JobFailed, UsageError
from workers.files import blocks_of, sha256_file
from workers.optimization.exporting.export import export, parity
from workers.optimization.pipeline import Training, build, training_of
from workers.optimization.point import Point, requires_of, static_schemes
from workers.optimization.quantizing.quantizer import STATIC, Quantizer
from workers.optimization.session import infer, open_session
from workers.recipes.digits import Digits
from workers.task import SPLITS, load_task
from workers.training import loop, trainer
from workers.training.data import split_arrays
from workers.training.local import LocalEngine, train_here
from workers.training.stop import Verdict

DIGITS = "workers.recipes.digits:Digits"


def splits_of(task):
    return {name: split_arrays(task, name) for name in SPLITS}


def spec_of(**stop) -> JobSpec:
    rules = StopRules(**{"target": 0.97, "max_epochs": 12, "require_target": False, **stop})
    return JobSpec(name="digits", task=DIGITS, stop=rules)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task() -> Digits:
    return load_task(DIGITS, {}, 0)


@pytest.fixture(scope="module")
def trained(task):
    return train_here(task, spec_of())


@pytest.fixture(scope="module")
def package(task, trained, tmp_path_factory):
    weights, ended = trained
    entered: list[JobState] = []
    made = build(
        task,
        spec_of(),
        Training(weights, "0" * 64, "c" * 64, ended.history.epochs),
        tmp_path_factory.mktemp("package"),
        enter=entered.append,
    )
    assert entered == [JobState.EXPORTING, JobState.OPTIMIZING]
    return made


def test_digits_learn_to_the_target(trained) -> None:
    _, ended = trained
    assert ended.verdict is Verdict.TARGET
    assert ended.history.best >= 0.97


class Dropping(Digits):
    """Draws numbers in the net itself."""

    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), nn.Dropout(0.2))


@pytest.mark.parametrize("kind", [Digits, Dropping])
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(kind) -> None:
    task = kind({}, 0)
    whole = LocalEngine("accuracy")
    loop.run(task, spec_of(target=None, max_epochs=3), whole)
    first = LocalEngine("accuracy")
    loop.run(task, spec_of(target=None, max_epochs=1), first)
    second = LocalEngine("accuracy", checkpoint=first.last)
    ended = loop.run(task, spec_of(target=None, max_epochs=3), second)
    assert [r["epoch"] for r in second.reports] == [2, 3]
    assert ended.history.epochs == 3
    one, two = (loop.unpack(e.last)["model"] for e in (whole, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_training_is_named_by_the_code_it_began_with(monkeypatch) -> None:
    hashes = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr(trainer, "code_sha256", lambda _: next(hashes))
    engine = LocalEngine("accuracy")
    loop.run(Digits({"width": 0.25}, 0), spec_of(target=None, max_epochs=2), engine)
    assert training_of(engine.best, 2).code_sha256 == "a" * 64


def test_a_run_that_had_ended_is_not_trained_further(task) -> None:
    first = LocalEngine("accuracy")
    loop.run(task, spec_of(target=None, max_epochs=1), first)
    again = LocalEngine("accuracy", checkpoint=first.last)
    assert loop.run(task, spec_of(target=None, max_epochs=1), again).verdict is Verdict.MAX_EPOCHS
    assert again.reports == []


def test_a_loss_that_is_not_finite_ends_the_job_as_diverged(task) -> None:
    class Diverging(Digits):
        def loss(self, logits, y):
            return super().loss(logits, y) * float("nan")

    with pytest.raises(JobFailed) as caught:
        loop.run(Diverging({}, 0), spec_of(), LocalEngine("accuracy"))
    assert caught.value.cause is JobCause.DIVERGED


def test_an_error_in_the_loss_is_the_users_with_file_and_line() -> None:
    class Broken(Digits):
        def loss(self, logits, y):
            return super().loss(logits.view(3, 7), y)

    with pytest.raises(JobFailed) as caught:
        loop.run(Broken({}, 0), spec_of(), LocalEngine("accuracy"))
    assert caught.value.cause is JobCause.USER_CODE
    assert f"{Path(__file__).name}:" in caught.value.detail
    assert "\n" not in caught.value.detail


def test_a_validation_loss_that_is_not_finite_is_divergence_too(task) -> None:
    class Overflowing(Digits):
        def loss(self, logits, y):
            found = super().loss(logits, y)
            return found if torch.is_grad_enabled() else found * float("inf")

    engine = LocalEngine("accuracy")
    with pytest.raises(JobFailed) as caught:
        loop.run(Overflowing({}, 0), spec_of(), engine)
    assert caught.value.cause is JobCause.DIVERGED
    assert engine.reports == [], "what cannot travel is not reported"


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    import io

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    buffer = io.BytesIO()
    torch.save({"model": Evil(), "optimizer": {}, "history": {}}, buffer)
    with pytest.raises(JobFailed, match="cannot be read"):
        loop.unpack(buffer.getvalue())
    assert not (tmp_path / "pwned").exists()


def test_every_file_is_as_the_manifest_says(package) -> None:
    stored = (package.folder / "manifest.json").read_bytes()
    assert Manifest.model_validate_json(stored) == package.manifest
    assert [v.id for v in package.manifest.variants if v.precision == "fp32"] == ["fp32"]
    for file in package.manifest.files():
        path = package.folder / file.path
        assert file.size == path.stat().st_size
        assert file.sha256 == sha256_file(path)
        assert file.leaves_sha256 == leaves_digest(leaves_of(blocks_of(path)))
    assert {p.name for p in package.folder.iterdir()} == {
        "manifest.json",
        *(f.path for f in package.manifest.files()),
    }


def test_golden_vectors_are_what_each_variant_gives(package) -> None:
    for variant in package.manifest.variants:
        with np.load(package.folder / variant.golden.file.path) as golden:
            inputs, outputs = golden["in_0"], golden["out_0"]
        assert inputs.dtype == np.uint8
        assert len(inputs) == variant.golden.samples == 16
        session = open_session(package.folder / variant.file.path)
        one_by_one = np.concatenate([infer(session, inputs[i : i + 1]) for i in range(16)])
        assert np.abs(one_by_one - outputs).max() <= variant.golden.tolerance
        assert np.allclose(outputs.sum(axis=1), 1, atol=1e-5)


def test_the_signature_is_that_of_the_file(package) -> None:
    signature = package.manifest.signature
    session = onnxruntime.InferenceSession(
        str(package.folder / "model-fp32.onnx"), providers=["CPUExecutionProvider"]
    )
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type) == (signature.inputs[0].name, "tensor(uint8)")
    assert (given.name, given.type) == (signature.outputs[0].name, "tensor(float)")
    assert taken.shape[1:] == list(signature.inputs[0].shape[1:])


def test_the_fp32_file_needs_several_chunks_and_tells_no_paths(package) -> None:
    path = package.folder / "model-fp32.onnx"
    assert 300_000 < path.stat().st_size < 700_000
    assert str(Path(loop.__file__).parent).encode() not in path.read_bytes()
    assert onnx.load(path).opset_import[0].version == 20


def test_accuracy_is_measured_on_both_held_out_splits(package, task) -> None:
    data = splits_of(task)
    for variant in package.manifest.variants:
        assert [(a.split, a.n) for a in variant.accuracy] == [("validation", 355), ("test", 401)]
        session = open_session(package.folder / variant.file.path)
        for figure in variant.accuracy:
            found = infer(session, data[figure.split].x).argmax(1) == data[figure.split].y
            assert figure.value == pytest.approx(found.mean())
            assert figure.low < figure.value <= figure.high


def test_the_lineage_hangs_together(package, task) -> None:
    lineage = package.manifest.lineage
    steps = {step.name: step for step in lineage.passes}
    hashes = {v.id: v.file.sha256 for v in package.manifest.variants}
    assert steps["export"].output_sha256 == hashes["fp32"]
    assert steps["quant_pre_process"].input_sha256 == hashes["fp32"]
    assert steps["quantize_static"].input_sha256 == steps["quant_pre_process"].output_sha256
    assert steps["quantize_static"].output_sha256 == hashes["int8"]
    assert lineage.code_sha256 == "c" * 64, "that of the training"
    assert lineage.parity_max_abs is not None
    assert lineage.parity_max_abs < 1e-5


def test_int8_is_smaller_and_was_measured(package) -> None:
    int8, fp32 = (package.manifest.variant(v) for v in ("int8", "fp32"))
    assert int8.file.size < 0.35 * fp32.file.size
    for variant in (int8, fp32):
        figure, many = variant.benchmarks
        assert (figure.batch, many.batch) == (1, 32)
        assert 0 < figure.p50_ms <= figure.p95_ms <= figure.p99_ms
        assert figure.runs >= 400
        assert 0 < variant.compressed_bytes < variant.file.size
        assert 10 < figure.rss_mb < 400, "of a process of its own, without torch"


def test_a_variant_that_loses_too_much_is_rejected_with_the_reason(
    task, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = Quantizer.static

    def ruin(self, target, scheme, float_nodes=(), *, only=None):
        # Ranges from empty images: everything saturates.
        self._calibration = np.zeros_like(self._calibration)
        static(self, target, scheme, float_nodes, only=only)

    monkeypatch.setattr(Quantizer, "static", ruin)
    weights, ended = trained
    optimize = Optimize(max_accuracy_drop=0.02, max_trials=2)  # no search for layers to spare
    spec = spec_of().model_copy(update={"optimize": optimize})
    made = build(
        task,
        spec,
        Training(weights, "0" * 64, "c" * 64, ended.history.epochs),
        tmp_path / "p",
        enter=print,
    )
    assert [v.id for v in made.manifest.variants] == ["fp32"]
    rejected = made.manifest.rejected
    assert rejected[0].id == "int8"
    for one in rejected:
        assert "accuracy on validation fell by" in one.reason
        assert one.paired.high > 0.02
    assert [p.name for p in (tmp_path / "p").glob("model-*")] == ["model-fp32.onnx"]


def test_an_export_that_differs_from_torch_fails_with_cause_parity(task, tmp_path: Path) -> None:
    class Drifting(nn.Module):
        """Gives something else after it was traced."""

        def __init__(self) -> None:
            super().__init__()
            self.net = task.model()

        def forward(self, x):
            shift = 0.0 if torch.compiler.is_exporting() else 3.0
            logits = self.net(x)
            return logits + shift * torch.eye(10)[0]

    samples = splits_of(task)["validation"].x[:8]
    with pytest.raises(JobFailed) as caught:
        export(Drifting(), task.signature, samples, tmp_path / "m.onnx")
    assert caught.value.cause is JobCause.PARITY


def test_parity_is_nan_safe(task, tmp_path: Path) -> None:
    class Nan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = task.model()

        def forward(self, x):
            return self.net(x) * float("nan")

    samples = splits_of(task)["validation"].x[:4]
    with pytest.raises(JobFailed) as caught:
        export(Nan(), task.signature, samples, tmp_path / "m.onnx")
    assert caught.value.cause is JobCause.PARITY
    assert np.isnan(parity(Nan(), tmp_path / "m.onnx", samples))


@pytest.mark.parametrize(
    ("arch", "isa", "schemes"),
    [
        ("x86_64", (), ("u8s8-7bit",)),
        ("AMD64", ("avx512_vnni", "vnni"), ("u8s8-7bit", "u8s8")),
        ("aarch64", ("neon", "dotprod"), ("s8s8",)),
    ],
)
def test_the_scheme_follows_the_architecture(arch, isa, schemes) -> None:
    found, portable = static_schemes(arch, isa)
    assert found == schemes
    assert portable == schemes[0]
    arm = arch == "aarch64"
    assert all(STATIC[name].activations_signed == arm for name in found)
    assert STATIC[portable].reduce_range != arm
    for name in found:
        needs = requires_of(Point(0.0, "int8", name), arch)
        assert needs.arch == (("aarch64",) if arm else ("x86_64",))
        assert needs.isa == (("vnni",) if name == "u8s8" else ())


def test_weights_for_x86_stay_within_seven_bits(package) -> None:
    if package.manifest.variant("int8").requires.arch[0] != "x86_64":
        pytest.skip("this machine makes INT8 for another architecture")
    graph = onnx.load(package.folder / package.manifest.variant("int8").file.path).graph
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    weights = [a for a in stored.values() if a.dtype == np.int8 and a.ndim > 1]
    assert weights
    # Two products of U8 by S8 must fit into 16 bits, or they saturate without VNNI.
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) * 255 * 2 < 2**15


def test_run_local_writes_a_package_and_refuses_a_full_folder(tmp_path: Path) -> None:
    from workers.run_local import run

    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: tiny\ntask: {DIGITS}\nconfig: {{width: 0.25}}\n"
        "stop: {target: 0.9, max_epochs: 8}\noptimize: {int8: false}\n"
    )
    package = run(job, tmp_path / "out")
    assert [v.id for v in package.manifest.variants] == ["fp32"]
    with pytest.raises(UsageError, match="not empty"):
        run(job, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "line 1: not YAML"),
        ("name: x\ntask: a:B\nstop: {target: 0.9, patiense: 3}", "stop.patiense"),
        ("name: x\ntask: a:B", "stop.target is needed"),
        (
            "name: x\ntask: a:B\nstop: {target: 0.9, metric: validation_loss}",
            "stop.metric: Input should be 'accuracy'",
        ),
        ("- 1", "the file"),
    ],
)
def test_a_wrong_job_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    from workers.run_local import read_job

    job = tmp_path / "job.yaml"
    job.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        read_job(job)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == Exit.USAGE


def test_a_target_that_is_missed_fails_the_job(tmp_path: Path) -> None:
    from workers.run_local import run

    job = tmp_path / "job.yaml"
    job.write_text(f"name: tiny\ntask: {DIGITS}\nstop: {{target: 1.0, max_epochs: 1}}\n")
    with pytest.raises(JobFailed) as caught:
        run(job, tmp_path / "out")
    assert caught.value.cause is JobCause.TARGET_MISSED
