"""The power fails on a device's first day: nothing was there before that could be durable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.status import read_status
from schemas.enroll import TokenRequest
from schemas.rollout import ExecState
from tests.chaos.durable import Disk
from tests.chaos.stand import Puppet, Stand, good_model, wait

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def newcomer(stand: Stand, durable: Path) -> Iterator[Puppet]:
    """Enrolled by the command, on a disk of which every sync is watched from the beginning."""
    disk = Disk(durable, stand.folder / "newcomer" / "home")
    disk.home.mkdir(parents=True)
    token = stand.argosy.tokens.create(TokenRequest(tags=("newcomer",))).token
    command = [sys.executable, "-m", "edge_client", "enroll", token]
    command += ["--server", stand.settings.url, "--home", str(disk.home)]
    done = subprocess.run(
        command, env=os.environ | disk.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    puppet = Puppet.of(stand, "newcomer", disk)
    yield puppet
    puppet.kill()


def test_an_identity_and_a_first_model_survive_the_power(stand: Stand, newcomer: Puppet) -> None:
    before = read_status(newcomer.home)
    newcomer.cut_power()
    assert read_status(newcomer.home).certificate_serial == before.certificate_serial

    newcomer.start()
    version = stand.register(good_model(700))
    rollout = stand.roll_out(version, "newcomer")
    ended = wait(lambda: stand.execution(rollout, newcomer.id).state is ExecState.SUCCEEDED, 60)
    assert ended, newcomer.tail()
    newcomer.cut_power()
    newcomer.start()
    assert wait(lambda: newcomer.serves() == version, 20), newcomer.tail()
    assert newcomer.points_to() == version
