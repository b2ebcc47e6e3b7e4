"""Holds on artifacts: what somebody is about to name is not deleted meanwhile.

A file may be about to be named (by a version, a job, an upload) or about to be deleted, and
never both: who wants one marks it in a writing transaction that sees no mark of the other.
Writing transactions run one after the other, whichever server begins them. What the mark
allows, asking a bucket or deleting from it, is then done outside of any transaction. Marks
end by themselves, so those of a process that was killed bar nobody for long.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.collect import GRACE
from orchestrator.errors import Conflict, Invalid, Unavailable
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from schemas.errors import FieldError

CONDEMNED = timedelta(seconds=80)
"""How long files are condemned that nobody releases.

A collection works on them for 50 s at most; the rest is for clocks that differ.
"""

_PATIENCE = 95.0
"""Seconds that an upload waits: longer than a mark lasts, shorter than clients wait."""
_PAUSE = 0.25
_HELD = timedelta(hours=1)
_UPLOADS = "upload"
_LATE = "took so long that its files may have been collected"


@dataclass(frozen=True, slots=True)
class Hold:
    """Files that are held. count: how many."""

    owner: str
    count: int

    def settle(self, tx: Transaction, now: datetime) -> None:
        """End it in the transaction that names the files.

        Raises:
            Conflict: it has ended already, and so the files may be gone.
        """
        if tx.artifact_marks.count(self.owner, now) != self.count:
            msg = f"the request {_LATE}"
            raise Conflict(msg, hint="try again")
        tx.artifact_marks.release(self.owner)


class Holds:
    """Holds files for those who are about to name them, and for those who upload them.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        pause: waits for so many seconds.
        ticking: seconds that pass, whatever the clock does.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        *,
        pause: Callable[[float], None] = time.sleep,
        ticking: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._pause = pause
        self._ticking = ticking

    @contextlib.contextmanager
    def on(self, files: Mapping[str, str]) -> Iterator[Hold]:
        """Hold files while the block looks whether they are there and then names them.

        Args:
            files: digest → what the request calls it.

        Raises:
            Invalid: some are being deleted.
        """
        hold = Hold(secrets.token_hex(16), len(files))
        if files:
            now = self._clock()
            with self._uow() as tx:
                _check(files, tx.artifact_marks.condemned(files, now))
                tx.artifact_marks.prune(now)
                tx.artifact_marks.hold(hold.owner, files, now + _HELD)
        try:
            yield hold
        except BaseException:
            # Not released it would end by itself, only later.
            with contextlib.suppress(Unavailable):
                self._release(hold)
            raise

    @contextlib.contextmanager
    def upload(self, sha256: str) -> Iterator[None]:
        """Hold a file while it is stored and for a day after; wait until no deletion is under way.

        Raises:
            Conflict: it is still being deleted; or storing it took longer than a day.
        """
        until = self._hold_upload(sha256)
        yield
        if self._clock() >= until:
            msg = f"the upload of artifact {sha256} {_LATE}"
            raise Conflict(msg, hint="send it again")

    def _hold_upload(self, sha256: str) -> datetime:
        began = self._ticking()
        while True:
            with self._uow() as tx:
                now = self._clock()
                if not tx.artifact_marks.condemned([sha256], now):
                    tx.artifact_marks.prune(now)
                    tx.artifact_marks.hold(_UPLOADS, [sha256], now + GRACE)
                    return now + GRACE
            if self._ticking() - began > _PATIENCE:
                msg = f"artifact {sha256} is being collected"
                raise Conflict(msg, hint="upload it again in a minute")
            self._pause(_PAUSE)

    def _release(self, hold: Hold) -> None:
        if hold.count:
            with self._uow() as tx:
                tx.artifact_marks.release(hold.owner)


def _check(files: Mapping[str, str], condemned: AbstractSet[str]) -> None:
    errors = [
        FieldError(field=name, message=f"artifact {sha256} is being collected; upload it again")
        for sha256, name in files.items()
        if sha256 in condemned
    ]
    if errors:
        msg = f"{errors[0].field}: {errors[0].message}"
        raise Invalid(msg, fields=errors)
