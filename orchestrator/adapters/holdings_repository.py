"""What needs which files, in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from orchestrator.adapters.device_repository import batched
from orchestrator.adapters.tables import (
    AliasRow,
    DeviceModelRow,
    DeviceRow,
    ExecutionRow,
    JobRow,
    ModelVersionRow,
    PatchRow,
    RolloutRow,
    VersionFileRow,
)
from orchestrator.domain.collect import HeldJob, HeldPatch, HeldVersion, Holdings, Ref
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from schemas.device import DeviceState
from schemas.job import TERMINAL_JOB_STATES
from schemas.rollout import ExecState

_LAST = 2  # the version that a device has, and the one before, to which it may go back
_PORTION = 500
_JOBS_ENDED = [state.value for state in TERMINAL_JOB_STATES]
_ROLLOUTS_ENDED = [state.value for state in ROLLOUT_TERMINAL]
_INSTALLED = [ExecState.SUCCEEDED.value, ExecState.ALREADY_INSTALLED.value]
_SAME = and_(
    VersionFileRow.model == ModelVersionRow.model,
    VersionFileRow.version == ModelVersionRow.version,
)
_INPUTS = (
    JobRow.spec["code"]["sha256"].as_string(),
    JobRow.spec["onnx"]["file"].as_string(),
)
_MODELS = (JobRow.spec["base"].as_string(), JobRow.spec["batch"]["model"].as_string())


class SqlHoldings:
    """``services.ports.HoldingsView`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def all(self) -> Holdings:
        return Holdings(
            versions=tuple(self._versions()),
            used=frozenset((*self._aliased(), *self._on_devices(), *self._rolled_out())),
            jobs=tuple(self._jobs()),
            patches=tuple(self._patches()),
        )

    def named(self, digests: Collection[str], since: datetime) -> AbstractSet[str]:
        found: set[str] = set()
        alive = or_(JobRow.state.not_in(_JOBS_ENDED), JobRow.ended_at >= since)
        for portion in batched(sorted(digests), _PORTION):
            files = select(VersionFileRow.sha256).join(ModelVersionRow, _SAME)
            where = (VersionFileRow.sha256.in_(portion), ModelVersionRow.purged.is_(False))
            found.update(self._session.scalars(files.where(*where)))
            making = VersionFileRow.sha256 == PatchRow.target
            patches = select(PatchRow.sha256).join(VersionFileRow, making)
            of = (PatchRow.sha256.in_(portion), ModelVersionRow.purged.is_(False))
            live = patches.join(ModelVersionRow, _SAME).where(*of)
            found.update(sha256 for sha256 in self._session.scalars(live) if sha256)
            for given in _INPUTS:
                jobs = select(given).where(alive, given.in_(portion))
                found.update(self._session.scalars(jobs))
        return found

    def lost(self, sha256: str) -> Ref | None:
        query = (
            select(VersionFileRow.model, VersionFileRow.version)
            .join(ModelVersionRow, _SAME)
            .where(VersionFileRow.sha256 == sha256, ModelVersionRow.purged.is_(True))
            .order_by(VersionFileRow.version.desc())
        )
        row = self._session.execute(query.limit(1)).first()
        return None if row is None else (row.model, row.version)

    def _versions(self) -> Iterator[HeldVersion]:
        files: defaultdict[Ref, set[str]] = defaultdict(set)
        named = select(VersionFileRow.model, VersionFileRow.version, VersionFileRow.sha256)
        live = ModelVersionRow.purged.is_(False)
        for model, version, sha256 in self._session.execute(
            named.join(ModelVersionRow, _SAME).where(live)
        ):
            files[model, version].add(sha256)
        row = ModelVersionRow
        what = (row.model, row.version, row.tags, row.revoked, row.job_id)
        when = (row.created_at, row.restored_at)
        for found in self._session.execute(select(*what, *when).where(live)):
            yield HeldVersion(
                model=found.model,
                version=found.version,
                created_at=found.created_at,
                files=frozenset(files[found.model, found.version]),
                tagged=bool(found.tags),
                revoked=found.revoked,
                job_id=found.job_id,
                restored_at=found.restored_at,
            )

    def _patches(self) -> Iterator[HeldPatch]:
        query = select(PatchRow.sha256, PatchRow.target).where(PatchRow.sha256.is_not(None))
        for sha256, target in self._session.execute(query):
            if sha256 is not None:
                yield HeldPatch(sha256, target)

    def _aliased(self) -> Iterator[Ref]:
        return self._refs(select(AliasRow.model, AliasRow.version))

    def _rolled_out(self) -> Iterator[Ref]:
        going = RolloutRow.state.not_in(_ROLLOUTS_ENDED)
        return self._refs(select(RolloutRow.model, RolloutRow.version).where(going))

    def _on_devices(self) -> Iterator[Ref]:
        there = DeviceRow.state != DeviceState.REVOKED.value
        serving = select(DeviceModelRow.model, DeviceModelRow.version).distinct()
        its = DeviceRow.id == DeviceModelRow.device_id
        yield from self._refs(serving.join(DeviceRow, its).where(there))
        # What a device had last, and what it was offered last: that offer stays with the
        # broker, also when its rollout is over, and a device that was away takes it up.
        yield from self._newest_offers(there, ExecutionRow.state.in_(_INSTALLED), _LAST)
        yield from self._newest_offers(there, ExecutionRow.sequence > 0, 1)

    def _newest_offers(
        self, there: ColumnElement[bool], which: ColumnElement[bool], count: int
    ) -> Iterator[Ref]:
        """The versions of each device's newest executions of a kind, so many of each model."""
        device, latest = ExecutionRow.device_id, func.max(ExecutionRow.updated_at)
        newest = func.max(ExecutionRow.sequence)
        each = (device, RolloutRow.model)
        rank = func.row_number().over(partition_by=each, order_by=(newest.desc(), latest.desc()))
        ranked = (
            select(RolloutRow.model, RolloutRow.version, rank.label("place"))
            .join(ExecutionRow, ExecutionRow.rollout_id == RolloutRow.id)
            .join(DeviceRow, DeviceRow.id == device)
            .where(there, which)
            .group_by(device, RolloutRow.model, RolloutRow.version)
            .subquery()
        )
        query = select(ranked.c.model, ranked.c.version).where(ranked.c.place <= count)
        return self._refs(query.distinct())

    def _refs(self, query: Select[str, int]) -> Iterator[Ref]:
        return ((model, version) for model, version in self._session.execute(query))

    def _jobs(self) -> Iterator[HeldJob]:
        columns = (JobRow.id, JobRow.state, JobRow.ended_at, JobRow.created_at)
        query = select(*columns, *_INPUTS, *_MODELS)
        for job_id, state, ended_at, created_at, code, onnx, base, batch in self._session.execute(
            query
        ):
            over = state in _JOBS_ENDED
            yield HeldJob(
                id=job_id,
                ended_at=(ended_at or created_at) if over else None,
                inputs=frozenset(digest for digest in (code, onnx) if digest),
                versions=frozenset(_ref(name) for name in (base, batch) if name),
            )


def _ref(text: str) -> Ref:
    name, _, number = text.partition("@")
    return name, int(number)
