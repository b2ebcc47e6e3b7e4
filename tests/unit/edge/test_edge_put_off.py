"""Updates that an operator of the device puts off; and waits with a fault at every write."""

from __future__ import annotations

import itertools
from contextlib import suppress
from datetime import timedelta

import pytest

from edge_client.errors import EdgeError
from edge_client.slots import read_pointer
from edge_client.states import Accepted, Deferred, Downloading, Ended, OnProbation, Staged, hold_of
from edge_client.wish_desk import WishDesk
from schemas.pace import Mode, Urgency
from schemas.topics import Down
from tests.fakes.edge_bench import NEW, Bench, CrashError, FullOnce, Fuse, document
from tests.fakes.edge_models import samples
from tests.fakes.edge_waiting import (
    HOUR,
    NIGHT,
    NOON,
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


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.server_now = NOON
    bench.start()
    yield bench
    bench.runtime.shadow(None)
    bench.die()


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
