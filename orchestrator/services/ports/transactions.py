"""One transaction and everything in it."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from orchestrator.services.ports.access import Audit, Keys, Sessions
from orchestrator.services.ports.artifacts import ArtifactMarks, HoldingsView
from orchestrator.services.ports.devices import DeviceClasses, Devices, Fleets, Measured
from orchestrator.services.ports.executions import Executions
from orchestrator.services.ports.experiments import Experiments
from orchestrator.services.ports.gate import FleetTrust
from orchestrator.services.ports.jobs import Agents, JobHistory, Jobs
from orchestrator.services.ports.joining import Joining
from orchestrator.services.ports.models import Models
from orchestrator.services.ports.outbox import Outbox
from orchestrator.services.ports.past import Past
from orchestrator.services.ports.patches import KeptPatches
from orchestrator.services.ports.rollouts import Rollouts
from orchestrator.services.ports.system import Events
from orchestrator.services.ports.taking_back import TakingBack
from orchestrator.services.ports.telemetry import Places, Samples, Telemetry


class Transaction(Protocol):
    """One transaction and everything in it; rolled back if its block raises."""

    jobs: Jobs
    job_history: JobHistory
    agents: Agents
    models: Models
    patches: KeptPatches
    devices: Devices
    fleet_trust: FleetTrust
    device_classes: DeviceClasses
    measured: Measured
    fleets: Fleets
    rollouts: Rollouts
    outbox: Outbox
    past: Past
    executions: Executions
    experiments: Experiments
    joining: Joining
    taking_back: TakingBack
    telemetry: Telemetry
    samples: Samples
    places: Places
    holdings: HoldingsView
    artifact_marks: ArtifactMarks
    keys: Keys
    sessions: Sessions
    audit: Audit
    events: Events


class UnitOfWork(Protocol):
    """Opens transactions: writing ones, one after the other, and reading ones beside them."""

    def __call__(self) -> AbstractContextManager[Transaction]: ...
    def read(self) -> AbstractContextManager[Transaction]: ...
