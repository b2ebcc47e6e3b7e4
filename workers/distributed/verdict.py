"""What the failures of workers mean for their training: pure.

A failure of the job's own making ends it; a lost worker or node is Ray Train's to recover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.job import JobCause
from workers.blame import job_failure
from workers.errors import JobFailed
from workers.memory import HOST_ADVICE, killed_by_ray


def failure_among(errors: Mapping[int, BaseException], *, kernel_killed: bool) -> JobFailed | None:
    """Why the job fails; None if the workers may be started again.

    Args:
        errors: by rank, of those that failed.
        kernel_killed: the kernel killed a process for lack of memory since they started.
    """
    told = [found for _, error in sorted(errors.items()) if (found := job_failure(error))]
    if told:
        return min(told, key=_rank_of_cause)
    for rank, error in sorted(errors.items()):
        if killed_by_ray(str(error)):
            return _out_of_memory(rank, "Ray ended it before its node's memory ran out")
        if kernel_killed and is_death(error):
            return _out_of_memory(rank, "the kernel killed it for lack of memory")
    return None


def is_death(error: BaseException) -> bool:
    """Whether a worker's process ended without a word."""
    failure = getattr(error, "health_check_failure", error)
    return any(kind.__name__ == "RayActorError" for kind in type(failure).__mro__)


def _out_of_memory(rank: int, how: str) -> JobFailed:
    detail = f"the worker of rank {rank} ran out of memory: {how}; {HOST_ADVICE}"
    return JobFailed(JobCause.OUT_OF_MEMORY, detail)


def _rank_of_cause(failure: JobFailed) -> int:
    """What others follow from comes first: a bad batch, not the collective that broke by it."""
    late = (JobCause.HUNG, JobCause.INTERNAL)
    return late.index(failure.cause) + 1 if failure.cause in late else 0


def blamed(hangs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of several hangs the one that the others wait for: in the user's code, if any is."""
    ordered = sorted(hangs, key=lambda hang: (not hang["user_code"], int(hang["rank"])))
    return ordered[0] if ordered else None


def hung(hang: Mapping[str, Any], workers: int) -> JobFailed:
    """As the job's end. The detail reads "no step for 900 s: task.py:12 in forward"."""
    detail = str(hang["detail"])
    if workers > 1:
        since, _, where = detail.partition(": ")
        detail = f"{since}; rank {hang['rank']} is in {where}" if where else detail
    return JobFailed(JobCause.HUNG, detail)
