"""What services load and save: one frozen record per table."""

from __future__ import annotations

from orchestrator.services.records.devices import (
    CertificateRecord,
    DeviceClassRecord,
    DeviceKeyRecord,
    DeviceRecord,
    MeasuredRecord,
    RevokedCertificate,
    TokenRecord,
)
from orchestrator.services.records.executions import Alike, Among, Moved, Waiting
from orchestrator.services.records.jobs import ActiveJob, AgentRecord, JobRecord, QueuedJob
from orchestrator.services.records.keys import KeyRecord, SessionRecord
from orchestrator.services.records.models import VersionRecord
from orchestrator.services.records.outbox import GivenRecord, Outgoing, Pending
from orchestrator.services.records.patches import PatchRecord
from orchestrator.services.records.rollouts import ExecutionRecord, RolloutRecord, WaveRecord
from orchestrator.services.records.telemetry import DeviceTotals, WindowFigures, WindowRecord

__all__ = [
    "ActiveJob",
    "AgentRecord",
    "Alike",
    "Among",
    "CertificateRecord",
    "DeviceClassRecord",
    "DeviceKeyRecord",
    "DeviceRecord",
    "DeviceTotals",
    "ExecutionRecord",
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
    "SessionRecord",
    "TokenRecord",
    "VersionRecord",
    "Waiting",
    "WaveRecord",
    "WindowFigures",
    "WindowRecord",
]
