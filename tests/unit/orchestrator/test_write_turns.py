"""Threads of one process take turns to write, and one that keeps it does not hang the others."""

from __future__ import annotations

import threading

import pytest

from orchestrator.adapters import unit_of_work
from orchestrator.errors import Unavailable


def test_a_second_writer_begins_when_the_first_has_committed_and_readers_do_not_wait(platform):
    order, begun, let_go = [], threading.Event(), threading.Event()

    def first():
        with platform.uow() as tx:
            tx.events.add("device", "first", {}, platform.clock())
            begun.set()
            let_go.wait(10)
            order.append("first")

    def second():
        with platform.uow() as tx:
            order.append("second")
            seen.extend(one.subject for one in tx.events.after(0, "first", 10))

    seen: list[str] = []
    writers = [threading.Thread(target=first), threading.Thread(target=second)]
    writers[0].start()
    assert begun.wait(10)
    writers[1].start()
    with platform.uow.read() as tx:
        assert list(tx.events.after(0, "first", 10)) == []
    let_go.set()
    for writer in writers:
        writer.join(10)
    assert (order, seen) == (["first", "second"], ["first"])


def fail_while_writing(platform):
    with platform.uow() as tx:
        tx.events.add("device", "lost", {}, platform.clock())
        raise KeyError


def test_a_writer_that_gets_no_turn_says_so_and_one_that_fails_gives_its_own_back(
    platform, monkeypatch
):
    monkeypatch.setattr(unit_of_work, "_BUSY_MS", 20)
    with platform.uow(), pytest.raises(Unavailable, match="another writer"), platform.uow():
        pass
    with pytest.raises(KeyError):
        fail_while_writing(platform)
    with platform.uow() as tx:
        assert list(tx.events.after(0, "lost", 10)) == []
