"""Whatever happens to the metadata, in whatever order: devices find what stands, and only that."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.trust import TrustStore, layout
from orchestrator.adapters.trust.ceremony import ROLES, change_keys
from orchestrator.adapters.trust.documents import has_bins
from orchestrator.adapters.trust.keys import drop_keys, make_keys, ring_of
from orchestrator.home import write_atomic
from orchestrator.services.ports import Standing
from tests.fakes.tuf_reader import Reader, sha256_of

MODELS = ("a", "b", "digits", "ocr", "vad")


class Killed(BaseException):
    """The process ended here."""


@dataclass
class World:
    folder: Path
    now: datetime = datetime(2026, 3, 1, tzinfo=UTC)
    stands: dict[tuple[str, int], Standing] = field(default_factory=dict)
    gone: set[tuple[str, int]] = field(default_factory=set)
    writes_left: int | None = None
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.open()
        root = self.store.metadata("1.root.json")
        self.old = Reader(root, self.read, lambda: self.now)

    def open(self) -> None:
        self.store = TrustStore.open_or_create(self.folder, lambda: self.now, write=self.write)

    def read(self, name: str) -> bytes | None:
        return self.store.metadata(name)

    def write(self, path: Path, data: bytes, mode: int) -> None:
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise Killed
            self.writes_left -= 1
        write_atomic(path, data, mode)

    def register(self, model: str) -> None:
        version = 1 + sum(1 for name, _ in [*self.stands, *self.gone] if name == model)
        self.stands[model, version] = Standing(model, version, sha256_of(model, version), 100)

    def revoke(self, index: int) -> None:
        if self.stands:
            key = sorted(self.stands)[index % len(self.stands)]
            del self.stands[key]
            self.gone.add(key)

    def publish(self) -> None:
        self.store.publish(list(self.stands.values()))

    def rotate(self, role: str) -> None:
        state = self.store.state
        made = make_keys(self.store.keys_folder, role)
        keys = {role: [one.public_key for one in made]}
        try:
            files = change_keys(state, keys, self.store.keyring | ring_of(made), self.now)
            self.store.accept(files, None)
        except Killed:
            if not state.keyids() & {one.public_key.keyid for one in made} and (
                self.store.metadata(f"{len(state.roots) + 1}.root.json") is None
            ):
                # As the command does it: a change that did not take place leaves no key.
                reopened = TrustStore.open(self.folder, lambda: self.now)
                known = reopened.state.keyids()
                drop_keys(
                    self.store.keys_folder,
                    [one.public_key.keyid for one in made if one.public_key.keyid not in known],
                )
            raise

    def check(self, before: set[tuple[str, int]] | None = None) -> None:
        """before: what stood before a crash; what stands in both must be found."""
        fresh = Reader(self.read("1.root.json"), self.read, lambda: self.now)
        keys = sorted(self.stands) if before is None else sorted(before & set(self.stands))
        gone = sorted(self.gone) if before is None else []
        for reader in (fresh, self.old):
            found = reader.find(*keys, *gone)
            assert [target and target.hashes["sha256"] for target in found[: len(keys)]] == [
                sha256_of(*key) for key in keys
            ]
            assert found[len(keys) :] == [None] * len(gone)
        fresh.close()
        self._only_grow()

    def _only_grow(self) -> None:
        state = self.store.state
        seen = state.versions() | {
            "root": len(state.roots),
            "snapshot": state.snapshot.signed.version,
            "timestamp": state.timestamp.signed.version,
        }
        assert all(seen.get(role, 0) >= version for role, version in self.versions.items())
        self.versions = seen


ACTS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(MODELS)),
    st.tuples(st.just("register"), st.sampled_from(MODELS)),
    st.tuples(st.just("revoke"), st.integers(0, 20)),
    st.tuples(st.just("rotate"), st.sampled_from(ROLES)),
    st.tuples(st.just("forward"), st.sampled_from([0.3, 5, 300])),
    st.tuples(st.just("restart"), st.none()),
)


@pytest.fixture(autouse=True)
def few_roles(monkeypatch):
    """A fleet of models beyond the limit is reached with four."""
    monkeypatch.setattr(layout, "MAX_MODEL_ROLES", 3)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Each case is some hundred files: what fails is told as it was found.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(acts=st.lists(st.tuples(ACTS, st.none() | st.integers(0, 8)), min_size=3, max_size=7))
def test_devices_find_what_stands_after_anything(acts):
    folder = Path(tempfile.mkdtemp(prefix="trust-"))
    world = World(folder / "trust")
    try:
        world.check()
        for (kind, what), killed_after in acts:
            before = set(world.stands)
            world.writes_left = killed_after
            try:
                _do(world, kind, what)
            except Killed:
                event("killed")
                world.writes_left = None
                world.open()
                # What expired meanwhile is nothing that the kill did.
                if world.store.fault() is None:
                    world.check(before)
            world.writes_left = None
            world.publish()
            world.check()
        event(f"bins: {has_bins(world.store.state.models)}")
    finally:
        world.old.close()
        shutil.rmtree(folder)


def _do(world: World, kind: str, what) -> None:
    match kind:
        case "register":
            world.register(what)
        case "revoke":
            world.revoke(what)
        case "rotate":
            world.rotate(what)
        case "forward":
            world.now += timedelta(days=what)
        case "restart":
            world.open()
    # A device asks after the control loop's tick: nothing is as old as a day by then.
    world.publish()
