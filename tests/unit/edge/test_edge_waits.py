"""Updates that wait on their device, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from edge_client import errand, waits
from edge_client.errors import EdgeError
from edge_client.slots import read_pointer
from edge_client.states import (
    Accepted,
    Deferred,
    Downloading,
    Ended,
    OnProbation,
    Shadowing,
    Staged,
    hold_of,
)
from edge_client.waiting import Hold, Why, in_words
from edge_client.wish import Wish
from edge_client.wish_desk import WishDesk
from schemas.errors import DeviceCause
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from schemas.rollout import Command, ExecState, Shadow
from schemas.topics import Down
from schemas.transfer import Need
from tests.fakes.edge_bench import NEW, SIGNER, Bench, CrashError, FullOnce, Fuse, document
from tests.fakes.edge_models import linear_onnx, release, samples
from tests.fakes.edge_trust import assignment
from tests.unit.edge.test_edge_rollback import ask as ask_back

S = ExecState
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NIGHT = MaintenanceWindow(cron="0 2 * * *", minutes=60)
NIGHT_ALL = NIGHT.model_copy(update={"covers": WindowCovers.ALL})
OPENS = datetime(2026, 6, 2, 2, tzinfo=UTC)
SOFT, WORD = Mode(urgency=Urgency.SOFT), Mode(urgency=Urgency.DOWNLOAD_ONLY)
NEW_BYTES = sum(len(data) for data in NEW.files.values())


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.server_now = NOON
    bench.start()
    yield bench
    bench.runtime.shadow(None)
    bench.die()


def rounds(bench, n: int = 40) -> None:
    for _ in range(n):
        bench.go_on(NEW, samples(2))


def again(bench) -> None:
    """Killed, and started anew."""
    bench.runtime.shadow(None)
    bench.die()
    bench.start()


def tell(bench, kind: str, key=None) -> None:
    execution, attempt = key or bench.updater.state.offer.key
    command = Command(kind=kind, execution=execution, attempt=attempt)
    bench.inbox.take(Down.CMD, command.model_dump_json().encode())


def wish(bench, kind: str, **more) -> errand.Answered:
    asked = Wish(id="1", kind=kind, **more)
    bench.home.wish.write_text(asked.model_dump_json())
    WishDesk(bench.updater._device, bench.updater).look()
    assert not bench.home.wish.exists()
    return errand.read_answer(bench.home.wished, "1")


def said(bench) -> list:
    return [(r.state, r.waits_until) for r in bench.reports()]


def succeeded(bench) -> bool:
    state = bench.updater.state
    return isinstance(state, Ended) and state.outcome is S.SUCCEEDED and bench.serving() == 2


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


class TestPutOff:
    PACE = {"mode": SOFT, "max_deferral_seconds": 3 * 3600.0}  # noqa: RUF012 - only read

    def test_before_the_switch_for_as_long_as_was_said(self, bench):
        bench.inbox.desired(document(bench, NEW, **self.PACE))
        bench.go_to(Downloading)
        answer = wish(bench, "defer", seconds=7200.0)
        assert "put off until 2026-06-01 14:00:00 UTC" in answer.said
        rounds(bench)
        assert said(bench)[-1] == (S.STAGED, NOON + 2 * HOUR)
        again(bench)
        rounds(bench, 5)
        assert isinstance(bench.updater.state, Staged)
        bench.server_now = NOON + 2 * HOUR
        rounds(bench)
        assert succeeded(bench)

    def test_before_the_download_it_is_reported_as_deferred(self, bench):
        bench.inbox.take(Down.DESIRED, document(bench, NEW, **self.PACE))
        bench.go_to(Accepted)
        wish(bench, "defer", seconds=60.0)
        bench.updater.pump()
        assert said(bench)[-1] == (S.DEFERRED, NOON + timedelta(seconds=60))
        assert "by hand" in bench.reports()[-1].detail
        wish(bench, "proceed")
        rounds(bench)
        assert succeeded(bench)

    def test_no_longer_than_the_rollout_allows_since_it_was_accepted(self, bench):
        bench.inbox.desired(document(bench, NEW, **self.PACE))
        bench.go_to(Downloading)
        bench.server_now = NOON + HOUR
        answer = wish(bench, "defer", seconds=90000.0)
        assert "until 2026-06-01 15:00:00 UTC, the latest" in answer.said
        bench.server_now = NOON + 3 * HOUR
        assert "may not be put off any longer" in wish(bench, "defer").error
        rounds(bench)
        assert succeeded(bench)

    def test_until_it_is_forced(self, bench):
        mode = Mode(urgency=Urgency.TIME_FORCED, force_at=NOON + HOUR)
        bench.inbox.desired(document(bench, NEW, mode=mode))
        bench.go_to(Downloading)
        wish(bench, "defer", seconds=7200.0)
        rounds(bench)
        assert said(bench)[-1] == (S.STAGED, NOON + HOUR)
        bench.server_now = NOON + HOUR
        rounds(bench)
        assert succeeded(bench)

    @pytest.mark.parametrize(
        ("pace", "why"),
        [
            ({}, "is forced"),
            ({"mode": WORD}, "waits for a word anyway"),
            ({"mode": SOFT}, "may not be put off any longer"),
        ],
    )
    def test_what_may_not_be_put_off_is_refused(self, bench, pace, why):
        bench.inbox.desired(document(bench, NEW, **pace))
        bench.go_to(Downloading)
        answer = wish(bench, "defer")
        assert why in answer.error
        assert answer.hint
        assert bench.updater.state.timing.put_off_until is None

    def test_nor_what_is_not_there_is_too_late_or_of_another_model(self, bench):
        assert "no update is under way" in wish(bench, "defer").error
        bench.inbox.desired(document(bench, NEW, **self.PACE))
        bench.go_to(Downloading)
        assert "no update of gestures" in wish(bench, "proceed", model="gestures").error
        bench.server_now = None
        assert "does not know the server's time" in wish(bench, "defer").error
        bench.server_now = NOON
        bench.go_to(OnProbation)
        assert "too late" in wish(bench, "defer").error
        rounds(bench)
        assert "no update is under way" in wish(bench, "proceed").error

    @pytest.mark.parametrize("text", ["", "{", '{"id": "1", "kind": "sing"}', "x" * 100_000])
    def test_garbage_in_place_of_a_request_is_removed(self, bench, text):
        bench.home.wish.write_text(text)
        WishDesk(bench.updater._device, bench.updater).look()
        assert not bench.home.wish.exists()


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


class Faulty:
    """An update that waits for its moment and for a word, with a fault at one of its writes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.offered = document(bench, NEW, jitter_seconds=60.0, windows=(NIGHT,), mode=WORD)

    def go(self) -> None:
        """From a start to the end of the update, or to the fault."""
        self.bench.start()
        with suppress(EdgeError):
            self.bench.inbox.take(Down.DESIRED, self.offered)
        for _ in range(150):
            with suppress(EdgeError, OSError):  # as the agent's loop does
                self.bench.go_on(NEW, samples(2))
                self.release()
            if isinstance(self.bench.updater.state, Ended):
                return

    def release(self) -> None:
        """What is waited for comes."""
        state = self.bench.updater.state
        if isinstance(state, Deferred):
            self.bench.server_now = NOON + timedelta(seconds=60)
        elif isinstance(state, Staged) and hold_of(state):
            tell(self.bench, "proceed")


@pytest.mark.parametrize("fuse_of", [Fuse, FullOnce], ids=["crash", "full disk"])
def test_a_fault_at_any_write_of_a_wait_leads_to_the_same_end(tmp_path, monkeypatch, fuse_of):
    crashes = 0
    for at in itertools.count():
        bench = Bench(tmp_path / str(at), monkeypatch, fuse_of(at))
        bench.server_now = NOON
        faulty = Faulty(bench)
        try:
            faulty.go()
        except CrashError:
            crashes += 1
            bench.die()
            faulty.go()
        assert succeeded(bench), (at, bench.updater.state)
        assert read_pointer(bench.home.pointer).active.version == 2
        seqs = [r.seq for r in bench.reports()]
        assert seqs == sorted(set(seqs))
        states = [state for state, _ in said(bench)]
        assert S.DEFERRED in states
        assert states.count(S.SUCCEEDED) == 1
        bench.die()
        if bench.fuse.left is not None:
            break  # the fuse was longer than the run: every write was tried
    assert at > 12
    assert crashes == (at if fuse_of is Fuse else 0)


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
