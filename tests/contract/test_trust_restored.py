"""A platform whose trust metadata comes back from a backup, and devices that saw newer."""

from __future__ import annotations

import shutil

import pytest

from edge_client.errors import TrustError
from tests.contract.test_edge_metadata_contract import World, stand


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.journal.close()


def restored(world, tmp_path, *later):
    """The metadata as it was when only one model stood; the device saw ``later`` too."""
    world.publish(stand("digits", 1))
    metadata = world.store.keys_folder.with_name("metadata")
    shutil.copytree(metadata, tmp_path / "backup")
    for number in range(1, len(later) + 1):
        world.publish(stand("digits", 1), *later[:number])
        assert world.finds(later[number - 1].model, later[number - 1].version)
    shutil.rmtree(metadata)
    shutil.copytree(tmp_path / "backup", metadata)
    world.publish(stand("digits", 1))


@pytest.mark.parametrize("later", [(stand("letters", 1),), (stand("digits", 2),) * 3])
def test_a_new_snapshot_key_brings_every_device_back_at_once(world, tmp_path, later):
    restored(world, tmp_path, *later)
    for _ in range(5):
        world.store.renew_online()
    with pytest.raises(TrustError):
        world.finds("digits", 1)
    world.rotate("snapshot")
    world.publish(stand("digits", 1), *later[:1])
    assert world.finds("digits", 1)
    assert world.finds(later[0].model, later[0].version)
