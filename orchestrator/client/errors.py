"""What can go wrong between a client and the platform.

A refusal by the platform is raised as the class of ``orchestrator.errors`` that the
server raised. Here is what only a client meets. The root of all is ``ArgosyError``.
"""

from __future__ import annotations

from orchestrator.errors import (
    ArgosyError,
    Conflict,
    Forbidden,
    IllegalTransition,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
    error_of,
)
from schemas.errors import Code, Exit, Problem


class ProfileError(Unauthenticated):
    """There are no usable credentials."""


class UnreachableError(Unavailable):
    """Nothing answers at the platform's address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no platform answers at {url}", hint="start one with `argosy up`")


class InterruptedAnswerError(Unavailable):
    """The connection broke, or no answer came in time: the outcome is not known."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, hint="look at the state, then try again")


class AnswerError(ArgosyError):
    """An answer does not have the form it must have."""

    def __init__(self, detail: str) -> None:
        hint = "the platform and this client may be of different versions"
        super().__init__(detail, hint=hint)


class WaitTimeoutError(ArgosyError):
    """What was waited for did not happen in time. It goes on."""

    def __init__(self, seconds: float, hint: str | None = None) -> None:
        super().__init__(f"not finished after {seconds:g} s; it goes on without us", hint=hint)
        self.seconds = seconds

    def with_hint(self, hint: str) -> WaitTimeoutError:
        """The same, with what to do next."""
        return WaitTimeoutError(self.seconds, hint)

    @property
    def exit(self) -> Exit:
        """Timed out."""
        return Exit.TIMED_OUT


def refusal(problem: Problem) -> ArgosyError:
    """The error that a problem document carries."""
    hint = problem.hint
    if hint is None and problem.code is Code.INTERNAL and problem.request_id:
        hint = f"the server's log has the reason, under request {problem.request_id}"
    return error_of(problem.code, problem.detail, hint=hint, fields=problem.errors)


def is_outage(error: ArgosyError) -> bool:
    """Whether trying again later may help."""
    return error.code is Code.UNAVAILABLE


__all__ = [
    "AnswerError",
    "ArgosyError",
    "Conflict",
    "Forbidden",
    "IllegalTransition",
    "InterruptedAnswerError",
    "Invalid",
    "NotFound",
    "ProfileError",
    "Unauthenticated",
    "Unavailable",
    "UnreachableError",
    "WaitTimeoutError",
    "is_outage",
    "refusal",
]
