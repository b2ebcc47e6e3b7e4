"""How models reach devices: links, patches, broadcasts, and the lines to the broker."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.adapters.link_key import open_link_key
from orchestrator.adapters.mqtt import MqttGateway
from orchestrator.adapters.patch_maker import FilePatchMaker
from orchestrator.adapters.transfer_line import TransferLine
from orchestrator.domain.broadcast import Broadcasts, Rules
from orchestrator.services.admitted import Admitted, among
from orchestrator.services.broadcasting import BroadcastDesk
from orchestrator.services.chunks import ChunkService
from orchestrator.services.devices import DeviceService
from orchestrator.services.links import LinkService
from orchestrator.services.models import ModelService
from orchestrator.services.patch_workshop import PatchWorkshop
from orchestrator.services.patches import PatchService, fetchable
from orchestrator.services.renewal import RenewalService
from orchestrator.services.transfer import TransferService
from orchestrator.settings import Settings
from orchestrator.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Delivery:
    """gateway: every message but chunks. transfers: the processes that send these."""

    patches: PatchService
    links: LinkService
    gateway: MqttGateway
    transfers: TransferLine


def make_delivery(
    ground: Ground, models: ModelService, devices: DeviceService, renewals: RenewalService
) -> Delivery:
    """Put it together."""
    settings, artifacts = ground.settings, ground.artifacts
    patches = _patches(ground)
    serves = fetchable(models.serves, patches)
    links = LinkService(
        ground.clock,
        open_link_key(ground.home.link_key, settings.link_key),
        serves=serves,
        admits=devices.admits,
        offering=settings.https_links,
        rate=settings.transfer_rate,
    )
    broadcasts = BroadcastDesk(Broadcasts(_rules(settings)))
    transfer = TransferService(
        models,
        artifacts,
        ground.signer,
        serves=serves,
        patches=patches,
        links=links,
        broadcasts=broadcasts,
    )
    answered = Admitted(among(ground.uow))
    gateway = MqttGateway(
        ground.address,
        transfer,
        lambda device: answered.admits(device, gateway.asking()),
        renewals.over_mqtt,
    )
    broadcasts.announce_by(gateway.tell)
    transfers = TransferLine(
        ground.address,
        ChunkService(serves, artifacts),
        Admitted(among(ground.uow)),
        broadcasts=broadcasts,
        rate=settings.transfer_rate,
    )
    return Delivery(patches, links, gateway, transfers)


def _patches(ground: Ground) -> PatchService:
    most = ground.settings.patch_bytes
    maker = FilePatchMaker(ground.artifacts, ground.home.patches)
    workshop = PatchWorkshop(ground.uow, ground.clock, ground.artifacts, maker, max_bytes=most)
    return PatchService(ground.uow, ground.clock, workshop if most else None)


def _rules(settings: Settings) -> Rules:
    """When files are broadcast, and how fast."""
    return Rules(start_from=settings.broadcast_from, device_rate=settings.broadcast_rate)
