"""The platform's own signer and the device's own client: what the one signs the other believes."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest

from edge_client.errors import TrustError
from edge_client.journal import Journal
from edge_client.metadata import MetadataClient
from edge_client.metadata_cache import MetadataCache
from edge_client.metadata_refresh import JournalFloors
from edge_client.trust import Reader, confirm, read_desired, read_genuine, target_of
from orchestrator.adapters.trust import TrustStore, layout
from orchestrator.adapters.trust.ceremony import ROLES, change_keys
from orchestrator.adapters.trust.keys import make_keys, ring_of
from orchestrator.services.ports import Standing
from schemas.errors import DeviceCause
from schemas.trust import DIRECTOR_ROLE, manifest_target
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import assignment

DEVICE = "dev_0000000000000001"
VERSION = release(linear_onnx())


class World:
    def __init__(self, folder) -> None:
        self.now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
        self.store = TrustStore.open_or_create(folder / "trust", lambda: self.now)
        self.journal = Journal(folder / "journal.db", boot="0" * 32)
        self.asked: list[str] = []
        self.client = MetadataClient(
            self.store.metadata("1.root.json"),
            cache=MetadataCache(folder / "metadata"),
            floors=JournalFloors(self.journal, DEVICE),
            clock=lambda: self.now,
            fetch=self.fetch,
        )

    def fetch(self, name: str, limit: int) -> bytes | None:
        self.asked.append(name)
        data = self.store.metadata(name)
        assert data is None or len(data) <= limit
        return data

    def publish(self, *stands: Standing) -> None:
        self.store.publish(stands)

    def rotate(self, role: str) -> None:
        made = make_keys(self.store.keys_folder, role)
        keys = {role: [one.public_key for one in made]}
        ring = self.store.keyring | ring_of(made)
        self.store.accept(change_keys(self.store.state, keys, ring, self.now), None)

    def finds(self, model: str, version: int) -> bool:
        self.client.refresh()
        return self.client.target(manifest_target(model, version)) is not None


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.journal.close()


def stand(model: str, version: int) -> Standing:
    return Standing(model, version, hashlib.sha256(f"{model} {version}".encode()).hexdigest(), 9)


def test_an_offer_passes_both_roles(world):
    manifest = VERSION.manifest
    wanted = assignment(DEVICE, manifest)
    world.publish(Standing("digits", 1, wanted.manifest_sha256, len(manifest)))
    until = world.now + dt.timedelta(days=30)
    document = world.store.sign_assignment(wanted, len(manifest), 4, until)
    world.client.refresh()
    me = Reader(device=DEVICE, device_class="default", floor=4)
    director = world.client.delegated(DIRECTOR_ROLE)
    offer = read_desired(document, director=director, me=me, now=world.now)
    steps = world.client.finding(target_of(offer))
    found = None
    try:
        name = next(steps).name
        while True:
            name = steps.send(world.fetch(name, 2**20)).name
    except StopIteration as end:
        found = end.value
    offer = confirm(offer, found)
    assert offer.assignment == wanted
    assert offer.expires == until
    assert read_genuine(manifest, offer).variant.id == "fp32"


def test_whatever_key_is_rotated_devices_go_on_and_a_wiped_cache_changes_nothing(world):
    stands = [stand("digits", 1), stand("letters", 1)]
    world.publish(*stands)
    assert world.finds("digits", 1)
    for number, role in enumerate(ROLES, start=2):
        world.rotate(role)
        world.now += dt.timedelta(hours=13)
        stands.append(stand("digits", number))
        world.publish(*stands)
        assert world.finds("digits", number), role
        if number % 2:
            for path in world.client._cache._folder.iterdir():
                path.unlink()
    world.publish(*stands[1:])
    assert not world.finds("digits", 1)
    assert world.finds("letters", 1)


def test_the_change_to_bins_keeps_every_version_findable(world, monkeypatch):
    monkeypatch.setattr(layout, "MAX_MODEL_ROLES", 3)
    stands = []
    for model in ("a", "b", "c", "d", "e"):
        stands.append(stand(model, 1))
        world.publish(*stands)
        assert all(world.finds(one.model, 1) for one in stands)


def test_metadata_that_nobody_signs_anew_installs_nothing(world):
    world.publish(stand("digits", 1))
    assert world.finds("digits", 1)
    world.now += dt.timedelta(days=2)
    with pytest.raises(TrustError) as caught:
        world.client.refresh()
    assert caught.value.cause is DeviceCause.EXPIRED
    world.publish(stand("digits", 1))
    assert world.finds("digits", 1)
    world.asked.clear()
    assert world.finds("digits", 1)
    assert world.asked == [f"{len(world.store.state.roots) + 1}.root.json", "timestamp.json"]
