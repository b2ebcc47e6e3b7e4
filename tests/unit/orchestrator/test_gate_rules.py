from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.gate import (
    PROBE_EVERY,
    REWRITE_EVERY,
    START_GRACE,
    TELL_AGAIN,
    Step,
    Told,
    Trial,
    Verdict,
    Wanted,
    next_step,
    trouble,
    was_told,
    was_tried,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FAR = NOW + timedelta(days=300)
NOBODY = Wanted(frozenset(), frozenset(), ("r",))
SOMEBODY = Wanted(frozenset({"a1"}), frozenset({"dev_x"}), ("r",))
HOLDS = Trial(bad=False, good=True)


def proven(wanted: Wanted, at: datetime = NOW) -> Told:
    return was_tried(was_told(Told(), wanted, at, FAR), HOLDS, at)


def test_the_broker_is_told_first_and_of_each_change() -> None:
    assert next_step(NOBODY, Told(), NOW) is Step.TELL
    assert next_step(NOBODY, proven(NOBODY), NOW) is Step.REST
    assert next_step(SOMEBODY, proven(NOBODY), NOW) is Step.TELL
    assert next_step(replace(NOBODY, roots=("r", "s")), proven(NOBODY), NOW) is Step.TELL


def test_canaries_fly_until_they_show_that_it_holds_and_it_is_told_again_meanwhile() -> None:
    told = was_told(Told(), SOMEBODY, NOW, FAR)
    assert next_step(SOMEBODY, told, NOW) is Step.TRY
    told = was_tried(told, Trial(bad=True, good=True), NOW)
    assert next_step(SOMEBODY, told, NOW) is Step.REST
    assert next_step(SOMEBODY, told, NOW + timedelta(seconds=1)) is Step.TRY
    assert next_step(SOMEBODY, told, NOW + TELL_AGAIN) is Step.TELL
    told = was_tried(told, HOLDS, NOW + timedelta(seconds=1))
    assert next_step(SOMEBODY, told, NOW + TELL_AGAIN) is Step.REST


def test_it_is_tried_now_and_then_and_told_at_least_hourly() -> None:
    told = proven(SOMEBODY)
    assert next_step(SOMEBODY, told, NOW + PROBE_EVERY) is Step.TRY
    failed = was_tried(told, Trial(bad=True, good=True), NOW + PROBE_EVERY)
    assert next_step(SOMEBODY, failed, NOW + PROBE_EVERY) is Step.TELL
    assert next_step(SOMEBODY, told, NOW + REWRITE_EVERY) is Step.TELL
    early = was_told(Told(), SOMEBODY, NOW, NOW + timedelta(minutes=1))
    assert (
        next_step(SOMEBODY, was_tried(early, HOLDS, NOW), NOW + timedelta(minutes=1)) is Step.TELL
    )


@given(st.sampled_from([None, False, True]), st.sampled_from([None, False, True]))
def test_only_a_refused_bad_and_an_accepted_good_canary_prove_it(bad, good) -> None:
    verdict = Trial(bad=bad, good=good).verdict
    assert (verdict is Verdict.HOLDS) == (bad is False and good is True)
    assert (verdict is Verdict.OPEN) == (bad is True)


def test_what_is_not_assured_is_said() -> None:
    later = NOW + START_GRACE

    def said(told: Told, waiting: int = 0, now: datetime = later) -> str | None:
        return trouble(told, waiting=waiting, started=NOW, now=now)

    assert said(proven(NOBODY)) is None
    assert said(Told(), now=NOW) is None, "it has only begun"
    assert "not proven" in (said(Told()) or "")
    assert "2 revoked certificates" in (said(Told(), waiting=2, now=NOW) or "")
    opened = was_tried(proven(NOBODY), Trial(bad=True, good=True), NOW)
    assert "lets revoked certificates in" in (said(opened, now=NOW) or "")
    shut = was_tried(proven(NOBODY), Trial(bad=False, good=False), NOW)
    assert "refuses good certificates" in (said(shut, now=NOW) or "")
    away = was_tried(proven(NOBODY), Trial(bad=None, good=None, why="it is away"), NOW)
    assert "it is away" in (said(away) or "")
