"""What waits of telemetry, as it is sent: windows and samples, dated."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from edge_client.clock_sync import Sync, date
from edge_client.courier import Parcel
from edge_client.sample_store import SampleStore
from edge_client.telemetry_buffer import Buffer
from edge_client.telemetry_rows import Waiting
from schemas import sample as samples
from schemas.window import MAX_ENVELOPE_BYTES, MAX_WINDOWS, About, Envelope, Window, encode

ROOM_BYTES = MAX_ENVELOPE_BYTES - 1024
"""Of the windows of one envelope; numbers and dates may grow a little on their way."""


class Envelopes:
    """Windows of one buffer, in as few publications as they fit. Used from one thread."""

    def __init__(self, buffer: Buffer, sync: Callable[[bytes], Sync | None]) -> None:
        """Put together. sync: what is known of the server's clock in a start of the machine."""
        self._buffer, self._sync = buffer, sync

    def waiting(self, under_way: Collection[int], limit: int) -> list[Parcel]:
        """The oldest windows that are not under way, in at most ``limit`` envelopes."""
        rows = self._buffer.waiting(limit * MAX_WINDOWS, without=under_way)
        parcels: list[Parcel] = []
        while rows and len(parcels) < limit:
            rows, parcel = self._next(rows)
            parcels.append(parcel)
        return parcels

    def _next(self, rows: list[Waiting]) -> tuple[list[Waiting], Parcel]:
        taken, size = 0, 0
        for row in rows[:MAX_WINDOWS]:
            size += row.size
            if taken and size > ROOM_BYTES:
                break
            taken += 1
        first, rest = rows[:taken], rows[taken:]
        abouts: dict[bytes, int] = {}
        windows = []
        for row in first:
            about = abouts.setdefault(row.about, len(abouts))
            windows.append(self._dated(row, about))
        about_list = [msgspec.msgpack.decode(raw, type=About) for raw in abouts]
        body = encode(Envelope(1, about_list, windows))
        return rest, Parcel(tuple(row.id for row in first), body)

    def _dated(self, row: Waiting, about: int) -> Window:
        when = date(row.steady, self._sync(row.machine), row.date)
        return msgspec.structs.replace(
            row.window, about=about, start_ms=when.ms, synced=when.synced
        )


def sample_parcels(
    store: SampleStore, sync: Callable[[bytes], Sync | None]
) -> Callable[[Collection[int], int], list[Parcel]]:
    """Samples, one a publication."""

    def waiting(under_way: Collection[int], limit: int) -> list[Parcel]:
        parcels = []
        for kept in store.waiting(limit + len(under_way)):
            if kept.id in under_way:
                continue
            when = date(kept.steady, sync(kept.machine), kept.date)
            body = samples.encode(
                msgspec.structs.replace(kept.sample, at_ms=when.ms, synced=when.synced)
            )
            parcels.append(Parcel((kept.id,), body))
        return parcels[:limit]

    return waiting
