"""Fleets: selectors that were saved under a name."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.client.resources import Resource, segment
from schemas.fleet import FleetSpec, FleetView


class Fleets(Resource):
    """Saved selectors."""

    def list(self) -> Iterator[FleetView]:
        """Every fleet by name, without counting its members."""
        return self._pages("/v1/fleets", FleetView)

    def get(self, name: str) -> FleetView:
        """One fleet, with its members counted by class and presence."""
        return self._transport.get(_fleet(name), FleetView)

    def set(self, name: str, spec: FleetSpec) -> FleetView:
        """Save a selector under a name, in place of what was there."""
        return self._transport.replace(_fleet(name), FleetView, spec)

    def remove(self, name: str) -> None:
        """Forget a fleet.

        Raises:
            Conflict: a rollout that is not over names it.
        """
        self._transport.delete(_fleet(name), FleetView)


def _fleet(name: str) -> str:
    return f"/v1/fleets/{segment(name)}"
