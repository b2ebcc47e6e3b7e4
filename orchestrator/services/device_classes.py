"""Classes of devices and their budgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from orchestrator.errors import Conflict, NotFound
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import DeviceClassRecord
from schemas.budget import Budget, DeviceClassSpec, DeviceClassView

NO_LIMITS = Budget()


class DeviceClassService:
    """What the API does with device classes.

    A class is there when an operator spoke of it, or when a device is in it.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def put(self, name: str, spec: DeviceClassSpec) -> DeviceClassView:
        """Say what is true of a class, in place of what was said before."""
        with self._uow() as tx:
            before = tx.device_classes.get(name)
            if before is None or before.spec != spec:
                record = DeviceClassRecord(name=name, spec=spec, updated_at=self._clock())
                tx.device_classes.put(record)
                tx.audit.add("device_class.set", name, spec.model_dump(mode="json"))
            return _views(tx, [name])[0]

    def get(self, name: str) -> DeviceClassView:
        """One class.

        Raises:
            NotFound: nobody spoke of it, and no device is in it.
        """
        with self._uow.read() as tx:
            return _found(tx, name)

    def page(self, after: str | None, limit: int) -> Sequence[DeviceClassView]:
        """Classes by name."""
        with self._uow.read() as tx:
            return _views(tx, tx.device_classes.names(after, limit))

    def delete(self, name: str) -> DeviceClassView:
        """Forget what was said of a class; the class as it was.

        Raises:
            NotFound: there is no such class.
            Conflict: devices are in it, which would lose their budget unseen.
        """
        with self._uow() as tx:
            view = _found(tx, name)
            if view.devices:
                n = "1 device is" if view.devices == 1 else f"{view.devices} devices are"
                msg = f"{n} in class {name}, whose budget would go with it"
                hint = "to lift the budget, set the class without limits instead"
                raise Conflict(msg, hint=hint)
            tx.device_classes.delete(name)
            tx.audit.add("device_class.delete", name)
        return view


def budgets(tx: Transaction, named: Collection[str], at_most: int) -> Mapping[str, Budget]:
    """Budgets with limits, of classes that are not named; those with most devices first.

    Args:
        tx: where they are read.
        named: classes that need none from here.
        at_most: how many are given.
    """
    limited = {
        record.name: record.spec.budget
        for record in tx.device_classes.all()
        if record.spec.budget != NO_LIMITS and record.name not in named
    }
    if len(limited) <= at_most:
        return limited
    devices = tx.device_classes.devices(list(limited))
    first = sorted(limited, key=lambda name: (-devices[name], name))[:at_most]
    return {name: limited[name] for name in first}


def _found(tx: Transaction, name: str) -> DeviceClassView:
    (view,) = _views(tx, [name])
    if view.updated_at is None and not view.devices:
        msg = f"there is no device class {name!r}"
        raise NotFound(msg, hint="`argosy device-class ls` lists them")
    return view


def _views(tx: Transaction, names: Sequence[str]) -> list[DeviceClassView]:
    devices = tx.device_classes.devices(names)
    found = {name: tx.device_classes.get(name) for name in names}
    return [
        DeviceClassView(
            name=name,
            spec=record.spec if record else DeviceClassSpec(),
            devices=devices[name],
            updated_at=record.updated_at if record else None,
        )
        for name, record in found.items()
    ]
