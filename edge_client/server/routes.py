"""Which path is what: the Open Inference Protocol's, and Triton's statistics and repository."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from edge_client.errors import EdgeError
from edge_client.server.answer import empty_answer, failure_answer, infer_answer, json_answer
from edge_client.server.coding import decoded
from edge_client.server.desk import Desk
from edge_client.server.failures import Kind, RequestError, invalid
from edge_client.server.messages import StatisticsAnswer
from edge_client.server.reader import Request
from edge_client.server.request import Ask, Posted, read_ask
from edge_client.server.served import Outcome, Served

_GET = frozenset((b"GET", b"HEAD"))
_POST = frozenset((b"POST",))
_NOT_READY = 400
"""What the protocol asks for: a status from 400 to 499 (kserve, and Triton)."""

_MAX_TARGET = 1024
_KNOWN = 256
"""Targets of inferences that are remembered."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An inference that was handed on; ``finish`` turns its outcome into the answer."""

    finish: Callable[[Outcome], bytes]


class Routes:
    """Answers requests, one at a time per connection."""

    def __init__(self, desk: Desk, *, body_limit: int) -> None:
        self._desk, self._limit = desk, body_limit
        self._known: dict[bytes, tuple[str, str]] = {}

    def answer(self, request: Request, done: Callable[[Outcome], None]) -> bytes | Waiting:
        """The whole answer, or a promise of it: then ``done`` hears the outcome in any thread."""
        try:
            return self._answer(request, done)
        except EdgeError as error:
            return failure_answer(error, close=not request.keep_alive)

    def _answer(self, request: Request, done: Callable[[Outcome], None]) -> bytes | Waiting:
        known = self._known.get(request.target)
        if known is not None:
            return self._infer(request, *known, done)
        match _path(request.target):
            case ["v2", "models", model, "infer"]:
                return self._first(request, model, "", done)
            case ["v2", "models", model, "versions", version, "infer"]:
                return self._first(request, model, version, done)
            case ["v2", "repository", "index"]:
                _allow(request, _POST)
                return json_answer(self._desk.index(), _accept(request))
            case parts:
                _allow(request, _GET)
                return self._get(request, parts)

    def _get(self, request: Request, parts: list[str]) -> bytes:
        desk, accept = self._desk, _accept(request)
        match parts:
            case ["v2"]:
                return json_answer(desk.server(), accept)
            case ["v2", "health", "live"]:
                return empty_answer(200)
            case ["v2", "health", "ready"]:
                return empty_answer(200 if desk.ready() else _NOT_READY)
            case ["v2", "models", "stats"]:
                return json_answer(StatisticsAnswer(desk.figures()), accept)
            case ["v2", "models", model, *rest]:
                return self._about(request, model, rest)
        raise _nothing(request)

    def _about(self, request: Request, model: str, rest: list[str]) -> bytes:
        desk, accept, version = self._desk, _accept(request), ""
        if len(rest) > 1 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match rest:
            case []:
                return json_answer(desk.metadata(model, version), accept)
            case ["ready"]:
                return empty_answer(200 if desk.model_ready(model, version) else _NOT_READY)
            case ["stats"]:
                return json_answer(StatisticsAnswer(desk.figures(model, version)), accept)
        raise _nothing(request)

    def _first(
        self, request: Request, model: str, version: str, done: Callable[[Outcome], None]
    ) -> bytes | Waiting:
        """Infer, and remember what the target means."""
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[request.target] = (model, version)
        return self._infer(request, model, version, done)

    def _infer(
        self, request: Request, model: str, version: str, done: Callable[[Outcome], None]
    ) -> bytes | Waiting:
        _allow(request, _POST)
        headers = request.headers
        began = time.perf_counter()
        body = decoded(request.body, headers.get(b"content-encoding"), self._limit)
        size = _json_size(headers.get(b"inference-header-content-length"))
        ask = read_ask(Posted(model, version, body, began, size))
        accept = _accept(request)
        outcome = self._desk.infer(ask, done)
        if outcome is not None:
            return self._told(ask, outcome, accept, close=not request.keep_alive)

        def finish(outcome: Outcome) -> bytes:
            self._desk.heard(ask, outcome)
            return self._told(ask, outcome, accept, close=not request.keep_alive)

        return Waiting(finish)

    def _told(self, ask: Ask, outcome: Outcome, accept: bytes | None, *, close: bool) -> bytes:
        if not isinstance(outcome, Served):
            return failure_answer(outcome, close=close)
        start = time.perf_counter()
        try:
            answer = infer_answer(ask, outcome, accept)
        except EdgeError as error:
            return failure_answer(error, close=close)
        key = (outcome.slot.model, outcome.slot.version)
        written = time.perf_counter() - start
        self._desk.statistics.succeeded(key, outcome.n, outcome.times, written)
        return answer


def _path(target: bytes) -> list[str]:
    """The segments of a target, without what follows a question mark."""
    if len(target) > _MAX_TARGET:
        raise RequestError(Kind.HEAD, f"a path is at most {_MAX_TARGET} bytes")
    text = target.decode("latin-1").partition("?")[0]
    if "%" in text:
        return [unquote(part) for part in text.strip("/").split("/")]
    return text.strip("/").split("/")


def _allow(request: Request, methods: frozenset[bytes]) -> None:
    if request.method not in methods:
        names = " or ".join(sorted(m.decode() for m in methods))
        raise RequestError(Kind.METHOD, f"{request.method.decode()} is not for this path: {names}")


def _nothing(request: Request) -> RequestError:
    path = request.target.decode("latin-1")[:200]
    return RequestError(Kind.NOT_FOUND, f"there is nothing at {path!r}; begin at /v2")


def _accept(request: Request) -> bytes | None:
    return request.headers.get(b"accept-encoding")


def _json_size(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:  # noqa: PLR2004 - digits of any body there can be
        msg = "Inference-Header-Content-Length must be a number"
        raise invalid(msg)
    return int(value)
