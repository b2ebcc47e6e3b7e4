"""Batch inference on a real Ray cluster, started by the real agent, killed and taken up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.model import Manifest
from tests.fakes.edge_models import FEATURES, linear_onnx, release, run_onnx
from tests.fakes.processes import command_of
from tests.fakes.user_code import until
from tests.unit.workers.fake_api import FakeApi, FakeJob
from workers.agent.processes import kill_all, marked
from workers.order import JOB_TOKEN, MARK

pytestmark = pytest.mark.integration

LONG = 200.0
ROWS = 200_000


class World:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = FakeApi(lease_seconds=12.0)
        self.api.write_worker_json(home)
        self.onnx = linear_onnx()
        made = release(self.onnx)
        self.api.artifacts |= made.files
        self.api.models["digits"] = [Manifest.model_validate_json(made.manifest)]
        command = [sys.executable, "-m", "workers.cli", "agent", "--home", str(home), "--embedded"]
        self.agent = subprocess.Popen(
            [*command, "--slots", "2"],
            env={**os.environ, "ARGOSY_TREE": str(home)},
            stderr=(home / "agent.log").open("ab"),
        )

    def infer(self, source: Path, output: Path) -> FakeJob:
        batch = {"model": "digits@1", "input": str(source), "output": str(output)}
        spec = {"name": "batch-digits", "batch": batch, "resources": {"workers": "1..2"}}
        return self.api.submit(JobSpec.model_validate(spec))

    def ended(self, job: FakeJob) -> None:
        done = self.api.wait(lambda: job.state in TERMINAL_JOB_STATES, LONG)
        assert done, (job.state, (self.home / "agent.log").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    found = World(tmp_path_factory.mktemp("w"))
    try:
        yield found
    finally:
        found.agent.terminate()
        until(lambda: found.agent.poll() is not None, 10)
        kill_all(lambda: marked("ARGOSY_TREE", str(found.home)), seconds=10)
        found.agent.wait()
        found.api.close()


def table_of(output: Path) -> pd.DataFrame:
    return pd.concat([pq.read_table(path).to_pandas() for path in output.glob("part-*.parquet")])


def test_a_killed_inference_is_taken_up_and_leaves_what_one_loop_would(world, tmp_path) -> None:
    source, output = tmp_path / "in", tmp_path / "in" / "out"
    source.mkdir()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    np.save(source / "a.npy", x)
    np.save(source / "wrong.npy", x[:10, :2])
    frame = pd.DataFrame(x[:5], columns=list("pqrs")).astype(object)
    frame.iloc[1, 2], frame.iloc[3, 0] = "text", None
    frame.to_csv(source / "b.csv", index=False)
    vectors = [*x[:3].tolist(), None, [1.0]]
    pd.DataFrame({"v": vectors}).to_parquet(source / "c.parquet")
    job = world.infer(source, output)

    assert until(lambda: any(output.glob("part-*.parquet")), LONG), "parts come as they are made"
    for process in marked(MARK, f"{job.id}-1"):
        if "workers.driver.main" in command_of(process):
            process.kill()
    assert world.api.wait(lambda: job.attempt == 2, 60)
    before = {p: p.stat().st_mtime_ns for p in output.glob("part-*.parquet")}
    world.ended(job)
    assert (job.state, job.cause) == (JobState.SUCCEEDED, None)
    told = f"{ROWS + 10:,} rows of 4 files; 4 rows refused (column error); 1 part left out: wrong"
    assert job.detail.startswith(told)
    assert before
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())

    table = table_of(output)
    wanted = run_onnx(world.onnx, x)
    mine = table[table["source"] == "a.npy"].sort_values("row")
    assert mine["row"].tolist() == list(range(ROWS))
    np.testing.assert_allclose(np.stack(mine["output"]), wanted, rtol=1e-5)
    wrong = {name: part["error"].notna().sum() for name, part in table.groupby("source")}
    assert wrong == {"a.npy": 0, "b.csv": 2, "c.parquet": 2}
    summary = json.loads((output / "_argosy.json").read_text())
    assert (summary["rows"], summary["errors"], summary["files"]) == (ROWS + 10, 4, 4)
    assert "wrong.npy" in summary["left_out"][0]
    assert any("wrong.npy" in line.text for line in job.logs)
    assert (job.live[-1].done, job.live[-1].total) == (ROWS + 10, ROWS + 10)
    assert job.usage[2].cpu_seconds > 0
    assert [p.name for p in output.iterdir() if p.suffix == ".tmp"] == []


def test_what_cannot_be_done_says_why_in_one_attempt(world, tmp_path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((3, 2), dtype=np.float32))
    (tmp_path / "file").write_text("")
    unfit = world.infer(tmp_path / "in.npy", tmp_path / "out")
    closed = world.infer(tmp_path / "in.npy", tmp_path / "file" / "out")
    for job in (unfit, closed):
        world.ended(job)
        assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert unfit.cause is JobCause.BAD_DATA
    assert "rows have the shape [2]" in unfit.detail
    assert closed.cause is JobCause.USER_CODE
    assert "results cannot be written to" in closed.detail


def test_what_all_jobs_share_on_the_cluster_is_no_jobs_process(world) -> None:
    shared = [
        process
        for process in marked("ARGOSY_TREE", str(world.home))
        if "AutoscalingCoordinator" in command_of(process)
    ]
    (coordinator,) = shared
    environment = coordinator.environ()
    assert (environment[MARK], environment[JOB_TOKEN]) == ("", "")
    assert coordinator.is_running(), "the end of a job does not end it"
