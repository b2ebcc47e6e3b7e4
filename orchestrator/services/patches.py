"""Patches for devices: what there is is offered at once, what there is not is made beside."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.errors import ArgosyError
from orchestrator.services.patch_workshop import PatchWorkshop
from orchestrator.services.ports import Clock, GivenUp, UnitOfWork
from orchestrator.services.records import PatchRecord
from schemas.transfer import MAX_HELD, PatchOffer

log = logging.getLogger(__name__)

MIN_TARGET_BYTES = 256 * 1024
"""Of smaller files the chunks are as soon there as a patch."""

MAX_WAITING = 64
"""Files for which a patch is wanted; more are pulled."""

_NICE = 15
_SWEEP_SECONDS = 300.0
_PAUSE_SECONDS = 60.0
_BYTES_A_SECOND = 4e6
_SOONEST, _LATEST = 1.0, 30.0


@dataclass(slots=True)
class _Wish:
    """A file for which patches are wanted. size: bytes. bases: from which."""

    size: int
    bases: OrderedDict[str, None]


class PatchService:
    """Offers patches, and has them made in one thread of low priority.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        workshop: makes and keeps them; None: only what there is is offered.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, workshop: PatchWorkshop | None) -> None:
        self._uow = uow
        self._clock = clock
        self._workshop = workshop
        self._wishes: OrderedDict[str, _Wish] = OrderedDict()
        self._failed: dict[str, datetime] = {}
        self._offered: dict[tuple[str, str], datetime] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="patches", daemon=True)

    def offer(self, sha256: str, held: Sequence[str]) -> PatchOffer | float | None:
        """What a device is told that wants a file and holds others. Waits for no patch.

        Args:
            sha256: the file that it wants.
            held: the complete files on it.

        Returns:
            The smallest patch that there is; or the seconds after which to ask again, while
            one is made; None when there will be none.

        Raises:
            Unavailable: the database does not answer.
        """
        bases = [base for base in dict.fromkeys(held[:MAX_HELD]) if base != sha256]
        if not bases:
            return None
        now = self._clock()
        with self._uow.read() as tx:
            if not tx.models.serves(sha256):
                return None
            known = {record.base: record for record in tx.patches.of(sha256, bases)}
            sound = tx.patches.bases(bases)
        made = [offer for record in known.values() if (offer := _offer(record)) is not None]
        if made:
            best = min(made, key=lambda one: one.size)
            with self._changed:
                self._offered[sha256, best.base] = now
            return best
        untried = [
            base
            for base in bases
            if base in sound and (base not in known or known[base].made_at is None)
        ]
        return self._wish(sha256, untried, now) if untried else None

    def serves(self, sha256: str) -> bool:
        """Whether devices may fetch this as a patch: the file that it makes may be fetched.

        Raises:
            Unavailable: the database does not answer.
        """
        with self._uow.read() as tx:
            return tx.patches.serves(sha256)

    def start(self) -> None:
        """Begin to make what is asked for."""
        if self._workshop is not None:
            self._thread.start()

    def end(self) -> None:
        """Give up what is being made; waits for nothing."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def work(self) -> bool:
        """Make what was asked for first, if anything was; the thread does nothing else."""
        with self._changed:
            target = next(iter(self._wishes), None)
            bases = [] if target is None else list(self._wishes[target].bases)
        if target is None or self._workshop is None:
            return False
        try:
            self._workshop.make(target, bases, lambda: not self._stopping)
        except GivenUp:
            pass
        except ArgosyError as error:
            log.warning("no patch for %s: %s", target[:12], error.detail)
            self._fail(target)
        except Exception:
            log.exception("no patch for %s", target[:12])
            self._fail(target)
        finally:
            with self._changed:
                self._wishes.pop(target, None)
        return True

    def tidy(self) -> None:
        """Write down what was offered, and remove what is of no use any more."""
        with self._changed:
            offered, self._offered = self._offered, {}
        if offered:
            with self._uow() as tx:
                for (target, base), at in offered.items():
                    tx.patches.offered(target, base, at)
        if self._workshop is not None:
            self._workshop.sweep()

    def _wish(self, sha256: str, bases: Sequence[str], now: datetime) -> float | None:
        if self._workshop is None or self._stopping:
            return None
        try:
            size = self._workshop.size(sha256)
        except ArgosyError:
            return None
        if not MIN_TARGET_BYTES <= size <= self._workshop.max_target_bytes:
            return None
        with self._changed:
            failed = self._failed.get(sha256)
            if failed is not None and 0 <= (now - failed).total_seconds() < _PAUSE_SECONDS:
                return None
            wish = self._wishes.get(sha256)
            if wish is None:
                if len(self._wishes) >= MAX_WAITING:
                    return None
                wish = self._wishes[sha256] = _Wish(size, OrderedDict())
                self._changed.notify_all()
            if len(wish.bases) < MAX_HELD:
                wish.bases.update(dict.fromkeys(bases))
            waiting = sum(one.size for one in self._wishes.values())
        return min(_LATEST, max(_SOONEST, waiting / _BYTES_A_SECOND))

    def _fail(self, target: str) -> None:
        with self._changed:
            if len(self._failed) >= MAX_WAITING:
                self._failed.clear()
            self._failed[target] = self._clock()

    def _run(self) -> None:
        # On Linux a thread has a priority of its own; elsewhere it keeps the server's.
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopping:
            try:
                self.tidy()
            except ArgosyError as error:
                log.warning("patches are not looked after: %s", error.detail)
            except Exception:
                log.exception("patches are not looked after")
            while self.work() and not self._stopping:
                pass
            with self._changed:
                if not self._wishes and not self._stopping:
                    self._changed.wait(_SWEEP_SECONDS)


def fetchable(files: Callable[[str], bool], patches: PatchService) -> Callable[[str], bool]:
    """Whether devices may fetch something: a file of a version, or a patch that makes one."""

    def serves(sha256: str) -> bool:
        return files(sha256) or patches.serves(sha256)

    return serves


def _offer(record: PatchRecord) -> PatchOffer | None:
    if record.sha256 is None or record.leaves_sha256 is None:
        return None
    return PatchOffer(
        base=record.base,
        sha256=record.sha256,
        size=record.size,
        leaves_sha256=record.leaves_sha256,
    )
