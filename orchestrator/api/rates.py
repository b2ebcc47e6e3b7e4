"""How often a client may ask: what is costly or guesses at secrets is slowed down."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import Request, status
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem
from orchestrator.services.meter import Meter, Rate
from schemas.errors import Code

_NAMED = len("Bearer arg_key_") + 16
"""Characters of the header that name a key, without its secret."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one client address may do, and all of them together."""

    each: Rate
    all: Rate


RULES: dict[tuple[str, str], Rule] = {
    # Many devices of one site share an address, and those that await approval ask again.
    ("POST", "/v1/enroll"): Rule(Rate(600), Rate(6000)),
    ("POST", "/v1/renew"): Rule(Rate(120), Rate(3000)),
    ("POST", "/v1/session"): Rule(Rate(20), Rate(300)),
}

FAILURES_OF_KEY = Rate(60)
"""Refused keys (401) of one address and one key: a program whose key was revoked slows down."""

FAILURES_OF_ADDRESS = Rate(300)
"""Refused keys of one address, whichever they were; tokens in bodies count by their path."""

KNOWN = "argosy.known"
"""What ``context.principal`` sets in the scope of a request whose key it found good.

Such a key goes on being heard from its address: else whoever shares the address, a proxy or this
machine with others could lock them out by guessing."""

MAX_KNOWN = 10_000


class RateLimits:
    """Answers 429 with ``Retry-After`` beyond the rates above.

    Args:
        app: what comes behind.
        meter: keeps the counts.
    """

    def __init__(self, app: ASGIApp, meter: Meter | None = None) -> None:
        self._app = app
        self._meter = Meter() if meter is None else meter
        self._known: OrderedDict[tuple[str, ...], None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it before anything of it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        before, after = list(_counted(scope)), list(_counted_if_refused(scope))
        who = after[-1][0] if after else ()
        heard = after[1:] if who in self._known else after
        wait = max((self._meter.wait(*one) for one in (*before, *heard)), default=0.0)
        if wait > 0:
            await _refuse(scope, receive, send, wait)
            return
        for one in before:
            self._meter.count(*one)

        async def watched(message: Message) -> None:
            if message.get("status") == status.HTTP_401_UNAUTHORIZED:
                self._known.pop(who, None)
                for one in after:
                    self._meter.count(*one)
            elif "status" in message and scope.get(KNOWN):
                self._remember(who)
            await send(message)

        await self._app(scope, receive, watched if after else send)

    def _remember(self, who: tuple[str, ...]) -> None:
        self._known[who] = None
        self._known.move_to_end(who)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def address_of(scope: Scope) -> str:
    """The client's address: of IPv6 the /64, which is what one client is given."""
    host = str((scope.get("client") or ("",))[0])[:64]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _counted(scope: Scope) -> Iterator[tuple[tuple[str, ...], Rate]]:
    rule = RULES.get((scope["method"], scope["path"]))
    if rule is not None:
        yield (scope["path"], address_of(scope)), rule.each
        yield (scope["path"],), rule.all


def _counted_if_refused(scope: Scope) -> Iterator[tuple[tuple[str, ...], Rate]]:
    """What a 401 counts for. Who shows nothing guesses nothing, and is not counted."""
    address = address_of(scope)
    if (scope["method"], scope["path"]) in RULES:
        yield ("refused", scope["path"], address), FAILURES_OF_ADDRESS
        return
    shown = _shown(scope)
    if shown is not None:
        yield ("refused", address), FAILURES_OF_ADDRESS
        yield ("refused", address, shown), FAILURES_OF_KEY


def _shown(scope: Scope) -> str | None:
    """Which credential a request shows: its public part."""
    headers = dict(scope["headers"])
    bearer = headers.get(b"authorization")
    if bearer is not None:
        return str(bearer[:_NAMED].decode("latin-1"))
    return "cookie" if b"cookie" in headers else None


async def _refuse(scope: Scope, receive: Receive, send: Send, wait: float) -> None:
    seconds = math.ceil(wait)
    response = problem(
        Request(scope),
        Code.TOO_MANY,
        "too many requests from this address",
        hint=f"wait {seconds} s",
    )
    response.headers["retry-after"] = str(seconds)
    await response(scope, receive, send)
