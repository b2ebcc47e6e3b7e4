"""Windows that are closed and not written yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_client.live_layout import Totals
from edge_client.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A window that is closed. serial, totals: of its record in the live counts, at the cut."""

    tally: Tally
    serial: int
    totals: Totals


def merged(earlier: Iterable[Cut], later: Iterable[Cut]) -> list[Cut]:
    """Those of one record made one, with the totals of the later one."""
    found: dict[tuple[object, int], Cut] = {}
    for cut in (*earlier, *later):
        key = (cut.tally.subject, cut.serial)
        known = found.get(key)
        if known is not None:
            known.tally.merge(cut.tally)
        tally = cut.tally if known is None else known.tally
        found[key] = Cut(tally=tally, serial=cut.serial, totals=cut.totals)
    return list(found.values())


def shared(tallies: Sequence[Tally], *, cpu: float, joules: float) -> None:
    """Share out what a process spent since the last cut, by the time in the models.

    Args:
        tallies: of all of its models.
        cpu: seconds of the processor.
        joules: of the inferences.
    """
    busy = sum(tally.busy for tally in tallies)
    for tally in tallies:
        part = tally.busy / busy if busy > 0 else 1 / len(tallies)
        tally.cpu += cpu * part
        tally.joules += joules * part
