"""Which names devices may tell of: what is registered, and a few others of each device.

Every name makes rows that are kept for years. A device that invents names, 64 in an envelope,
would fill the database, and what Prometheus reads, for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from pydantic import ValidationError

from orchestrator.services.ports import Transaction
from schemas.model import Manifest

MAX_STRANGE = 16
"""Names of one device, since the server's start, that are not registered: as after a database was
restored that is older than what devices serve."""

MAX_SOUGHT = 64
"""Names of one device in one batch that are looked up; those that are registered are remembered."""

Name: TypeAlias = tuple[str, int, str]
"""Model, version, variant."""


class NamesTold:
    """Remembers both kinds. Used from one thread."""

    def __init__(self) -> None:
        self._registered: dict[tuple[str, int], frozenset[str]] = {}
        self._strange: dict[str, set[Name]] = {}

    def refused(self, tx: Transaction, told: Iterable[tuple[str, Name]]) -> set[tuple[str, Name]]:
        """Those of (device, name) that are not taken."""
        sought: dict[str, int] = {}
        refused = set()
        for device, name in dict.fromkeys(told):
            if self.registered(name) or name in self._strange.get(device, ()):
                continue
            sought[device] = sought.get(device, 0) + 1
            if sought[device] <= MAX_SOUGHT and self._look_up(tx, name):
                continue
            strange = self._strange.setdefault(device, set())
            if len(strange) < MAX_STRANGE:
                strange.add(name)
            else:
                refused.add((device, name))
        return refused

    def registered(self, name: Name) -> bool:
        """Whether a name is known to be registered."""
        model, version, variant = name
        return variant in self._registered.get((model, version), ())

    def _look_up(self, tx: Transaction, name: Name) -> bool:
        model, version, _ = name
        if (model, version) not in self._registered:
            record = tx.models.get(model, version)
            if record is None:
                return False
            try:
                variants = Manifest.model_validate_json(record.manifest).variants
            except ValidationError:
                return False  # written by another version of ours: no reason to hear nobody
            self._registered[model, version] = frozenset(one.id for one in variants)
        return self.registered(name)
