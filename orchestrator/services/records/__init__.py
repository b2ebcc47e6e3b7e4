"""What services load and save: one frozen record per table."""

from __future__ import annotations

from orchestrator.services.records.devices import (
    CertificateRecord,
    DeviceClassRecord,
    DeviceKeyRecord,
    DeviceRecord,
    FleetRecord,
    MeasuredRecord,
    RevokedCertificate,
    TagCount,
    Target,
    TokenRecord,
)
from orchestrator.services.records.executions import Alike, Among, Given, Moved, Waiting
from orchestrator.services.records.experiments import ExperimentRecord
from orchestrator.services.records.jobs import ActiveJob, AgentRecord, JobRecord, QueuedJob
from orchestrator.services.records.keys import KeyRecord, SessionRecord
from orchestrator.services.records.models import VersionRecord
from orchestrator.services.records.outbox import GivenRecord, Outgoing, Pending
from orchestrator.services.records.patches import PatchRecord
from orchestrator.services.records.rollouts import ExecutionRecord, RolloutRecord, WaveRecord
from orchestrator.services.records.taking_back import TakenBack
from orchestrator.services.records.telemetry import (
    Asked,
    SamplePage,
    SampleRecord,
    Span,
    WindowRecord,
)

__all__ = [
    "ActiveJob",
    "AgentRecord",
    "Alike",
    "Among",
    "Asked",
    "CertificateRecord",
    "DeviceClassRecord",
    "DeviceKeyRecord",
    "DeviceRecord",
    "ExecutionRecord",
    "ExperimentRecord",
    "FleetRecord",
    "Given",
    "GivenRecord",
    "JobRecord",
    "KeyRecord",
    "MeasuredRecord",
    "Moved",
    "Outgoing",
    "PatchRecord",
    "Pending",
    "QueuedJob",
    "RevokedCertificate",
    "RolloutRecord",
    "SamplePage",
    "SampleRecord",
    "SessionRecord",
    "Span",
    "TagCount",
    "TakenBack",
    "Target",
    "TokenRecord",
    "VersionRecord",
    "Waiting",
    "WaveRecord",
    "WindowRecord",
]
