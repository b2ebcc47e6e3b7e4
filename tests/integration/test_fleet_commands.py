"""Selectors, fleets, tags and reasons: the command line against the real API over HTTP."""

from __future__ import annotations

import json
import threading
import time

import pytest
import uvicorn

from orchestrator.cli.main import run
from orchestrator.domain.acts import Act
from schemas.access import Role
from schemas.rollout import ExecState, RolloutSpec
from tests.unit.orchestrator.platform import Platform

pytestmark = pytest.mark.integration

_START_SECONDS = 30


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    made = Platform(tmp_path_factory.mktemp("fleets"))
    config = uvicorn.Config(made.app, host="127.0.0.1", port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    made.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield made
    made.stopping.set()
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def argosy(platform, monkeypatch, capsys):
    monkeypatch.setenv("ARGOSY_URL", platform.url)
    monkeypatch.setenv("ARGOSY_TOKEN", platform.key(Role.ADMIN))

    def call(*argv):
        capsys.readouterr()
        code = run(list(argv))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def succeed(platform, rollout, device):
    """The device takes what it was offered."""
    views = (one for wave in platform.rollouts.get(rollout).waves for one in wave.executions)
    execution = next(one for one in views if one.device == device)
    states = (ExecState.ACCEPTED, ExecState.ACTIVATING, ExecState.PROBATION, ExecState.SUCCEEDED)
    for seq, state in enumerate(states):
        platform.report(device, execution.id, seq, state)


def test_a_fleet_from_its_tags_to_the_reasons_of_its_devices(platform, argosy):
    platform.models.register("digits", platform.manifest(), None)
    cam, other = platform.enroll(2, "cam")
    platform.birth(cam)
    assert argosy("device", "tag", cam, "+lab", "+hall")[0] == 0
    assert argosy("device", "tag", cam, "-hall")[0] == 0
    code, out, err = argosy("device", "ls", "--where", "tag = lab and seen < 1h", "-o", "name")
    assert (code, out) == (0, f"{cam}\n"), err
    assert argosy("device", "ls", "--where", "not tag = lab", "-o", "name")[1] == f"{other}\n"
    code, out, err = argosy("fleet", "create", "lab", "tag = lab", "-o", "json")
    assert (code, json.loads(out)["devices"]) == (0, 1), err
    plan = platform.rollouts.plan(RolloutSpec(model="digits", version=1, fleet="lab"))
    platform.rollouts.operate(plan.id, Act.START)
    platform.tick()
    succeed(platform, plan.id, cam)
    code, out, err = argosy("device", "get", cam, "--why")
    assert code == 0, err
    assert "digits@1" in out
    assert f"by rollout {plan.id}: wave 1 of 1" in out
    assert "of a rollout for fleet lab" in out
    assert "That is the newest version." in out
    told = json.loads(argosy("device", "get", other, "--why", "-o", "json")[1])
    (missing,) = told["models"][0]["missing"]
    assert (missing["code"], missing["rollout"]) == ("not_targeted", plan.id)
    code, _, err = argosy("fleet", "delete", "lab")
    assert (code, plan.id in err) == (6, True)
    platform.rollouts.operate(plan.id, Act.ABORT)
    assert argosy("fleet", "delete", "lab")[0] == 0
    assert argosy("fleet", "get", "lab")[0] == 5


def test_what_the_platform_refuses_is_one_line(argosy):
    code, out, err = argosy("fleet", "create", "Lab", "tag = lab")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert argosy("device", "get", "dev_0000000000000000", "--why")[0] == 5
