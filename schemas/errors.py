"""Error codes and the problem document (RFC 9457) that carries them."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from schemas.base import Wire

PROBLEM_TYPE = "application/problem+json"


class Code(StrEnum):
    """Every reason for which a request, a report or a command is refused."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    ILLEGAL_TRANSITION = "illegal_transition"
    PRECONDITION_FAILED = "precondition_failed"
    PRECONDITION_REQUIRED = "precondition_required"
    LEASE_LOST = "lease_lost"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a code, not a secret
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a secret
    TOKEN_SPENT = "token_spent"  # noqa: S105 - a code, not a secret
    CSR_INVALID = "csr_invalid"
    DIGEST_MISMATCH = "digest_mismatch"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    TIMED_OUT = "timed_out"
    REVOKED = "revoked"
    REJECTED = "rejected"
    NOT_SIGNED = "not_signed"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class DeviceCause(StrEnum):
    """Why a device did not do what was desired (``ExecReport.cause``)."""

    BAD_SIGNATURE = "bad_signature"
    BELOW_FLOOR = "below_floor"
    EXPIRED = "expired"
    WRONG_DEVICE = "wrong_device"
    WRONG_CLASS = "wrong_class"
    DIGEST_MISMATCH = "digest_mismatch"
    TRANSFER_FAILED = "transfer_failed"
    DISK_FULL = "disk_full"
    LOAD_FAILED = "load_failed"
    GOLDEN_MISMATCH = "golden_mismatch"
    SHADOW_DISAGREED = "shadow_disagreed"
    PROBATION_FAILED = "probation_failed"
    TOO_SLOW = "too_slow"
    OUT_OF_MEMORY = "out_of_memory"
    HUNG = "hung"
    BOOT_LOOP = "boot_loop"
    OPERATOR = "operator"
    CANCEL_TOO_LATE = "cancel_too_late"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    INTERNAL = "internal"


class FieldError(Wire):
    """One thing wrong in a request: where, and what."""

    field: str
    message: str


class Problem(Wire):
    """The body of every refused request.

    ``hint`` names the next thing to do, where there is one.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: Code
    detail: str
    hint: str | None = None
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None


class Exit(IntEnum):
    """Exit codes of every Argosy program.

    HUNG: a watchdog ended it, for something in it made no progress.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    AUTH = 4
    NOT_FOUND = 5
    CONFLICT = 6
    GATE_FAILED = 7
    HUNG = 70
    TIMED_OUT = 124
    INTERRUPTED = 130
