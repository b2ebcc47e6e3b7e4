"""Changing the tags of many devices with a few statements, however many they are.

What a device ends up with is ``domain.tagging.retagged``; the contract tests hold the two against
each other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
    ColumnElement,
    CursorResult,
    String,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from orchestrator.adapters.selector_sql import where as sql_where
from orchestrator.adapters.tables import DeviceRow, DeviceTagRow
from orchestrator.services.records import TagCount
from schemas.device import MAX_TAGS
from schemas.selector import Node

_UNSYNCHRONIZED = {"synchronize_session": False}


class _Tags(FunctionElement[str]):
    """The items of ``devices.tags``, as a table with the column ``value``."""

    inherit_cache = True
    type = String()


@compiles(_Tags, "sqlite")
def _tags_sqlite(element: _Tags, compiler: Any, **kwargs: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kwargs)})"


@compiles(_Tags, "postgresql")
def _tags_postgresql(element: _Tags, compiler: Any, **kwargs: Any) -> str:
    return f"json_array_elements_text({compiler.process(element.clauses, **kwargs)})"


class _Retagged(FunctionElement[Any]):
    """A list of tags without some, and then with others: (tags, removed, added), all JSON."""

    inherit_cache = True
    type = JSON()


@compiles(_Retagged, "sqlite")
def _retagged_sqlite(element: _Retagged, compiler: Any, **kwargs: Any) -> str:
    tags, removed, added = (compiler.process(one, **kwargs) for one in element.clauses)
    # A list has no more than some thousand items: what is new comes behind all of them.
    return f"""(SELECT json_group_array(value) FROM (
        SELECT value, key AS place FROM json_each({tags})
        WHERE value NOT IN (SELECT value FROM json_each({removed}))
        UNION ALL SELECT value, 1000000 + key FROM json_each({added})
        WHERE value NOT IN (SELECT value FROM json_each({tags}))
        ORDER BY place))"""  # noqa: S608 - made of what is compiled, values are bound


@compiles(_Retagged, "postgresql")
def _retagged_postgresql(element: _Retagged, compiler: Any, **kwargs: Any) -> str:
    tags, removed, added = (compiler.process(one, **kwargs) for one in element.clauses)
    items = "json_array_elements_text"
    return f"""(SELECT coalesce(json_agg(value ORDER BY place), '[]'::json) FROM (
        SELECT value, place FROM {items}({tags}) WITH ORDINALITY AS kept(value, place)
        WHERE value NOT IN (SELECT {items}(({removed})::text::json))
        UNION ALL SELECT value, 1000000 + place
        FROM {items}(({added})::text::json) WITH ORDINALITY AS new(value, place)
        WHERE value NOT IN (SELECT {items}({tags}))) AS found)"""  # noqa: S608 - likewise


class SetTags:
    """The part of ``services.ports.Devices`` that changes tags of all whom a selector matches."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def count(
        self, node: Node, now: datetime, add: Sequence[str], remove: Collection[str]
    ) -> TagCount:
        """How many match, would change, and would come to more tags than one may have."""
        differs = _differs(add, remove)
        full = func.json_array_length(_after(add, remove)) > MAX_TAGS
        counts = (func.count(), func.count().filter(differs), func.count().filter(differs, full))
        found = self._session.execute(select(*counts).where(sql_where(node, now))).one()
        return TagCount(matched=int(found[0]), changes=int(found[1]), too_many=int(found[2]))

    def change(self, node: Node, now: datetime, add: Sequence[str], remove: Collection[str]) -> int:
        """Change them; how many changed."""
        # The selector asks device_tags, which the first statement leaves as it is. The others
        # bring it to what records say: what matched need not be known any more.
        changes = (
            update(DeviceRow)
            .where(sql_where(node, now), _differs(add, remove))
            .values(tags=_after(add, remove))
        )
        changed = cast("CursorResult[Any]", self._run(changes)).rowcount
        if changed and remove:
            self._drop(remove)
        if changed and add:
            self._insert(add)
        return changed

    def _drop(self, tags: Collection[str]) -> None:
        items = _Tags(DeviceRow.tags).table_valued("value", joins_implicitly=True)
        its = select(items.c.value).select_from(DeviceRow, items)
        its = its.where(DeviceRow.id == DeviceTagRow.device_id, items.c.value == DeviceTagRow.tag)
        gone = ~exists(its.correlate(DeviceTagRow))
        self._run(delete(DeviceTagRow).where(DeviceTagRow.tag.in_(sorted(tags)), gone))

    def _insert(self, tags: Collection[str]) -> None:
        items = _Tags(DeviceRow.tags).table_valued("value", joins_implicitly=True)
        there = select(DeviceTagRow.tag).where(
            DeviceTagRow.tag == items.c.value, DeviceTagRow.device_id == DeviceRow.id
        )
        new = (
            select(items.c.value, DeviceRow.id)
            .distinct()
            .select_from(DeviceRow, items)
            .where(items.c.value.in_(sorted(tags)), ~exists(there.correlate(DeviceRow, items)))
        )
        self._run(insert(DeviceTagRow).from_select(["tag", "device_id"], new))

    def _run(self, statement: Any) -> Any:
        return self._session.execute(statement, execution_options=_UNSYNCHRONIZED)


def _after(add: Sequence[str], remove: Collection[str]) -> _Retagged:
    removed, added = json.dumps(sorted(remove)), json.dumps(list(dict.fromkeys(add)))
    return _Retagged(DeviceRow.tags, bindparam(None, removed), bindparam(None, added))


def _differs(add: Sequence[str], remove: Collection[str]) -> ColumnElement[bool]:
    """That a device lacks one of the tags to be given, or has one of those to be taken away."""
    lacks = [DeviceRow.id.not_in(_having([tag])) for tag in add]
    has = [DeviceRow.id.in_(_having(sorted(remove)))] if remove else []
    return or_(*lacks, *has)


def _having(tags: Sequence[str]) -> Any:
    return select(DeviceTagRow.device_id).where(DeviceTagRow.tag.in_(tags))
