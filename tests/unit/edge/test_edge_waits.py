"""Updates that wait on their device, whatever happens meanwhile."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from edge_client import errand, waits
from edge_client.states import (
    Accepted,
    Deferred,
    Downloading,
    OnProbation,
    Shadowing,
    Staged,
    hold_of,
)
from edge_client.waiting import Hold, Why, in_words
from schemas.errors import DeviceCause
from schemas.rollout import Shadow
from schemas.topics import Down
from schemas.transfer import Need
from tests.fakes.edge_bench import NEW, SIGNER, Bench, Fuse, document
from tests.fakes.edge_models import linear_onnx, release, samples
from tests.fakes.edge_trust import assignment
from tests.fakes.edge_waiting import (
    HOUR,
    NEW_BYTES,
    NIGHT,
    NIGHT_ALL,
    NOON,
    OPENS,
    SOFT,
    WORD,
    S,
    again,
    rounds,
    said,
    succeeded,
    tell,
    wish,
)
from tests.unit.edge.test_edge_rollback import ask as ask_back


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.server_now = NOON
    bench.start()
    yield bench
    bench.runtime.shadow(None)
    bench.die()


class TestWindows:
    def test_one_for_the_switch_lets_the_download_go_on_and_holds_what_is_staged(self, bench):
        bench.inbox.desired(document(bench, NEW, windows=(NIGHT,)))
        rounds(bench)
        assert hold_of(bench.updater.state).until == OPENS
        assert said(bench)[-1] == (S.STAGED, OPENS)
        assert "maintenance window until 2026-06-02 02:00:00 UTC" in bench.reports()[-1].detail
        before = len(bench.reports())
        rounds(bench, 20)
        assert len(bench.reports()) == before  # it is said once
        bench.server_now = OPENS - timedelta(seconds=1)
        rounds(bench, 5)
        assert bench.serving() == 1
        bench.server_now = OPENS
        rounds(bench)
        assert succeeded(bench)

    def test_what_begins_in_its_last_second_ends_behind_it(self, bench):
        bench.inbox.desired(document(bench, NEW, windows=(NIGHT,)))
        rounds(bench)
        bench.server_now = OPENS + HOUR - timedelta(seconds=1)
        bench.updater.pump()
        assert isinstance(bench.updater.state, OnProbation)
        bench.server_now = OPENS + HOUR
        rounds(bench)
        assert succeeded(bench)

    def test_one_for_all_stops_a_download_and_resumes_it_at_the_byte(self, bench, monkeypatch):
        monkeypatch.setattr(waits, "LOOK_SECONDS", 0.0)
        bench.inbox.desired(document(bench, NEW, windows=(NIGHT_ALL,)))
        rounds(bench)
        assert said(bench) == [(S.ACCEPTED, None), (S.DEFERRED, OPENS)]
        assert bench.asked == []
        bench.server_now = OPENS
        bench.go_to(Downloading)
        for _ in range(400):  # as far as the first chunks
            if any(isinstance(one, Need) for one in bench.wire):
                break
            while bench.wire and not any(isinstance(one, Need) for one in bench.wire):
                bench.answer(bench.wire.pop(0), NEW)
            bench.updater.pump()
        need = next(one for one in bench.wire if isinstance(one, Need))
        bench.wire.remove(need)
        first = need.ranges[0][0]
        bench.answer(need.model_copy(update={"ranges": ((first, first + 1),)}), NEW)
        bench.server_now = OPENS + HOUR
        rounds(bench)
        assert said(bench)[-1] == (S.DEFERRED, OPENS + timedelta(days=1))
        again(bench)
        rounds(bench)
        assert isinstance(bench.updater.state, Deferred)
        bench.server_now = OPENS + timedelta(days=1)
        rounds(bench)
        assert succeeded(bench)
        verified = next(r for r in bench.reports() if r.state is S.VERIFIED)
        assert verified.bytes_fetched == verified.bytes_total == NEW_BYTES

    def test_a_shadow_that_passes_when_it_has_closed_waits_and_is_not_run_again(self, bench):
        rules = Shadow(seconds=0.05, min_compared=1, max_seconds=0.1, min_agreement=None)
        bench.inbox.desired(document(bench, NEW, windows=(NIGHT,), shadow=rules))
        rounds(bench)
        bench.server_now = OPENS
        bench.updater.pump()
        assert isinstance(bench.updater.state, Shadowing)
        bench.server_now = OPENS + HOUR
        for _ in range(100):
            rounds(bench, 2)
            if isinstance(bench.updater.state, Staged):
                break
        assert said(bench)[-1] == (S.STAGED, OPENS + timedelta(days=1))
        assert bench.updater.state.shadowed
        assert bench.runtime.shadowing is None
        again(bench)
        bench.server_now = OPENS + timedelta(days=1)
        rounds(bench)
        assert succeeded(bench)
        assert [state for state, _ in said(bench)].count(S.SHADOWING) == 1


class TestTime:
    def test_who_does_not_know_it_waits_says_so_and_goes_on_when_it_is_told(self, bench):
        bench.server_now = None
        bench.inbox.desired(document(bench, NEW, windows=(NIGHT_ALL,)))
        rounds(bench, 10)
        assert isinstance(bench.updater.state, Accepted)  # it may be told in a moment
        rounds(bench, 60)
        assert said(bench)[-1] == (S.DEFERRED, None)
        assert "does not know the time" in bench.reports()[-1].detail
        again(bench)
        rounds(bench)
        assert hold_of(bench.updater.state).why is Why.NO_TIME
        bench.server_now = OPENS
        rounds(bench)
        assert succeeded(bench)

    def test_who_does_not_need_it_does_not_wait_for_it(self, bench):
        bench.server_now = None
        bench.run(document(bench, NEW, mode=SOFT, max_deferral_seconds=60.0), NEW, samples(2))
        assert succeeded(bench)

    def test_its_own_moment_stays_through_starts(self, bench):
        bench.inbox.desired(document(bench, NEW, jitter_seconds=3600.0))
        rounds(bench, 5)
        until = hold_of(bench.updater.state).until
        assert NOON < until < NOON + HOUR
        for _ in range(3):
            bench.server_now += timedelta(seconds=1)
            again(bench)
            rounds(bench, 5)
            assert hold_of(bench.updater.state).until == until
        bench.server_now = until
        rounds(bench)
        assert succeeded(bench)


class TestWord:
    def waiting(self, bench) -> None:
        bench.inbox.desired(document(bench, NEW, mode=WORD, windows=(NIGHT,)))
        rounds(bench)
        assert said(bench)[-1] == (S.STAGED, None)
        assert "waits for a word" in bench.reports()[-1].detail

    def test_of_the_server_ends_every_wait_and_may_be_said_twice(self, bench):
        self.waiting(bench)
        again(bench)
        bench.server_now = OPENS
        rounds(bench)
        assert isinstance(bench.updater.state, Staged)
        key = bench.updater.state.offer.key
        for stale in ((key[0], 2), ("exe_0000000000000009", 1)):
            tell(bench, "proceed", stale)
            rounds(bench, 5)
            assert isinstance(bench.updater.state, Staged)
        bench.server_now = NOON  # outside of its window
        tell(bench, "proceed")
        tell(bench, "proceed", key)
        rounds(bench)
        assert succeeded(bench)
        count = len(bench.reports())
        tell(bench, "proceed", key)
        assert len(bench.reports()) == count  # the last one is repeated, as for who missed it
        assert bench.reports()[-1].state is S.SUCCEEDED

    def test_that_came_early_is_kept(self, bench):
        bench.inbox.desired(document(bench, NEW, mode=WORD, windows=(NIGHT,)))
        bench.go_to(Downloading)
        tell(bench, "proceed")
        again(bench)
        rounds(bench)
        assert succeeded(bench)
        assert not any(until for _, until in said(bench))

    def test_of_the_devices_operator_does_the_same(self, bench):
        self.waiting(bench)
        assert "goes on" in wish(bench, "proceed").said
        rounds(bench)
        assert succeeded(bench)


WAITS = pytest.mark.parametrize(
    ("pace", "state"),
    [
        ({"jitter_seconds": 86400.0}, Deferred),
        ({"windows": (NIGHT_ALL,)}, Deferred),
        ({"windows": (NIGHT,)}, Staged),
        ({"mode": WORD}, Staged),
    ],
    ids=["moment", "window for all", "window", "word"],
)


@WAITS
class TestGivenUp:
    def waiting(self, bench, pace, state) -> None:
        bench.inbox.desired(document(bench, NEW, **pace))
        rounds(bench)
        assert isinstance(bench.updater.state, state)
        assert hold_of(bench.updater.state)

    def test_by_the_server(self, bench, pace, state):
        self.waiting(bench, pace, state)
        tell(bench, "cancel")
        assert bench.updater.state.outcome is S.FAILED
        assert bench.reports()[-1].cause is DeviceCause.CANCELLED
        assert bench.serving() == 1

    def test_for_a_newer_one_which_waits_for_nothing(self, bench, pace, state):
        self.waiting(bench, pace, state)
        old = bench.updater.state.offer.key
        bench.inbox.take(Down.DESIRED, document(bench, NEW, sequence=7))
        rounds(bench, 60)
        assert succeeded(bench)
        (ended,) = [r for r in bench.reports() if (r.execution, r.attempt) == old and r.cause]
        assert ended.cause is DeviceCause.SUPERSEDED

    def test_for_the_version_before(self, bench, pace, state):
        bench.run(document(bench, NEW), NEW, samples(2))
        third = release(linear_onnx(3))
        SIGNER.add(third.manifest, "digits", 3)
        wanted = assignment(bench.device, third.manifest, version=3).model_copy(update=pace)
        offered = SIGNER.desired(wanted, sequence=9, length=len(third.manifest))
        bench.inbox.take(Down.DESIRED, offered)
        for _ in range(40):
            bench.go_on(third, samples(2))
        assert isinstance(bench.updater.state, state)
        desk = ask_back(bench)
        desk.look()
        assert "under way" in errand.read_answer(bench.home.rolled_back, "1").error
        ask_back(bench, give_up=True).look()
        assert bench.serving() == 1
        assert bench.reports()[-1].cause is DeviceCause.OPERATOR


def test_a_journal_from_before_there_were_waits_is_read(bench):
    bench.inbox.desired(document(bench, NEW, windows=(NIGHT,)))
    rounds(bench)
    state = json.loads(bench.journal._db.execute("SELECT body FROM state").fetchone()[0])
    for name in ("timing", "hold", "shadowed", "before_mb"):
        del state[name]
    for name in ("mode", "windows", "max_deferral_seconds", "jitter_seconds"):
        del state["offer"]["assignment"][name]
    bench.journal._db.execute("UPDATE state SET body = ?", (json.dumps(state),))
    again(bench)
    rounds(bench)
    assert succeeded(bench)


def test_every_wait_has_words():
    for why in Why:
        assert in_words(Hold(why=why, until=None))
        if why not in {Why.WORD, Why.NO_TIME}:
            assert "2026-06-01 12:00" in in_words(Hold(why=why, until=NOON))
