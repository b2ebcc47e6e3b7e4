"""A host for the updates of a simulated device, by a clock of its own; and fleets in a thread."""

from __future__ import annotations

import heapq
import threading
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.simulator.fetch import File, Package
from orchestrator.simulator.fleet import Fleet, Plan
from orchestrator.simulator.identity import Folder, Record
from orchestrator.simulator.outcome import Outcome, outcome
from orchestrator.simulator.profile import Profile
from orchestrator.simulator.traffic import level
from orchestrator.simulator.traits import draw, effects
from schemas.device import ActiveModel
from schemas.enroll import BrokerAddress
from schemas.ids import new_id
from schemas.rollout import ExecReport, ExecState
from tests.fakes.gateway import Broker, key_pem

FILE = File(size=100_000, sha256="f" * 64, leaves_sha256="e" * 64)


class Host:
    """What a device is to its updates, without a network. Manifests are there at once."""

    def __init__(self, profile: Profile | None = None, seed: int = 1) -> None:
        self.profile, self.seed = profile or Profile(), seed
        self.id, self.device_class = new_id("dev"), "default"
        self.active: dict[str, ActiveModel] = {}
        self.reports: list[ExecReport] = []
        self.offers: list[str] = []
        self.stops: list[str] = []
        self.disowned: list[str] = []
        self.births = 0
        self.clock = datetime(2026, 6, 1, 12, tzinfo=UTC)
        self.traits = draw(self.profile, self.profile.classes[0], 0, seed)
        self._timers: list[tuple[datetime, int, object, tuple]] = []
        self._order = count()
        self._fates: dict[tuple[str, int], Outcome] = {}
        self.fetch = SimpleNamespace(
            stop=lambda: None,
            manifest=lambda _sha, done: done(Package({"int8": (FILE,)})),
            files=lambda _files, ended: ended(True),  # noqa: FBT003 - all is there
            bytes_fetched=0,
        )

    @property
    def states(self) -> list[ExecState]:
        return [one.state for one in self.reports]

    def report(self, update, *, again=False, **more) -> None:
        if not (again and update.last is not None):
            update.seq += 1
            execution, attempt = update.key
            update.last = ExecReport(
                execution=execution, attempt=attempt, seq=update.seq, boot="b" * 32, uptime=1,
                state=update.state, **more,
            )  # fmt: skip
        self.reports.append(update.last)

    def after(self, seconds, act, *args) -> None:
        at = self.clock + timedelta(seconds=max(0.0, seconds))
        heapq.heappush(self._timers, (at, next(self._order), act, args))

    def forward(self, seconds: float) -> None:
        """Let time pass, and do what is due meanwhile in its order."""
        end = self.clock + timedelta(seconds=seconds)
        while self._timers and self._timers[0][0] <= end:
            self.clock, _, act, args = heapq.heappop(self._timers)
            act(*args)
        self.clock = end

    def now(self) -> datetime:
        return self.clock

    def pace(self, seconds, what, number) -> float:  # noqa: ARG002 - the same for all
        return 0.2 if seconds < 0 else seconds / 2

    def outcome(self, assignment) -> Outcome:
        key = assignment.execution, assignment.attempt
        if key not in self._fates:
            model, version = assignment.model, assignment.version
            found = effects(self.profile, self.traits, model, version, self.seed)
            before = level(self.traits.kind.traffic, ()) if model in self.active else None
            args = (self.profile, self.traits, found, assignment, before, self.seed)
            self._fates[key] = outcome(*args)
        return self._fates[key]

    def serve(self, model, name) -> None:
        self.active.pop(name, None)
        if model is not None:
            self.active[name] = model
        self.births += 1

    def shadowed(self, update, shadow) -> tuple[int, int]:  # noqa: ARG002 - enough of them
        fate = self.outcome(update.assignment)
        return 1000, round(1000 * fate.agreement)

    def offered(self, assignment) -> None:
        self.offers.append(assignment.rollout)

    def told(self, rollout) -> None:
        self.stops.append(rollout)

    def disown(self, command) -> None:
        self.disowned.append(command.execution)


def identities(folder: Folder, broker: Broker, number: int, *, heartbeat: float = 5.0) -> list[str]:
    """Devices that a test's own authority let in; their ids."""
    devices = []
    for place in range(number):
        device, key = new_id("dev"), ec.generate_private_key(ec.SECP256R1())
        chain = broker.ca.issue(device, key.public_key()).decode()
        leaf = x509.load_pem_x509_certificate(chain.encode())
        record = Record(
            number=place,
            device=device,
            device_class="default",
            serial=f"{leaf.serial_number:x}",
            server="http://127.0.0.1:1",
            broker=BrokerAddress(host="127.0.0.1", port=broker.port),
            heartbeat_seconds=heartbeat,
            expires=leaf.not_valid_after_utc,
        )
        folder.save(record, key_pem(key), chain, broker.ca.pem.decode())
        devices.append(device)
    return devices


class Running:
    """A fleet in a thread of this process."""

    def __init__(self, root: Path, broker: Broker, profile: Profile, number: int) -> None:
        self.folder = Folder(root)
        known = self.folder.load("http://127.0.0.1:1", datetime.now(UTC), number)
        if len(known) < number:
            identities(self.folder, broker, number)
            known = self.folder.load("http://127.0.0.1:1", datetime.now(UTC), number)
        self.devices = [known[place].device for place in range(number)]
        plan = Plan(
            server="http://127.0.0.1:1", folder=self.folder, devices=number, profile=profile,
            seed=3, connects=1000,
        )  # fmt: skip
        self._stop = threading.Event()
        self.fleet = Fleet(plan, known, self._stop)
        self.summary: dict = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.summary = self.fleet.run(lambda _fleet: None)

    def stop(self) -> dict:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.folder.close()
        return self.summary
