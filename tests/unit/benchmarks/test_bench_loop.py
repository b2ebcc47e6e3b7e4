from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import loop


def _report(*states: str) -> dict[str, Any]:
    at = iter(("2026-01-01T00:00:50Z", "2026-01-01T00:00:55Z"))
    return {
        "ok": True,
        "stages": {"platform": 2.0},
        "job": {
            "created_at": "2026-01-01T00:00:00Z",
            "started_at": "2026-01-01T00:00:05Z",
            "ended_at": "2026-01-01T00:00:40Z",
        },
        "rollout": {
            "state": "SUCCEEDED",
            "waves": [{"executions": [{"state": s, "updated_at": next(at)}]} for s in states],
        },
    }


def test_the_figures_end_with_the_last_device() -> None:
    report = _report("SUCCEEDED", "SUCCEEDED")
    assert loop.seconds_of(report) == {
        "submit_to_serving": 55, "submit_to_registered": 40, "start_to_registered": 35,
    }  # fmt: skip
    assert loop.stages_of(report) == {"platform": 2.0, "queued": 5, "rollout_to_last_serving": 15}


def test_a_rollout_that_left_a_device_behind_gives_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        loop.seconds_of(_report("SUCCEEDED", "ROLLED_BACK"))


def test_both_sides_train_for_the_same_number_of_epochs(tmp_path: Path) -> None:
    from workers.run_local import read_job

    path = loop.job_file(tmp_path, 7)
    spec = read_job(path)
    assert spec.stop.max_epochs == spec.stop.patience == 7
    assert not spec.stop.require_target
    assert spec.stop.target is None
    assert str(spec.resources.workers) == "1"
    example = yaml.safe_load((loop.ROOT / "examples/digits/job.yaml").read_text())
    assert spec.task == example["task"]
    assert spec.config == example["config"]
