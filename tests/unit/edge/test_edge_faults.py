"""Disks, clocks and memory that fail: what is proven serves, and the update goes on afterwards."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import itertools
import os

import pytest

from edge_client import loading, probation_watch, room, serving
from edge_client.advice import troubles
from edge_client.device import Clock
from edge_client.errors import DiskFullError, EdgeError
from edge_client.events import Observed
from edge_client.hang import Hang, read_hang, write_hang
from edge_client.probation import Figures
from edge_client.probation_watch import ProbationWatch
from edge_client.slots import Pointer, read_pointer
from edge_client.staging import died
from edge_client.states import Downloading, Ended, OnProbation
from edge_client.store import Store
from edge_client.times import MAX_FILES, WARM_UP, Timer, read_past, write_past
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, Probation
from tests.fakes.edge_bench import BAD, NEW, SIGNER, Bench, Fuse, document
from tests.fakes.edge_models import linear_onnx, model_file, release, samples
from tests.fakes.edge_trust import assignment
from tests.fakes.gateway import until

LONG = Probation(min_inferences=1000, max_boots=50)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    yield bench
    bench.die()


def device_of(bench):
    return bench.updater._device


def on_probation(bench, rules=LONG, version=NEW) -> None:
    bench.inbox.desired(document(bench, version, probation=rules))
    bench.go_to(OnProbation)
    while not bench.updater.settled:
        bench.updater.pump()


class ReadOnlyFrom(Fuse):
    """From the n-th write on the disk is read-only, until somebody remounts it."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.read_only = False

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left, self.read_only = None, True
        if self.read_only:
            raise OSError(errno.EROFS, "Read-only file system")

    def after(self) -> None:
        """A write that was done did not fail."""


@pytest.fixture
def remountable(monkeypatch):
    """Files of this process cannot be written either while the fuse says so."""
    fuses: list[ReadOnlyFrom] = []

    def guarded(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            writes = name != "open" or (len(args) > 1 and args[1] & os.O_CREAT)
            if writes and fuses and fuses[-1].read_only:
                raise OSError(errno.EROFS, "Read-only file system")
            return real(*args, **kwargs)

        return call

    for name in ("open", "replace", "mkdir"):
        monkeypatch.setattr(os, name, guarded(name))
    return fuses


@pytest.mark.parametrize(
    ("version", "inputs", "outcome", "serves"),
    [(NEW, samples(2), ExecState.SUCCEEDED, 2), (BAD, -samples(2), ExecState.ROLLED_BACK, 1)],
    ids=["good model", "failing model"],
)
def test_a_disk_that_turns_read_only_at_any_write_and_comes_back(
    tmp_path, monkeypatch, remountable, version, inputs, outcome, serves
):
    tried = 0
    for at in itertools.count():
        fuse = ReadOnlyFrom(at)
        remountable.append(fuse)
        bench = Bench(tmp_path / str(at), monkeypatch, fuse)
        bench.start()
        offered = document(bench, version)
        with contextlib.suppress(EdgeError, OSError):
            bench.inbox.desired(offered)
        for _ in range(60):
            if fuse.read_only or isinstance(bench.updater.state, Ended):
                break
            with contextlib.suppress(EdgeError, OSError):
                bench.go_on(version, inputs)
        assert bench.serving() in {1, 2}
        if fuse.read_only:
            tried += 1
            bench.die()
            bench.start()  # also a restart serves
            assert bench.serving() in {1, 2}
        fuse.read_only = False
        bench.run(offered, version, inputs)
        assert bench.updater.state.outcome is outcome
        assert bench.serving() == read_pointer(bench.home.pointer).active.version == serves
        bench.die()
        if fuse.left is not None:
            break
    assert tried >= 8


@pytest.mark.parametrize("year", [2090, 2020])
def test_a_clock_that_jumps_neither_ends_nor_blocks_a_probation(bench, year):
    on_probation(bench, Probation(min_inferences=3, max_seconds=1000))
    device = device_of(bench)
    wrong = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    object.__setattr__(device, "clock", Clock(date=lambda: wrong, steady=device.clock.steady))
    bench.updater.pump()
    assert isinstance(bench.updater.state, OnProbation)
    assert bench.updater.state.elapsed < 100
    bench.die()
    boots = bench.updater.state.boots
    bench.start()
    object.__setattr__(
        device_of(bench), "clock", Clock(date=lambda: wrong, steady=device.clock.steady)
    )
    assert bench.updater.state.boots == boots + 1
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.updater.state.outcome is ExecState.SUCCEEDED


def test_how_long_a_probation_lasted_survives_a_restart(bench):
    on_probation(bench)
    key = bench.updater.state.offer.key
    bench.updater.apply(Observed(key=key, figures=Figures(n=1, elapsed=65.0)))
    bench.die()
    bench.start()
    assert bench.updater.state.elapsed == 65.0
    bench.updater.pump()
    assert 65.0 < bench.updater.state.elapsed < 75.0


def fail(bench) -> None:
    """Inferences of the model on probation fail."""
    for _ in range(60):
        bench.runtime.count_failure(bench.runtime.loaded())


def test_a_model_that_does_not_fit_into_memory_is_not_activated(bench, monkeypatch):
    def short(*_args, **_more):
        raise MemoryError

    monkeypatch.setattr(loading, "load_model", short)  # the trial has its own
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(Ended)
    states = [report.state for report in bench.reports()]
    assert ExecState.ACTIVATING in states
    assert bench.reports()[-1].cause is DeviceCause.OUT_OF_MEMORY
    assert bench.serving() == read_pointer(bench.home.pointer).active.version == 1


def test_memory_that_runs_out_while_it_is_fetched_ends_the_update_and_not_the_agent(
    bench, monkeypatch
):
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(Downloading)

    def short(*_args):
        raise MemoryError

    monkeypatch.setattr(Store, "open_partial", short)
    bench.go_to(Ended)
    last = bench.reports()[-1]
    assert (last.state, last.cause, last.retryable) == (
        ExecState.FAILED,
        DeviceCause.OUT_OF_MEMORY,
        True,
    )
    assert bench.serving() == 1


def test_where_both_do_not_fit_the_new_one_goes_before_the_old_one_comes(bench, monkeypatch):
    on_probation(bench)
    device, real = device_of(bench), loading.load_model
    beside = []

    def short(*args, **more):
        beside.append(device.runtime.loaded() is not None)
        if device.runtime.loaded() is not None:
            raise MemoryError
        return real(*args, **more)

    monkeypatch.setattr(loading, "load_model", short)
    fail(bench)
    bench.go_to(Ended)
    assert beside == [True, False]
    assert (bench.serving(), bench.updater.state.outcome) == (1, ExecState.ROLLED_BACK)


def test_a_model_stays_when_the_one_before_it_is_lost(bench):
    on_probation(bench)
    fallback = bench.updater.state.fallback
    (bench.home.blobs / fallback.sha256).write_bytes(b"rot")
    fail(bench)
    bench.go_to(Ended)
    last = bench.reports()[-1]
    assert (last.state, last.cause) == (ExecState.FAILED, DeviceCause.PROBATION_FAILED)
    assert "it serves on" in last.detail
    assert bench.serving() == 2
    bench.die()
    bench.start()
    assert bench.serving() == 2


def test_an_update_that_comes_to_nothing_costs_no_fallback(bench):
    bench.run(document(bench, NEW), NEW, samples(2))
    before = read_pointer(bench.home.pointer)
    third_on_probation(bench)
    assert read_pointer(bench.home.pointer).fallback == before.active
    fail(bench)
    bench.go_to(Ended)
    assert read_pointer(bench.home.pointer) == before
    store = device_of(bench).store
    assert store.has(before.active.sha256)
    assert store.has(before.fallback.sha256)


def third_on_probation(bench) -> None:
    """Version 3, after 2 and 1."""
    third = release(linear_onnx(3))
    SIGNER.add(third.manifest, "digits", 3)
    wanted = assignment(bench.device, third.manifest, version=3, probation=LONG)
    bench.inbox.desired(SIGNER.desired(wanted, sequence=9, length=len(third.manifest)))
    for _ in range(300):
        while bench.wire:
            bench.answer(bench.wire.pop(0), third)
        bench.updater.pump()
        bench.inbox.pump()
        if isinstance(bench.updater.state, OnProbation):
            return
    pytest.fail(f"stuck in {bench.updater.state}")


def active_gave_way(bench, monkeypatch) -> Pointer:
    """Version 2 is damaged, 1 serves, and the pointer could not be mended."""
    bench.run(document(bench, NEW), NEW, samples(2))
    pointer = read_pointer(bench.home.pointer)
    (bench.home.blobs / pointer.active.sha256).write_bytes(b"rot")
    bench.die()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(serving, "write_pointers", full)
        bench.start()
    assert (bench.serving(), read_pointer(bench.home.pointer)) == (1, pointer)
    return pointer


def test_where_the_fallback_is_lost_the_one_before_it_serves(bench):
    bench.run(document(bench, NEW), NEW, samples(2))
    third_on_probation(bench)
    state = bench.updater.state
    (bench.home.blobs / state.fallback.sha256).write_bytes(b"rot")
    fail(bench)
    bench.go_to(Ended)
    assert (bench.serving(), bench.updater.state.outcome) == (1, ExecState.ROLLED_BACK)
    assert read_pointer(bench.home.pointer) == Pointer(active=state.older)
    bench.die()
    bench.start()
    assert bench.serving() == 1


def test_an_update_falls_back_on_what_served_and_not_on_what_should_have(bench, monkeypatch):
    pointer = active_gave_way(bench, monkeypatch)
    third_on_probation(bench)
    assert bench.updater.state.fallback == pointer.fallback
    fail(bench)
    bench.go_to(Ended)
    assert (bench.serving(), bench.updater.state.outcome) == (1, ExecState.ROLLED_BACK)
    bench.die()
    bench.start()
    assert bench.serving() == 1


def test_a_fallback_that_serves_makes_no_room(bench, monkeypatch):
    pointer = active_gave_way(bench, monkeypatch)
    device = device_of(bench)
    object.__setattr__(device, "store", Store(bench.home, quota=1))
    with pytest.raises(DiskFullError):
        room.make_room(device, bench.updater.state, [model_file("m", linear_onnx(9))])
    assert read_pointer(bench.home.pointer) == pointer


def test_a_golden_run_that_fails_in_any_way_has_an_end(bench, monkeypatch):
    on_probation(bench)

    def fault(_data):
        return 1 + "a fault"

    monkeypatch.setattr(probation_watch, "read_golden", fault)
    device = device_of(bench)
    run = probation_watch.GoldenTrial(device.store, device.runtime, device.runtime.loaded())
    until(lambda: run.result, "the golden run")
    assert run.result.cause is DeviceCause.INTERNAL


def test_a_model_that_hung_is_taken_back_at_the_next_start_without_a_load(bench, monkeypatch):
    on_probation(bench)
    slot = bench.updater.state.slot
    bench.die()
    write_hang(bench.home, Hang(what="an inference", seconds=60, sha256=slot.sha256))
    loads = []
    real = serving.load_first
    monkeypatch.setattr(
        serving,
        "load_first",
        lambda store, *slots, **more: loads.append(slots) or real(store, *slots, **more),
    )
    bench.start()
    assert all(slot not in wanted for wanted in loads)
    last = bench.reports()[-1]
    assert (last.state, last.cause) == (ExecState.ROLLED_BACK, DeviceCause.HUNG)
    assert bench.serving() == 1
    assert read_hang(bench.home) is None


def test_a_hang_of_something_else_only_counts_the_start(bench):
    on_probation(bench)
    bench.die()
    write_hang(bench.home, Hang(what="the agent's loop", seconds=60))
    bench.start()
    assert isinstance(bench.updater.state, OnProbation)
    assert bench.updater.state.boots == 1
    assert "the watchdog ended the agent" in bench.problems.last
    assert read_hang(bench.home) is None


def test_a_model_slower_than_the_one_before_it_is_taken_back(bench):
    old = bench.runtime.slot()
    for _ in range(30):
        bench.runtime.times.add(old.sha256, 0.002)
    on_probation(bench, Probation(min_inferences=5, max_latency_ratio=3))
    new = bench.updater.state.slot
    for _ in range(5):
        bench.runtime.predict(samples(2))
    bench.runtime.times.begin(new.sha256)
    for _ in range(20):
        bench.runtime.times.add(new.sha256, 0.02)
    bench.go_to(Ended)
    last = bench.reports()[-1]
    assert last.cause is DeviceCause.TOO_SLOW
    assert "10.0 times" in last.detail
    assert bench.serving() == 1
    assert old.sha256 in read_past(bench.home.times).files


def test_a_peak_of_memory_is_no_growth_and_what_lasts_is(bench):
    rules = Probation(min_inferences=1000, max_memory_mb=50)
    on_probation(bench, rules)
    state, seen = bench.updater.state, []
    megabytes = itertools.chain([500.0, 110.0], itertools.repeat(500.0))
    watch = ProbationWatch(device_of(bench), apply=seen.append, memory=lambda: next(megabytes))
    for _ in range(60):
        watch.look(bench.updater.state)
    grown = [event.figures.grown_mb for event in seen]
    assert grown[0] is None
    assert grown[-1] == 500 - state.before_mb
    assert 110 - state.before_mb in grown


def test_the_golden_vectors_in_the_runtime_say_what_is_wrong(bench, monkeypatch):
    on_probation(bench)
    state, device = bench.updater.state, device_of(bench)
    good = probation_watch.GoldenTrial(device.store, device.runtime, device.runtime.loaded())
    until(lambda: good.result, "the golden run")
    assert good.result.detail is None
    monkeypatch.setattr(probation_watch, "read_golden", lambda _data: {})
    bad = probation_watch.GoldenTrial(device.store, device.runtime, device.runtime.loaded())
    until(lambda: bad.result, "the golden run")
    assert "lacks" in bad.result.detail
    assert bad.result.cause is DeviceCause.GOLDEN_MISMATCH
    assert device.runtime.busy.now() == []
    assert isinstance(state, OnProbation)


def test_the_fallback_makes_room_for_an_update_and_what_serves_never_does(bench):
    bench.run(document(bench, NEW), NEW, samples(2))
    device, state = device_of(bench), bench.updater.state
    pointer = read_pointer(bench.home.pointer)
    assert pointer.fallback is not None
    used = sum(path.stat().st_size for path in bench.home.blobs.iterdir())
    file = model_file("model.onnx", linear_onnx(9) + b"\0" * 10)
    object.__setattr__(device, "store", Store(bench.home, quota=used + file.size - 1))
    room.make_room(device, state, [file])
    assert read_pointer(bench.home.pointer) == Pointer(active=pointer.active)
    assert not device.store.has(pointer.fallback.sha256)
    assert device.store.has(pointer.active.sha256)
    object.__setattr__(device, "store", Store(bench.home, quota=file.size))
    with pytest.raises(DiskFullError):
        room.make_room(device, state, [file])
    assert device.store.has(pointer.active.sha256)


def test_what_a_birth_says_of_the_execution_is_what_was_reported(bench):
    assert bench.updater.seen is None
    on_probation(bench)
    last = bench.reports()[-1]
    seen = bench.updater.seen
    assert (seen.execution, seen.attempt) == (last.execution, last.attempt)
    assert (seen.state, seen.seq) == (last.state, last.seq)
    bench.die()
    bench.start()
    again = bench.reports()[-1]
    assert (bench.updater.seen.state, bench.updater.seen.seq) == (again.state, again.seq)


@pytest.mark.parametrize(
    ("status", "cause", "words"),
    [
        (-9, DeviceCause.OUT_OF_MEMORY, "memory runs out"),
        (-11, DeviceCause.LOAD_FAILED, "SIGSEGV"),
        (-24, DeviceCause.LOAD_FAILED, "CPU time"),
        (1, DeviceCause.LOAD_FAILED, "status 1"),
    ],
)
def test_how_a_trial_died_is_said(status, cause, words):
    verdict = died(status)
    assert verdict.cause is cause
    assert words in verdict.detail


def test_times_leave_out_the_first_ones_and_stay_bounded(tmp_path):
    timer = Timer()
    for number in range(2 * MAX_FILES):
        sha = f"{number:064x}"
        timer.begin(sha)
        for _ in range(WARM_UP):
            timer.add(sha, 9.0)
        for _ in range(20):
            timer.add(sha, 0.001 * (number + 1))
        timer.add("f" * 64, 9.0)
    assert timer.now(sha) == (20, 0.001 * 2 * MAX_FILES)
    path = tmp_path / "times.json"
    write_past(path, timer.past())
    again = Timer()
    again.recall(read_past(path))
    assert len(again.past().files) == MAX_FILES
    assert again.before(sha) == 0.001 * 2 * MAX_FILES
    assert again.before("0" * 64) is None
    for text in (b"", b"{", b'{"files": {"x": 1}}', b"x" * 100_000):
        path.write_bytes(text)
        assert read_past(path).files == {}


def test_troubles_are_told_with_what_to_do(bench, monkeypatch):
    now = dt.datetime.now(dt.UTC)
    assert troubles(bench.home, now) == ()
    early = troubles(bench.home, dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert [("clock" in t.what, "set the clock" in t.do) for t in early] == [(True, True)]
    write_hang(bench.home, Hang(what="an inference", seconds=3))
    bench.home.pointer.write_bytes(b"")
    told = [trouble.what for trouble in troubles(bench.home, now)]
    assert any("watchdog" in what for what in told)
    assert any("active.json is not usable" in what for what in told)

    class Full:
        f_flag, f_bavail, f_frsize = 0, 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    assert any("full" in trouble.what for trouble in troubles(bench.home, now))
    Full.f_flag = os.ST_RDONLY
    assert any("read-only" in trouble.what for trouble in troubles(bench.home, now))


def test_an_update_waits_while_it_is_being_fetched_and_no_network_is_there(bench):
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(Downloading)
    bench.updater.disconnected()
    for _ in range(50):
        bench.updater.pump()
    assert isinstance(bench.updater.state, Downloading)
    assert bench.serving() == 1
