"""Aliases: names that point at a version and may move, every move written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.domain import alias as rules
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.versions import model_view, usable
from schemas.errors import FieldError
from schemas.model import AliasChange, AliasRequest, ModelView


class AliasService:
    """What the API does with aliases.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def put(self, name: str, alias: str, request: AliasRequest, by: str) -> ModelView:
        """Move an alias to a version; one that is there already stays, and nothing is written.

        Raises:
            Invalid: it cannot be an alias.
            NotFound, Revoked: there is no such version, or it was taken back.
            Conflict: the version has no files any more, the alias is not where it was
                expected (the message says where it is), or there are too many.
        """
        unfit = rules.unfit(alias)
        if unfit is not None:
            msg = f"{alias!r} cannot be an alias: {unfit}"
            raise Invalid(msg, fields=[FieldError(field="alias", message=unfit)])
        with self._uow() as tx:
            usable(tx, name, request.version)
            if tx.models.aliases(name).get(alias) != request.version:
                self._check(tx, name, alias, request.expected)
                move(tx, name, alias, request.version, by=by, now=self._clock())
            return model_view(tx, name)

    def delete(self, name: str, alias: str, expected: int | None, by: str) -> ModelView:
        """Take an alias away.

        Raises:
            NotFound: there is no such model or alias.
            Conflict: it is not where it was expected.
        """
        with self._uow() as tx:
            view = model_view(tx, name)
            if alias not in view.aliases:
                raise _no_alias(view, alias)
            self._check(tx, name, alias, expected)
            move(tx, name, alias, None, by=by, now=self._clock())
            return model_view(tx, name)

    def history(
        self, name: str, alias: str, before: int | None, limit: int
    ) -> Sequence[tuple[int, AliasChange]]:
        """The moves of an alias with their numbers, newest first.

        before: only those with a smaller number.

        Raises:
            NotFound: there is no such model, or it never had such an alias.
        """
        with self._uow.read() as tx:
            changes = tx.models.alias_changes(name, alias, before, limit)
            if not changes and before is None:
                raise _no_alias(model_view(tx, name), alias)
            return changes

    def _check(self, tx: Transaction, name: str, alias: str, expected: int | None) -> None:
        why = rules.refused(name, tx.models.aliases(name), alias, expected)
        if why is not None:
            raise Conflict(why, hint=f"`argosy model get {name}` shows its aliases; decide anew")


def move(
    tx: Transaction, model: str, alias: str, version: int | None, *, by: str, now: datetime
) -> None:
    """Point an alias at a version, or take it away; write it down and tell of it.

    Nothing happens when it is there already. by: a job's or a key's id.
    """
    before = tx.models.aliases(model).get(alias)
    if before == version:
        return
    if version is None:
        tx.models.drop_alias(model, alias)
    else:
        tx.models.set_alias(model, alias, version)
    change = AliasChange(alias=alias, version=version, before=before, by=by, at=now)
    tx.models.add_alias_change(model, change)
    data: dict[str, Any] = {"model": model, "change": "alias", "alias": alias, "by": by}
    known = {"version": version, "before": before}
    data |= {key: value for key, value in known.items() if value is not None}
    tx.events.add("model", model, data, now)
    tx.audit.add("model.alias", model, {"alias": alias, "version": version, "before": before})


def _no_alias(view: ModelView, alias: str) -> NotFound:
    there = ", ".join(view.aliases) or "none"
    return NotFound(f"{view.name} has no alias {alias!r}; it has {there}")
