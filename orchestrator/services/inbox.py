"""What devices send, by batches: each message is stored before it is acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from orchestrator.errors import Unavailable
from orchestrator.services import actor
from orchestrator.services.births import Sign
from orchestrator.services.devices import DeviceService
from orchestrator.services.measured import MeasuredService
from orchestrator.services.ports import Transaction, UnitOfWork
from orchestrator.services.reports import ReportService
from orchestrator.services.telemetry import TelemetryService
from schemas.device import Birth, Death
from schemas.measure import BenchReport
from schemas.rollout import ExecReport
from schemas.telemetry import Window
from schemas.topics import Up, UpTopic

log = logging.getLogger(__name__)

Stored: TypeAlias = Birth | Death | ExecReport | Window | BenchReport

_KINDS: Mapping[Up, type[Stored]] = {
    Up.BIRTH: Birth,
    Up.DEATH: Death,
    Up.EXEC: ExecReport,
    Up.TELE: Window,
    Up.BENCH: BenchReport,
}


@dataclass(frozen=True, slots=True)
class UpMessage:
    """A message from a device.

    ``mid`` is what the broker waits to see acknowledged, on the connection of that number.
    """

    topic: UpTopic
    payload: bytes
    retained: bool
    mid: int = 0
    connection: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    """A message that was well-formed."""

    device: str
    what: Stored
    source: UpMessage


class Inbox:
    """Hands messages to the services that they are for, a batch of a kind at once."""

    def __init__(
        self,
        uow: UnitOfWork,
        devices: DeviceService,
        reports: ReportService,
        telemetry: TelemetryService,
        measured: MeasuredService,
    ) -> None:
        self._uow = uow
        self._devices = devices
        self._reports = reports
        self._telemetry = telemetry
        self._measured = measured

    def handle(self, batch: Sequence[UpMessage]) -> None:
        """Store a batch in one transaction.

        A message that cannot be stored at all is dropped by itself, with a line in the
        log: one device's fault must not hold up the others.

        Raises:
            Unavailable: the database does not answer; nothing was stored, and nothing
                may be acknowledged.
        """
        read = [one for message in batch if (one := _read(message)) is not None]
        if read:
            self._store(read)

    def _store(self, read: Sequence[_Read]) -> None:
        try:
            with self._uow() as tx:
                self._all(tx, read)
        except Unavailable:
            raise
        except Exception:
            if len(read) == 1:
                log.exception("dropped a message on %s", read[0].source.topic)
                return
            middle = len(read) // 2
            for half in (read[:middle], read[middle:]):
                self._store(half)

    def _all(self, tx: Transaction, read: Sequence[_Read]) -> None:
        # Whoever may not take part, or not yet, is as if it were silent.
        heard = tx.devices.taking_part({one.device for one in read})
        signs: list[Sign] = []
        reports: list[tuple[str, ExecReport]] = []
        windows: list[tuple[str, Window]] = []
        for one in read:
            if one.device not in heard:
                continue
            match one.what:
                case Birth() | Death():
                    signs.append(Sign(one.device, one.what, one.source.retained))
                case ExecReport():
                    reports.append((one.device, one.what))
                case Window():
                    windows.append((one.device, one.what))
                case BenchReport():
                    with actor.acting(actor.device(one.device)):
                        self._measured.reported(tx, one.device, one.what)
        # Births first: what a device says of its journal may make room for its reports.
        if signs:
            self._devices.take(tx, signs)
        if reports:
            self._reports.take(tx, reports)
        if windows:
            self._telemetry.take(tx, windows)


def _read(message: UpMessage) -> _Read | None:
    device, leaf = message.topic.device, message.topic.leaf
    kind = _KINDS.get(leaf)
    if kind is None:
        log.warning("a request from %s came the wrong way", device)
        return None
    try:
        return _Read(device, kind.model_validate_json(message.payload), message)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        log.warning("malformed %s from %s: %s %s", leaf, device, where, first["msg"])
        return None
