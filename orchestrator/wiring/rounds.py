"""What happens by itself: rollouts, and the rounds of the control loop."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.adapters.mqtt import MqttGateway
from orchestrator.control_loop import ControlLoop
from orchestrator.services.access import AccessService
from orchestrator.services.devices import DeviceService
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.experiments import ExperimentService
from orchestrator.services.hearing import Hearing
from orchestrator.services.jobs import JobService
from orchestrator.services.joining import JoiningService
from orchestrator.services.publisher import DesiredPublisher
from orchestrator.services.renewal import RenewalService
from orchestrator.services.retention import Retention
from orchestrator.services.rolling_back import RollingBack
from orchestrator.services.rollouts import RolloutService
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry_retention import Ages, TelemetryRetention
from orchestrator.services.trust import TrustService
from orchestrator.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What operators do with rollouts, and what these do by themselves."""

    service: RolloutService
    experiments: ExperimentService
    engine: RolloutEngine
    publisher: DesiredPublisher
    hearing: Hearing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """Other parts that something is done for in every round."""

    access: AccessService
    devices: DeviceService
    jobs: JobService
    renewals: RenewalService
    samples: SampleService
    trust: TrustService


def make_rollouts(ground: Ground, gateway: MqttGateway) -> Rollouts:
    """Put it together."""
    uow, clock, settings = ground.uow, ground.clock, ground.settings
    # In so long every device that is there has sent a heartbeat.
    hearing = Hearing(clock, lambda: gateway.connected, 3 * settings.heartbeat_seconds)
    service = RolloutService(uow, clock, ground.signer, transfer_rate=settings.transfer_rate)
    return Rollouts(
        service=service,
        experiments=ExperimentService(uow, clock, service),
        engine=RolloutEngine(uow, clock, hearing=hearing),
        publisher=DesiredPublisher(uow, ground.signer, gateway.downlink, clock),
        hearing=hearing,
    )


def make_rounds(ground: Ground, rollouts: Rollouts, tended: Tended) -> ControlLoop:
    """The loop, in the order in which a round does things."""
    uow, clock, settings = ground.uow, ground.clock, ground.settings
    engine, publisher, hearing = rollouts.engine, rollouts.publisher, rollouts.hearing
    ages = Ages(settings.window_days, settings.device_hour_days, settings.class_hour_days)
    return ControlLoop(
        {
            "rollouts": engine.tick,
            "plans": rollouts.service.tick,
            "experiments": rollouts.experiments.tick,
            "joining": JoiningService(uow, clock).tick,
            "rolling back": RollingBack(uow, clock, hearing.deaf).tick,
            "trust": tended.trust.tick,
            "desired state": publisher.tick,
            "leases": tended.jobs.expire_leases,
            "presence": lambda: None if hearing.deaf() else tended.devices.sweep(),
            "certificates": tended.renewals.tick,
            "retention": Retention(uow, clock, days=settings.event_days).tick,
            "telemetry": TelemetryRetention(uow, clock, tended.samples, ages).tick,
            "access": tended.access.tick,
        },
        settings.tick_seconds,
        busy=lambda: engine.busy or publisher.busy,
        seldom={"plans": 5.0, "experiments": 1.0, "rolling back": 0.5},
    )
