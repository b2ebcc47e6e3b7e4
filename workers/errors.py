"""Every error of the workers, at one glance.

* ``WorkerError``: the root; ``exit_code`` is what a command ends with.

  * ``UsageError``: a job file, a task or an option is wrong.
  * ``ClusterError``: Ray did not start, or refused.
  * ``JobFailed``: a job cannot succeed; carries the cause that the API shows.
  * ``ApiError``: the orchestrator was not reached or refused.

    * ``ApiUnavailableError``: no answer, or a 5xx, after all retries.
    * ``RefusedError``: a 4xx; carries the problem's code.

      * ``LeaseLostError``: another attempt holds the job by now.
"""

from __future__ import annotations

from schemas.errors import Code, Exit
from schemas.job import JobCause

MAX_DETAIL = 8000
"""Characters of a detail that the API takes."""


class WorkerError(Exception):
    """One line for the reader: what, where, and in ``hint`` what to do next."""

    exit_code = Exit.FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(WorkerError):
    """What the user wrote cannot be used."""

    exit_code = Exit.USAGE


class ClusterError(WorkerError):
    """Ray did not start, died, or refused a submission."""


class JobFailed(WorkerError):  # noqa: N818 - the state of the job that it leads to
    """A job ends here. cause and detail are what the API shows."""

    def __init__(self, cause: JobCause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail[:MAX_DETAIL]

    def __reduce__(self) -> tuple[type[JobFailed], tuple[JobCause, str]]:
        return type(self), (self.cause, self.detail)


class ApiError(WorkerError):
    """The orchestrator did not do what was asked."""


class ApiUnavailableError(ApiError):
    """No answer, or only server errors, after all retries."""


class RefusedError(ApiError):
    """The orchestrator refused the request. status: HTTP; code: the problem's."""

    def __init__(self, message: str, *, status: int, code: Code, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code
        if status in {401, 403}:
            self.exit_code = Exit.AUTH


class LeaseLostError(RefusedError):
    """The job went to another attempt; this one must stop, and may say nothing more."""
