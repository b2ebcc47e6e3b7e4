"""A second operator: who agrees to a rollout is another person than who started it."""

from __future__ import annotations

from orchestrator.errors import Forbidden
from orchestrator.services import actor
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord

_HINT = (
    "another person approves it: `argosy rollout approve {rollout}`, with a releaser's or admin's"
    " token of their own"
)


def check_another(tx: Transaction, rollout: RolloutRecord) -> None:
    """See that whoever acts is another person than who started a rollout.

    Of a person's tokens each has a name of its own, as no two that work share one: ``ann`` and
    ``ann--laptop`` are of the same person.

    Raises:
        Forbidden: it is the same one.
    """
    asked, agrees = rollout.requested_by or "", actor.current()
    hint = _HINT.format(rollout=rollout.id)
    if asked == agrees or _key(asked) == _key(agrees):
        msg = f"{agrees} started {rollout.id}: who asks for an approval does not give it"
        raise Forbidden(msg, hint=hint)
    name = _person(tx, asked)
    if name and name == _person(tx, agrees):
        msg = f"{asked}, who started {rollout.id}, and {agrees} are both tokens of {name}"
        raise Forbidden(msg, hint=hint)


def _key(name: str) -> str:
    """The id of the token by which somebody acts."""
    return name.partition(":")[2] or name


def _person(tx: Transaction, name: str) -> str:
    record = tx.keys.get(_key(name))
    return record.name.strip().casefold().partition("--")[0] if record is not None else ""
