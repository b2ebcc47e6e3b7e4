"""What devices send, by batches: each message is stored before it is acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from orchestrator.errors import Unavailable
from orchestrator.services import actor
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


class Inbox:
    """Hands each message to the service that it is for."""

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
        try:
            with self._uow() as tx:
                # Whoever may not take part, or not yet, is as if it were silent.
                heard = tx.devices.taking_part({message.topic.device for message in batch})
                for message in batch:
                    if message.topic.device not in heard:
                        continue
                    with actor.acting(actor.device(message.topic.device)):
                        self._one(tx, message)
        except Unavailable:
            raise
        except Exception:
            if len(batch) == 1:
                log.exception("dropped a message on %s", batch[0].topic)
                return
            for message in batch:
                self.handle([message])

    def _one(self, tx: Transaction, message: UpMessage) -> None:
        device, payload = message.topic.device, message.payload
        try:
            match message.topic.leaf:
                case Up.BIRTH:
                    birth = Birth.model_validate_json(payload)
                    self._devices.born(tx, device, birth, retained=message.retained)
                case Up.DEATH:
                    self._devices.died(tx, device, Death.model_validate_json(payload))
                case Up.EXEC:
                    report = ExecReport.model_validate_json(payload)
                    self._reports.reported(tx, device, report)
                case Up.TELE:
                    window = Window.model_validate_json(payload)
                    self._telemetry.ingest(tx, device, window)
                case Up.BENCH:
                    bench = BenchReport.model_validate_json(payload)
                    self._measured.reported(tx, device, bench)
                case Up.ASK | Up.NEED | Up.META | Up.RENEW:
                    log.warning("a request from %s came the wrong way", device)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            log.warning(
                "malformed %s from %s: %s %s", message.topic.leaf, device, where, first["msg"]
            )
