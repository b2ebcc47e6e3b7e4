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
    Float,
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
        bounds, w = self._bounds(stretches), aliased(WindowRow)
        kept = self._newest(bounds, w, role, each, equal=equal)
        query = select(w.device_id, w.start_ms, w.body).select_from(bounds).join(w, kept)
        return self._session.execute(query).yield_per(1000)

    def totals(self, stretches: Sequence[Stretch], each: int) -> Iterable[Any]:
        """(device, n, errors, labelled, correct) of the newest windows in which it inferred.

        As real numbers: SQLite refuses a sum of whole ones beyond 64 bits, and all with it. Devices
        without such a window are missing.

        Args:
            stretches: one of a device.
            each: windows of a stretch; more only where they began in the same millisecond.
        """
        if not stretches:
            return ()
        bounds, w = self._bounds(stretches), aliased(WindowRow)
        sums = [func.sum(cast(one, Float(53))) for one in (w.n, w.errors, w.labelled, w.correct)]
        kept = self._newest(bounds, w, "active", each, equal=True, busy=True)
        query = select(w.device_id, *sums).select_from(bounds).join(w, kept).group_by(w.device_id)
        return self._session.execute(query)

    def _newest(
        self, bounds: Any, w: Any, role: str, each: int, *, equal: bool, busy: bool = False
    ) -> ColumnElement[bool]:
        """That a window is one of the newest of its stretch; ``busy``: of those with inferences."""
        other = aliased(WindowRow)
        oldest = (
            select(other.start_ms)
            .where(*self._of(other, bounds, role, equal=equal), *((other.n > 0,) * busy))
            .order_by(other.start_ms.desc())
            .offset(each - 1)
            .limit(1)
            .correlate(bounds)
            .scalar_subquery()
        )
        # In place of the stretch's own begin, and not beside it: a database that reads from there
        # on would ask for the oldest at each window anew.
        since = func.coalesce(oldest, bounds.c.since)
        return and_(*self._of(w, bounds, role, equal=equal, since=since), *((w.n > 0,) * busy))

    def _of(
        self, w: Any, bounds: Any, role: str, *, equal: bool, since: Any = None
    ) -> Sequence[ColumnElement[bool]]:
        its = bounds.c.version
        return (
            w.device_id == bounds.c.device,
            w.start_ms >= (bounds.c.since if since is None else since),
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
