"""Why a request gets no result, as both protocols say it."""

from __future__ import annotations

from enum import Enum

from edge_client.errors import EdgeError, InferenceError, InputError, NoModelError


class Kind(Enum):
    """HTTP status (the value's first part) and the name of gRPC's code."""

    INVALID = (400, "INVALID_ARGUMENT")
    FORBIDDEN = (403, "PERMISSION_DENIED")
    NOT_FOUND = (404, "NOT_FOUND")
    METHOD = (405, "UNIMPLEMENTED")
    SLOW = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    MEDIA = (415, "INVALID_ARGUMENT")
    HEAD = (431, "RESOURCE_EXHAUSTED")
    INTERNAL = (500, "INTERNAL")
    UNSUPPORTED = (501, "UNIMPLEMENTED")
    UNAVAILABLE = (503, "UNAVAILABLE")

    @property
    def status(self) -> int:
        """Of HTTP."""
        return self.value[0]

    @property
    def code(self) -> str:
        """Of gRPC."""
        return self.value[1]


class RequestError(EdgeError):
    """A request that is not answered with a result. kind: why."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def invalid(message: str) -> RequestError:
    """The request itself is wrong."""
    return RequestError(Kind.INVALID, message)


def kind_of(error: EdgeError) -> Kind:
    """How an error is told. A full queue and a passed deadline are 503, as with Triton."""
    if isinstance(error, RequestError):
        return error.kind
    if isinstance(error, InputError):
        return Kind.INVALID
    if isinstance(error, NoModelError):
        return Kind.NOT_FOUND
    if isinstance(error, InferenceError):
        return Kind.INTERNAL
    return Kind.UNAVAILABLE


def text_of(error: EdgeError) -> str:
    """The message, with what to do next where that is known."""
    return f"{error} ({error.hint})" if error.hint else str(error)
