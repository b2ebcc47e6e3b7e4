"""A version that was taken back reaches no device any more, by no way."""

from __future__ import annotations

import pytest

from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import Revoked
from schemas.rollout import ExecState, RolloutSpec, RolloutState
from schemas.topics import Down, down
from schemas.transfer import Ask, Need

URL = "/v1/models/digits/versions/1/revoke"
REASON = {"reason": "labels were swapped"}
SPEC = RolloutSpec.model_validate({"model": "digits", "version": 1, "waves": [{"percent": 100}]})


@pytest.fixture
def one(platform):
    platform.models.register("digits", platform.manifest(), None)


def started(platform, devices):
    view = platform.rollouts.plan(SPEC)
    platform.rollouts.operate(view.id, RolloutEvent.START)
    for device in devices:
        platform.birth(device)
    platform.tick()
    return view.id


def needs(platform):
    """Everything that a device may ask of a version."""
    view = platform.models.get("digits", 1)
    yield Ask(kind="manifest", sha256=view.manifest_sha256)
    for variant in view.manifest.variants:
        for file in (variant.file, variant.golden.file):
            yield Ask(kind="leaves", sha256=file.sha256)
            yield Need(kind="chunks", sha256=file.sha256, ranges=((0, 1),))


def refused(platform, need):
    if isinstance(need, Need):
        return platform.chunks.refusal(need.sha256, need.ranges[-1][1]) is not None
    return platform.transfer.reply("dev_a", need).error is not None


def test_nothing_of_it_is_given_to_a_device(platform, admin, one):
    assert not any(refused(platform, need) for need in needs(platform))
    view = admin.post(URL, json=REASON).json()
    assert (view["revoked"], view["revoked_reason"]) == (True, "labels were swapped")
    assert all(refused(platform, need) for need in needs(platform))


def test_a_file_that_another_version_has_too_is_still_given(platform, admin, one):
    other = platform.manifest("fp32")
    platform.models.register("digits", other, None)
    admin.post(URL, json=REASON)
    shared = other.variants[0].file.sha256
    own = platform.models.get("digits", 1).manifest.variants[0].file.sha256
    assert not refused(platform, Ask(kind="leaves", sha256=shared))
    assert refused(platform, Ask(kind="leaves", sha256=own))


def test_files_that_are_not_for_devices_are_never_given(platform, one):
    weights = platform.file("weights.pt", b"state")
    manifest = platform.manifest(content=b"2").model_copy(update={"weights": weights})
    platform.models.register("digits", manifest, None)
    code = platform.file("code.zip", b"code of a job")
    for file in (weights, code):
        assert refused(platform, Ask(kind="leaves", sha256=file.sha256))


def test_its_aliases_go_and_others_stay(platform, admin, one):
    platform.models.register("digits", platform.manifest(content=b"2"), None)
    for alias, version in (("next", 1), ("other", 2)):
        admin.put(f"/v1/models/digits/aliases/{alias}", json={"version": version})
    assert admin.post(URL, json=REASON).json()["aliases"] == []
    assert admin.get("/v1/models/digits").json()["aliases"] == {"other": 2}
    for alias in ("champion", "next"):
        newest = admin.get(f"/v1/models/digits/aliases/{alias}/history").json()["items"][0]
        assert (newest["before"], newest["version"]) == (1, None)


def test_a_repeat_changes_nothing(platform, admin, one):
    first = admin.post(URL, json=REASON)
    with platform.uow.read() as tx:
        last = tx.events.last_id()
    again = admin.post(URL, json={"reason": "another"})
    assert (again.status_code, again.json()) == (200, first.json())
    with platform.uow.read() as tx:
        assert tx.events.last_id() == last


def test_what_is_on_its_way_is_withdrawn(platform, admin, one):
    device, *_ = devices = platform.enroll(2)
    rollout = started(platform, devices)
    executions = [e for w in platform.rollouts.get(rollout).waves for e in w.executions]
    assert {e.state for e in executions} == {ExecState.OFFERED}
    platform.report(device, executions[0].id, 1, ExecState.DOWNLOADING)
    admin.post(URL, json=REASON)
    view = platform.rollouts.get(rollout)
    assert view.state is RolloutState.ABORTED
    ended = [e for w in view.waves for e in w.executions]
    assert {(e.state, e.detail) for e in ended} == {
        (ExecState.CANCELLED, "digits@1 was revoked: labels were swapped")
    }
    platform.broker.sent.clear()
    platform.tick()
    cleared = {topic for topic, payload, retain in platform.broker.sent if retain and not payload}
    assert cleared == {down(d, Down.DESIRED) for d in devices}
    told = {topic for topic, _, _ in platform.broker.sent}
    assert told >= {down(d, Down.CMD) for d in devices}
    with platform.uow.read() as tx:
        newest = tx.events.after(0, "digits", 100)[-1].data
    assert (newest["change"], newest["rollouts"]) == ("revoked", [rollout])


@pytest.mark.parametrize("kind", [None, RolloutEvent.PAUSE])
def test_a_rollout_that_waits_never_begins(platform, admin, one, kind):
    devices = platform.enroll(1)
    if kind is None:
        rollout = platform.rollouts.plan(SPEC).id
    else:
        rollout = started(platform, devices)
        platform.rollouts.operate(rollout, kind)
    admin.post(URL, json=REASON)
    assert platform.rollouts.get(rollout).state is RolloutState.ABORTED
    answer = admin.post(f"/v1/rollouts/{rollout}/{'start' if kind is None else 'resume'}")
    assert answer.json()["code"] == "illegal_transition"


def test_a_rollout_that_is_over_and_those_of_other_versions_stay(platform, admin, one):
    devices = platform.enroll(1)
    platform.models.register("digits", platform.manifest(content=b"2"), None)
    over = platform.rollouts.plan(SPEC)
    platform.rollouts.operate(over.id, RolloutEvent.ABORT)
    other = platform.rollouts.plan(SPEC.model_copy(update={"version": 2}))
    admin.post(URL, json=REASON)
    detail = {e.detail for w in platform.rollouts.get(over.id).waves for e in w.executions}
    assert detail == {"the rollout was aborted"}
    assert platform.rollouts.get(other.id).state is RolloutState.DRAFT
    assert devices


def test_no_rollout_of_it_can_be_planned(platform, admin, one):
    platform.enroll(1)
    admin.post(URL, json=REASON)
    with pytest.raises(Revoked, match="labels were swapped"):
        platform.rollouts.plan(SPEC)


def test_a_version_without_its_files_is_not_offered_either(platform, admin, one):
    platform.enroll(1)
    with platform.uow() as tx:
        tx.models.set_purged("digits", 1)
    assert all(refused(platform, need) for need in needs(platform))
    answer = admin.post("/v1/rollouts", json=SPEC.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert admin.get("/v1/models/digits/versions/1").json()["purged"] is True
    assert admin.post(URL, json=REASON).json()["revoked"] is True


def test_a_reason_is_needed(platform, admin, one):
    wrong = ({}, {"reason": ""}, {"reason": "x" * 2001}, {"reason": "a\x00"}, {"raeson": "x"}, [])
    for body in wrong:
        assert admin.post(URL, json=body).status_code == 422, body
    assert platform.models.get("digits", 1).revoked is False


def test_what_is_not_there_cannot_be_revoked(admin, one):
    assert admin.post(URL.replace("/1/", "/2/"), json=REASON).status_code == 404
    assert admin.post(URL.replace("digits", "nobody"), json=REASON).status_code == 404
