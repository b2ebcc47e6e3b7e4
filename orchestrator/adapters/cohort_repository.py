"""What the devices of a wave and of its control cohort did before and after, in SQL.

A verdict needs some hundred devices of each class, however large the fleet is, and of each only
its newest windows in a span.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median_low

import msgspec
from sqlalchemy.orm import Session

from orchestrator.adapters.cohort_members import CohortMembers, Member, milliseconds
from orchestrator.adapters.cohort_windows import Stretch, StretchedWindows
from orchestrator.domain.judging.figures import Cohorts, DeviceFigures
from orchestrator.domain.judging.silence import Signs, is_silent
from orchestrator.domain.judging.spans import SpanSum
from orchestrator.domain.placing import AHEAD_MS
from orchestrator.domain.rollup import Kept
from orchestrator.services.records import RolloutRecord

DEVICES = 400
"""In all classes together, of both cohorts, as long as each class has those that it needs."""

WINDOWS = 16_000
"""That are read for one look; each device and span has its share."""

_FEWEST, _MOST = 10, 240
"""Windows of a device in a span, at least and at most."""

_KEPT = msgspec.msgpack.Decoder(Kept)


class SqlCohorts:
    """Reads what verdicts are made of.

    Args:
        session: a reading transaction's.
        rollout: whose wave it is.
        now: the time.
        limit: devices of a class and cohort, at most; more only if the gates ask for more.
    """

    def __init__(self, session: Session, rollout: RolloutRecord, now: datetime, limit: int) -> None:
        self._session, self._rollout, self._now = session, rollout, now
        self._windows = StretchedWindows(session, rollout.model)
        self._least = rollout.spec.gates.min_devices
        self._limit = max(limit, self._least)
        self._end = milliseconds(now) + AHEAD_MS
        self._each = _FEWEST

    def of_wave(self, wave: int) -> Cohorts:
        """Both cohorts of a wave."""
        members = CohortMembers(self._session, self._rollout, wave)
        treated = members.treated(self._least, self._limit, DEVICES // 2)
        names = Counter(device.device_class for device in treated)
        room = max(self._least, max(names.values(), default=0))
        self._each = self._share(2 * len(treated))
        switched = self._switched(treated)
        control: list[Member] = []
        for name in sorted(names):
            turned = [switched.get(d.id, d.since) for d in treated if d.device_class == name]
            control += members.control(name, median_low(turned), room)
        return Cohorts(
            tuple(self._figures(treated, switched, equal=False)),
            tuple(
                one
                for one in self._figures(control, {d.id: d.since for d in control}, equal=True)
                if one.pre is not None or one.post is not None  # the others were not there at all
            ),
        )

    def _share(self, devices: int) -> int:
        """Windows of a device in a span."""
        return max(_FEWEST, min(_MOST, WINDOWS // (2 * max(1, devices))))

    def _switched(self, devices: Sequence[Member]) -> Mapping[str, int]:
        """When each began to serve the version: the start of its first window with it."""
        return self._windows.first(
            [Stretch(d.id, d.version, d.offered - AHEAD_MS, self._end) for d in devices]
        )

    def _figures(
        self, devices: Sequence[Member], turned: Mapping[str, int], *, equal: bool
    ) -> Iterable[DeviceFigures]:
        """Before and after; ``equal``: with the same version before."""
        past = round(self._rollout.spec.gates.baseline_seconds * 1000)
        turns = [(device, turned.get(device.id, device.since)) for device in devices]
        before = self._sums(
            [Stretch(d.id, d.version, at - past, at) for d, at in turns], equal=equal
        )
        after = self._sums([Stretch(d.id, d.version, at, self._end) for d, at in turns], equal=True)
        if not equal and self._rollout.spec.shadow is not None:
            self._add_shadows(devices, after)
        for device in devices:
            pre, post = before.get(device.id, SpanSum()), after.get(device.id, SpanSum())
            silent = self._is_silent(device, pre, post)
            yield DeviceFigures(
                device.id, device.device_class, pre.span(), post.span(), silent, device.earlier
            )

    def _sums(self, stretches: Sequence[Stretch], *, equal: bool) -> dict[str, SpanSum]:
        sums: dict[str, SpanSum] = {}
        found = self._windows.newest(stretches, "active", self._each, equal=equal)
        for device, start_ms, body in found:
            sums.setdefault(device, SpanSum()).add(_KEPT.decode(body).window, start_ms)
        return sums

    def _add_shadows(self, devices: Sequence[Member], after: dict[str, SpanSum]) -> None:
        stretches = [Stretch(d.id, d.version, d.offered - AHEAD_MS, self._end) for d in devices]
        found = self._windows.newest(stretches, "shadow", self._each, equal=True)
        for device, _, body in found:
            after.setdefault(device, SpanSum()).add_shadow(_KEPT.decode(body).window)

    def _is_silent(self, device: Member, pre: SpanSum, post: SpanSum) -> bool:
        before = pre.span()
        signs = Signs(
            since=device.since / 1000,
            last=post.end_ms / 1000 if post.windows else None,
            online=device.online,
            worked=before is not None and before.n > 0,
            cadence=before.seconds / pre.windows if before is not None and pre.windows else 60.0,
        )
        soak = self._rollout.spec.gates.soak_seconds
        return is_silent(signs, soak, self._now.timestamp())
