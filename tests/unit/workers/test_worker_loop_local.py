"""``run-local``: the job's own code, in this process, whole or not at all."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from pathlib import Path

import pytest

from schemas.job import JobCause
from workers.errors import JobFailed, UsageError
from workers.run_local import code_folder, read_job, run

TASK = """
from pathlib import Path
from helpers import answer
from tests.unit.workers.blobs import Blobs

class Mine(Blobs):
    def __init__(self, config, seed):
        super().__init__(config, seed)
        assert answer() == 42
        assert Path(self.data_path).read_text() == "here"

class Interrupted(Mine):
    def loss(self, logits, y):
        raise KeyboardInterrupt

class Leaking(Mine):
    def splits(self):
        found = super().splits()
        return type(found)(found.train, found.train, found.test)
"""

JOB = """
name: mine
code: code
task: mine:{task}
dataset: {{path: data.txt, check: {check}}}
training: {{loader_workers: 2, checkpoint_every: 3}}
resources: {{workers: 2..4}}
sweep: {{config.lr: [0.1, 0.01]}}
stop: {{max_epochs: 4, target: {target}}}
optimize: {{int8: false}}
"""


@pytest.fixture
def job(tmp_path: Path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(TASK)
    (code / "helpers.py").write_text("def answer():\n    return 42\n")
    (code / "data.txt").write_text("here")

    def write(task: str = "Mine", target: float = 0.2, check: str = "warn") -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(JOB.format(task=task, target=target, check=check))
        return path

    before = (Path.cwd(), list(sys.path))
    yield write
    assert (Path.cwd(), list(sys.path)) == before, "left as it was"
    for name in ("mine", "helpers"):
        sys.modules.pop(name, None)


def test_a_job_runs_with_its_code_folder_as_on_a_cluster(job, tmp_path, caplog) -> None:
    threads = threading.active_count()
    with caplog.at_level("INFO"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path.parent)  # both paths are relative to where it is called
        made = run(Path(tmp_path.name) / job().name, Path(tmp_path.name) / "out")
        assert Path.cwd() == tmp_path.parent
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert made.folder == tmp_path / "out"
    assert made.files()[0][1].is_file()
    assert "the sweep is left out" in caplog.text
    assert "one worker instead of 2..4" in caplog.text
    assert multiprocessing.active_children() == [], "no process for a debugger to lose"
    assert threading.active_count() == threads


def test_an_interrupt_passes_and_leaves_nothing(job, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(job("Interrupted"), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["code", "job.yaml"]


def test_faults_of_the_data_end_it_before_training(job, tmp_path) -> None:
    with pytest.raises(JobFailed, match="validation") as caught:
        run(job("Leaking", check="fail"), tmp_path / "out")
    assert caught.value.cause is JobCause.BAD_DATA


def test_a_job_file_names_its_code_or_lies_beside_it(job, tmp_path) -> None:
    path = job()
    assert code_folder(path) == tmp_path / "code"
    assert read_job(path).code is None
    path.write_text("name: x\ntask: mine:Mine\nstop: {target: 0.5}\n")
    assert code_folder(path) == tmp_path
    path.write_text("name: x\ntask: mine:Mine\ncode: nowhere\nstop: {target: 0.5}\n")
    with pytest.raises(UsageError, match="there is no folder"):
        code_folder(path)


def test_batch_inference_is_not_for_one_process(job, tmp_path) -> None:
    path = job()
    path.write_text("name: x\nbatch: {model: mine@1, input: in, output: out}\n")
    with pytest.raises(UsageError, match="needs the cluster"):
        run(path, tmp_path / "out")


def test_a_target_that_is_missed_leaves_no_package(job, tmp_path) -> None:
    with pytest.raises(JobFailed) as caught:
        run(job(target=1.0), tmp_path / "out")
    assert caught.value.cause is JobCause.TARGET_MISSED
    assert not (tmp_path / "out").exists()
