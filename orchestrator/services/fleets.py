"""Fleets: saved selectors, who is in them, and what a rollout's target means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.errors import Conflict, NotFound
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import FleetRecord, Target
from schemas.fleet import FleetShare, FleetSpec, FleetView
from schemas.rollout import RolloutSpec
from schemas.selector import And, Node, parse

_LISTED = 100
_NAMED = 5


class FleetService:
    """What the API does with fleets.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def put(self, name: str, spec: FleetSpec) -> FleetView:
        """Save a selector under a name, in place of what was there.

        Rollouts that are planned already, dynamic ones too, go by what it was then.
        """
        now = self._clock()
        with self._uow() as tx:
            before = tx.fleets.get(name)
            record = FleetRecord(
                name=name,
                selector=spec.selector,
                note=spec.note,
                created_at=before.created_at if before else now,
                updated_at=now,
            )
            if before is None or record != replace(before, updated_at=now):
                tx.fleets.put(record)
                tx.audit.add("fleet.set", name, spec.model_dump(mode="json"))
        return self.get(name)

    def get(self, name: str) -> FleetView:
        """One fleet, with its members counted.

        Raises:
            NotFound: there is none.
        """
        now = self._clock()
        with self._uow.read() as tx:
            record = found(tx, name)
            census = tx.devices.census(Target(where=parse(record.selector)), now)
            rollouts = tx.fleets.used_by(name)
        members = tuple(
            FleetShare(device_class=device_class, presence=presence, devices=n)
            for (device_class, presence), n in sorted(census.items())
        )
        update = {
            "devices": sum(census.values()),
            "members": members,
            "rollouts": tuple(rollouts[:_LISTED]),
        }
        return _view(record).model_copy(update=update)

    def page(self, after: str | None, limit: int) -> Sequence[FleetView]:
        """Fleets by name; their members are not counted."""
        with self._uow.read() as tx:
            return [_view(record) for record in tx.fleets.page(after, limit)]

    def delete(self, name: str) -> FleetView:
        """Forget a fleet; as it was.

        Raises:
            NotFound: there is none.
            Conflict: a rollout that is not over names it.
        """
        with self._uow() as tx:
            record = found(tx, name)
            rollouts = tx.fleets.used_by(name)
            if rollouts:
                more = f" and {len(rollouts) - _NAMED} more" if len(rollouts) > _NAMED else ""
                names = ", ".join(rollouts[:_NAMED]) + more
                msg = f"fleet {name} is the target of what is not over: {names}"
                raise Conflict(msg, hint="finish or abort them first: `argosy rollout ls`")
            tx.fleets.delete(name)
            tx.audit.add("fleet.delete", name, {"selector": record.selector})
        return _view(record)


def found(tx: Transaction, name: str) -> FleetRecord:
    """A fleet's record.

    Raises:
        NotFound: there is none.
    """
    record = tx.fleets.get(name)
    if record is None:
        msg = f"there is no fleet {name!r}"
        raise NotFound(msg, hint="`argosy fleet ls` lists them")
    return record


def target_of(tx: Transaction, spec: RolloutSpec) -> Target:
    """Which devices a rollout is for; its fleet as it is now.

    Raises:
        NotFound: it names a fleet that is not there.
    """
    return frozen_target(spec, None if spec.fleet is None else found(tx, spec.fleet).selector)


def frozen_target(spec: RolloutSpec, fleet_where: str | None) -> Target:
    """Which devices a rollout is for; its fleet as it was when the plan was frozen."""
    selectors: list[Node] = [parse(text) for text in (spec.where, fleet_where) if text is not None]
    where = selectors[0] if len(selectors) == 1 else And(tuple(selectors)) if selectors else None
    return Target(
        device_class=spec.device_class,
        tags=spec.tags,
        where=where,
        exclude=None if spec.exclude is None else parse(spec.exclude),
    )


def _view(record: FleetRecord) -> FleetView:
    return FleetView(
        name=record.name,
        spec=FleetSpec(selector=record.selector, note=record.note),
        created_at=record.created_at,
        updated_at=record.updated_at,
    )
