"""One device's parts, as its updates work with them."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_client.identity import Identity
from edge_client.journal import Journal
from edge_client.runtime import Runtime
from edge_client.settings import Home, RunSettings
from edge_client.store import Store
from edge_client.trust import Trust
from schemas.transfer import Need

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """date: with a zone. steady: seconds that only grow; zero at the agent's start."""

    date: Callable[[], dt.datetime]
    steady: Callable[[], float]


@dataclass(slots=True)
class Problems:
    """The last thing that went wrong, kept for ``argosy-edge status``."""

    last: str | None = None

    def note(self, problem: str) -> None:
        """Keep a problem, and log it."""
        self.last = problem
        log.warning("%s", problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What there is one of on a device. Used from the thread that decides.

    journal: the update's state and its reports. store: model files. trust: the rules
    for documents. runtime: what serves. send: publishes a request; False when there is
    no connection.
    """

    home: Home
    settings: RunSettings
    identity: Identity
    journal: Journal
    store: Store
    trust: Trust
    runtime: Runtime
    clock: Clock
    send: Callable[[Need], bool]
    problems: Problems = field(default_factory=Problems)

    @property
    def name(self) -> str:
        """The device's id, as it is enrolled."""
        return self.identity.record.device
