"""An update on a simulated device, and what it asks of the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import ValidationError

from orchestrator.simulator.fetch import Fetch, Package
from orchestrator.simulator.outcome import Outcome
from schemas.device import ActiveModel
from schemas.rollout import DEVICE_TERMINAL, Assignment, Command, ExecReport, ExecState, Shadow


class Host(Protocol):
    """The device, as its update sees it."""

    id: str
    device_class: str
    active: dict[str, ActiveModel]
    fetch: Fetch

    def report(self, update: Update, **more: Any) -> None:
        """Tell the server."""

    def after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Have something done later."""

    def now(self) -> datetime:
        """The server's time, as the device knows it."""

    def pace(self, seconds: float, what: str, number: int) -> float:
        """How long a step takes on this device."""

    def outcome(self, assignment: Assignment) -> Outcome:
        """What becomes of an update."""

    def serve(self, model: ActiveModel | None, name: str) -> None:
        """Serve another version from now on; None: none of that model any more."""

    def shadowed(self, update: Update, shadow: Shadow) -> tuple[int, int]:
        """Send what a shadow compared; how many answers, and how many of them agreed."""

    def offered(self, assignment: Assignment) -> None:
        """Count an offer that it had not seen."""

    def told(self, rollout: str) -> None:
        """Count that it was told to give an execution up."""

    def disown(self, command: Command) -> None:
        """Told to give up what it does not know: it says that it is given up."""


@dataclass(slots=True)
class Update:
    """Where an execution stands on the device. seq: of the last report, -1 before the first."""

    assignment: Assignment
    state: ExecState = ExecState.OFFERED
    seq: int = -1
    last: ExecReport | None = None
    before: ActiveModel | None = None
    package: Package | None = None
    put_off: bool = False
    proceed: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Which attempt of which execution it is."""
        return key_of(self.assignment)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in DEVICE_TERMINAL


def key_of(assignment: Assignment) -> tuple[str, int]:
    """Which attempt of which execution an offer is."""
    return assignment.execution, assignment.attempt


def read_document(payload: bytes) -> tuple[int, Assignment] | None:
    """Sequence and assignment of a document; None when it is empty or none."""
    try:
        signed = json.loads(payload)["signed"]
        (target,) = signed["targets"].values()
        return int(signed["version"]), Assignment.model_validate(target["custom"])
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
