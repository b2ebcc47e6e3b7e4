"""What devices send, by batches: each message is stored before it is acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import ValidationError

from orchestrator.errors import Unavailable
from orchestrator.services import actor
from orchestrator.services.births import Sign
from orchestrator.services.devices import DeviceService
from orchestrator.services.measured import MeasuredService
from orchestrator.services.ports import Transaction, UnitOfWork
from orchestrator.services.reports import ReportService
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry import Heard, Taken, TelemetryService
from schemas import sample, window
from schemas.device import Birth, Death
from schemas.measure import BenchReport
from schemas.rollout import ExecReport
from schemas.sample import Sample
from schemas.topics import Up, UpTopic
from schemas.window import Envelope, WindowError

log = logging.getLogger(__name__)

Stored: TypeAlias = Birth | Death | ExecReport | Envelope | BenchReport | Sample

_KINDS: Mapping[Up, type[Birth | Death | ExecReport | BenchReport]] = {
    Up.BIRTH: Birth,
    Up.DEATH: Death,
    Up.EXEC: ExecReport,
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


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A batch by kind."""

    signs: list[Sign] = field(default_factory=list)
    reports: list[tuple[str, ExecReport]] = field(default_factory=list)
    benches: list[tuple[str, BenchReport]] = field(default_factory=list)
    envelopes: list[Heard] = field(default_factory=list)
    samples: list[tuple[str, Sample, bytes]] = field(default_factory=list)

    def add(self, one: _Read, device_class: str) -> None:
        """Put a message where those of its kind are."""
        match one.what:
            case Birth() | Death():
                self.signs.append(Sign(one.device, one.what, one.source.retained))
            case ExecReport():
                self.reports.append((one.device, one.what))
            case BenchReport():
                self.benches.append((one.device, one.what))
            case Envelope() as envelope:
                size = len(one.source.payload)
                self.envelopes.append(Heard(one.device, device_class, envelope, size))
            case Sample() as given:
                self.samples.append((one.device, given, one.source.payload))


class Inbox:
    """Hands messages to the services that they are for, a batch of a kind at once."""

    def __init__(
        self,
        uow: UnitOfWork,
        devices: DeviceService,
        reports: ReportService,
        telemetry: TelemetryService,
        measured: MeasuredService,
        samples: SampleService,
    ) -> None:
        self._uow = uow
        self._devices = devices
        self._reports = reports
        self._telemetry = telemetry
        self._measured = measured
        self._samples = samples

    def handle(self, batch: Sequence[UpMessage]) -> None:
        """Store a batch in one transaction.

        A message that cannot be stored at all is dropped by itself, with a line in the
        log: one device's fault must not hold up the others.

        Raises:
            Unavailable: the database does not answer; nothing was stored, and nothing
                may be acknowledged.
        """
        read = [one for message in batch if (one := self._read(message)) is not None]
        if read:
            self._store(read)

    def _store(self, read: Sequence[_Read]) -> None:
        try:
            with self._uow() as tx:
                taken = self._all(tx, read)
        except Unavailable:
            raise
        except Exception:
            if len(read) == 1:
                log.exception("dropped a message on %s", read[0].source.topic)
                return
            middle = len(read) // 2
            for half in (read[:middle], read[middle:]):
                self._store(half)
        else:
            self._telemetry.committed(taken)

    def _all(self, tx: Transaction, read: Sequence[_Read]) -> Taken:
        # Whoever may not take part, or not yet, is as if it were silent.
        classes = tx.places.classes({one.device for one in read})
        sorted_ = _Sorted()
        for one in read:
            if one.device in classes:
                sorted_.add(one, classes[one.device])
        for device, report in sorted_.benches:
            with actor.acting(actor.device(device)):
                self._measured.reported(tx, device, report)
        # Births first: what a device says of its journal may make room for its reports.
        if sorted_.signs:
            self._devices.take(tx, sorted_.signs)
        if sorted_.reports:
            self._reports.take(tx, sorted_.reports)
        if sorted_.samples:
            self._samples.take(tx, sorted_.samples)
        return self._telemetry.take(tx, sorted_.envelopes)

    def _read(self, message: UpMessage) -> _Read | None:
        device, leaf, payload = message.topic.device, message.topic.leaf, message.payload
        try:
            if leaf is Up.TELE:
                return _Read(device, window.decode(payload), message)
            if leaf is Up.SAMPLE:
                return _Read(device, sample.decode(payload), message)
            kind = _KINDS.get(leaf)
            if kind is not None:
                return _Read(device, kind.model_validate_json(payload), message)
            log.warning("a request from %s came the wrong way", device)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            log.warning("malformed %s from %s: %s %s", leaf, device, where, first["msg"])
        except WindowError as error:
            self._telemetry.malformed()
            log.warning("malformed %s from %s: %s", leaf, device, error)
        return None
