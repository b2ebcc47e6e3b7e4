"""The server's online keys are stolen; a real device talks to the thief without knowing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from edge_client.settings import Home
from edge_client.slots import read_pointer
from schemas.errors import DeviceCause
from schemas.rollout import ExecState
from schemas.trust import manifest_target, model_role
from tests.attacks.intruder import until
from tests.attacks.thief import Loot, Thief
from tests.fakes.edge_models import linear_onnx, release, run_onnx, samples
from tests.fakes.edge_trust import assignment
from tests.fakes.gateway import Device

pytestmark = pytest.mark.integration

MODEL = "guarded"
C = DeviceCause


def genuine(seed: int):
    return release(linear_onnx(seed), name=MODEL)


def published(site, version: int) -> bool:
    """Whether the timestamp leads to it: the files below are written before."""
    folder = site.home.path / "trust" / "metadata"

    def signed(name: str):
        return json.loads((folder / name).read_bytes())["signed"]

    snapshot = signed("timestamp.json")["meta"]["snapshot.json"]["version"]
    role = signed(f"{snapshot}.snapshot.json")["meta"].get(f"{model_role(MODEL)}.json")
    if role is None:
        return False
    targets = signed(f"{role['version']}.{model_role(MODEL)}.json")["targets"]
    return manifest_target(MODEL, version) in targets


@pytest.fixture(scope="module")
def victim(site, tmp_path_factory) -> Iterator[Device]:
    """A device that was enrolled properly, and runs."""
    folder = tmp_path_factory.mktemp("victim")
    x = samples(50)
    np.savez(folder / "source.npz", x=x, y=run_onnx(linear_onnx(1), x).argmax(axis=1))
    home = Home(folder / "home")
    token = site.join_token()
    done = site.run("edge_client", "enroll", token, "--server", site.url, "--home", str(home.root))
    assert done.returncode == 0, done.stderr
    listed = site.http(site.admin_token).get("/v1/devices", params={"limit": 500}).json()["items"]
    newest = max(listed, key=lambda one: one["enrolled_at"])
    options = ("--source", str(folder / "source.npz"), "--rate", "50", "--window", "0.5")
    device = Device(home, newest["id"], (*options, "--no-bench"))
    yield device
    device.kill()


@pytest.fixture(scope="module")
def thief(site, victim) -> Iterator[Thief]:
    """In the server's place: the server stands still meanwhile."""
    for version in (1, 2):
        assert site.register(MODEL, version) == version
        until(lambda number=version: published(site, number), f"version {version} to be signed")
    server = site.server()
    server.suspend()
    made = None
    try:
        made = Thief(site, Loot(site.home.path / "trust"))
        made.stock(genuine(1))
        made.stock(genuine(2))
        victim.start()
        yield made
    finally:
        if made is not None:
            victim.kill()
            made.close()
        server.resume()


class Orders:
    """Documents for the device, each with a higher sequence than all before."""

    def __init__(self, thief: Thief, device: Device) -> None:
        self.thief, self.device, self.sequence = thief, device, 0

    def send(self, package, version: int, *, sequence: int | None = None, **wanted):
        self.sequence += 1
        wanted = assignment(
            wanted.pop("device", self.device.id), package.manifest, version=version, **wanted
        )
        document = self.thief.loot.direct(
            wanted, len(package.manifest), self.sequence if sequence is None else sequence
        )
        self.thief.offer(self.device.id, document)
        return wanted.execution

    def refused(self, *args, **more) -> DeviceCause | None:
        return self.thief.wait(self.send(*args, **more), ExecState.REJECTED).cause


@pytest.fixture(scope="module")
def orders(thief, victim) -> Orders:
    return Orders(thief, victim)


def serves(device: Device) -> int | None:
    slot = read_pointer(device.home.pointer).active
    return None if slot is None else slot.version


@pytest.fixture(autouse=True)
def still_stands(request) -> Iterator[None]:
    """In place of the platform's health, for its server stands still: what the device serves."""
    yield
    if "install" not in request.node.name:
        assert serves(request.getfixturevalue("victim")) == 2


def test_what_was_signed_they_can_have_installed(orders, thief, victim):
    """The control, and the price: of the versions that stand, the thief may choose."""
    for version in (1, 2):
        execution = orders.send(genuine(version), version)
        thief.wait(execution, ExecState.SUCCEEDED)
        assert serves(victim) == version


def test_a_manifest_that_nobody_released_is_not_believed(orders, thief):
    """Under the number of a version that stands, and under one that nobody signed."""
    evil = genuine(666)
    thief.stock(evil)
    assert orders.refused(evil, 2) is C.DIGEST_MISMATCH
    assert orders.refused(evil, 9) is C.BAD_SIGNATURE


def test_an_older_list_of_versions_is_not_believed(orders, thief):
    """From before version 2, as if it had been taken out again."""
    now = _newest(thief)
    thief.loot.take_back(MODEL, now - 1)
    assert orders.refused(genuine(1), 1) is C.BELOW_FLOOR
    thief.loot.take_back(MODEL, now)
    assert serves(orders.device) == 2


def test_an_older_document_of_the_director_is_not_believed(orders):
    assert orders.refused(genuine(1), 1, sequence=1) is C.BELOW_FLOOR


def test_what_is_for_others_is_not_believed(orders):
    other = "dev_" + "0" * 16
    assert orders.refused(genuine(1), 1, device=other) is C.WRONG_DEVICE
    assert orders.refused(genuine(1), 1, device_class="gates") is C.WRONG_CLASS


@pytest.mark.parametrize("what", ["manifest", "leaves and chunks"])
def test_bytes_that_were_tampered_with_are_not_loaded(orders, thief, what):
    package = genuine(1)
    evil = release(linear_onnx(666), name=MODEL)
    if what == "manifest":
        thief.spoil = {package.sha256: evil.manifest}
    else:
        thief.spoil = {sha: bytes([data[0] ^ 1]) + data[1:] for sha, data in package.files.items()}
    orders.device.home.manifests.joinpath(package.sha256).unlink(missing_ok=True)
    for sha in package.files:
        orders.device.home.blobs.joinpath(sha).unlink(missing_ok=True)
    execution = orders.send(package, 1)

    def ended():
        return {ExecState.FAILED, ExecState.REJECTED} & set(thief.states(execution))

    until(ended, "the end of it", 40)
    report = next(r for r in thief.reports if r.execution == execution and r.state in ended())
    assert report.cause in {C.DIGEST_MISMATCH, C.TRANSFER_FAILED, C.BAD_SIGNATURE}
    thief.spoil = {}


def test_a_list_that_they_signed_themselves_is_not_believed(orders, thief):
    """Last, for its snapshot raises the device's floors: what online keys can do is to block."""
    evil = genuine(667)
    thief.stock(evil)
    thief.loot.forge(MODEL, 3, evil)
    assert orders.refused(evil, 3) is C.BAD_SIGNATURE


def _newest(thief: Thief) -> int:
    version: int = thief.loot.newest(model_role(MODEL)).signed.version
    return version
