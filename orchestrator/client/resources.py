"""The API's resources, one class each. Listings are iterators that page by themselves.

Jobs and agents stand in ``orchestrator.client.jobs``, the registry in
``orchestrator.client.models``, rollouts in ``orchestrator.client.rollouts``, devices and join
tokens in ``orchestrator.client.devices``, telemetry in ``orchestrator.client.telemetry``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote

from orchestrator.client.errors import AnswerError
from orchestrator.client.follow import Look
from orchestrator.client.transport import Params, Transport
from orchestrator.errors import Invalid
from schemas.access import Whoami
from schemas.api import Health, Page

T = TypeVar("T")

PAGE_LIMIT = 200


def segment(text: str | int) -> str:
    """A value as one segment of a path.

    Raises:
        Invalid: it is empty or dots, which would lead to another path.
    """
    if str(text) in {"", ".", ".."}:
        detail = f"{str(text)!r} is neither an id nor a name"
        raise Invalid(detail)
    return quote(str(text), safe="", errors="surrogateescape")


class Resource:
    """What all resources share."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _pages(
        self,
        path: str,
        item: type[T],
        params: Params | None = None,
        cursor: str | None = None,
    ) -> Iterator[T]:
        while True:
            query: Params = {**(params or {}), "limit": PAGE_LIMIT, "cursor": cursor}
            page: Page[T] = self._transport.get(path, Page[item], query)  # type: ignore[valid-type]
            yield from page.items
            if page.next is None or not page.items:
                return
            if page.next == cursor:
                detail = f"the listing {path} does not move past its cursor"
                raise AnswerError(detail)
            cursor = page.next


class Platform(Resource):
    """The platform itself."""

    def whoami(self) -> Whoami:
        """Whose token this is."""
        return self._transport.get("/v1/whoami", Whoami)

    def health(self) -> Health:
        """Whether every part is up."""
        return self._transport.get("/v1/health", Health)


def last_of(looks: Iterator[Look[T]]) -> T:
    """What a follower saw in the end."""
    value = None
    for look in looks:
        value = look.value if look.value is not None else value
    if value is None:
        detail = "nothing was seen"
        raise AnswerError(detail)
    return value
