"""Which devices are answered, without asking the database for each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from itertools import islice

from orchestrator.errors import Unavailable
from orchestrator.services.ports import UnitOfWork

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""For so long an answer of the database counts: a revoked device is sent nothing after it."""

_AT_ONCE = 500
_MAX_KNOWN = 50_000

Among = Callable[[Iterable[str]], AbstractSet[str]]
"""Those of the devices that take part; raises ``Unavailable``."""


class Admitted:
    """Asks for all who wait at once, and remembers it for a second. Used from one thread.

    Args:
        among: asks the database.
        clock: seconds, never going back.
    """

    def __init__(self, among: Among, clock: Callable[[], float] = time.monotonic) -> None:
        self._among = among
        self._clock = clock
        self._known: dict[str, tuple[float, bool]] = {}

    def admits(self, device: str, waiting: Iterable[str] = ()) -> bool:
        """Whether a device is answered; nobody is while the database is silent.

        waiting: others, about whom it will be asked next.
        """
        now = self._clock()
        until, admitted = self._known.get(device, (0.0, False))
        if now < until:
            return admitted
        stale = (one for one in waiting if self._known.get(one, (0.0, False))[0] <= now)
        asked = {device, *islice(stale, _AT_ONCE)}
        try:
            heard = self._among(asked)
        except Unavailable as error:
            log.warning("no device is sent anything now: %s", error)
            heard = frozenset()
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        self._known.update({one: (now + FRESH_SECONDS, one in heard) for one in asked})
        return device in heard


def among(uow: UnitOfWork) -> Among:
    """Ask the database of that unit of work."""

    def ask(devices: Iterable[str]) -> AbstractSet[str]:
        with uow.read() as tx:
            return tx.devices.taking_part(devices)

    return ask
