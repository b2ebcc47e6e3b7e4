"""Makes patches and keeps them within bounds.

A pair of files is claimed in the database before its patch is made, so that servers that share
one do it once; a claim is renewed while the work goes on, and ends soon after a server that was
killed. A patch is stored before its record says so: what a crash leaves is an artifact that
nothing names, which has the same digest when it is made again, and is collected otherwise.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.domain.patch_plan import rank
from orchestrator.errors import NotFound, Unavailable
from orchestrator.services.holds import CONDEMNED, Holds
from orchestrator.services.ports import (
    Artifacts,
    ArtifactShelf,
    Clock,
    MadePatch,
    PatchMaker,
    Transaction,
    UnitOfWork,
)
from orchestrator.services.records import PatchRecord
from schemas.api import Stored

MAX_TARGET_BYTES = 256 * 1024 * 1024
"""Of a file and its base; a patch between larger ones is not made."""

MAX_BYTES = 2 * 1024**3
"""Of all patches together."""

_CLAIM = timedelta(seconds=180)
_RENEWED = timedelta(seconds=15)
_TRIED_AGAIN = timedelta(days=30)
_LOOKED = timedelta(hours=1)
_BATCH = 20


class PatchStore(Artifacts, ArtifactShelf, Protocol):
    """The artifact store, as far as patches need it."""

    def put(self, stream: Iterable[bytes], sha256: str, max_size: int) -> Stored:
        """Store a stream under its digest."""
        ...


class PatchWorkshop:
    """Makes patches, and removes them when they are too many or of no use.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        store: the artifacts.
        maker: makes a patch.
        max_bytes: of all patches together; those offered longest ago go first.
        max_target_bytes: of a file and its base.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        store: PatchStore,
        maker: PatchMaker,
        *,
        max_bytes: int = MAX_BYTES,
        max_target_bytes: int = MAX_TARGET_BYTES,
    ) -> None:
        self.max_target_bytes = max_target_bytes
        self._uow = uow
        self._clock = clock
        self._store = store
        self._maker = maker
        self._max = max_bytes
        self._holds = Holds(uow, clock)
        self._looked: datetime | None = None

    def size(self, sha256: str) -> int:
        """An artifact's length in bytes; raises NotFound."""
        return self._store.size(sha256)

    def make(self, target: str, bases: Sequence[str], going: Callable[[], bool]) -> None:
        """See that there is a patch from one of the bases, unless it is known to be no use.

        Raises:
            GivenUp: ``going`` said no.
            ArgosyError: it cannot be made now.
        """
        for base in self._ranked(target, bases):
            owner = secrets.token_hex(16)
            with self._uow() as tx:
                record = tx.patches.get(target, base)
                if record is not None and record.made_at is not None:
                    if record.sha256 is not None:
                        return
                    continue
                now = self._clock()
                if record is not None and record.until is not None and record.until > now:
                    return  # another server is at it
                claim = PatchRecord(
                    target=target, base=base, offered_at=now, owner=owner, until=now + _CLAIM
                )
                tx.patches.put(claim)
            try:
                if self._finish(claim, going):
                    return
            except BaseException:
                with contextlib.suppress(Unavailable):  # then it ends by itself
                    self._release(claim)
                raise

    def sweep(self) -> None:
        """Remove patches to files that no device may fetch any more, and those that are gone."""
        now = self._clock()
        with self._uow.read() as tx:
            stale = tx.patches.stale(now - _TRIED_AGAIN, 10 * _BATCH)
            kept = tx.patches.made()
        self._remove(stale)
        if self._looked is None or not self._looked <= now < self._looked + _LOOKED:
            self._looked = now
            gone = [r for r in kept if r.sha256 and not self._store.exists(r.sha256, anew=True)]
            self._remove(gone)
        self._trim()

    def _ranked(self, target: str, bases: Sequence[str]) -> Sequence[str]:
        sound = {}
        for base in bases:
            try:
                if 0 < self._store.size(base) <= self.max_target_bytes:
                    sound[base] = self._store.leaves(base)
            except NotFound:
                continue
        return rank(self._store.leaves(target), sound)

    def _finish(self, claim: PatchRecord, going: Callable[[], bool]) -> bool:
        """Make it and write down what came of it; False: nothing that is of use."""
        with self._maker.make(claim.base, claim.target, self._renewing(claim, going)) as made:
            if made is None or made.size > self._max:
                with self._uow() as tx:
                    self._settle(tx, claim, None)
                return False
            with self._holds.on({made.sha256: "the patch"}) as hold:
                self._store.put(made.pieces(), made.sha256, made.size)
                with self._uow() as tx:
                    hold.settle(tx, self._clock())
                    self._settle(tx, claim, made)
        self._trim()
        return True

    def _settle(self, tx: Transaction, claim: PatchRecord, made: MadePatch | None) -> None:
        now = self._clock()
        found = tx.patches.get(claim.target, claim.base)
        if found is None or found.owner != claim.owner:
            return  # it took too long, and is another server's now
        done = replace(found, owner=None, until=None, made_at=now, offered_at=now)
        if made is not None:
            done = replace(
                done, sha256=made.sha256, leaves_sha256=made.leaves_sha256, size=made.size
            )
        tx.patches.put(done)

    def _renewing(self, claim: PatchRecord, going: Callable[[], bool]) -> Callable[[], bool]:
        """``going``, which renews the claim when it is due."""
        renewed = self._clock()

        def still() -> bool:
            nonlocal renewed
            now = self._clock()
            if not renewed <= now < renewed + _RENEWED:
                renewed = now
                with self._uow() as tx:
                    found = tx.patches.get(claim.target, claim.base)
                    if found is None or found.owner != claim.owner:
                        return False
                    tx.patches.put(replace(found, until=now + _CLAIM))
            return going()

        return still

    def _release(self, claim: PatchRecord) -> None:
        with self._uow() as tx:
            found = tx.patches.get(claim.target, claim.base)
            if found is not None and found.owner == claim.owner and found.made_at is None:
                tx.patches.remove(claim.target, claim.base)

    def _trim(self) -> None:
        """Remove what is beyond the bound, the longest not offered first."""
        with self._uow.read() as tx:
            made = tx.patches.made()
        room, going = self._max, []
        for record in made:
            room -= record.size
            if room < 0:
                going.append(record)
        self._remove(going)

    def _remove(self, records: Sequence[PatchRecord]) -> None:
        """Forget patches and delete them, unless something else needs their bytes."""
        for start in range(0, len(records), _BATCH):
            portion = records[start : start + _BATCH]
            owner, now = secrets.token_hex(16), self._clock()
            digests = {record.sha256 for record in portion if record.sha256 is not None}
            with self._uow() as tx:
                for record in portion:
                    tx.patches.remove(record.target, record.base)
                spared = tx.holdings.named(digests, now) | tx.artifact_marks.held(digests, now)
                doomed = digests - spared
                tx.artifact_marks.condemn(owner, doomed, now + CONDEMNED)
            for sha256 in sorted(doomed):
                # Who stores it again waits for the mark's end, so none is deleted that is new.
                self._store.delete(sha256, now + CONDEMNED)
            with self._uow() as tx:
                tx.artifact_marks.release(owner)
