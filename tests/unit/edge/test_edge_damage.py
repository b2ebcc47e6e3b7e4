"""A start on a full disk or on damaged files still serves what can be served."""

from __future__ import annotations

import pytest

from edge_client import serving
from edge_client.errors import JournalError
from edge_client.events import CancelRequested
from edge_client.journal import Journal
from edge_client.slots import Pointers, copy_of, find_pointers, read_pointer, write_pointers
from edge_client.states import Accepted, Downloading, Ended, OnProbation, Verified
from schemas.rollout import ExecState, Probation
from tests.fakes.edge_bench import NEW, RULES, SIGNER, Bench, Fuse, document
from tests.fakes.edge_models import samples
from tests.fakes.edge_trust import assignment


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    yield bench
    bench.die()


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be filled."""

    class Disk:
        full = False

    commit, point = Journal.commit, serving.write_pointers

    def try_commit(self, *args, **kwargs) -> None:
        if Disk.full:
            msg = "database or disk is full"
            raise JournalError(msg)
        commit(self, *args, **kwargs)

    def try_point(path, pointer) -> None:
        if Disk.full:
            raise OSError(28, "No space left on device")
        point(path, pointer)

    monkeypatch.setattr(Journal, "commit", try_commit)
    monkeypatch.setattr(serving, "write_pointers", try_point)
    return Disk


def watched(bench) -> bytes:
    """An offer that stays on probation."""
    return document(bench, NEW, probation=Probation(min_inferences=3, max_boots=2))


@pytest.mark.parametrize("state", [Accepted, Downloading, Verified])
def test_a_start_on_a_full_disk_serves_and_goes_on_when_there_is_room(bench, disk, state):
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(state)
    bench.die()
    disk.full = True
    bench.start()
    assert bench.serving() == 1
    disk.full = False
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.updater.state.outcome is ExecState.SUCCEEDED
    assert bench.serving() == 2


def test_a_model_on_trial_does_not_serve_while_its_starts_cannot_be_counted(bench, disk):
    bench.inbox.desired(watched(bench))
    bench.go_to(OnProbation)
    for _ in range(4):  # more starts than it has, none of which is written
        bench.die()
        disk.full = True
        bench.start()
        assert bench.serving() == 1
    disk.full = False
    bench.run(watched(bench), NEW, samples(2))
    assert bench.updater.state.outcome is ExecState.SUCCEEDED
    assert bench.serving() == 2


def test_what_is_being_taken_back_does_not_serve_on_a_full_disk(bench, disk):
    bench.inbox.desired(watched(bench))
    bench.go_to(OnProbation)
    for _ in range(3):
        disk.full = bench.updater.state.boots == 2
        bench.die()
        bench.start()
    assert bench.serving() == 1
    disk.full = False
    bench.run(watched(bench), NEW, samples(2))
    assert bench.serving() == 1
    assert read_pointer(bench.home.pointer).active.version == 1


@pytest.mark.parametrize("text", [b"", b"{", b'{"active": 3}', None])
def test_a_damaged_pointer_gives_way_to_its_copy_and_is_mended(bench, text):
    bench.run(document(bench, NEW), NEW, samples(2))
    bench.die()
    if text is None:
        bench.home.pointer.unlink()
    else:
        bench.home.pointer.write_bytes(text)
    assert "active.json is not usable" in find_pointers(bench.home.pointer).damage
    bench.start()
    assert bench.serving() == 2
    assert find_pointers(bench.home.pointer).damage is None


def test_a_damaged_copy_is_written_anew(bench):
    bench.die()
    copy_of(bench.home.pointer).write_bytes(b"rot")
    bench.start()
    assert bench.serving() == 1
    assert find_pointers(bench.home.pointer).damage is None


def test_nothing_is_removed_while_nobody_knows_what_is_in_use(bench):
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(Verified)
    bench.die()
    for path in (bench.home.pointer, copy_of(bench.home.pointer)):
        path.write_bytes(b"")
    before = set(bench.home.blobs.iterdir())
    bench.start()
    assert bench.serving() is None
    bench.updater.apply(CancelRequested(key=bench.updater.state.offer.key))
    assert isinstance(bench.updater.state, Ended)
    assert set(bench.home.blobs.iterdir()) == before


def test_a_device_without_a_pointer_has_nothing_damaged(tmp_path):
    assert find_pointers(tmp_path / "active.json") == find_pointers(tmp_path / "other.json")
    assert find_pointers(tmp_path / "active.json").pointers == Pointers()
    write_pointers(tmp_path / "active.json", Pointers())
    assert find_pointers(tmp_path / "active.json").damage is None


def test_a_cancelled_attempt_leaves_what_it_fetched_to_the_next_one(bench):
    bench.inbox.desired(document(bench, NEW))
    bench.go_to(Verified)
    fetched = set(bench.home.blobs.iterdir())
    bench.updater.apply(CancelRequested(key=bench.updater.state.offer.key))
    assert isinstance(bench.updater.state, Ended)
    assert set(bench.home.blobs.iterdir()) == fetched
    wanted = assignment(bench.device, NEW.manifest, version=2, probation=RULES)
    again = wanted.model_copy(update={"attempt": wanted.attempt + 1})
    bench.asked.clear()
    bench.run(SIGNER.desired(again, sequence=2, length=len(NEW.manifest)), NEW, samples(2))
    assert bench.updater.state.outcome is ExecState.SUCCEEDED
    assert bench.asked == ["manifest"]


def test_garbage_in_place_of_a_document_is_ignored_and_asks_for_nothing(bench):
    while bench.wire:
        bench.answer(bench.wire.pop(0), NEW)
    for raw in (b"{", b'{"signed": 1}', b"[" * 100_000, SIGNER.files["timestamp.json"]):
        bench.inbox.desired(raw)
        assert bench.wire == []
        assert "malformed" in bench.problems.last
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.serving() == 2


def test_a_document_that_comes_again_is_not_checked_again(bench):
    offered = document(bench, NEW)
    bench.run(offered, NEW, samples(2))
    ended = bench.reports()[-1]
    bench.inbox.desired(offered)
    assert bench.wire == []
    assert bench.reports()[-1] == ended
