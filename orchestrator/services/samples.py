"""Samples: inputs that devices give away because their operator opted in."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.domain import placing
from orchestrator.errors import Invalid
from orchestrator.services.names_told import NamesTold
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import SamplePage, SampleRecord
from schemas import sample as wire
from schemas.base import MAX_INTEGER
from schemas.sample import Sample
from schemas.telemetry import SampleInput, SampleView

log = logging.getLogger(__name__)

SAMPLE_DAYS = 30
MODEL_BYTES = 128 * 1024**2
"""Of one model and stream: the two never push each other out."""

ALL_BYTES = 1024**3
PAGE_BYTES = 8 * 1024**2
"""Of one answer."""

_READ_AT_ONCE = 50
_CURSOR = re.compile(r"(\d{1,19})\.([a-z0-9_]{0,64})\.((?:[0-9a-f]{2}){0,16})\.(\d{1,19})")


class SampleService:
    """Keeps samples within bounds, and gives them out.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        days: how long samples are kept.
        most: bytes of a model's stream; the oldest go.
        most_in_all: bytes of all; the oldest of the largest stream go.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        *,
        days: float = SAMPLE_DAYS,
        most: int = MODEL_BYTES,
        most_in_all: int = ALL_BYTES,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._age = timedelta(days=days)
        self._most = most
        self._most_in_all = most_in_all
        self._names = NamesTold()

    def take(self, tx: Transaction, given: Sequence[tuple[str, Sample, bytes]]) -> None:
        """Store samples with the whole message, each once; the oldest make room."""
        now_ms = _ms(self._clock())
        names = [(device, (one.model, one.version, one.variant)) for device, one, _ in given]
        refused = self._names.refused(tx, names)
        if refused:
            log.warning("samples of too many versions that are unknown here are dropped")
        records = [
            SampleRecord(
                device_id=device,
                boot=sample.boot,
                seq=sample.seq,
                model=sample.model,
                version=sample.version,
                variant=sample.variant,
                stream=sample.stream,
                received_ms=now_ms,
                body=payload,
            )
            for name, (device, sample, payload) in zip(names, given, strict=True)
            if name not in refused
        ]
        if tx.samples.add(records):
            self._make_room(tx)

    def _make_room(self, tx: Transaction) -> None:
        kept = dict(tx.samples.kept())
        for key, size in kept.items():
            while kept[key] > self._most and size:
                size = tx.samples.drop(*key, kept[key] - self._most)  # noqa: PLW2901 - what went
                kept[key] -= size
        while sum(kept.values()) > self._most_in_all:
            largest = max(kept, key=lambda key: (kept[key], key))
            gone = tx.samples.drop(*largest, sum(kept.values()) - self._most_in_all)
            if not gone:
                break
            kept[largest] -= gone

    def page(
        self, asked: SamplePage, *, inputs: bool
    ) -> tuple[Sequence[SampleView], SamplePage | None]:
        """Samples, oldest first, at most ``PAGE_BYTES`` of them; and where to go on.

        Giving out inputs is written into the audit log.
        """
        with self._uow.read() as tx:
            items, end = _fitting(tx, asked)
        views = [_view(record, inputs=inputs) for record in items]
        if inputs and views:
            with self._uow() as tx:
                detail = {"version": asked.version, "stream": asked.stream, "samples": len(views)}
                tx.audit.add("sample.export", asked.model, detail)
        return views, (replace(asked, after=end) if end is not None else None)

    def prune(self, limit: int) -> int:
        """Let go of at most ``limit`` samples that are too old; how many went."""
        before = _ms(self._clock() - self._age)
        with self._uow() as tx:
            return tx.samples.prune(before, limit)


Key = tuple[int, str, bytes, int]


def key_of(record: SampleRecord) -> Key:
    """Where a page ends."""
    return record.received_ms, record.device_id, record.boot, record.seq


def to_cursor(page: SamplePage) -> str:
    """Where a page goes on, as the API gives it."""
    received, device, boot, seq = page.after or (0, "", b"", 0)
    return f"{received}.{device}.{boot.hex()}.{seq}"


def from_cursor(text: str | None) -> Key | None:
    """Where a page goes on.

    Raises:
        Invalid: this listing gave no such cursor.
    """
    if text is None:
        return None
    form = _CURSOR.fullmatch(text)
    if form is None or max(int(form[1]), int(form[4])) > MAX_INTEGER:
        msg = f"cursor: {text[:100]!r} is not one that this listing gave"
        raise Invalid(msg)
    return int(form[1]), form[2], bytes.fromhex(form[3]), int(form[4])


def _fitting(tx: Transaction, asked: SamplePage) -> tuple[list[SampleRecord], Key | None]:
    """Records up to the limits, and the key of the last if there may be more."""
    items: list[SampleRecord] = []
    size, after = 0, asked.after
    while len(items) < asked.limit:
        portion = min(_READ_AT_ONCE, asked.limit - len(items))
        found = tx.samples.page(replace(asked, after=after, limit=portion))
        for record in found:
            size += len(record.body)
            if items and size > PAGE_BYTES:
                return items, key_of(items[-1])
            items.append(record)
        if len(found) < portion:
            return items, None
        after = key_of(found[-1])
    return items, after


def _view(record: SampleRecord, *, inputs: bool) -> SampleView:
    sample = wire.decode(record.body)
    received = record.received_ms
    placed = placing.place(sample.at_ms, received, received, synced=sample.synced)
    at_ms, moved = placed if placed is not None else (received, True)
    return SampleView(
        device=record.device_id,
        boot=record.boot.hex(),
        seq=record.seq,
        model=record.model,
        version=record.version,
        variant=record.variant,
        stream=sample.stream,
        probability=sample.probability,
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        moved=moved,
        predicted=sample.predicted,
        confidence=sample.confidence,
        truth=sample.truth,
        bytes=len(record.body),
        inputs=tuple(
            SampleInput(
                name=tensor.name,
                dtype=tensor.dtype,
                shape=tuple(tensor.shape),
                data=base64.b64encode(tensor.data).decode(),
            )
            for tensor in sample.inputs
        )
        if inputs
        else (),
    )


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
