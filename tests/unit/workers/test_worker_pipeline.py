from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from schemas.lineage import Code
from schemas.signature import TensorSpec
from workers.errors import JobFailed
from workers.inspection.dataset import profile_splits
from workers.optimization.exporting.export import export
from workers.optimization.packing.package import environment, required
from workers.optimization.pipeline import Training, build, code_folder
from workers.optimization.quantizing.quantizer import Quantizer, quantize
from workers.optimization.session import infer, open_session
from workers.task import Splits, Task, load_task

SPEC = JobSpec.model_validate(
    {
        "name": "stacked",
        "task": "none:None",
        "stop": {"require_target": False},
        "optimize": {"max_accuracy_drop": 0.1},  # 40 samples cannot show less
    }
)
CODE = Code(sha256="ab" * 32, size=10, files=2, git_commit="c" * 40, git_dirty=True)


class Heads(nn.Module):
    """A matrix per feature, as embeddings of numbers have, then one layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.each = nn.Parameter(torch.randn(4, 8, 8))
        self.embed = nn.Linear(1, 8)
        self.last = nn.Linear(32, 2)

    def forward(self, x):
        wide = torch.relu(self.embed(x.unsqueeze(-1)))
        return self.last((wide.transpose(0, 1) @ self.each).transpose(0, 1).flatten(1))


class Stacked(Task):
    labels = ("below", "above")

    @property
    def input_spec(self) -> TensorSpec:
        return TensorSpec(name="x", dtype="float32", shape=(-1, 4))

    def model(self):
        return Heads()

    def splits(self) -> Splits:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(160, 4, generator=generator)
        y = (x.sum(1) > 0).long()
        parts = (slice(0, 80), slice(80, 120), slice(120, 160))
        return Splits(*(TensorDataset(x[part], y[part]) for part in parts))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(task: Task, folder: Path, spec: JobSpec = SPEC, **more):
    training = Training(task.model().state_dict(), "0" * 64, "d" * 64, 3)
    return build(task, spec, training, folder, enter=lambda _: None, **more)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    task = Stacked({}, 0)
    profile = profile_splits(task, task.splits(), SPEC.dataset)
    folder = tmp_path_factory.mktemp("package")
    return made(task, folder, profile=profile, code=CODE, parameters={"config.lr": 0.01}), profile


def test_the_manifest_names_code_data_and_parameters(package) -> None:
    manifest, profile = package[0].manifest, package[1]
    assert manifest.baseline == profile.baseline
    assert [f.name for f in manifest.baseline.features][-1] == "mean[3]"
    lineage = manifest.lineage
    assert lineage.dataset_sha256 == profile.sha256
    assert lineage.code == CODE
    assert lineage.code_sha256 == CODE.sha256
    assert lineage.parameters == {"config.lr": 0.01}
    assert lineage.environment["torch"] == version("torch")


def test_a_product_by_a_matrix_per_feature_stays_in_fp32_and_runs(package, tmp_path) -> None:
    folder = package[0].folder
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    quantizer = Quantizer(folder / "model-fp32.onnx", x, tmp_path)
    assert len(quantizer.forced) == 1
    quantizer.static(tmp_path / "int8.onnx", "u8s8-7bit")
    plain, int8 = (
        infer(open_session(path), x[:3])
        for path in (folder / "model-fp32.onnx", tmp_path / "int8.onnx")
    )
    assert np.abs(plain - int8).max() < 0.1
    assert not np.array_equal(plain, int8)


def test_what_is_slower_and_no_smaller_than_fp32_is_not_kept(package) -> None:
    """A net of 400 weights gains nothing: the scales alone take more room."""
    manifest = package[0].manifest
    assert [v.id for v in manifest.variants] == ["fp32"]
    assert "int8" in {r.id for r in manifest.rejected}
    for one in manifest.rejected:
        assert "no smaller" in one.reason or "better or as good" in one.reason
        assert one.size >= manifest.variant("fp32").file.size


def test_without_a_profile_the_data_is_looked_at_anyway(package, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"optimize": SPEC.optimize.model_copy(update={"int8": False})})
    manifest = made(Stacked({}, 0), tmp_path, spec).manifest
    assert manifest.baseline == package[1].baseline
    assert manifest.lineage.dataset_sha256 == package[1].sha256
    assert manifest.lineage.code is None
    assert manifest.lineage.code_sha256 == "d" * 64, "of the task's file, as training began"


def test_a_net_that_cannot_be_quantized_is_still_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_, **__):
        msg = "no such kernel\nand a second line"
        raise RuntimeError(msg)

    monkeypatch.setattr(Quantizer, "static", fail)
    manifest = made(Stacked({}, 0), tmp_path).manifest
    assert [v.id for v in manifest.variants] == ["fp32"]
    (rejected,) = manifest.rejected
    assert rejected.reason == "it cannot be made or does not run: RuntimeError: no such kernel"


def test_samples_that_change_from_reading_to_reading_are_bad_data(tmp_path: Path) -> None:
    class Noisy(Stacked):
        def splits(self) -> Splits:
            class Shaken:
                def __len__(self) -> int:
                    return 40

                def __getitem__(self, index: int):
                    return torch.randn(4), index % 2

            plain = super().splits()
            return Splits(plain.train, Shaken(), plain.test)

    with pytest.raises(JobFailed, match="the validation samples are others each time") as caught:
        made(Noisy({}, 0), tmp_path)
    assert caught.value.cause is JobCause.BAD_DATA


def test_a_quantized_file_with_stacked_products_would_fail_without_the_exclusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Stacked({}, 0)
    samples = task.splits().validation.tensors[0].numpy()
    source = export(task.model(), task.signature, samples, tmp_path / "m.onnx").path
    monkeypatch.setattr("workers.optimization.quantizing.quantizer.stacked_products", lambda _: [])
    quantize(source, tmp_path / "q.onnx", "u8s8-7bit", samples)
    with pytest.raises(Exception, match="QLinearMatMul"):
        infer(open_session(tmp_path / "q.onnx"), samples)


def test_requirements_are_named_as_installed(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# what it needs\nnumpy>=1\nscikit-learn[extra] ; python_version > '3'\n"
        "--no-deps\nnot_installed_here==1\nhttps://example.org/x.whl\nnumpy\n"
    )
    assert required(tmp_path) == ("numpy", "scikit-learn", "not_installed_here")
    found = environment(required(tmp_path))
    assert found["scikit-learn"] == version("scikit-learn")
    assert "not_installed_here" not in found
    assert required(tmp_path / "nowhere") == ()


def test_the_code_folder_is_where_the_module_was_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from workers.recipes.digits import Digits\nclass Mine(Digits):\n    pass\n"
    package = tmp_path / "outer_of_test" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    (package / "deep.py").write_text(text)
    (tmp_path / "flat_of_test.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("flat_of_test", "outer_of_test.inner", "outer_of_test.inner.deep")
    try:
        for name in names:
            assert code_folder(load_task(f"{name}:Mine", {}, 0)) == tmp_path.resolve()
    finally:
        for name in (*names, "outer_of_test"):
            sys.modules.pop(name, None)
