"""An update cut short at every write, begun again from the disk, and still right."""

from __future__ import annotations

import errno
import itertools
import json
from contextlib import suppress

import pytest

from edge_client import serving
from edge_client.errors import JournalError
from edge_client.settings import Home
from edge_client.slots import read_pointer
from edge_client.states import Ended, OnProbation
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, Probation
from schemas.topics import Down
from tests.fakes.edge_bench import (
    BAD,
    NEW,
    Bench,
    CrashError,
    FullOnce,
    Fuse,
    document,
)
from tests.fakes.edge_models import samples

ENDS = pytest.mark.parametrize(
    ("version", "inputs", "outcome", "serves"),
    [(NEW, samples(2), ExecState.SUCCEEDED, 2), (BAD, -samples(2), ExecState.ROLLED_BACK, 1)],
    ids=["good model", "failing model"],
)


@ENDS
def test_a_crash_at_any_write_leads_to_the_same_end(
    tmp_path, monkeypatch, version, inputs, outcome, serves
):
    crashes = 0
    for at in itertools.count():
        fuse = Fuse(at)
        bench = Bench(tmp_path / str(at), monkeypatch, fuse)
        offered = document(bench, version)
        for _ in range(3):
            try:
                bench.start()
                assert bench.serving() in {1, 2}  # something always serves
                bench.run(offered, version, inputs)
                break
            except CrashError:
                crashes += 1
                bench.die()
        reports = bench.reports()
        ends = {r.seq for r in reports if r.state is outcome}
        assert isinstance(bench.updater.state, Ended)
        assert bench.updater.state.outcome is outcome
        assert len(ends) == 1
        assert bench.serving() == serves
        assert read_pointer(bench.home.pointer).active.version == serves
        assert [r.seq for r in reports] == sorted({r.seq for r in reports})
        bench.die()
        if fuse.left is not None:
            break  # the fuse was longer than the run: every write was tried
    assert crashes > 15


@ENDS
def test_one_full_disk_at_any_write_leads_to_the_same_end_without_a_restart(
    tmp_path, monkeypatch, version, inputs, outcome, serves
):
    failed = 0
    for at in itertools.count():
        fuse = FullOnce(at)
        bench = Bench(tmp_path / str(at), monkeypatch, fuse)
        bench.start()
        assert bench.serving() == 1
        bench.run(document(bench, version), version, inputs)
        assert bench.updater.state.outcome is outcome
        assert bench.serving() == serves
        assert read_pointer(bench.home.pointer).active.version == serves
        reports = bench.reports()
        assert [r.state for r in reports].count(outcome) == 1
        assert [r.seq for r in reports] == sorted({r.seq for r in reports})
        bench.die()
        if fuse.left is not None:
            break
        failed += 1
    assert failed >= 8  # six reports and what lies between them, and the pointer


def test_a_pointer_that_can_never_be_written_takes_the_update_back(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()

    def never(_path, pointers) -> None:
        if pointers.of("digits").active.version == 2:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(serving, "write_pointers", never)
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.updater.state.outcome is ExecState.ROLLED_BACK
    assert bench.reports()[-1].cause is DeviceCause.INTERNAL
    assert bench.serving() == 1
    bench.die()


def test_a_journal_that_cannot_be_written_leaves_the_state_as_it_was(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    bench.journal._db.execute("PRAGMA query_only = 1")
    before = bench.updater.state
    bench.inbox.take(Down.DESIRED, document(bench, NEW))
    with suppress(JournalError):
        for _ in range(100):
            bench.go_on(NEW, samples(2))
    assert "readonly" in bench.problems.last
    assert bench.updater.state == before
    assert bench.serving() == 1
    bench.journal._db.execute("PRAGMA query_only = 0")
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.serving() == 2
    bench.die()


def test_an_active_model_that_was_damaged_on_the_disk_gives_way_to_the_fallback(
    tmp_path, monkeypatch
):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.serving() == 2
    bench.die()
    pointer = read_pointer(bench.home.pointer)
    (bench.home.blobs / pointer.active.sha256).write_bytes(b"rot")
    bench.start()
    assert bench.serving() == 1
    assert read_pointer(bench.home.pointer).active.version == 1
    bench.die()


def test_a_model_on_probation_that_cannot_be_loaded_any_more_is_taken_back(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    bench.inbox.desired(document(bench, NEW, probation=Probation(min_inferences=1000)))
    while not isinstance(bench.updater.state, OnProbation):
        while bench.wire:
            bench.answer(bench.wire.pop(0), NEW)
        bench.updater.pump()
    bench.die()
    (bench.home.blobs / read_pointer(bench.home.pointer).active.sha256).unlink()
    bench.start()
    assert bench.serving() == 1
    assert bench.reports()[-1].state is ExecState.ROLLED_BACK
    assert bench.reports()[-1].cause is DeviceCause.LOAD_FAILED
    bench.die()


def test_a_new_identity_does_not_go_on_with_the_update_of_the_old_one(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    bench.inbox.desired(document(bench, NEW))
    bench.die()
    record = Home(bench.home.root).identity / "identity.json"
    fields = json.loads(record.read_text()) | {"device": "dev_0000000000000009"}
    record.write_text(json.dumps(fields))
    bench.start()
    assert bench.serving() == 1
    bench.run(document(bench, NEW, device="dev_0000000000000009"), NEW, samples(2))
    assert bench.serving() == 2
    bench.die()
