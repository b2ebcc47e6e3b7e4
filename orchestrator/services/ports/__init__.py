"""What services need of the world: protocols that adapters fulfil."""

from __future__ import annotations

from orchestrator.services.ports.access import Audit, AuditQuery, Keys, Sessions
from orchestrator.services.ports.artifacts import (
    ArtifactMarks,
    Artifacts,
    ArtifactShelf,
    HoldingsView,
)
from orchestrator.services.ports.delivery import Broadcasting, Links, Patches
from orchestrator.services.ports.devices import (
    Certificates,
    DeviceClasses,
    Devices,
    Fleets,
    Measured,
)
from orchestrator.services.ports.downlink import Downlink
from orchestrator.services.ports.executions import ExecutionCounts, Executions
from orchestrator.services.ports.experiments import Experiments, Head, Observed
from orchestrator.services.ports.gate import DeviceTrust, FleetTrust, Gate
from orchestrator.services.ports.jobs import Agents, JobHistory, Jobs
from orchestrator.services.ports.joining import Joining
from orchestrator.services.ports.models import Models
from orchestrator.services.ports.outbox import Outbox
from orchestrator.services.ports.past import Past
from orchestrator.services.ports.patches import GivenUp, KeptPatches, MadePatch, PatchMaker
from orchestrator.services.ports.rollouts import Rollouts
from orchestrator.services.ports.system import Clock, Events
from orchestrator.services.ports.taking_back import TakingBack
from orchestrator.services.ports.telemetry import Places, Samples, Telemetry
from orchestrator.services.ports.transactions import Transaction, UnitOfWork
from orchestrator.services.ports.trust import Authority, IssuedCertificate, Signer, Standing

__all__ = [
    "Agents",
    "ArtifactMarks",
    "ArtifactShelf",
    "Artifacts",
    "Audit",
    "AuditQuery",
    "Authority",
    "Broadcasting",
    "Certificates",
    "Clock",
    "DeviceClasses",
    "DeviceTrust",
    "Devices",
    "Downlink",
    "Events",
    "ExecutionCounts",
    "Executions",
    "Experiments",
    "FleetTrust",
    "Fleets",
    "Gate",
    "GivenUp",
    "Head",
    "HoldingsView",
    "IssuedCertificate",
    "JobHistory",
    "Jobs",
    "Joining",
    "KeptPatches",
    "Keys",
    "Links",
    "MadePatch",
    "Measured",
    "Models",
    "Observed",
    "Outbox",
    "Past",
    "PatchMaker",
    "Patches",
    "Places",
    "Rollouts",
    "Samples",
    "Sessions",
    "Signer",
    "Standing",
    "TakingBack",
    "Telemetry",
    "Transaction",
    "UnitOfWork",
]
