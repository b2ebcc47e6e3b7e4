"""Experiments: two versions of a model side by side."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.client.resources import Resource, segment
from schemas.experiment import ArmName, ExperimentSpec, ExperimentView, StopRequest


class Experiments(Resource):
    """Experiments."""

    def start(self, spec: ExperimentSpec) -> ExperimentView:
        """Split devices between two versions, and bring each side its own."""
        return self._transport.post("/v1/experiments", ExperimentView, spec)

    def list(self) -> Iterator[ExperimentView]:
        """Every experiment, newest first, without what it shows."""
        return self._pages("/v1/experiments", ExperimentView)

    def get(self, experiment_id: str) -> ExperimentView:
        """One experiment: its arms, and how they differ."""
        return self._transport.get(_path(experiment_id), ExperimentView)

    def stop(
        self, experiment_id: str, *, keep: ArmName | None = None, reason: str = ""
    ) -> ExperimentView:
        """End both arms; ``keep`` gives that arm's version to the other one's devices."""
        request = StopRequest(keep=keep, reason=reason)
        return self._transport.post(f"{_path(experiment_id)}/stop", ExperimentView, request)


def _path(experiment_id: str) -> str:
    return f"/v1/experiments/{segment(experiment_id)}"
