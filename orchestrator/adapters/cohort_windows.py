"""Windows of many devices, of each in a stretch of time of its own, by one statement.

The stretches go to the database as one parameter, a JSON list: some thousand parameters would
take longer to be written into a statement than the database takes to answer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    String,
    and_,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.orm import Session, aliased

from orchestrator.adapters.tables import WindowRow


class Stretch(NamedTuple):
    """Of one device the windows that began from ``since`` on and before ``until``.

    version: theirs, or the one that they are not of. Times in milliseconds since 1970.
    """

    device: str
    version: int
    since: int
    until: int


class StretchedWindows:
    """Reads windows of a model.

    Args:
        session: a reading transaction's.
        model: whose windows.
    """

    def __init__(self, session: Session, model: str) -> None:
        self._session, self._model = session, model
        self._sqlite = session.get_bind().dialect.name == "sqlite"

    def first(self, stretches: Sequence[Stretch]) -> Mapping[str, int]:
        """By device the start of its first window as an active model, where there is one."""
        if not stretches:
            return {}
        bounds, w = self._bounds(stretches), aliased(WindowRow)
        first = (
            select(w.start_ms)
            .where(*self._of(w, bounds, "active", equal=True))
            .order_by(w.start_ms)
            .limit(1)
            .correlate(bounds)
            .scalar_subquery()
        )
        found = self._session.execute(select(bounds.c.device, first))
        return {device: start for device, start in found if start is not None}

    def newest(
        self, stretches: Sequence[Stretch], role: str, each: int, *, equal: bool
    ) -> Iterable[Any]:
        """(device, start_ms, body) of the newest windows: of the version, or of any other one.

        Args:
            stretches: one of a device.
            role: of the version in those windows.
            each: windows of a stretch; more only where they began in the same millisecond.
            equal: of the stretch's version; else of others.
        """
        if not stretches:
            return ()
        bounds, w, other = self._bounds(stretches), aliased(WindowRow), aliased(WindowRow)
        oldest = (
            select(other.start_ms)
            .where(*self._of(other, bounds, role, equal=equal))
            .order_by(other.start_ms.desc())
            .offset(each - 1)
            .limit(1)
            .correlate(bounds)
            .scalar_subquery()
        )
        where = self._of(w, bounds, role, equal=equal)
        query = (
            select(w.device_id, w.start_ms, w.body)
            .select_from(bounds)
            .join(w, and_(*where, w.start_ms >= func.coalesce(oldest, bounds.c.since)))
        )
        return self._session.execute(query).yield_per(1000)

    def _of(self, w: Any, bounds: Any, role: str, *, equal: bool) -> Sequence[ColumnElement[bool]]:
        its = bounds.c.version
        return (
            w.device_id == bounds.c.device,
            w.start_ms >= bounds.c.since,
            w.start_ms < bounds.c.until,
            w.model == self._model,
            w.role == role,
            w.version == its if equal else w.version != its,
        )

    def _bounds(self, stretches: Sequence[Stretch]) -> Any:
        given, fields = literal([tuple(one) for one in stretches], JSON), Stretch._fields
        parts: list[Any]
        if self._sqlite:
            one = func.json_each(given).table_valued("value").c.value
            parts = [func.json_extract(one, f"$[{i}]") for i in range(len(fields))]
        else:
            one = func.json_array_elements(given).table_valued("value").c.value
            parts = [type_coerce(one, JSON).op("->>")(i) for i in range(len(fields))]
        kinds = (String, BigInteger, BigInteger, BigInteger)
        columns: list[Any] = [
            cast(part, kind).label(name)
            for part, kind, name in zip(parts, kinds, fields, strict=True)
        ]
        # Once, and not anew for each window that is held against it.
        return select(*columns).cte("bounds").prefix_with("MATERIALIZED")
