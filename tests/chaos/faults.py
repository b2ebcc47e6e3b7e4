"""Carrying a schedule out: each fault begins and ends at its time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.slots import read_pointer
from schemas.topics import Down, down
from tests.attacks.intruder import Peer
from tests.chaos.proxy import FAIR, Weather
from tests.chaos.schedule import PLATFORM, Fault, Kind, Schedule
from tests.chaos.stand import Puppet, Stand

_LOOK = 0.02

Act = tuple[Callable[[], object], Callable[[], object]]


@dataclass
class Storm:
    """The faults of a schedule, done to a stand and its devices.

    heard: every order that devices ever got, oldest first. diary: what was done, when.
    """

    stand: Stand
    puppets: list[Puppet]
    schedule: Schedule
    heard: dict[str, list[bytes]] = field(default_factory=dict)
    diary: list[str] = field(default_factory=list)
    broker_killed_at: list[float] = field(default_factory=list)

    def run(self, operate: Callable[[], None]) -> None:
        """Do all of it; the operator acts in between."""
        began = time.monotonic()
        for at, what, act in self._moments():
            while (left := began + at - time.monotonic()) > 0:
                operate()
                time.sleep(min(_LOOK, max(0.0, left)))
            self.diary.append(f"{time.monotonic() - began:6.2f} s  {what}")
            act()

    def _moments(self) -> list[tuple[float, str, Callable[[], object]]]:
        found: list[tuple[float, str, Callable[[], object]]] = []
        for fault in self.schedule.faults:
            begin, end = self._platform(fault) if fault.target == PLATFORM else self._device(fault)
            found.append((fault.at, str(fault), begin))
            found.append((fault.at + fault.seconds, f"end of: {fault.kind}", end))
        return sorted(found, key=lambda one: one[0])

    def _platform(self, fault: Fault) -> Act:
        part = "broker" if fault.kind is Kind.BROKER else "server"

        def begin() -> None:
            if part == "broker":
                self.broker_killed_at.append(time.time())
            self.stand.kill(part)

        def end() -> None:
            self.stand.begin(part)

        return begin, end

    def _device(self, fault: Fault) -> Act:
        puppet = self.puppets[fault.target]
        line, disk = puppet.line, puppet.disk

        def under(weather: Weather) -> Act:
            return (lambda: line.set(weather)), lambda: line.set(FAIR)

        acts: dict[Kind, Act] = {
            Kind.KILL: (puppet.kill, puppet.start),
            Kind.POWER_CUT: (puppet.cut_power, puppet.start),
            Kind.DAMAGE: (lambda: self._damage(puppet, fault), puppet.start),
            Kind.NETWORK_CUT: under(Weather(refuse=True)),
            Kind.SILENCE: under(Weather(swallow=True)),
            Kind.DELAY: under(Weather(delay=fault.amount)),
            Kind.SLOW: under(Weather(rate=fault.amount)),
            Kind.BREAK: (under(Weather(after=int(fault.amount)))[0], nothing),
            Kind.FULL_DISK: (disk.full.touch, disk.full.unlink),
            Kind.FULL_START: (lambda: self._start_without_room(puppet), disk.full.unlink),
            Kind.LIE: (lambda: self._lie(puppet, fault), nothing),
        }
        return acts[fault.kind]

    def _start_without_room(self, puppet: Puppet) -> None:
        puppet.disk.full.touch()
        puppet.kill()
        puppet.start()

    def _damage(self, puppet: Puppet, fault: Fault) -> None:
        """Spoil one file while the agent is away."""
        puppet.kill()
        dice = random.Random(fault.amount)  # noqa: S311 - to be repeated, not secret
        files = sorted(damageable(puppet))
        if files:
            path = dice.choice(files)
            spoil(path, dice)
            self.diary.append(f"          {path.relative_to(puppet.disk.home)} was damaged")

    def _lie(self, puppet: Puppet, fault: Fault) -> None:
        """Someone at the broker sends old, foreign and senseless orders."""
        try:
            with self.stand.gateway() as peer:
                for one in self.puppets:
                    self._listen(peer, one)
                others = [doc for one in self.puppets for doc in self.heard.get(one.id, [])]
                dice = random.Random(fault.amount)  # noqa: S311 - to be repeated, not secret
                for document in (*others, dice.randbytes(200), b"{}"):
                    peer.publish(down(puppet.id, Down.DESIRED), document)
        except (OSError, AssertionError):
            self.diary.append("          nobody could lie: the broker was away")

    def _listen(self, peer: Peer, puppet: Puppet) -> None:
        peer.subscribe(down(puppet.id, Down.DESIRED))
        while not peer.heard.empty():
            document = peer.heard.get()[1]
            kept = self.heard.setdefault(puppet.id, [])
            if document and document not in kept:
                kept.append(document)


def damageable(puppet: Puppet) -> Iterator[Path]:
    """Files of which the device must be able to lose any one.

    Of models only those that do not serve: with all that it could run damaged, no device runs.
    """
    home = puppet.home
    yield from (path for path in home.partial.glob("*") if path.is_file())
    yield from (path for path in home.metadata.rglob("*.json"))
    yield from (path for path in (home.pointer, home.telemetry) if path.exists())
    slot = read_pointer(home.pointer).active
    if slot is not None:
        yield from (path for path in home.blobs.iterdir() if path.name != slot.sha256)


def spoil(path: Path, dice: random.Random) -> None:
    """Change some bytes in the middle, or cut it off."""
    data = bytearray(path.read_bytes())
    if not data:
        return
    if dice.random() < 0.5:
        at = dice.randrange(len(data))
        data[at : at + 16] = dice.randbytes(len(data[at : at + 16]))
        path.write_bytes(data)
    else:
        path.write_bytes(data[: dice.randrange(len(data))])


def nothing() -> None:
    """What ends by itself."""
