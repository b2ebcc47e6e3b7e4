"""A run of the simulator: who is in it, from the first connection to the summary."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from orchestrator.errors import Invalid, Unavailable
from orchestrator.simulator.device import Device
from orchestrator.simulator.enroll import Newcomer, check_roots, enroll_all
from orchestrator.simulator.hub import Hub
from orchestrator.simulator.identity import Folder, Identity, Kept
from orchestrator.simulator.link import Broker
from orchestrator.simulator.profile import Kind, Profile
from orchestrator.simulator.traits import draw, kinds
from schemas.enroll import BrokerAddress

_SPARE_FILES = 200
_KEEP_SECONDS = 10.0
_LEAVE_SECONDS = 1.0

Tokens = Callable[[Kind, int], str]
"""A join token for so many devices of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be simulated.

    server: the platform's address. seconds: how long; None until it is stopped. connects: new
    connections a second. tell_seconds: between two calls of ``tell``.
    """

    server: str
    folder: Folder
    devices: int
    profile: Profile
    seed: int = 0
    seconds: float | None = None
    connects: float = 250.0
    tell_seconds: float = 1.0


def admit(plan: Plan, tokens: Tokens, tell: Callable[[int, int], None]) -> dict[int, Identity]:
    """The identities of all devices; those that are missing enroll.

    Args:
        plan: the run.
        tokens: gives a join token for each class; called once for each that needs one.
        tell: called with how many of how many newcomers are in.

    Raises:
        ArgosyError: a device cannot enroll.
    """
    known = plan.folder.load(plan.server, datetime.now(UTC), plan.devices)
    if known:
        check_roots(plan.server, plan.folder.roots)
    of_class = kinds(plan.profile, plan.devices)
    missing: dict[str, list[int]] = {}
    for number in range(plan.devices):
        if number not in known:
            missing.setdefault(of_class[number].name, []).append(number)
    newcomers = []
    for kind in plan.profile.classes:
        numbers = missing.get(kind.name, [])
        token = tokens(kind, len(numbers)) if numbers else ""
        newcomers += [Newcomer(number, kind, token) for number in numbers]
    count = len(newcomers)
    enroll_all(plan.folder, plan.server, newcomers, lambda done: tell(done, count))
    return plan.folder.load(plan.server, datetime.now(UTC), plan.devices)


class Fleet:
    """The devices of a run, in one event loop.

    Args:
        plan: the run.
        identities: of the devices, by number.
        stop: ends the run early.
    """

    def __init__(
        self, plan: Plan, identities: Mapping[int, Identity], stop: threading.Event
    ) -> None:
        self._plan, self._identities, self._stop = plan, identities, stop
        self._devices: list[Device] = []
        self._began = time.monotonic()
        self.hub: Hub | None = None

    @property
    def online(self) -> int:
        """How many are connected."""
        return sum(device.online for device in self._devices)

    def view(self) -> dict[str, Any]:
        """The figures so far. rss_mib: the most memory that this process had."""
        if self.hub is None:
            return {}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scale = 1024**2 if sys.platform == "darwin" else 1024
        seconds = time.monotonic() - self._began
        found = self.hub.figures.view(
            devices=len(self._devices), online=self.online, seconds=seconds
        )
        return {**found, "rss_mib": round(peak / scale, 1)}

    def run(self, tell: Callable[[Fleet], None]) -> dict[str, Any]:
        """Simulate; the summary.

        Raises:
            Unavailable: the broker cannot be found, or the system allows too few connections.
        """
        allow_files(len(self._identities) + _SPARE_FILES)
        return asyncio.run(self._run(tell))

    async def _run(self, tell: Callable[[Fleet], None]) -> dict[str, Any]:
        hub = self.hub = self._make_hub()
        self._devices = self._make_devices(hub)
        hub.turn()
        for place, device in enumerate(self._devices):
            hub.after(place / self._plan.connects, device.start)
        kept = time.monotonic()
        while not self._ended():
            await asyncio.sleep(min(self._plan.tell_seconds, 0.2))
            tell(self)
            if time.monotonic() - kept > _KEEP_SECONDS:
                await asyncio.to_thread(self._keep)
                kept = time.monotonic()
        summary = self.view()
        await self._leave(hub)
        self._keep()
        return summary

    def _ended(self) -> bool:
        seconds = self._plan.seconds
        late = seconds is not None and time.monotonic() - self._began >= seconds
        return late or self._stop.is_set()

    async def _leave(self, hub: Hub) -> None:
        """Say good-bye, with a moment for what is on its way."""
        hub.over = True
        await asyncio.sleep(_LEAVE_SECONDS / 4)
        for device in self._devices:
            device.stop()
        await asyncio.sleep(0)

    def _keep(self) -> None:
        self._plan.folder.keep({device.id: device.kept() for device in self._devices})

    def _make_hub(self) -> Hub:
        address = _one_broker(list(self._identities.values()))
        pem = self._plan.folder.roots
        return Hub(
            loop=asyncio.get_running_loop(),
            broker=broker(address, pem),
            profile=self._plan.profile,
            seed=self._plan.seed,
            roots=_digests(pem),
        )

    def _make_devices(self, hub: Hub) -> list[Device]:
        by_name = {kind.name: kind for kind in self._plan.profile.classes}
        drawn = kinds(self._plan.profile, self._plan.devices)
        left = self._plan.folder.state()
        devices = []
        for number, identity in sorted(self._identities.items()):
            # A token may be of another class than its profile says: the platform knows better.
            kind = by_name.get(identity.device_class, drawn[number])
            traits = draw(self._plan.profile, kind, number, self._plan.seed)
            devices.append(Device(hub, identity, traits, left.get(identity.device, Kept())))
        return devices


def broker(address: BrokerAddress, roots_pem: bytes) -> Broker:
    """Where devices connect.

    Raises:
        Unavailable: the name of the host is not known.
    """
    try:
        family, *_, found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[
            0
        ]
    except OSError as error:
        detail = f"the broker {address.host} is not found: {error.strerror or error}"
        raise Unavailable(detail) from error
    context = ssl.create_default_context(cadata=roots_pem.decode())
    return Broker((str(found[0]), int(found[1])), family, address.host, context)


def allow_files(count: int) -> None:
    """Raise this process's limit of open files to what is needed, as far as that is allowed.

    Raises:
        Unavailable: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
        return
    with suppress(ValueError, OSError):
        if hard >= count:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
            return
    detail = f"{count} connections need as many open files; the system allows {max(soft, hard)}"
    raise Unavailable(detail, hint=f"raise it with `ulimit -n {count}`, or simulate fewer devices")


def _one_broker(identities: Sequence[Identity]) -> BrokerAddress:
    if not identities:
        detail = "there is no device to simulate"
        raise Invalid(detail)
    found = {(one.broker.host, one.broker.port) for one in identities}
    if len(found) > 1:
        # The platform moved: the newest identities know where to.
        return identities[-1].broker
    return identities[0].broker


def _digests(pem: bytes) -> tuple[str, ...]:
    ders = (
        root.public_bytes(serialization.Encoding.DER)
        for root in x509.load_pem_x509_certificates(pem)
    )
    return tuple(hashlib.sha256(der).hexdigest() for der in ders)
