"""What failing workers mean for their training, without Ray."""

from __future__ import annotations

import pytest

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.distributed.train import failure_of, worker_resources
from workers.distributed.verdict import blamed, failure_among, hung
from workers.errors import JobFailed
from workers.memory import GIB


class RayActorError(Exception):
    """Named as Ray's: the process ended without a word."""


class WorkerGroupError(Exception):
    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = failures


class WrapperError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__("wrapped")
        self._base_exc = cause


class InsufficientClusterResourcesError(Exception):
    """Named as Ray Train's."""


class ControllerError(Exception):
    def __init__(self, failure: Exception) -> None:
        super().__init__(str(failure))
        self.controller_failure = failure


BROKEN = RuntimeError("[gloo] Connection closed by peer")
NAN = JobFailed(JobCause.DIVERGED, "nan")


def test_the_cause_is_found_under_rays_wrappers() -> None:
    assert failure_of(WorkerGroupError({0: BROKEN, 1: WrapperError(NAN)})) is NAN
    assert failure_of(ControllerError(NAN)) is NAN


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (WorkerGroupError({0: BROKEN}), JobCause.DRIVER_DIED),
        (RuntimeError("the controller's node died"), JobCause.DRIVER_DIED),
        (RuntimeError("task died: OutOfMemoryError"), JobCause.OUT_OF_MEMORY),
        (
            ControllerError(InsufficientClusterResourcesError("needs 4 GPU, has 0")),
            JobCause.RESOURCES,
        ),
    ],
)
def test_what_the_job_did_not_cause_is_tried_again(error: Exception, cause: JobCause) -> None:
    assert failure_of(error).cause is cause


def test_a_killed_worker_or_a_broken_link_ends_nothing() -> None:
    lost = RayActorError("The actor died: SIGKILL by OOM killer is one of several root causes")
    assert failure_among({0: BROKEN, 1: lost}, kernel_killed=False) is None


def test_a_failure_of_the_jobs_own_ends_it_and_the_reason_comes_first() -> None:
    hang = JobFailed(JobCause.HUNG, "waited")
    assert failure_among({0: hang, 1: WrapperError(NAN)}, kernel_killed=False) is NAN
    assert failure_among({0: BROKEN, 1: hang}, kernel_killed=False) is hang


@pytest.mark.parametrize(
    ("error", "kernel_killed"),
    [
        (RayActorError("2 worker(s) were killed due to the node running low on memory."), False),
        (RayActorError("The actor died: connection error code 2. End of file."), True),
    ],
)
def test_a_worker_killed_for_memory_is_named_so_and_not_repeated(
    error: Exception,
    kernel_killed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    found = failure_among({1: error, 0: BROKEN}, kernel_killed=kernel_killed)
    assert found is not None
    assert found.cause is JobCause.OUT_OF_MEMORY
    assert "rank 1" in found.detail
    assert "raise resources.memory_gb" in found.detail


def test_of_several_hangs_the_one_in_the_users_code_is_told() -> None:
    waits = {
        "rank": 0,
        "detail": "no step for 900 s: group.py:9 in max, waiting",
        "user_code": False,
    }
    loops = {"rank": 1, "detail": "no step for 900 s: their_task.py:12 in loss", "user_code": True}
    guilty = blamed([waits, loops])
    assert guilty is loops
    assert hung(guilty, 2).detail == ("no step for 900 s; rank 1 is in their_task.py:12 in loss")
    assert hung(guilty, 1).detail == "no step for 900 s: their_task.py:12 in loss"
    assert blamed([waits]) is waits
    assert blamed([]) is None


def test_what_a_worker_reserves() -> None:
    spec = JobSpec(
        name="x",
        task="a:B",
        stop={"target": 0.9},
        resources={"gpus_per_worker": 2, "memory_gb": 1.5, "cpus_per_worker": 3},
    )
    assert worker_resources(spec) == {"CPU": 3, "GPU": 2, "memory": 1.5 * GIB}
