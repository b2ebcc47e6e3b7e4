"""Experiments through the services: sides by chance, figures by device, an end that is kept."""

from __future__ import annotations

import pytest

from orchestrator.domain.acts import Act
from orchestrator.errors import Conflict, IllegalTransition, Invalid, NotFound, NotSigned
from orchestrator.services.experiments import ExperimentService
from orchestrator.services.why import WhyService
from schemas.access import Role
from schemas.experiment import ExperimentSpec, ExperimentState, StopRequest
from schemas.rollout import ExecState, RolloutState
from schemas.topics import Up
from schemas.window import encode

S = ExecState


@pytest.fixture
def fleet(platform):
    """12 devices of two classes that are there, and three versions."""
    register(platform)
    devices = [*platform.enroll(6), *platform.enroll(6, "camera")]
    for device in devices:
        platform.birth(device)
    return devices


@pytest.fixture
def few(platform):
    """Four devices that are not there, and three versions."""
    register(platform)
    return platform.enroll(4)


def register(platform):
    for content in (b"one", b"two", b"three"):
        platform.models.register("digits", platform.manifest(content=content), None)


def spec(**more):
    return ExperimentSpec.model_validate(
        {"model": "digits", "a": 1, "b": 2, "min_devices": 3} | more
    )


def executions(platform, rollout):
    view = platform.rollouts.get(rollout)
    return [e for wave in view.waves for e in wave.executions]


def install(platform, rollout):
    """All devices of an arm take its version."""
    for execution in executions(platform, rollout):
        platform.report(execution.device, execution.id, 0, S.PROBATION)
        platform.report(execution.device, execution.id, 1, S.SUCCEEDED)


def tell(platform, device, seq, version, **figures):
    platform.receive(
        device, Up.TELE, encode(platform.envelope(seq, about={"version": version}, **figures))
    )


def started(platform, **more):
    view = platform.experiments.start(spec(**more))
    platform.tick()
    arms = {one.arm: one for one in view.arms}
    for arm in arms.values():
        install(platform, arm.rollout)
    platform.tick()
    return view.id, {
        name: [e.device for e in executions(platform, arm.rollout)] for name, arm in arms.items()
    }


def test_both_sides_get_their_version_in_every_class_in_the_same_shares(platform, fleet):
    experiment, sides = started(platform)
    assert sorted([*sides["a"], *sides["b"]]) == sorted(fleet)
    for name in ("a", "b"):
        assert sum(device in fleet[:6] for device in sides[name]) == 3
    view = platform.experiments.get(experiment)
    assert view.state is ExperimentState.RUNNING
    assert [(one.arm, one.version, one.devices, one.serving) for one in view.arms] == [
        ("a", 1, 6, 6),
        ("b", 2, 6, 6),
    ]


def test_differences_are_of_what_devices_told_since_and_against_their_past(platform, fleet):
    for device in fleet:
        tell(platform, device, 0, 3, n=500, labelled=400, correct=360)
    platform.clock.forward(60)
    experiment, sides = started(platform)
    platform.clock.forward(60)
    for name, version, correct in (("a", 1, 380), ("b", 2, 300)):
        for i, device in enumerate(sides[name]):
            tell(platform, device, 1, version, n=500, labelled=400, correct=correct + i % 3)
    # An hour later there are hours besides windows; both count, each once.
    platform.clock.forward(7200)
    for name, version, correct in (("a", 1, 380), ("b", 2, 300)):
        for i, device in enumerate(sides[name]):
            tell(platform, device, 2, version, n=500, labelled=400, correct=correct + i % 3)
    view = platform.experiments.get(experiment)
    accuracy = [one for one in view.differences if one.metric == "accuracy"]
    assert [one.device_class for one in accuracy] == [None, "camera", "default"]
    for one in accuracy:
        assert one.value == pytest.approx(-0.2, abs=0.01)
        assert one.better == "a"
        assert one.low < -0.19 < -0.1 > one.high
        assert one.a == pytest.approx(0.95, abs=0.01)
        assert "b is right less often" in one.words
    latency = next(one for one in view.differences if one.metric == "latency_p50")
    assert latency.value == pytest.approx(1)
    assert latency.better is None
    assert (accuracy[0].devices_a, accuracy[0].devices_b) == (6, 6)


def test_the_winner_goes_to_the_losers_and_the_figures_stay(platform, fleet):
    experiment, sides = started(platform)
    platform.clock.forward(60)
    for name, version, errors in (("a", 1, 50), ("b", 2, 0)):
        for device in sides[name]:
            tell(platform, device, 1, version, n=500, errors=errors, labelled=0, correct=0)
    stopped = platform.experiments.stop(experiment, StopRequest(keep="b", reason="fewer errors"))
    assert stopped.state is ExperimentState.STOPPED
    assert stopped.kept == "b"
    assert stopped.reason.endswith("fewer errors")
    assert {one.state for one in stopped.arms} <= {RolloutState.ABORTED, RolloutState.SUCCEEDED}
    winner = platform.rollouts.get(stopped.kept_rollout)
    assert (winner.state, winner.spec.version) == (RolloutState.RUNNING, 2)
    assert sorted(e.device for e in executions(platform, winner.id)) == sorted(sides["a"])
    assert stopped.differences[0].better == "b"
    platform.tick()
    install(platform, winner.id)
    why = WhyService(platform.uow, platform.clock)
    for device in (sides["a"][0], sides["b"][0]):  # brought by the winner's rollout, and by its arm
        (model,) = why.explain(device).models
        assert (model.version, "every device" in (model.rule or "")) == (2, False)
        assert (model.rule or "").endswith(f"for devices of experiment {experiment}")
    for device in sides["a"]:
        tell(platform, device, 2, 1, n=50_000, labelled=0, correct=0)
    assert platform.experiments.get(experiment).differences == stopped.differences
    assert platform.experiments.stop(experiment, StopRequest(keep="b")) == stopped
    with pytest.raises(Conflict, match="stopped already"):
        platform.experiments.stop(experiment, StopRequest(keep="a"))


@pytest.mark.parametrize("left", range(6))
def test_a_server_that_dies_between_two_steps_goes_on_where_it_was(platform, few, left):
    """Every act on a rollout may be the last before it; the next one finishes what was begun."""
    acts = []

    class Dying:
        """The rollouts, of which only so many acts are done before the process ends."""

        def plan(self, *said):
            return platform.rollouts.plan(*said)

        def operate(self, *said):
            if len(acts) == left:
                raise KeyboardInterrupt
            acts.append(said)
            return platform.rollouts.operate(*said)

    dying = ExperimentService(platform.uow, platform.clock, Dying())
    finished = False
    try:
        experiment = dying.start(spec()).id
        dying.stop(experiment, StopRequest(keep="a"))
        finished = True
    except KeyboardInterrupt:
        experiment = platform.experiments.page(None, 1)[0].id
    assert finished == (left >= 5), "two starts, two ends, one start"
    again = ExperimentService(platform.uow, platform.clock, platform.rollouts)
    again.tick()
    view = again.get(experiment)
    assert view.state in {ExperimentState.RUNNING, ExperimentState.STOPPED}
    assert view.state is (ExperimentState.RUNNING if left < 2 else ExperimentState.STOPPED)
    if view.state is ExperimentState.STOPPED:
        assert platform.rollouts.get(view.kept_rollout).state is RolloutState.RUNNING
    states = {one.state for one in view.arms}
    going = {RolloutState.RUNNING, RolloutState.AWAITING_APPROVAL}
    assert states <= going if left < 2 else not states & going


def test_one_experiment_of_a_model_at_a_time(platform, few):
    experiment = platform.experiments.start(spec()).id
    with pytest.raises(Conflict, match=experiment):
        platform.experiments.start(spec(b=3))
    stopped = platform.experiments.stop(experiment, StopRequest())
    assert (stopped.state, stopped.kept_rollout) == (ExperimentState.STOPPED, None)
    assert {one.state for one in stopped.arms} == {RolloutState.ABORTED}
    assert platform.experiments.start(spec(b=3)).state is ExperimentState.RUNNING


def test_what_cannot_be_split_or_had_is_refused_and_sends_nothing(platform, few):
    with pytest.raises(NotFound):
        platform.experiments.start(spec(b=9))
    with pytest.raises(Invalid, match="too small for two sides"):
        platform.experiments.start(spec(where=f"id = {few[0]}"))
    with pytest.raises(NotFound, match="experiment"):
        platform.experiments.get("exp_0000000000000000")
    assert platform.experiments.page(None, 10) == []


def test_an_arm_that_may_not_start_takes_the_other_one_with_it(platform, few, monkeypatch):
    real = platform.rollouts.operate

    def refuse(rollout, act, *said):
        if act == "start" and platform.rollouts.get(rollout).spec.version == 2:
            msg = "digits@2 is not signed"
            raise NotSigned(msg)
        return real(rollout, act, *said)

    monkeypatch.setattr(platform.rollouts, "operate", refuse)
    with pytest.raises(NotSigned):
        platform.experiments.start(spec())
    (only,) = platform.experiments.page(None, 10)
    view = platform.experiments.get(only.id)
    assert view.state is ExperimentState.STOPPED
    assert "not signed" in view.reason
    assert {one.state for one in view.arms} == {RolloutState.ABORTED}


def test_the_way_through_the_api(platform, few, admin):
    made = admin.post("/v1/experiments", json={"model": "digits", "a": 1, "b": 2, "share": 0.25})
    assert made.status_code == 201
    experiment = made.json()["id"]
    assert [arm["devices"] for arm in made.json()["arms"]] == [3, 1]
    listed = admin.get("/v1/experiments").json()["items"]
    assert [(one["id"], one["arms"]) for one in listed] == [(experiment, [])]
    stopped = admin.post(f"/v1/experiments/{experiment}/stop", json={"keep": "a"})
    assert stopped.json()["state"] == "STOPPED"
    audit = [entry["action"] for entry in admin.get("/v1/audit?limit=200").json()["items"]]
    assert audit.count("experiment.start") == audit.count("experiment.stop") == 1
    same = admin.post("/v1/experiments", json={"model": "digits", "a": 1, "b": 1})
    assert (same.status_code, "same version" in same.text) == (422, True)
    odd = admin.post(
        "/v1/experiments", json={"model": "digits", "a": 1, "b": 2, "metrics": ["silence"]}
    )
    assert odd.status_code == 422


def test_the_way_through_the_command_line(platform, few, monkeypatch, capsys):
    from orchestrator.cli.main import run
    from orchestrator.client import Argosy

    token = platform.key(Role.ADMIN)

    def connect(_home=None):
        return Argosy("http://testserver", token, http=platform.client()._transport)

    monkeypatch.setattr(Argosy, "from_profile", staticmethod(connect))

    def call(*words):
        code = run(["experiment", *words])
        return code, *capsys.readouterr()

    code, out, err = call("start", "digits", "--a", "1", "--b", "latest", "--metric", "rss")
    assert (code, "2 devices for a and 2 devices for b" in err) == (0, True)
    experiment = out.strip()
    code, out, _ = call("get", experiment)
    assert code == 0
    assert "digits@3" in out
    assert "0 of 2" in out
    assert "cannot be said: 0 devices of a and 0 of b count" in out
    code, out, _ = call("stop", experiment, "--keep", "b", "--reason", "enough")
    assert (code, "STOPPED" in out, "enough" in out) == (0, True, True)
    assert call("ls", "-o", "name")[1].split() == [experiment]
    code, _, err = call("start", "digits", "--a", "1", "--b", "2", "--share", "2")
    assert (code, "--share" in err) == (2, True)
    code, _, err = call("start", "digits", "--a", "1", "--b", "2", "--metric", "silence")
    assert (code, "--metric" in err or "metrics" in err) == (2, True)
    assert call("get", "exp_0000000000000000")[0] == 5


def test_an_arm_that_rolls_back_goes_on_with_that_when_its_experiment_stops(platform, fleet):
    experiment, sides = started(platform)
    arm = platform.experiments.get(experiment).arms[1]
    platform.rollouts.operate(arm.rollout, Act.ROLLBACK, "it is worse", to=1)
    stopped = platform.experiments.stop(experiment, StopRequest())
    assert stopped.state is ExperimentState.STOPPED
    assert platform.rollouts.get(arm.rollout).state is RolloutState.ROLLING_BACK
    platform.tick()
    (back,) = platform.rollouts.get(arm.rollout).rollbacks
    assert platform.rollouts.get(back).waves[0].size == len(sides["b"])


def test_a_winner_that_may_not_start_does_not_keep_its_experiment_open(platform, few, monkeypatch):
    experiment = platform.experiments.start(spec()).id
    operate = platform.rollouts.operate

    def refuse(rollout, act, *said):
        if act == "start":
            msg = "cannot start: the rollout has ended (ABORTED)"
            raise IllegalTransition(msg)
        return operate(rollout, act, *said)

    monkeypatch.setattr(platform.rollouts, "operate", refuse)
    stopped = platform.experiments.stop(experiment, StopRequest(keep="a"))
    assert stopped.state is ExperimentState.STOPPED
    assert stopped.reason.endswith("the rollout has ended (ABORTED)")


def test_a_winner_that_waits_for_its_signature_holds_up_no_other_experiment(
    platform, few, monkeypatch
):
    experiment = platform.experiments.start(spec()).id
    operate = platform.rollouts.operate

    def refuse(rollout, act, *said):
        if act == "start":
            msg = "digits@1 is not signed"
            raise NotSigned(msg)
        return operate(rollout, act, *said)

    monkeypatch.setattr(platform.rollouts, "operate", refuse)
    with pytest.raises(NotSigned):
        platform.experiments.stop(experiment, StopRequest(keep="a"))
    platform.experiments.tick()
    assert platform.experiments.get(experiment).state is ExperimentState.STOPPING
    monkeypatch.undo()
    platform.experiments.tick()
    assert platform.experiments.get(experiment).state is ExperimentState.STOPPED
