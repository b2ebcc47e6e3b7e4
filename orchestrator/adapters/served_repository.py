"""What devices of a wave serve and infer, as far as verdicts ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Float, case, cast, func, select
from sqlalchemy.orm import Session

from orchestrator.adapters.cohort_repository import SqlCohorts
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
_FIGURES = ("n", "errors", "labelled", "correct")


class SqlServed:
    """The part of ``services.ports.Executions`` that verdicts rest on."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def served(self, rollout: RolloutRecord, wave: int) -> Served:
        created = _ms(rollout.created_at)
        totals = (
            select(WindowRow.device_id, *(_sum(name).label(name) for name in _FIGURES))
            .where(
                WindowRow.model == rollout.model,
                WindowRow.version == rollout.version,
                WindowRow.role == "active",
                WindowRow.received_ms >= created,
                WindowRow.start_ms >= created,  # of what came late, only what is of this rollout
            )
            .group_by(WindowRow.device_id)
            .subquery()
        )
        n, errors, labelled, correct = (func.coalesce(totals.c[name], 0.0) for name in _FIGURES)
        least = float(rollout.spec.gates.min_inferences)
        # Each device has one vote, however much it says that it inferred.
        votes = case((n >= least, 1.0), else_=0.0)
        query = (
            select(
                func.count(),
                func.min(n),
                func.sum(votes),
                func.sum(case((n >= least, errors / n), else_=0.0)),
                func.sum(case((labelled > 0, 1.0), else_=0.0)),
                func.sum(case((labelled > 0, correct / labelled), else_=0.0)),
                func.sum(case((labelled < least, labelled), else_=least)),
            )
            .select_from(ExecutionRow)
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .outerjoin(totals, totals.c.device_id == ExecutionRow.device_id)
            .where(
                DeviceRow.drifted_at.is_(None),  # what it serves says nothing of the version
                # Whoever was shut out is not heard any more.
                DeviceRow.state == DeviceState.ACTIVE.value,
                ExecutionRow.rollout_id == rollout.id,
                ExecutionRow.wave == wave,
                ExecutionRow.state.in_(_SERVING),
                func.coalesce(ExecutionRow.late, "").not_in(_FAILURES),
            )
        )
        devices, fewest, voters, *sums = self._session.execute(query).one()
        errors_sum, labelling, correct_sum, labels = (float(one or 0) for one in sums)
        return Served(
            devices=devices,
            least=None if fewest is None else int(fewest),
            voters=int(voters or 0),
            errors=errors_sum,
            labelling=int(labelling),
            correct=correct_sum,
            labels=int(labels),
        )

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


def _sum(name: str) -> ColumnElement[float]:
    """As a real number: SQLite refuses a sum of whole ones beyond 64 bits, and all with it."""
    return func.coalesce(func.sum(cast(getattr(WindowRow, name), Float(53))), 0.0)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
