"""Why a device serves what it serves: a table of snapshots, and real ones from the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.acts import Act
from orchestrator.domain.why import explain
from orchestrator.domain.why_facts import DeviceNow, ModelNow, Part, Plan, Turn, Wave
from schemas.device import ActiveModel, DeviceState, Presence
from schemas.device_why import DeviceWhy, Hindrance, Origin
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, PauseReason, RolloutSpec, RolloutState, WaveState
from schemas.selector import Facts, parse

H, S, R, W = Hindrance, ExecState, RolloutState, WaveState
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(days=1)
DEVICE = "dev_0000000000000001"
FACTS = Facts(id=DEVICE, device_class="cam", tags=("lab",), presence=Presence.ONLINE)
CLOSED = {"cron": "0 2 * * *", "minutes": 60, "covers": "all"}


def rollout(number: int) -> str:
    return f"rol_{number:016d}"


def plan(version=4, *, waves=(W.RUNNING,), number=None, state=R.RUNNING, **more):
    names = ("pause_reason", "reason", "rollback_of", "takes_back", "created_at", "started_at")
    held = {name: more.pop(name) for name in names if name in more}
    held["fleet"] = more.pop("means", None)
    spec = RolloutSpec.model_validate(
        {"model": "digits", "version": version, "waves": [{"percent": 100}] * len(waves), **more}
    )
    named = rollout(version if number is None else number)
    its = tuple(Wave(one) for one in waves)
    return Plan(id=named, spec=spec, state=state, waves=its, **{"created_at": EARLIER, **held})


def part(its, state=S.SCHEDULED, **more):
    return Part(plan=its, state=state, **{"wave": 0, "at": NOW, **more})


OLD = part(plan(3, state=R.SUCCEEDED, waves=(W.PASSED, W.PASSED), tags=("lab",)), S.SUCCEEDED,
           wave=1, at=EARLIER)  # fmt: skip


def model(*parts, serves=3, newest=4, **more):
    active = None
    if serves is not None:
        active = ActiveModel(model="digits", version=serves, variant="int8", sha256="a" * 64)
    return ModelNow(
        model="digits", active=active, since=EARLIER, newest=newest, parts=(*parts, OLD), **more
    )


def device(its, **more):
    values = {"facts": FACTS, "state": DeviceState.ACTIVE, "online": True, "last_seen_at": NOW}
    return DeviceNow(models=(its,), **(values | more))


def said(its, **more):
    (found,) = explain(device(its, **more), NOW).models
    return found


def missing(its, **more):
    found = said(its, **more).missing
    assert len(found) == 1, found
    return found[0]


HINDRANCES = [
    (H.NEXT, part(plan()), "about to be offered digits@4"),
    (H.DRAFT, part(plan(state=R.DRAFT)), "a draft that nobody started"),
    (H.APPROVAL, part(plan(state=R.AWAITING_APPROVAL)), "waits for a second person"),
    (
        H.PAUSED,
        part(plan(state=R.PAUSED, pause_reason=PauseReason.VERDICT_FAILED, reason="p95 too slow")),
        "paused as a wave failed its gates: p95 too slow.",
    ),
    (
        H.ROLLING_BACK,
        part(plan(state=R.ROLLING_BACK, reason="by ops")),
        "is being taken back: by ops",
    ),
    (
        H.WAVE_PENDING,
        part(plan(waves=(W.SOAKING, W.PENDING)), wave=1),
        (
            "wave 2 of 2 (all that are left) of rol_0000000000000004, which waits for wave 1,"
            " which is SOAKING"
        ),
    ),
    (
        H.RETRY,
        part(plan(), due_at=NOW + timedelta(minutes=1), attempt=2, detail="disk_full"),
        "Attempt 2 begins at 2026-03-01 12:01 UTC: disk_full",
    ),
    (H.BUSY, part(plan(), holder=rollout(9)), "works for rollout rol_0000000000000009"),
    (H.WINDOW, part(plan(windows=(CLOSED,))), "window opens at 2026-03-02 02:00 UTC"),
    (
        H.PACED,
        part(plan(pace={"per_minute": 5}), turn=Turn(per_minute=10, room=0, waiting=25)),
        "goes at 10 devices a minute now; 25 devices wait, which takes about 3 min",
    ),
    (
        H.PACED,
        part(plan(pace={"concurrent": 2}), turn=Turn(at_work=2, room=0, waiting=4)),
        "2 devices are at work for rollout rol_0000000000000004, of at most 2 at once; 4",
    ),
    (
        H.NEXT,  # nobody is at work, and few wait
        part(plan(pace={"per_minute": 5, "concurrent": 2}), turn=Turn(room=2, waiting=2)),
        "about to be offered digits@4",
    ),
    (
        H.DEFERRED,
        part(plan(), S.DEFERRED, waits_until=NOW + timedelta(hours=2), detail="put off by hand"),
        "not fetched yet; the device waits until 2026-03-01 14:00 UTC: put off by hand.",
    ),
    (
        H.DEFERRED,
        part(
            plan(pace={"jitter_seconds": 7200}),
            S.DEFERRED,
            waits_until=NOW + timedelta(hours=1),
            detail="waits out its random part of the jitter until 2026-03-01 13:00:00 UTC",
        ),
        "the device waits out its random part of the jitter until 2026-03-01 13:00 UTC.",
    ),
    (
        H.DEFERRED,
        part(plan(windows=(CLOSED,)), S.STAGED, waits_until=NOW + timedelta(days=2)),
        "is staged; the device waits until 2026-03-03 12:00 UTC.",
    ),
    (
        H.WINDOW,
        part(plan(windows=(CLOSED,)), S.DEFERRED, waits_until=NOW + timedelta(hours=14)),
        "is not fetched yet; its maintenance window opens at 2026-03-02 02:00 UTC",
    ),
    (
        H.WAITS_FOR_WORD,
        part(plan(mode={"urgency": "download_only"}), S.STAGED),
        "`argosy rollout activate rol_0000000000000004`",
    ),
    (
        H.WINDOW,
        part(plan(windows=({**CLOSED, "covers": "activation"},)), S.STAGED),
        "is staged; its maintenance window opens at 2026-03-02 02:00 UTC",
    ),
    (H.UNDER_WAY, part(plan(), S.OFFERED), "was offered digits@4 at 2026-03-01"),
    (H.UNDER_WAY, part(plan(), S.DOWNLOADING, share=0.25), "DOWNLOADING since 2026-03-01"),
    (H.OFFLINE, part(plan(), S.UNKNOWN), "in the middle of digits@4 (UNKNOWN)"),
    (H.NO_VARIANT, part(plan(), S.NO_VARIANT, detail="int8: needs avx2"), "fits it: int8: needs"),
    (
        H.FAILED,
        part(plan(), S.FAILED, cause=DeviceCause.DISK_FULL, attempt=3),
        (
            "digits@4 failed at 2026-03-01 12:00 UTC, in rollout rol_0000000000000004, attempt 3:"
            " disk full. `argosy rollout retry rol_0000000000000004`"
        ),
    ),
    (H.FAILED, part(plan(), S.TIMED_OUT), "digits@4 timed out"),
    (H.FAILED, part(plan(), S.REJECTED, cause=DeviceCause.BELOW_FLOOR), "rejected"),
    (
        H.ROLLED_BACK,
        part(plan(), S.ROLLED_BACK, cause=DeviceCause.PROBATION_FAILED, detail="9 of 20 failed"),
        (
            "digits@4 was tried at 2026-03-01 12:00 UTC by rollout rol_0000000000000004, did not"
            " pass its probation (probation failed: 9 of 20 failed), and the device put back by"
            " itself what it had."
        ),
    ),
    (H.BY_HAND, part(plan(), S.ROLLED_BACK, cause=DeviceCause.OPERATOR), "put back by hand"),
    (H.BY_HAND, part(plan(), S.SUCCEEDED, late=S.ROLLED_BACK), "put back by hand"),
    (H.CANCELLED, part(plan(state=R.ABORTED), S.CANCELLED, detail="aborted by a"), "called off"),
    (H.CANCELLED, part(plan(state=R.ABORTED)), "ended (ABORTED) before its turn"),
    (H.SUPERSEDED, part(plan(), S.SUPERSEDED, detail="by rol_x"), "place of rol_0000000000000004"),
    (H.REMOVED, part(plan(), S.REMOVED, detail="revoked"), "taken out in rollout"),
    (H.GONE, part(plan(), S.SUCCEEDED), "has lost it since"),
]


@pytest.mark.parametrize(("code", "its", "words"), HINDRANCES)
def test_what_stands_in_the_way_of_a_device_that_takes_part(code, its, words):
    found = missing(model(its))
    assert (found.version, found.code, found.rollout) == (4, code, its.plan.id)
    assert words in found.text
    assert found.text.endswith((".", "once more."))
    assert (found.until is not None) == (code in {H.RETRY, H.DEFERRED, H.WINDOW}), (
        "whatever passes by itself at a known time says when"
    )


def test_every_hindrance_is_told_by_some_test():
    told = {code for code, _, _ in HINDRANCES} | {code for code, _, _ in NOT_ITS}
    others = {H.PENDING, H.REVOKED, H.VERSION_REVOKED, H.NO_ROLLOUT, H.REPLACED, H.TAKEN_BACK}
    assert told | others == set(H)


NOT_ITS = [
    (H.NOT_TARGETED, plan(device_class="pi"), "it is of class cam, not pi"),
    (H.NOT_TARGETED, plan(tags=("hall",)), "it lacks the tag hall"),
    (
        H.NOT_TARGETED,
        plan(where="class = cam and ram_mb >= 512"),
        "it does not match ram_mb >= 512",
    ),
    (
        H.NOT_TARGETED,
        plan(fleet="hall", means=parse("tag = hall")),
        "it is not in fleet hall, as it does not match tag = hall",
    ),
    (H.NOT_TARGETED, plan(exclude="tag = lab"), "it is excluded by tag = lab"),
    (H.NOT_IN_PLAN, plan(), "did not when its plan was frozen, 2026-02-28 12:00 UTC"),
    (H.NOT_IN_PLAN, plan(state=R.SUCCEEDED), "ended (SUCCEEDED) without it"),
    (H.JOINS, plan(dynamic=True), "takes it in shortly"),
    (H.DRAFT, plan(state=R.DRAFT), "is a draft, which was made without it"),
]


@pytest.mark.parametrize(("code", "its", "words"), NOT_ITS)
def test_which_part_of_a_target_leaves_a_device_out(code, its, words):
    found = missing(model(plans=(its,)))
    assert (found.code, found.rollout, found.wave) == (code, its.id, None)
    assert words in found.text


def test_the_device_itself_comes_first():
    its = model(part(plan()))
    assert missing(its, state=DeviceState.PENDING).code is H.PENDING
    found = missing(its, state=DeviceState.REVOKED, revoked_at=EARLIER, revoke_reason="stolen")
    assert found.code is H.REVOKED
    assert "since 2026-02-28 12:00 UTC: stolen." in found.text


def test_a_revoked_version_is_not_missed_but_where_a_rollout_would_bring_it():
    assert said(model(newest=3, revoked={4: "bad"})).missing == ()
    its = model(part(plan()), newest=3, revoked={4: "leaks faces"})
    assert missing(its).text == "digits@4 was revoked: leaks faces."


def test_offline_devices_say_since_when():
    its = model(part(plan()))
    gone = missing(its, online=False, last_seen_at=EARLIER)
    assert (gone.code, "offline since 2026-02-28 12:00 UTC" in gone.text) == (H.OFFLINE, True)
    assert "never connected" in missing(its, online=False, last_seen_at=None).text
    middle = missing(model(part(plan(), S.VERIFIED)), online=False, last_seen_at=EARLIER)
    assert "in the middle of digits@4 (VERIFIED)" in middle.text


@pytest.mark.parametrize(
    ("newer", "older", "then"),
    [
        ({"started_at": NOW}, {}, "it is offered digits@5 when it is back, and not digits@4"),
        (
            {"priority": 90},
            {"started_at": NOW},
            "digits@5 when it is back, and digits@4 after that",
        ),
        ({}, {"priority": 90}, "it is offered digits@4 when it is back."),
        ({"state": R.PAUSED, "started_at": NOW}, {}, "it is offered digits@4 when it is back."),
        ({"waves": (W.PENDING,), "started_at": NOW}, {}, "offered digits@4 when it is back."),
    ],
)
def test_of_several_rollouts_that_wait_for_a_device_it_is_said_which_has_it(newer, older, then):
    its = model(part(plan(5, **newer)), part(plan(4, **older)), newest=5)
    no = {one.version: one for one in said(its, online=False).missing}
    assert then in no[4].text
    assert (no[4].code, no[4].rollout) == (H.OFFLINE, rollout(4))


def test_no_rollout_of_the_newest_was_made():
    found = missing(model())
    assert (found.code, found.rollout) == (H.NO_ROLLOUT, None)
    assert "`argosy rollout plan digits@4`" in found.text


def test_both_the_newest_and_what_is_on_its_way_are_explained_newest_first():
    found = said(model(part(plan(4, waves=(W.PASSED, W.PENDING)), wave=1), newest=6)).missing
    assert [(one.version, one.code) for one in found] == [(6, H.NO_ROLLOUT), (4, H.WAVE_PENDING)]


def test_an_open_rollout_that_leaves_it_out_counts_more_than_an_old_failure():
    failed = part(plan(state=R.ABORTED, number=1), S.FAILED)
    its = model(failed, plans=(plan(device_class="pi", number=2),))
    assert missing(its).code is H.NOT_TARGETED
    assert missing(model(failed)).code is H.FAILED


def test_a_version_that_another_rollout_replaced():
    newer = part(plan(3, number=8), S.SUCCEEDED)
    found = missing(model(newer, part(plan(4, state=R.SUCCEEDED), S.SUCCEEDED)))
    assert found.code is H.REPLACED
    assert "by rollout rol_0000000000000008" in found.text


def test_a_version_that_was_taken_back_says_by_what_and_why():
    back = part(plan(3, number=8, rollback_of=rollout(4), takes_back=4), S.SUCCEEDED)
    gone = part(plan(4, state=R.ROLLED_BACK, reason="by ops: too slow"), S.SUCCEEDED)
    found = missing(model(back, gone))
    assert (found.code, found.rollout) == (H.TAKEN_BACK, rollout(4))
    assert found.text.endswith("by rollout rol_0000000000000008: by ops: too slow.")


@pytest.mark.parametrize("state", [S.SUPERSEDED, S.TIMED_OUT])
def test_who_went_back_from_a_trial_by_a_rollback_was_not_put_back_by_hand(state):
    back = part(plan(3, number=8, rollback_of=rollout(4), takes_back=4), S.SUCCEEDED, at=EARLIER)
    gone = part(plan(4, state=R.ROLLED_BACK), state, late=S.ROLLED_BACK)
    assert said(model(back, gone)).origin is Origin.ROLLBACK
    assert missing(model(back, gone)).code is H.TAKEN_BACK


def test_what_was_given_up_by_hand_before_it_served_was_not_put_back():
    its = part(plan(), S.FAILED, cause=DeviceCause.OPERATOR, detail="given up by hand")
    found = missing(model(its))
    assert (found.code, "given up by hand" in found.text) == (H.FAILED, True)


def test_a_version_that_did_not_stay_is_explained_beside_a_newer_one():
    tried = part(plan(4, state=R.PAUSED), S.ROLLED_BACK, cause=DeviceCause.BOOT_LOOP)
    its = replace(model(tried, newest=5), since=NOW)
    found = said(its)
    assert [(one.version, one.code) for one in found.missing] == [
        (5, H.NO_ROLLOUT),
        (4, H.ROLLED_BACK),
    ]
    assert "did not survive its start (boot loop)" in found.missing[1].text
    assert "tried at 2026-03-01 12:00 UTC by rollout rol_0000000000000004" in found.missing[1].text


def test_since_when_it_serves_what_it_put_back_by_itself_and_why():
    tried = part(plan(4), S.ROLLED_BACK, cause=DeviceCause.BOOT_LOOP)
    found = said(replace(model(tried), since=NOW))
    assert (found.origin, found.rollout, found.fell_back) == (
        Origin.ROLLOUT,
        rollout(3),
        rollout(4),
    )
    assert found.text.startswith(
        "It serves digits@3 (int8) since 2026-03-01 12:00 UTC, when it put it back by itself, as"
        " digits@4 of rollout rol_0000000000000004 did not stay (boot loop). Rollout"
        " rol_0000000000000003 had brought it: wave 2 of 2"
    )


def test_what_was_never_left_keeps_since_when_it_came():
    tried = part(plan(4), S.FAILED, cause=DeviceCause.DISK_FULL)
    for its in (model(tried), replace(model(tried), since=NOW)):
        found = said(its)
        assert (found.fell_back, "by rollout rol_0000000000000003" in found.text) == (None, True)


def test_what_failed_before_the_version_that_serves_is_not_told_any_more():
    failed = part(plan(4, state=R.ABORTED), S.ROLLED_BACK, cause=DeviceCause.BOOT_LOOP, at=EARLIER)
    newer = part(plan(5), S.SUCCEEDED)
    assert said(model(newer, failed, serves=5, newest=5)).missing == ()


def test_who_went_back_from_a_version_in_service_with_a_cause_was_moved_by_nobody():
    gone = part(plan(), S.SUCCEEDED, late=S.ROLLED_BACK, cause=DeviceCause.HUNG)
    found = said(replace(model(gone), since=NOW))
    assert (found.origin, found.fell_back) == (Origin.ROLLOUT, rollout(4))
    assert found.missing[0].code is H.ROLLED_BACK


ORIGINS = [
    (Origin.ROLLOUT, model(newest=3), "by rollout rol_0000000000000003: wave 2 of 2"),
    (
        Origin.ROLLBACK,
        model(part(plan(3, number=8, rollback_of=rollout(4), takes_back=4), S.SUCCEEDED)),
        "as rollout rol_0000000000000008 took back digits@4 of rollout rol_0000000000000004",
    ),
    (
        Origin.ROLLBACK,
        model(part(plan(3, number=8, takes_back=4), S.SUCCEEDED), newest=3, revoked={4: "bad"}),
        "as rollout rol_0000000000000008 took back digits@4, which was revoked",
    ),
    (
        Origin.BY_HAND,
        model(part(plan(), S.SUCCEEDED, late=S.ROLLED_BACK)),
        "digits@4 of rollout rol_0000000000000004 was put back by hand",
    ),
    (Origin.DRIFT, model(strange=True), "it was never given"),
    (Origin.UNKNOWN, model(serves=2), "no rollout on record"),
    (Origin.NONE, model(serves=None), "serves no version of digits"),
    (Origin.ROLLOUT, model(part(plan(), S.PROBATION), serves=4), "It is on probation."),
    (Origin.ROLLOUT, model(part(plan(), S.ALREADY_INSTALLED), serves=4), "found it there"),
    (Origin.ROLLOUT, model(part(plan(), S.TIMED_OUT, late=S.SUCCEEDED), serves=4), "by rollout"),
    (Origin.ROLLOUT, model(revoked={3: "leaks"}), "which was revoked since: leaks"),
]


@pytest.mark.parametrize(("origin", "its", "words"), ORIGINS)
def test_how_it_came_to_what_it_serves(origin, its, words):
    found = said(its)
    assert found.origin is origin
    assert words in found.text


def test_a_rollout_after_the_hand_counts():
    by_hand = part(plan(4), S.SUCCEEDED, late=S.ROLLED_BACK, at=EARLIER)
    newer = part(plan(5), S.SUCCEEDED)
    assert said(model(newer, by_hand, serves=5, newest=5)).origin is Origin.ROLLOUT


def test_the_rule_names_target_and_wave():
    its = replace(
        OLD, plan=plan(3, waves=(W.PASSED, W.PASSED), device_class="cam", exclude="tag = old",
                       where="ram_mb > 1 or cpus = 2", fleet="hall")
    )  # fmt: skip
    found = said(replace(model(newest=3), parts=(its,)))
    assert found.rule == (
        "wave 2 of 2 (all that are left), of a rollout for class = cam and"
        " (ram_mb > 1 or cpus = 2) and fleet hall, but not tag = old"
    )
    assert (found.rollout, found.wave, found.missing) == (rollout(3), 1, ())


def test_others_words_are_cut_and_on_one_line():
    found = missing(model(part(plan(), S.FAILED, detail="x\n" * 4000)))
    assert "\n" not in found.text
    assert len(found.text) < 700


def why(admin, name):
    answer = admin.get(f"/v1/devices/{name}/why")
    assert answer.status_code == 200, answer.text
    return DeviceWhy.model_validate(answer.json())


def test_a_fleet_explains_itself(platform, admin):
    """Version 1 to all, then version 2 to a class alone."""
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    cam, pi, away = (*platform.enroll(1, "cam"), *platform.enroll(2, "pi"))
    for one in (cam, pi):
        platform.birth(one)
    gates = {"min_inferences": 1, "soak_seconds": 0}
    spec = {"model": "digits", "version": 1, "waves": [{"percent": 100}], "gates": gates}
    first = platform.rollouts.plan(RolloutSpec.model_validate(spec))
    assert why(admin, cam).models[0].missing[1].code is H.DRAFT
    platform.rollouts.operate(first.id, Act.START)
    platform.tick()
    found = why(admin, away).models[0]
    assert (found.origin, found.missing[0].code) == (Origin.NONE, H.NO_ROLLOUT)
    assert found.missing[1].code is H.OFFLINE
    for wave in platform.rollouts.get(first.id).waves:
        for one in wave.executions:
            if one.device != away:
                for seq, state in enumerate((S.ACCEPTED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED)):
                    platform.report(one.device, one.id, seq, state)
    body = {"selector": "class = cam"}
    assert admin.put("/v1/fleets/cams", json=body).status_code == 200
    second = platform.rollouts.plan(
        RolloutSpec.model_validate({**spec, "version": 2, "fleet": "cams"})
    )
    platform.rollouts.operate(second.id, Act.START)
    assert why(admin, cam).models[0].missing[0].code is H.WAVE_PENDING
    platform.tick()
    left_out, taken = why(admin, pi).models[0], why(admin, cam).models[0]
    assert (left_out.origin, left_out.rollout, left_out.version) == (Origin.ROLLOUT, first.id, 1)
    assert left_out.since is not None
    (no,) = left_out.missing
    assert (no.code, no.rollout) == (H.NOT_TARGETED, second.id)
    assert "not in fleet cams, as it does not match class = cam" in no.text
    assert taken.missing[0].code is H.UNDER_WAY
    admin.post(f"/v1/devices/{pi}/revoke", json={"reason": "sold"})
    assert why(admin, pi).models[0].missing[0].code is H.REVOKED


def test_a_device_that_fell_back_by_itself_says_so(platform, admin):
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    (cam,) = platform.enroll(1, "cam")
    platform.birth(cam)
    gates = {"min_inferences": 1, "soak_seconds": 0}
    ids = []
    for version in (1, 2):
        spec = {"model": "digits", "version": version, "gates": gates}
        ids.append(platform.rollouts.plan(RolloutSpec.model_validate(spec)).id)
        platform.clock.forward(60)
        platform.rollouts.operate(ids[-1], Act.START)
        platform.tick()
        (one,) = platform.rollouts.get(ids[-1]).waves[0].executions
        for seq, state in enumerate((S.ACCEPTED, S.ACTIVATING, S.PROBATION)):
            platform.report(cam, one.id, seq, state)
        if version == 1:
            platform.report(cam, one.id, 3, S.SUCCEEDED)
            platform.rollouts.operate(ids[-1], Act.ABORT)
            (old,) = platform.devices.get(cam).active
    trial = old.model_copy(update={"version": 2})
    platform.birth(cam, session=2, active=(trial,))
    platform.clock.forward(60)
    platform.report(cam, one.id, 3, S.ROLLED_BACK, cause=DeviceCause.BOOT_LOOP)
    platform.birth(cam, session=3, active=(old,))
    platform.models.register("digits", platform.manifest(content=b"three"), None)
    found = why(admin, cam).models[0]
    assert (found.version, found.rollout, found.fell_back) == (1, ids[0], ids[1])
    assert found.since == platform.clock()
    assert [(no.version, no.code) for no in found.missing] == [
        (3, H.NO_ROLLOUT),
        (2, H.ROLLED_BACK),
    ]
    view = platform.devices.get(cam)
    assert (view.rollout, view.rollout_state) == (ids[1], S.ROLLED_BACK)


def test_a_device_without_anything_and_none_at_all(platform, admin):
    (name,) = platform.enroll(1)
    assert why(admin, name).models == ()
    assert admin.get("/v1/devices/dev_0000000000000000/why").status_code == 404
