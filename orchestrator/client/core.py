"""The client: a connection and its resources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from orchestrator.client.access import ApiTokens, AuditLog
from orchestrator.client.artifacts import Artifacts
from orchestrator.client.authority import CertificateAuthority
from orchestrator.client.devices import Devices, Tokens
from orchestrator.client.events import PATIENCE_SECONDS, EventStream
from orchestrator.client.experiments import Experiments
from orchestrator.client.fleets import Fleets
from orchestrator.client.jobs import Agents, Jobs
from orchestrator.client.models import DeviceClasses, Models
from orchestrator.client.profile import Profile
from orchestrator.client.resources import Platform
from orchestrator.client.rollouts import Rollouts
from orchestrator.client.telemetry import Telemetry
from orchestrator.client.transport import Transport
from orchestrator.client.trust import Trust
from schemas.access import Whoami
from schemas.api import Health


class Argosy:
    """A platform, as an operator's program sees it.

    Args:
        url: its address, as in ``https://127.0.0.1:8420``.
        token: an API token.
        ca: the certificate authority, as PEM text or a path; None trusts the system's.
        http: replaces the network; for tests.

    Raises:
        ArgosyError: from every method; see ``orchestrator.client.errors``.
    """

    def __init__(
        self,
        url: str,
        token: str,
        ca: str | None = None,
        *,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport(Profile(url, token, ca), http)
        self.jobs = Jobs(self._transport)
        self.agents = Agents(self._transport)
        self.models = Models(self._transport)
        self.artifacts = Artifacts(self._transport)
        self.device_classes = DeviceClasses(self._transport)
        self.devices = Devices(self._transport)
        self.fleets = Fleets(self._transport)
        self.tokens = Tokens(self._transport)
        self.rollouts = Rollouts(self._transport)
        self.experiments = Experiments(self._transport)
        self.telemetry = Telemetry(self._transport)
        self.api_tokens = ApiTokens(self._transport)
        self.audit = AuditLog(self._transport)
        self.trust = Trust(self._transport)
        self.authority = CertificateAuthority(self._transport)
        self._platform = Platform(self._transport)

    @classmethod
    def from_profile(cls, home: Path | None = None, env: Mapping[str, str] | None = None) -> Self:
        """Connect as the command line, the environment, a profile or a home says.

        In which order stands at ``Profile.load``.
        """
        profile = Profile.load(home, env)
        return cls(profile.url, profile.token, profile.ca)

    @property
    def url(self) -> str:
        """The platform's address."""
        return self._transport.url

    def whoami(self) -> Whoami:
        """Whose token this is, and what it may do."""
        return self._platform.whoami()

    def health(self) -> Health:
        """Whether every part of the platform is up."""
        return self._platform.health()

    def events(
        self,
        subject: str | None = None,
        after: int | None = None,
        *,
        kind: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> EventStream:
        """What happens, as it happens; lost connections are made again.

        Args:
            subject: a job's, device's or rollout's id or a model's name; None for all.
            after: the id of the last event already seen; None begins now.
            kind: only of this kind, such as ``rollout``; None for all.
            patience: seconds without the platform after which iterating raises.
        """
        return EventStream(self._transport, subject, after, kind=kind, patience=patience)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
