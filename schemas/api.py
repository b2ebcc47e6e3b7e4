"""What the HTTP API adds to the types of its resources: pages, events, health."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from schemas.base import UtcTime, Wire

T = TypeVar("T")

PORT = 8420
MQTT_PORT = 8883


class Page(Wire, Generic[T]):
    """A page of a listing; ``next`` is the cursor of the following one."""

    items: tuple[T, ...]
    next: str | None = None


class Event(Wire):
    """Something that happened, on ``GET /v1/events`` (server-sent events).

    id: grows by at least one per event; give the last one seen to go on after it.
    subject: the id of the job, device or rollout.
    """

    id: int
    at: UtcTime
    kind: Literal["job", "live", "model", "device", "rollout", "execution", "wave", "experiment"]
    subject: str
    data: Annotated[dict[str, Any], Field(max_length=64)]


class Health(Wire):
    """``GET /v1/health``: ``ok`` when every part is up."""

    ok: bool
    version: str
    parts: dict[str, str]


class TransferProcess(Wire):
    """How a process that answers requests for chunks fares, by what it said a second ago.

    busy: whether it has sent lately, or something waits. Bytes and dropped chunks are counted
    since it was started; a broadcast counts once for each listener.
    """

    name: str
    busy: bool = False
    unicast_bytes: int = 0
    broadcast_bytes: int = 0
    dropped_chunks: int = 0
    waiting_chunks: int = 0
    waiting_devices: int = 0


class Stored(Wire):
    """The answer to an upload."""

    sha256: str
    size: int
    created: bool
