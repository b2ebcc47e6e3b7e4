"""Putting the model before back by hand, with an agent and without, whatever the disk does."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from edge_client import errand, rollback
from edge_client.errors import EdgeError, NoAnswerError, NothingBeforeError, RollbackError
from edge_client.journal import ROLLED_BACK
from edge_client.lock import agent_lock
from edge_client.rollback_command import roll_back
from edge_client.rollback_desk import RollbackDesk
from edge_client.slots import read_pointer
from edge_client.states import Downloading, Ended, Idle, OnProbation
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, Probation
from tests.fakes.edge_bench import NEW, SIGNER, Bench, FullOnce, Fuse, document
from tests.fakes.edge_models import linear_onnx, release, samples
from tests.fakes.edge_trust import assignment

LONG = Probation(min_inferences=1000, max_boots=50)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    bench.start()
    yield bench
    bench.die()


def ask(bench, *, give_up=False) -> RollbackDesk:
    asked = rollback.wanted(bench.home, id_="1", give_up=give_up)
    bench.home.rollback.write_text(asked.model_dump_json())
    return RollbackDesk(bench.updater._device, bench.updater)


def answered(bench) -> errand.Answered | None:
    return errand.read_answer(bench.home.rolled_back, "1")


def updated(bench) -> None:
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.serving() == 2


def ends(bench) -> list:
    return [(r.state, r.cause) for r in bench.reports()][-2:]


def test_after_its_success_an_update_is_taken_back_and_the_server_is_told_once_more(bench):
    updated(bench)
    before = bench.reports()[-1]
    ask(bench).look()
    assert answered(bench).error is None
    assert not bench.home.rollback.exists()
    last = bench.reports()[-1]
    assert (last.execution, last.state) == (before.execution, ExecState.ROLLED_BACK)
    assert (last.cause, last.seq) == (DeviceCause.OPERATOR, before.seq + 1)
    assert bench.serving() == read_pointer(bench.home.pointer).active.version == 1
    assert bench.updater.rolled_back
    assert bench.updater.seen.seq == last.seq
    bench.die()
    bench.start()
    assert (bench.serving(), bench.updater.rolled_back) == (1, True)
    count = len(bench.reports())
    bench.inbox.desired(document(bench, NEW))  # another execution: a new decision of the server
    bench.run(document(bench, NEW), NEW, samples(2))
    assert len(bench.reports()) > count
    assert (bench.serving(), bench.updater.rolled_back) == (2, False)


def test_on_probation_it_ends_the_update(bench):
    bench.inbox.desired(document(bench, NEW, probation=LONG))
    bench.go_to(OnProbation)
    ask(bench).look()
    assert answered(bench).error is None
    assert ends(bench)[-1] == (ExecState.ROLLED_BACK, DeviceCause.OPERATOR)
    assert (bench.serving(), bench.updater.rolled_back) == (1, True)


def test_an_update_under_way_is_given_up_only_when_that_was_said(bench):
    updated(bench)
    third = release(linear_onnx(3))
    SIGNER.add(third.manifest, "digits", 3)
    wanted = assignment(bench.device, third.manifest, version=3)
    bench.inbox.desired(SIGNER.desired(wanted, sequence=9, length=len(third.manifest)))
    for _ in range(200):
        if isinstance(bench.updater.state, Downloading):
            break
        while bench.wire and not isinstance(bench.updater.state, Downloading):
            bench.answer(bench.wire.pop(0), third)
        bench.updater.pump()
        bench.inbox.pump()
    ask(bench).look()
    assert "under way" in answered(bench).error
    assert "--to-fallback" in answered(bench).hint
    assert isinstance(bench.updater.state, Downloading)
    ask(bench, give_up=True).look()
    assert answered(bench).error is None
    assert ends(bench)[-1] == (ExecState.FAILED, DeviceCause.OPERATOR)
    assert (bench.serving(), bench.updater.rolled_back) == (1, True)


def test_what_cannot_be_loaded_is_not_gone_back_to(bench):
    updated(bench)
    fallback = read_pointer(bench.home.pointer).fallback
    (bench.home.blobs / fallback.sha256).write_bytes(b"rot")
    ask(bench).look()
    assert "so the active model stays" in answered(bench).error
    assert bench.serving() == read_pointer(bench.home.pointer).active.version == 2


def test_a_request_that_another_update_overtook_is_refused(bench):
    updated(bench)
    desk = ask(bench)
    asked = rollback.read_asked(bench.home)
    other = asked.model_copy(update={"slot": asked.fallback})
    bench.home.rollback.write_text(other.model_dump_json())
    desk.look()
    assert "is active by now" in answered(bench).error
    assert bench.serving() == 2


@pytest.mark.parametrize("text", ["", "{", '{"id": 3}', "x" * 100_000])
def test_garbage_in_place_of_a_request_is_removed(bench, text):
    bench.home.rollback.write_text(text)
    RollbackDesk(bench.updater._device, bench.updater).look()
    assert not bench.home.rollback.exists()
    assert bench.serving() == 1


def test_a_disk_that_is_full_once_at_any_write_leads_to_the_same_end(tmp_path, monkeypatch):
    for at in itertools.count():
        bench = Bench(tmp_path / str(at), monkeypatch, Fuse(None))
        bench.start()
        updated(bench)
        bench.fuse = fuse = FullOnce(at)
        desk = ask(bench)
        for _ in range(50):
            with contextlib.suppress(EdgeError, OSError):
                desk.look()
                bench.updater.pump()
            if answered(bench):
                break
        assert answered(bench).error is None
        assert bench.serving() == read_pointer(bench.home.pointer).active.version == 1
        said = [r for r in bench.reports() if r.state is ExecState.ROLLED_BACK]
        assert len(said) == 1
        bench.die()
        if fuse.left is not None:
            break
    assert at >= 3


def test_without_an_agent_the_command_does_it_itself(bench):
    updated(bench)
    bench.die()
    slot = roll_back(bench.home, give_up=False)
    assert slot.version == read_pointer(bench.home.pointer).active.version == 1
    with pytest.raises(NothingBeforeError):
        roll_back(bench.home, give_up=False)
    bench.start()
    assert bench.serving() == 1
    assert ends(bench) == [
        (ExecState.SUCCEEDED, None),
        (ExecState.ROLLED_BACK, DeviceCause.OPERATOR),
    ]
    assert bench.journal.fact(ROLLED_BACK) == 1.0
    assert isinstance(bench.updater.state, Ended)


def test_without_a_journal_that_knows_the_update_the_pointer_is_enough(bench):
    updated(bench)
    bench.die()
    for path in bench.home.root.glob("journal.db*"):
        path.unlink()
    roll_back(bench.home, give_up=False)
    bench.start()
    assert isinstance(bench.updater.state, Idle)
    assert (bench.serving(), bench.updater.rolled_back) == (1, True)


def test_an_agent_that_does_not_answer_is_told_of(bench):
    updated(bench)
    with agent_lock(bench.home), pytest.raises(NoAnswerError):
        roll_back(bench.home, give_up=False, wait=0.2)
    assert not bench.home.rollback.exists()


def test_what_an_agent_refuses_is_the_commands_error(bench, monkeypatch):
    updated(bench)
    answer = errand.Answered(id="", error="no", hint="later")
    monkeypatch.setattr(
        errand, "read_answer", lambda _path, id_: answer.model_copy(update={"id": id_})
    )
    with agent_lock(bench.home), pytest.raises(RollbackError, match="no"):
        roll_back(bench.home, give_up=False)
