"""What must not go wrong in a device's life: shadows, older homes, a lost pointer."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edge_client import shadow_watch, user_telemetry
from edge_client.actions import Report
from edge_client.agent import Agent
from edge_client.api import Edge
from edge_client.errors import PointerError, ServeError
from edge_client.events import Booted, Stranded
from edge_client.files import forget_torn
from edge_client.following import Follower
from edge_client.hang import Hang, write_hang
from edge_client.journal import Journal
from edge_client.live_layout import Record, Totals
from edge_client.meter import NoMeter
from edge_client.own_runtime import find_slot
from edge_client.probation_watch import ProbationWatch
from edge_client.runtime import Runtime
from edge_client.sessions import SessionSettings
from edge_client.settings import RunSettings
from edge_client.slots import (
    Pointer,
    Pointers,
    Slot,
    copy_of,
    find_pointers,
    read_pointers,
    write_pointers,
)
from edge_client.state_machine import step
from edge_client.states import Accepted, Activating, Ended, OnProbation, Reverting, Shadowing
from edge_client.store import Store
from edge_client.tally import Subject
from schemas.errors import DeviceCause
from schemas.model import Manifest
from schemas.rollout import ExecState, Probation, Shadow
from tests.fakes.edge_bench import GIB, NEW, Bench, Fuse, document
from tests.fakes.edge_installed import install
from tests.fakes.edge_models import linear_onnx, release, samples

OTHER = release(linear_onnx(7))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A device that serves digits, and gestures beside it."""
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    file = Manifest.model_validate_json(OTHER.manifest).variants[0].file
    store = Store(bench.home, GIB)
    store.save_manifest(OTHER.sha256, OTHER.manifest)
    (bench.home.blobs / file.sha256).write_bytes(OTHER.onnx)
    bench.beside = Slot(model="gestures", version=1, variant="fp32", sha256=file.sha256,
                        manifest_sha256=OTHER.sha256)  # fmt: skip
    pointers = read_pointers(bench.home.pointer)
    write_pointers(bench.home.pointer, pointers.put("gestures", Pointer(active=bench.beside)))
    bench.start()
    yield bench
    with contextlib.suppress(Exception):
        bench.runtime.shadow(None)
        bench.die()


class TestShadowThatHarms:
    """What brings the agent down while it only runs beside another must not come back for ever."""

    def shadowing(self, bench) -> None:
        rules = Shadow(seconds=60, min_compared=1000)
        offered = document(bench, NEW, shadow=rules, probation=Probation(max_boots=2))
        bench.inbox.desired(offered)
        bench.go_to(Shadowing)

    def again(self, bench) -> None:
        bench.runtime.shadow(None)
        bench.die()
        bench.start()

    def test_one_that_ends_the_agent_again_and_again_is_given_up(self, bench):
        self.shadowing(bench)
        for _ in range(2):
            self.again(bench)
            assert isinstance(bench.updater.state, Shadowing)
        self.again(bench)
        assert bench.updater.state.outcome is ExecState.FAILED
        assert bench.reports()[-1].cause is DeviceCause.BOOT_LOOP
        assert bench.runtime.shadowing is None
        assert [one.version for one in bench.runtime.slots()] == [1, 1]

    def test_its_start_is_counted_before_it_is_loaded(self, bench):
        self.shadowing(bench)
        bench.runtime.shadow(None)
        bench.die()
        bench.fuse.left = 0  # the journal cannot be written: so it must not run
        with contextlib.suppress(BaseException):
            bench.start()
        assert bench.runtime.shadowing is None

    def test_one_for_which_the_watchdog_ended_the_agent_is_given_up(self, bench):
        self.shadowing(bench)
        candidate = bench.updater.state.slot.sha256
        write_hang(bench.home, Hang(what="a shadow's inference", seconds=60, sha256=candidate))
        self.again(bench)
        assert bench.updater.state.outcome is ExecState.FAILED
        last = bench.reports()[-1]
        assert last.cause is DeviceCause.HUNG
        assert "a shadow's inference" in last.detail

    def test_the_active_version_that_hung_is_not_its_fault(self, bench):
        self.shadowing(bench)
        write_hang(bench.home, Hang(what="an inference", seconds=60, sha256=bench.beside.sha256))
        self.again(bench)
        assert isinstance(bench.updater.state, Shadowing)


class TestOlderJournal:
    """An agent that served one model at a time went from one model to another by an update."""

    def with_state(self, bench, make) -> None:
        """The journal as it was left; the old pointer names one model."""
        bench.inbox.desired(document(bench, NEW, probation=Probation(min_inferences=1)))
        bench.go_to(OnProbation)
        state = bench.updater.state
        bench.journal.commit(make(state), (), uptime=0.0)
        bench.die()

    def test_a_swap_from_another_model_that_was_cut_off_goes_on(self, bench):
        def make(state: OnProbation) -> Activating:
            return Activating(offer=state.offer, slot=state.slot, fallback=bench.beside)

        self.with_state(bench, make)
        before = Pointers().put("gestures", Pointer(active=bench.beside))
        write_pointers(bench.home.pointer, before)
        bench.start()
        for _ in range(50):
            bench.go_on(NEW, samples(2))
        assert bench.updater.state.outcome is ExecState.SUCCEEDED
        found = find_pointers(bench.home.pointer)
        assert found.damage is None
        assert [one.model for one in found.pointers.active] == ["digits", "gestures"]

    def test_it_goes_back_to_the_other_model(self, bench):
        def make(state: OnProbation) -> Reverting:
            return Reverting(offer=state.offer, slot=state.slot, fallback=bench.beside,
                             cause=DeviceCause.PROBATION_FAILED, detail="it failed")  # fmt: skip

        self.with_state(bench, make)
        before = Pointers().put("gestures", Pointer(active=bench.beside))
        write_pointers(bench.home.pointer, before)
        bench.start()
        assert bench.updater.state.outcome is ExecState.ROLLED_BACK
        assert bench.runtime.slots() == (bench.beside,)
        assert read_pointers(bench.home.pointer).active == (bench.beside,)

    def test_what_was_taken_back_serves_no_more_beside_the_other_model(self, bench):
        self.with_state(bench, lambda state: replace(state, fallback=bench.beside))
        bench.start()
        assert len(bench.runtime.slots()) == 2
        bench.updater.apply(Booted(hung="it hung"))
        assert bench.updater.state.outcome is ExecState.ROLLED_BACK
        assert bench.runtime.slots() == (bench.beside,)
        assert read_pointers(bench.home.pointer).active == (bench.beside,)

    def test_a_fallback_of_a_fallback_that_is_of_another_model_spoils_nothing(self, bench):
        digits = read_pointers(bench.home.pointer).of("digits").active

        def make(state: OnProbation) -> Reverting:
            return Reverting(offer=state.offer, slot=state.slot, fallback=digits,
                             older=bench.beside, cause=DeviceCause.OPERATOR,
                             detail="by hand")  # fmt: skip

        self.with_state(bench, make)
        bench.start()
        assert bench.updater.state.outcome is ExecState.ROLLED_BACK
        found = find_pointers(bench.home.pointer)
        assert found.damage is None
        assert found.pointers.of("digits") == Pointer(active=digits)


def test_a_pointer_lost_while_the_agent_runs_loses_no_model_at_the_next_swap(bench):
    bench.inbox.desired(document(bench, NEW))
    bench.home.pointer.write_bytes(b"rot")
    copy_of(bench.home.pointer).write_bytes(b"rot")
    for _ in range(200):
        bench.go_on(NEW, samples(2))
        if isinstance(bench.updater.state, Ended):
            break
    assert bench.updater.state.outcome is ExecState.SUCCEEDED
    active = read_pointers(bench.home.pointer).active
    assert [(one.model, one.version) for one in active] == [("digits", 2), ("gestures", 1)]


class TestShadowThread:
    """A comparison that cannot be made must neither pass a candidate nor fail a request."""

    def test_answers_that_cannot_be_compared_count_as_different(self, bench, monkeypatch):
        def fail(*_args) -> int:
            raise ValueError

        monkeypatch.setattr("edge_client.shadow.agreeing", fail)
        rules = Shadow(seconds=0.5, min_compared=4, max_seconds=30, cpu_share=1.0)
        bench.inbox.desired(document(bench, NEW, shadow=rules))
        for _ in range(3000):
            bench.runtime.predict(samples(2), model="digits")
            bench.go_on(NEW, samples(2))
            if isinstance(bench.updater.state, Ended):
                break
        assert bench.updater.state.outcome is ExecState.FAILED
        assert bench.reports()[-1].cause is DeviceCause.SHADOW_DISAGREED

    def test_a_request_is_answered_where_memory_is_short_for_its_copy(self, bench):
        class Greedy:
            nbytes = 8

            def copy(self) -> None:
                raise MemoryError

        bench.runtime.shadow(bench.runtime.loaded("digits"))
        shadow = bench.runtime.shadowing
        shadow.offer(bench.runtime.loaded("digits"), {"x": Greedy()}, [], 3, 0.1)
        assert shadow.seen().skipped == 3
        assert shadow._bytes == 0

    def test_large_answers_count_as_memory_that_waits(self, bench):
        class Large:
            nbytes = 32 * 1024**2

        bench.runtime.shadow(bench.runtime.loaded("digits"))
        shadow = bench.runtime.shadowing
        shadow.offer(bench.runtime.loaded("digits"), {}, [Large()], 1, 0.1)
        assert shadow.seen().skipped == 1

    def test_it_runs_on_one_thread_whatever_the_active_one_may_use(self, bench, monkeypatch):
        seen = []
        load = shadow_watch.load_slot

        def loading(store, slot, session):
            seen.append(session)
            return load(store, slot, session)

        monkeypatch.setattr(shadow_watch, "load_slot", loading)
        bench.runtime.session = SessionSettings(threads=2, spinning=True)
        bench.inbox.desired(document(bench, NEW, shadow=Shadow()))
        bench.go_to(Shadowing)
        assert [(one.threads, one.spinning) for one in seen] == [(1, False)]


class TestProgram:
    def test_a_home_of_another_user_is_said_to_be_one(self, tmp_path, monkeypatch):
        home = install(tmp_path / "home", OTHER)
        read = Path.read_bytes

        def refused(path: Path) -> bytes:
            if path.name.startswith("active.json"):
                raise PermissionError(13, "Permission denied")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refused)
        monkeypatch.setattr("os.access", lambda *_: False)
        for ask in (Edge(home.root).model, Edge(home.root).models,
                    lambda: find_slot(home, None)):  # fmt: skip
            with pytest.raises(PointerError, match="Permission denied") as caught:
                ask()
            assert "as the user to whom" in caught.value.hint

    def test_a_damaged_file_that_cannot_be_removed_gives_way_to_the_fallback(
        self, tmp_path, monkeypatch
    ):
        home = install(tmp_path / "home", OTHER, release(linear_onnx(3)))
        active = read_pointers(home.pointer).of("digits").active
        (home.blobs / active.sha256).write_bytes(b"rot")

        def refused(_path, **_more) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "unlink", refused)
        with Edge(home.root).model(telemetry=False) as model:
            assert model.slot.version == 2

    def test_a_home_that_is_gone_for_a_while_takes_no_model_away(self, tmp_path):
        home = install(tmp_path / "home", OTHER)
        runtime = Runtime(NoMeter())
        follower = Follower(home, runtime, "digits")
        follower.first()
        home.root.rename(tmp_path / "away")
        follower.look()
        assert runtime.slot("digits") is not None
        (tmp_path / "away").rename(home.root)
        follower.look()
        assert runtime.slot("digits") is not None


class TestOthersOnProbation:
    """What programs of the device's user do with a model, counted once and for good."""

    def record(self, slot: Slot, n: int, errors: int = 0, serial: int = 1) -> Record:
        subject = Subject(slot=slot, role="active", provider="cpu", wanted="")
        totals = Totals(n=n, errors=errors)
        return Record(serial=serial, subject=subject, totals=totals, since=0, last=0, date=0)

    def test_a_process_that_ended_still_counts_and_one_of_before_does_not(self, bench):
        bench.inbox.desired(document(bench, NEW, probation=Probation(min_inferences=500)))
        bench.go_to(OnProbation)
        state, seen, found = bench.updater.state, [], {}
        watch = ProbationWatch(bench.updater._device, apply=seen.append, others=lambda: found)

        def look(*records: tuple[bytes, Record]) -> tuple[int, int]:
            found.clear()
            found.update({(boot, one.serial): one for boot, one in records})
            watch.look(state)
            return (seen[-1].figures.n, seen[-1].figures.errors)

        old, new = b"a" * 16, b"b" * 16
        assert look((old, self.record(state.slot, 1000, 100))) == (0, 0)
        assert look((old, self.record(state.slot, 1010, 101))) == (10, 1)
        assert look() == (10, 1)  # it ended
        assert look((new, self.record(state.slot, 5, 2))) == (15, 3)
        # Its record was let go of as it was idle; it took another one.
        assert look((new, self.record(state.slot, 4, 0, serial=2))) == (19, 3)
        assert look((new, self.record(bench.beside, 99, 99, serial=3))) == (19, 3)


def test_an_address_that_is_taken_is_not_counted_against_a_model_on_trial(bench):
    bench.inbox.desired(document(bench, NEW, probation=Probation(min_inferences=500)))
    bench.go_to(OnProbation)
    bench.die()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServeError):
            Agent(bench.home, RunSettings(serve=(address,))).run()
    journal = Journal(bench.home.journal, boot="0" * 32)
    state = journal.load()
    journal.close()
    assert isinstance(state, OnProbation)
    assert state.boots == 0


def test_a_model_that_is_found_to_be_garbage_in_the_middle_of_anything_is_closed(tmp_path):
    home = install(tmp_path / "home", OTHER)
    root = home.root.absolute()

    def in_the_middle() -> None:
        model = Edge(home.root).model()
        model.predict(samples(1))
        ring = [model]
        ring.append(ring)
        with user_telemetry._lock:  # which closing it needs, too
            del model, ring
            gc.collect()

    thread = threading.Thread(target=in_the_middle, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    for _ in range(1000):
        if root not in user_telemetry._shared:
            break
        threading.Event().wait(0.02)
    assert root not in user_telemetry._shared


def test_an_offer_that_waited_is_taken_up_where_going_back_by_hand_comes_to_nothing(bench):
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(OnProbation)
    state = bench.updater.state
    wanted = state.offer.assignment.model_copy(update={"execution": "exe_0000000000000009"})
    waiting = replace(state.offer, assignment=wanted, sequence=9)
    back = Reverting(offer=state.offer, slot=state.slot, fallback=None, pending=waiting,
                     cause=DeviceCause.OPERATOR, detail="", after_success=True)  # fmt: skip
    new, actions = step(back, Stranded(key=state.offer.key, detail="it is lost"), 0.0)
    assert isinstance(new, Accepted)
    assert new.offer == waiting
    assert [one.key for one in actions if isinstance(one, Report)] == [waiting.key]


def test_what_killed_writers_left_goes_and_what_is_being_written_stays(tmp_path):
    old, new = tmp_path / ".active.json.7.tmp", tmp_path / ".active.json.8.tmp"
    kept = tmp_path / "active.json"
    for path in (old, new, kept):
        path.write_bytes(b"{")
    for path in (old, kept):
        os.utime(path, (1, 1))
    forget_torn(tmp_path, tmp_path / "missing")
    assert sorted(tmp_path.iterdir()) == sorted([new, kept])
