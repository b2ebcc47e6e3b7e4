"""What devices of a wave serve and infer, as far as verdicts ask for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.adapters.cohort_members import ring
from orchestrator.adapters.cohort_repository import SqlCohorts
from orchestrator.adapters.cohort_windows import Stretch, StretchedWindows
from orchestrator.adapters.execution_conditions import conditions
from orchestrator.adapters.tables import DeviceRow, ExecutionRow, WindowRow
from orchestrator.domain.execution import FAILURES
from orchestrator.domain.judge import Served
from orchestrator.domain.judging.figures import Cohorts
from orchestrator.services.records import Among, RolloutRecord
from schemas.device import DeviceState
from schemas.errors import DeviceCause
from schemas.rollout import ExecState

_SERVING = (ExecState.SUCCEEDED.value, ExecState.ALREADY_INSTALLED.value)
_FAILURES = sorted(state.value for state in FAILURES)

_DEVICES = 1_000
"""Of a wave, whose windows are added up; fewer where each must show very many inferences."""

_FEWEST = 100

_WINDOWS = 50_000
"""That are read, about; they are shared by the devices."""

_MOST = 10_000
"""Windows of a device: a week, in peace."""

_EVER = 2**62


class _Told(NamedTuple):
    """What a device told of, added up."""

    n: float
    errors: float
    labelled: float
    correct: float


class SqlServed:
    """The part of ``services.ports.Executions`` that verdicts rest on."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def served(self, rollout: RolloutRecord, wave: int) -> Served:
        """Of a large wave a thousand devices, always the same ones, and their newest windows.

        Of each at least ``min_inferences`` windows with an inference are added up: whoever made so
        many is seen to have, however few it makes a minute. What is read is bounded, whatever
        the fleet and the rollout's age, as a round asks for it again and again.
        """
        least = rollout.spec.gates.min_inferences
        some = min(least, _MOST)
        devices = self._serving(rollout, wave, max(_FEWEST, min(_DEVICES, _WINDOWS // some)))
        each = max(some, min(_MOST, _WINDOWS // max(1, len(devices))))
        since = _ms(rollout.created_at)  # of what came late, only what is of this rollout
        stretches = [Stretch(device, rollout.version, since, _EVER) for device in devices]
        windows = StretchedWindows(self._session, rollout.model)
        told = [_Told(*sums) for _, *sums in windows.totals(stretches, each)]
        # Each device has one vote, however much it says that it inferred.
        voters = [one for one in told if one.n >= least]
        short = [one for one in told if one.n < least]
        labelling = [one for one in told if one.labelled > 0]
        fewest = min((one.n for one in told), default=0.0) if len(told) == len(devices) else 0.0
        return Served(
            devices=len(devices),
            least=int(fewest) if devices else None,
            voters=len(voters),
            errors=math.fsum(one.errors / one.n for one in voters),
            short_errors=math.fsum(min(one.errors, one.n) / least for one in short),
            labelling=len(labelling),
            correct=math.fsum(one.correct / one.labelled for one in labelling),
            labels=int(sum(min(one.labelled, least) for one in told)),
        )

    def _serving(self, rollout: RolloutRecord, wave: int, limit: int) -> Sequence[str]:
        """Devices of a wave that serve the version, by the random part of their ids."""
        e = ExecutionRow
        query = (
            select(e.device_id)
            .join(DeviceRow, DeviceRow.id == e.device_id)
            .where(
                DeviceRow.drifted_at.is_(None),  # what it serves says nothing of the version
                # Whoever was shut out is not heard any more.
                DeviceRow.state == DeviceState.ACTIVE.value,
                e.rollout_id == rollout.id,
                e.wave == wave,
                e.state.in_(_SERVING),
                func.coalesce(e.late, "").not_in(_FAILURES),
            )
            .order_by(*ring(e.device_id, rollout.id))
            .limit(limit)
        )
        return self._session.scalars(query).all()

    def late(self, rollout_id: str, wave: int) -> Mapping[ExecState, int]:
        e = ExecutionRow
        query = (
            select(e.late, func.count())
            .where(
                e.rollout_id == rollout_id,
                e.wave == wave,
                e.state == ExecState.SUCCEEDED.value,
                e.late.is_not(None),
                e.late.in_(_FAILURES),
            )
            .group_by(e.late)
        )
        return {ExecState(str(late)): n for late, n in self._session.execute(query)}

    def causes(self, rollout_id: str, wave: int) -> Mapping[DeviceCause, int]:
        e, found = ExecutionRow, Counter[DeviceCause]()
        its = (e.rollout_id == rollout_id, e.wave == wave, e.cause.is_not(None))
        failed = (e.state.in_(_FAILURES),)
        undone = (e.state == ExecState.SUCCEEDED.value, e.late.is_not(None), e.late.in_(_FAILURES))
        for which in (failed, undone):
            query = select(e.cause, func.count()).where(*its, *which).group_by(e.cause)
            for cause, n in self._session.execute(query):
                found[DeviceCause(str(cause))] += n
        return found

    def cohorts(self, rollout: RolloutRecord, wave: int, now: datetime, limit: int) -> Cohorts:
        return SqlCohorts(self._session, rollout, now, limit).of_wave(wave)

    def last_windows(
        self, rollout: RolloutRecord, wave: int, now: datetime, since: datetime, limit: int
    ) -> Mapping[str, datetime]:
        probation = frozenset({ExecState.PROBATION})
        among = Among(rollout_id=rollout.id, wave=wave, states=probation, due_by=now)
        query = (
            select(ExecutionRow.id, func.max(WindowRow.received_ms))
            .join(WindowRow, WindowRow.device_id == ExecutionRow.device_id)
            .where(
                *conditions(ExecutionRow, among),
                WindowRow.model == rollout.model,
                WindowRow.version == rollout.version,
                WindowRow.role == "active",
                WindowRow.received_ms > _ms(since),
            )
            .group_by(ExecutionRow.id)
            .limit(limit)
        )
        return {
            execution: datetime.fromtimestamp(received_ms / 1000, UTC)
            for execution, received_ms in self._session.execute(query)
        }


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
