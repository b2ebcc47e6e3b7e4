from __future__ import annotations

import threading
import time

import pytest
from argosy_fake_platform import NOW, State

from orchestrator.client import Argosy
from orchestrator.client.errors import Unauthenticated, Unavailable, UnreachableError
from orchestrator.client.events import LONGEST_PAUSE, Bell, EventStream, pause
from orchestrator.client.profile import Profile
from orchestrator.client.transport import Transport
from schemas.api import Event


def event(number: int, subject: str = "a") -> Event:
    return Event(id=number, at=NOW, kind="job", subject=subject, data={"state": "RUNNING"})


def stream(argosy: Argosy, **options: object) -> EventStream:
    return EventStream(argosy._transport, sleep=lambda _s: False, **options)  # type: ignore[arg-type]


def test_events_after_one_of_one_subject(argosy: Argosy, fake: State) -> None:
    fake.events = [event(1), event(2), event(3, "b"), event(4)]
    events = iter(argosy.events("a", after=1))
    assert [next(events).id, next(events).id] == [2, 4]


def test_a_lost_connection_goes_on_where_it_was(argosy: Argosy, fake: State) -> None:
    fake.events = [event(i) for i in range(1, 6)]
    fake.events_per_connection = 2
    events = iter(stream(argosy))
    assert [next(events).id for _ in range(5)] == [1, 2, 3, 4, 5]
    asked = [params.get("after") for _, path, params in fake.seen if path == "/v1/events"]
    assert asked == [None, "2", "4"]


def test_an_outage_is_waited_out(argosy: Argosy, fake: State) -> None:
    fake.events, fake.outages = [event(1)], 3
    assert next(iter(stream(argosy))).id == 1
    assert fake.outages == 0


def test_an_outage_beyond_patience_is_an_error(argosy: Argosy, fake: State) -> None:
    fake.outages = 10**6
    with pytest.raises(Unavailable, match="starting up"):
        next(iter(stream(argosy, patience=0.0)))


def test_a_refusal_is_not_tried_again(fake_server: tuple[str, State], fake: State) -> None:
    with Argosy(fake_server[0], "wrong") as client, pytest.raises(Unauthenticated):
        next(iter(client.events()))
    assert len(fake.seen) == 1


def test_nobody_there_is_said_when_patience_ends() -> None:
    transport = Transport(Profile("http://127.0.0.1:1", "t"))
    with pytest.raises(UnreachableError):
        next(iter(EventStream(transport, patience=0.0)))


def test_closing_from_another_thread_wakes_the_reader(argosy: Argosy, fake: State) -> None:
    events = argosy.events()
    ended = threading.Event()

    def read() -> None:
        list(events)
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + 5
    while events._response is None and time.monotonic() < deadline:
        time.sleep(0.005)
    events.close()
    assert ended.wait(5)


def test_the_bell_rings_at_an_event(argosy: Argosy, fake: State) -> None:
    with Bell(argosy._transport, "a") as bell:
        fake.events = [event(1)]
        start = time.monotonic()
        bell.wait(20)
        assert time.monotonic() - start < 10


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    assert [pause(n, 1.0) for n in range(4)] == [0.2, 0.4, 0.8, 1.6]
    assert pause(10**6, 1.0) == LONGEST_PAUSE
    assert pause(3, 0.0) == 0.8
