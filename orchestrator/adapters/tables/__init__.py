"""The database tables. ``migrations/`` must always produce exactly these."""

from __future__ import annotations

from orchestrator.adapters.tables.access import ApiKeyRow, AuditRow, SessionRow
from orchestrator.adapters.tables.artifacts import ArtifactMarkRow
from orchestrator.adapters.tables.base import Base, UtcDateTime
from orchestrator.adapters.tables.devices import (
    CertificateRow,
    DeviceClassRow,
    DeviceKeyRow,
    DeviceModelRow,
    DeviceRow,
    DeviceTagRow,
    FleetRow,
    JoinTokenRow,
    MeasuredRow,
    RevokedCertificateRow,
)
from orchestrator.adapters.tables.experiments import ExperimentRow
from orchestrator.adapters.tables.jobs import (
    AgentRow,
    JobLogRow,
    JobLogTotalsRow,
    JobMetricRow,
    JobProfileRow,
    JobRow,
)
from orchestrator.adapters.tables.models import (
    AliasChangeRow,
    AliasRow,
    ModelVersionRow,
    VersionFileRow,
)
from orchestrator.adapters.tables.patches import PatchRow
from orchestrator.adapters.tables.rollouts import ExecutionRow, RolloutRow, WaveRow
from orchestrator.adapters.tables.system import EventRow
from orchestrator.adapters.tables.telemetry import (
    ClassHourRow,
    DeviceHourRow,
    SampleRow,
    SampleTotalRow,
    WindowRow,
)

__all__ = [
    "AgentRow",
    "AliasChangeRow",
    "AliasRow",
    "ApiKeyRow",
    "ArtifactMarkRow",
    "AuditRow",
    "Base",
    "CertificateRow",
    "ClassHourRow",
    "DeviceClassRow",
    "DeviceHourRow",
    "DeviceKeyRow",
    "DeviceModelRow",
    "DeviceRow",
    "DeviceTagRow",
    "EventRow",
    "ExecutionRow",
    "ExperimentRow",
    "FleetRow",
    "JobLogRow",
    "JobLogTotalsRow",
    "JobMetricRow",
    "JobProfileRow",
    "JobRow",
    "JoinTokenRow",
    "MeasuredRow",
    "ModelVersionRow",
    "PatchRow",
    "RevokedCertificateRow",
    "RolloutRow",
    "SampleRow",
    "SampleTotalRow",
    "SessionRow",
    "UtcDateTime",
    "VersionFileRow",
    "WaveRow",
    "WindowRow",
]
