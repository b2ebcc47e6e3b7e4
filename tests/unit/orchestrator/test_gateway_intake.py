"""What the gateway takes when more comes than it can store."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from orchestrator.adapters import committer, mqtt
from orchestrator.adapters.broker import Gateway
from schemas.ids import new_id
from schemas.topics import Up, up


class Client:
    def __init__(self) -> None:
        self.acked: list[int] = []

    def ack(self, mid: int, _qos: int) -> None:
        self.acked.append(mid)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> mqtt.MqttGateway:
    monkeypatch.setattr(committer, "MAX_INBOX", 60)
    monkeypatch.setattr(committer, "MAX_UNACKED", 20)
    address = Gateway("127.0.0.1", 1, "gateway", "secret")
    return mqtt.MqttGateway(address, None, lambda _device: True, lambda _device, _ask: None)


def test_a_flood_that_nobody_acknowledges_leaves_room_for_what_is(gateway) -> None:
    client, mids = Client(), count(1)
    flooding, other = new_id("dev"), new_id("dev")

    def sent(device: str, qos: int) -> None:
        message = SimpleNamespace(
            topic=up(device, Up.TELE), payload=b"{}", qos=qos, retain=False, mid=next(mids)
        )
        gateway._on_message(client, None, message)

    for _ in range(200):
        sent(flooding, 0)
    for _ in range(20):
        sent(other, 1)
    inbox = gateway._committer._inbox
    waiting = [inbox.get_nowait() for _ in range(inbox.qsize())]
    assert len(waiting) == 60
    assert sum(message.topic.device == other for message in waiting) == 20
    assert client.acked == [], "not before they are stored"
