"""Experiments: two rollouts side by side, started and stopped as one, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from orchestrator.domain.acts import Act
from orchestrator.domain.experiment import Arms, split
from orchestrator.domain.judging.difference import differences
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.errors import ArgosyError, Conflict, IllegalTransition, Invalid, NotFound
from orchestrator.services import actor
from orchestrator.services.fleets import target_of
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import ExperimentRecord
from orchestrator.services.rollouts import RolloutService
from schemas.experiment import (
    ArmName,
    ArmView,
    ExperimentSpec,
    ExperimentState,
    ExperimentView,
    StopRequest,
)
from schemas.gates import Gates
from schemas.ids import new_id
from schemas.rollout import RolloutSpec, RolloutState, WaveSpec

S = ExperimentState

_GOING = frozenset({S.STARTING, S.RUNNING, S.STOPPING})
_LEFT_ALONE = ROLLOUT_TERMINAL | {RolloutState.ROLLING_BACK}
"""Arms that are not ended: to abort one that rolls back would leave devices with its version."""
_EVERYBODY = (WaveSpec(percent=100),)
_GATES = Gates(telemetry=(), min_inferences=1, max_error_rate=1.0, evidence_seconds=30 * 86400)
"""An arm is there to be measured, so only updates that fail stop it."""


class ExperimentService:
    """What the API does with experiments, and what is left to do when it was interrupted.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        rollouts: plans, starts and ends the arms.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, rollouts: RolloutService) -> None:
        self._uow = uow
        self._clock = clock
        self._rollouts = rollouts

    def start(self, spec: ExperimentSpec) -> ExperimentView:
        """Split the target and bring each side its version.

        Raises:
            NotFound, Revoked, Conflict: a version or the fleet cannot be had; or an experiment of
                the model is under way.
            Invalid: the target has too few devices for two sides.
            NotSigned: see ``OperatingService``; nothing is sent then.
        """
        experiment, now = new_id("exp"), self._clock()
        with self._uow.read() as tx:
            _check_alone(tx, spec.model)
            candidates = tx.devices.candidates(target_of(tx, _arm(spec, spec.a)), now)
        arms = split(candidates, experiment, percent=spec.percent, share=spec.share)
        _check_sides(arms)
        drafts = [
            self._rollouts.plan(_arm(spec, version), side).id
            for version, side in ((spec.a, arms.a), (spec.b, arms.b))
        ]
        record = ExperimentRecord(
            id=experiment,
            spec=spec,
            model=spec.model,
            state=S.STARTING,
            rollout_a=drafts[0],
            rollout_b=drafts[1],
            requested_by=actor.current(),
            created_at=self._clock(),
        )
        with self._uow() as tx:
            _check_alone(tx, spec.model)
            tx.experiments.add(record)
            tx.audit.add("experiment.start", record.id, spec.model_dump(mode="json"))
            self._announce(tx, record)
        self._begin(record)
        return self.get(record.id)

    def stop(self, experiment_id: str, request: StopRequest) -> ExperimentView:
        """End both arms, and give all devices the winner if one is named; a repeat does nothing.

        Raises:
            NotFound: there is no such experiment.
            Conflict: it was stopped already, and another arm was kept.
            Invalid, NotSigned: the winner cannot be brought to the other devices.
        """
        with self._uow.read() as tx:
            record = found(tx, experiment_id)
            losers = _members(tx, record, "b" if request.keep == "a" else "a")
        if record.state in {S.STOPPING, S.STOPPED}:
            if request.keep not in {None, record.kept}:
                msg = f"{experiment_id} was stopped already, and {record.kept or 'neither'} kept"
                raise Conflict(msg, hint="start a rollout of the version that all are to have")
            return self.get(experiment_id)
        kept_rollout = None
        if request.keep is not None:
            version = record.spec.a if request.keep == "a" else record.spec.b
            spec = RolloutSpec(model=record.model, version=version, waves=_EVERYBODY)
            kept_rollout = self._rollouts.plan(spec, losers).id
        stopping = replace(
            record,
            state=S.STOPPING,
            reason=f"by {actor.current()}" + (f": {request.reason}" if request.reason else ""),
            kept=request.keep,
            kept_rollout=kept_rollout,
        )
        if self._move(stopping, {S.STARTING, S.RUNNING}, request.model_dump(mode="json")):
            self._end(stopping)
        return self.get(experiment_id)

    def get(self, experiment_id: str) -> ExperimentView:
        """One experiment with what it shows: now, or at its end.

        Raises:
            NotFound: there is none.
        """
        with self._uow.read() as tx:
            record = found(tx, experiment_id)
            if record.state is not S.STOPPED:
                record = self._measured(tx, record)
            return _view(record).model_copy(update={"arms": _arms(tx, record)})

    def page(self, before: str | None, limit: int) -> Sequence[ExperimentView]:
        """Experiments, newest first, without their arms and differences."""
        with self._uow.read() as tx:
            found_ = tx.experiments.page(before, limit)
        return [_view(replace(record, differences=(), notes=())) for record in found_]

    def tick(self) -> None:
        """Go on with what a restart cut off between two steps."""
        with self._uow.read() as tx:
            left = tx.experiments.in_state({S.STARTING, S.STOPPING})
        for record in left:
            with suppress(ArgosyError):  # none keeps the others from going on
                (self._end if record.state is S.STOPPING else self._begin)(record)

    def _begin(self, record: ExperimentRecord) -> None:
        """Start both arms; where one cannot, neither goes on."""
        try:
            for rollout in (record.rollout_a, record.rollout_b):
                self._rollouts.operate(rollout, Act.START, f"experiment {record.id}")
        except ArgosyError as error:
            failed = replace(record, state=S.STOPPING, reason=f"it could not start: {error.detail}")
            if self._move(failed, {S.STARTING}):
                self._end(failed)
            raise
        self._move(replace(record, state=S.RUNNING), {S.STARTING})

    def _end(self, record: ExperimentRecord) -> None:
        """End both arms, start the winner's rollout, keep what was found."""
        with self._uow.read() as tx:
            going = [
                rollout.id
                for name in (record.rollout_a, record.rollout_b)
                if (rollout := tx.rollouts.get(name)) and rollout.state not in _LEFT_ALONE
            ]
            record = self._measured(tx, record)
        for name in going:
            self._rollouts.operate(name, Act.ABORT, f"experiment {record.id} was stopped")
        if record.kept_rollout is not None:
            try:
                won = f"won experiment {record.id}"
                self._rollouts.operate(record.kept_rollout, Act.START, won)
            except IllegalTransition as error:  # it was discarded, or its version revoked
                record = replace(record, reason=f"{record.reason}; {error.detail}")
        self._move(replace(record, state=S.STOPPED, ended_at=self._clock()), {S.STOPPING})

    def _measured(self, tx: Transaction, record: ExperimentRecord) -> ExperimentRecord:
        seen = tx.experiments.observed(record, self._clock())
        shown = differences(seen.arms["a"], seen.arms["b"], record.spec)
        return replace(record, differences=shown, notes=seen.notes)

    def _move(
        self,
        record: ExperimentRecord,
        before: set[ExperimentState],
        said: dict[str, object] | None = None,
    ) -> bool:
        """Save it, if it still is in one of these states: somebody else may have been quicker."""
        with self._uow() as tx:
            if found(tx, record.id).state not in before:
                return False
            tx.experiments.save(record)
            if said is not None:
                tx.audit.add("experiment.stop", record.id, said)
            self._announce(tx, record)
        return True

    def _announce(self, tx: Transaction, record: ExperimentRecord) -> None:
        data = {"state": record.state.value, "model": record.model}
        tx.events.add("experiment", record.id, data, self._clock())


def found(tx: Transaction, experiment_id: str) -> ExperimentRecord:
    """An experiment's record.

    Raises:
        NotFound: there is none.
    """
    record = tx.experiments.get(experiment_id)
    if record is None:
        msg = f"there is no experiment {experiment_id}"
        raise NotFound(msg, hint="`argosy experiment ls` lists them")
    return record


def _arm(spec: ExperimentSpec, version: int) -> RolloutSpec:
    return RolloutSpec(
        model=spec.model,
        version=version,
        device_class=spec.device_class,
        tags=spec.tags,
        where=spec.where,
        fleet=spec.fleet,
        exclude=spec.exclude,
        waves=_EVERYBODY,
        gates=_GATES,
    )


def _check_alone(tx: Transaction, model: str) -> None:
    """See that no other experiment of the model is under way: devices would change sides.

    Raises:
        Conflict: there is one.
    """
    going = tx.experiments.in_state(_GOING, model)
    if going:
        msg = f"experiment {going[0].id} of {model} is under way"
        raise Conflict(msg, hint=f"stop it first: argosy experiment stop {going[0].id}")


def _check_sides(arms: Arms) -> None:
    if not arms.a or not arms.b:
        msg = (
            "the target is too small for two sides:"
            f" {len(arms.a)} devices for a, {len(arms.b)} for b"
        )
        raise Invalid(msg, hint="`argosy device ls --where …` shows who matches")


def _members(tx: Transaction, record: ExperimentRecord, arm: ArmName) -> frozenset[str]:
    return tx.experiments.members(record.rollout_a if arm == "a" else record.rollout_b)


def _arms(tx: Transaction, record: ExperimentRecord) -> tuple[ArmView, ...]:
    arms = []
    sides: tuple[tuple[ArmName, str, int], ...] = (
        ("a", record.rollout_a, record.spec.a),
        ("b", record.rollout_b, record.spec.b),
    )
    for name, rollout, version in sides:
        head, its = tx.experiments.head(rollout), tx.rollouts.get(rollout)
        if its is None:
            continue
        arms.append(
            ArmView(
                arm=name,
                version=version,
                rollout=rollout,
                state=its.state,
                devices=head.devices,
                serving=head.serving,
            )
        )
    return tuple(arms)


def _view(record: ExperimentRecord) -> ExperimentView:
    return ExperimentView(
        id=record.id,
        spec=record.spec,
        state=record.state,
        reason=record.reason,
        kept=record.kept,
        kept_rollout=record.kept_rollout,
        differences=record.differences,
        notes=record.notes,
        requested_by=record.requested_by,
        created_at=record.created_at,
        ended_at=record.ended_at,
    )
