"""One device's parts, as its updates work with them."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_client.chore import Spawn, at_once
from edge_client.errors import TrustError
from edge_client.identity import Identity
from edge_client.inlet import Inlet
from edge_client.journal import Journal
from edge_client.metadata import MetadataClient
from edge_client.runtime import Runtime
from edge_client.settings import BUILT, Home, RunSettings
from edge_client.store import Store
from edge_client.trust import require_clock
from schemas.transfer import Ask, Need
from schemas.trust import MetadataAsk

GOOD_TIME = "good_time"

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

    journal: the update's state and its reports. store: model files. metadata:
    whose signatures count. runtime: what serves. send, inquire, ask: publish a request, for
    chunks, about a file or for trust metadata; False when there is no connection. listen: to
    the broadcast of a file, None to none. inlet: where chunks arrive. nudge: has the updater
    pumped soon, from any thread. spawn: runs what takes long. server_time: None while it is not
    known, which has it asked for.
    """

    home: Home
    settings: RunSettings
    identity: Identity
    journal: Journal
    store: Store
    metadata: MetadataClient
    runtime: Runtime
    clock: Clock
    send: Callable[[Need], bool]
    inquire: Callable[[Ask], bool]
    ask: Callable[[MetadataAsk], bool]
    listen: Callable[[str | None], None] = lambda _sha256: None
    inlet: Inlet = field(default_factory=Inlet)
    nudge: Callable[[], None] = lambda: None
    spawn: Spawn = at_once
    server_time: Callable[[], dt.datetime | None] = lambda: None
    problems: Problems = field(default_factory=Problems)

    def require_clock(self) -> None:
        """See that the clock is not behind.

        Raises:
            TrustError: it says a time that has passed.
        """
        good = self.journal.fact(GOOD_TIME)
        require_clock(self.clock.date(), built=BUILT, good=good)

    def saw_good_time(self, now: dt.datetime) -> None:
        """Remember a time at which all metadata held, so that it never counts backwards.

        It is no later than the metadata's expiry: a clock that runs far ahead gets nowhere.
        """
        good = self.journal.fact(GOOD_TIME)
        if good is None or now.timestamp() > good:
            self.journal.remember(GOOD_TIME, now.timestamp())

    @property
    def name(self) -> str:
        """The device's id, as it is enrolled."""
        return self.identity.record.device


def clock_is_set(device: Device) -> bool:
    """Whether installing may go on; a clock that is behind is noted, and looked at again."""
    try:
        device.require_clock()
    except TrustError as error:
        if device.problems.last != str(error):
            device.problems.note(str(error))
        return False
    return True
