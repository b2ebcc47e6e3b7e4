# ruff: noqa: N818 - a refusal is named as its code is, without "Error" after it
"""The orchestrator's errors: one tree, one class for each code that it may answer with.

The API turns an error into a problem document, the client turns that back into the same
error, and the CLI turns the error into an exit code. So all three know this module, and it
imports nothing but ``schemas``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from schemas.errors import Code, Exit, FieldError

HTTP_STATUS: dict[Code, int] = {
    Code.INVALID: 422,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.ILLEGAL_TRANSITION: 409,
    Code.PRECONDITION_FAILED: 412,
    Code.PRECONDITION_REQUIRED: 428,
    Code.LEASE_LOST: 409,
    Code.TOKEN_INVALID: 401,
    Code.TOKEN_EXPIRED: 401,
    Code.TOKEN_SPENT: 401,
    Code.CSR_INVALID: 422,
    Code.DIGEST_MISMATCH: 422,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY: 429,
    Code.TIMED_OUT: 408,
    Code.REVOKED: 409,
    Code.REJECTED: 403,
    Code.NOT_SIGNED: 409,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
"""The HTTP status of every code."""

EXIT: dict[Code, Exit] = {
    Code.INVALID: Exit.USAGE,
    Code.UNAUTHENTICATED: Exit.AUTH,
    Code.FORBIDDEN: Exit.AUTH,
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.CONFLICT: Exit.CONFLICT,
    Code.ILLEGAL_TRANSITION: Exit.CONFLICT,
    Code.PRECONDITION_FAILED: Exit.CONFLICT,
    Code.PRECONDITION_REQUIRED: Exit.USAGE,
    Code.LEASE_LOST: Exit.CONFLICT,
    Code.TOKEN_INVALID: Exit.AUTH,
    Code.TOKEN_EXPIRED: Exit.AUTH,
    Code.TOKEN_SPENT: Exit.AUTH,
    Code.CSR_INVALID: Exit.USAGE,
    Code.DIGEST_MISMATCH: Exit.FAILED,
    Code.TOO_LARGE: Exit.USAGE,
    Code.TOO_MANY: Exit.FAILED,
    Code.TIMED_OUT: Exit.FAILED,
    Code.REVOKED: Exit.CONFLICT,
    Code.REJECTED: Exit.AUTH,
    Code.NOT_SIGNED: Exit.CONFLICT,
    Code.UNAVAILABLE: Exit.FAILED,
    Code.INTERNAL: Exit.FAILED,
}
"""The exit code of a program that ends with an error of that code."""


class ArgosyError(Exception):
    """Something was refused or failed, in words for the person who asked.

    Args:
        detail: what is wrong, in one line.
        hint: the next thing to do, where there is one.
        fields: what is wrong in which field of a request.
    """

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(
        self, detail: str, *, hint: str | None = None, fields: Iterable[FieldError] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.fields = tuple(fields)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.detail, self.hint, self.fields)

    @property
    def status(self) -> int:
        """The HTTP status that this is answered with."""
        return HTTP_STATUS[self.code]

    @property
    def exit(self) -> Exit:
        """The exit code of a program that ends with this."""
        return EXIT[self.code]


class Invalid(ArgosyError):
    """A request, a setting or a file is malformed."""

    code = Code.INVALID


class Unauthenticated(ArgosyError):
    """There is no key, or it is not known."""

    code = Code.UNAUTHENTICATED


class Forbidden(ArgosyError):
    """The key is known and its role may not do this."""

    code = Code.FORBIDDEN


class NotFound(ArgosyError):
    """There is no such thing."""

    code = Code.NOT_FOUND


class Conflict(ArgosyError):
    """It contradicts what is there already."""

    code = Code.CONFLICT


class IllegalTransition(ArgosyError):
    """The state it is in does not lead there."""

    code = Code.ILLEGAL_TRANSITION


class PreconditionFailed(ArgosyError):
    """It was changed since the caller looked at it."""

    code = Code.PRECONDITION_FAILED


class PreconditionRequired(ArgosyError):
    """The caller has to say what they looked at before they change it."""

    code = Code.PRECONDITION_REQUIRED


class LeaseLost(ArgosyError):
    """The job belongs to another attempt now."""

    code = Code.LEASE_LOST


class TokenInvalid(ArgosyError):
    """A join token is unknown, damaged or revoked."""

    code = Code.TOKEN_INVALID


class TokenExpired(ArgosyError):
    """A join token is past its time."""

    code = Code.TOKEN_EXPIRED


class TokenSpent(ArgosyError):
    """A join token has been used as often as it may be."""

    code = Code.TOKEN_SPENT


class CsrInvalid(ArgosyError):
    """A certificate request is malformed, or its key is too weak."""

    code = Code.CSR_INVALID


class DigestMismatch(ArgosyError):
    """Bytes are not those that were announced."""

    code = Code.DIGEST_MISMATCH


class TooLarge(ArgosyError):
    """More bytes than are allowed."""

    code = Code.TOO_LARGE


class TooMany(ArgosyError):
    """More requests than are answered in so short a time."""

    code = Code.TOO_MANY


class TimedOut(ArgosyError):
    """What was sent came too slowly, and was given up."""

    code = Code.TIMED_OUT


class Revoked(ArgosyError):
    """A device or a version that has been withdrawn."""

    code = Code.REVOKED


class Rejected(ArgosyError):
    """An operator did not let a device in."""

    code = Code.REJECTED


class NotSigned(ArgosyError):
    """A version whose manifest nobody has signed yet: no device would take it."""

    code = Code.NOT_SIGNED


class Unavailable(ArgosyError):
    """Something that is needed does not run, is full or does not answer."""

    code = Code.UNAVAILABLE


_BY_CODE: dict[Code, type[ArgosyError]] = {
    Code.INTERNAL: ArgosyError,
    **{kind.code: kind for kind in ArgosyError.__subclasses__()},
}


def error_of(
    code: Code, detail: str, *, hint: str | None = None, fields: Iterable[FieldError] = ()
) -> ArgosyError:
    """The error of a code: how a client reads a problem document back."""
    return _BY_CODE[code](detail, hint=hint, fields=fields)


def _rebuild(
    kind: type[ArgosyError], detail: str, hint: str | None, fields: tuple[FieldError, ...]
) -> ArgosyError:
    return kind(detail, hint=hint, fields=fields)
