"""Devices: join tokens, enrollment, birth and death messages, how the API shows them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from schemas import PROTOCOL
from schemas.base import MAX_INTEGER, Line, UtcTime, Wire, at_most
from schemas.ids import BootId, DeviceId, ExecutionId, Name, RolloutId, Sha256


class DeviceState(StrEnum):
    """Whether a device may take part."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    REVOKED = "REVOKED"


class Presence(StrEnum):
    """Whether a device is connected now."""

    NEVER = "NEVER"
    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"


Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]

MAX_TAGS = 16
"""Of one device."""


Isa = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
Provider = Annotated[Line, StringConstraints(max_length=100)]


class Hardware(Wire):
    """What a device says it is.

    isa: instruction sets that decide which kernels run, as ``schemas.isa`` names them.
    board: its maker's name of it.
    """

    arch: Annotated[Line, StringConstraints(max_length=32)]
    isa: Annotated[tuple[Isa, ...], Field(max_length=64)] = ()
    board: Annotated[Line, StringConstraints(max_length=100)] | None = None
    cpus: Annotated[int, Field(ge=1, le=4096)]
    ram_mb: Annotated[int, Field(ge=1), at_most(2**40)]
    providers: Annotated[tuple[Provider, ...], Field(max_length=32)]
    ort: Annotated[Line, StringConstraints(max_length=32)]
    agent: Annotated[Line, StringConstraints(max_length=32)]


class ActiveModel(Wire):
    """What a device serves."""

    model: Name
    version: int
    variant: Name
    sha256: Sha256


def _as_many(value: object) -> object:
    """One model or none, as agents wrote before they could serve several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, dict | ActiveModel) else value


def _one_of_each(models: tuple[ActiveModel, ...]) -> tuple[ActiveModel, ...]:
    if len({one.model for one in models}) < len(models):
        msg = "a device serves one version of a model"
        raise ValueError(msg)
    return tuple(sorted(models, key=lambda one: one.model))


MAX_MODELS = 32
"""Models that one device serves at once."""

ActiveModels = Annotated[
    tuple[ActiveModel, ...],
    BeforeValidator(_as_many),
    Field(max_length=MAX_MODELS),
    AfterValidator(_one_of_each),
]
"""What a device serves, sorted by model."""


class CertificateSeen(Wire):
    """Which certificate a device connects with, and which roots it trusts.

    serial: in lower-case hex. roots: SHA-256 of each root's DER form.
    """

    serial: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]
    roots: Annotated[tuple[Sha256, ...], Field(max_length=8)]


class ExecutionSeen(Wire):
    """Where a device's newest execution stands, by its own journal.

    seq: of its last report. ``state`` is what that report said.
    """

    execution: ExecutionId
    attempt: Annotated[int, Field(ge=1)]
    state: Annotated[str, StringConstraints(pattern=r"^[A-Z_]{1,24}$")]
    seq: Annotated[int, Field(ge=-1, le=MAX_INTEGER)]


class Birth(Wire):
    """Published retained at each connection, and again as a heartbeat.

    session: counts the connections within the boot, so that the death of an older
    connection is not taken for the death of this one. protocol: as at enrollment; an
    agent may be updated after it. execution: None when it never had one, or has lost its
    journal. rolled_back: an operator at the device put the model before back.
    """

    protocol: int = PROTOCOL
    boot: BootId
    session: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    uptime: Annotated[float, Field(ge=0)]
    hardware: Hardware
    active: ActiveModels = ()
    certificate: CertificateSeen | None = None
    execution: ExecutionSeen | None = None
    rolled_back: bool = False


class Death(Wire):
    """The will: left with the broker at connect, published when the device is gone."""

    boot: BootId
    session: Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class DeviceView(Wire):
    """A device, as the API shows it.

    fingerprint: of its key, as the device shows it too. token: the join token it came
    with. clone_suspected_at: when two at once were seen to use this identity.
    active: what it serves, and serving_since when, by model. desired: what of each model it was
    given last and should serve. rollout: that offered it something last, and rollout_state how it
    stands with that, as in ``schemas.rollout.ExecState``. drifted_at: since when it serves
    something that it was never given; rolled_back: a model that it serves was put back by hand.
    certificate_expires_at: None until it is approved.
    """

    id: DeviceId
    device_class: Name
    tags: tuple[str, ...]
    state: DeviceState
    presence: Presence
    hardware: Hardware | None = None
    active: ActiveModels = ()
    serving_since: dict[Name, UtcTime] = Field(default_factory=dict)
    desired: ActiveModels = ()
    drifted_at: UtcTime | None = None
    rolled_back: bool = False
    rollout: RolloutId | None = None
    rollout_state: str | None = None
    certificate_expires_at: UtcTime | None
    certificate_serial: str | None = None
    fingerprint: str = ""
    token: str | None = None
    clone_suspected_at: UtcTime | None = None
    revoked_at: UtcTime | None = None
    revoke_reason: str = ""
    enrolled_at: UtcTime
    last_seen_at: UtcTime | None = None
