"""The codec's bytes, against those that paho makes and against damage."""

from __future__ import annotations

import io

import pytest
from paho.mqtt.client import Client, MQTTMessageInfo, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.simulator import codec
from orchestrator.simulator.codec import CodecError


class Recorded(Client):
    """paho, whose packets are kept and not sent."""

    def __init__(self) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id="dev_1", protocol=MQTTv5)
        self.sent: list[bytes] = []
        self._sock = io.BytesIO()

    def _packet_queue(self, command, packet, mid, qos, info=None):  # noqa: ARG002 - paho's
        self.sent.append(bytes(packet))
        return 0


@pytest.fixture
def paho() -> Recorded:
    return Recorded()


def test_a_connect_is_pahos(paho):
    paho.will_set("d/1/up/death", b"gone", qos=1)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 604_800
    properties.MaximumPacketSize = codec.MAX_PACKET
    paho._clean_start, paho._connect_properties = False, properties
    paho._send_connect(20)
    mine = codec.connect("dev_1", keepalive=20, expiry=604_800, will=("d/1/up/death", b"gone"))
    assert mine == paho.sent[0]


@pytest.mark.parametrize("payload", [b"", b"x" * 300, b"y" * 70_000])
def test_a_retained_publish_is_pahos(paho, payload):
    properties = Properties(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = 30
    info = MQTTMessageInfo(7)
    paho._send_publish(7, b"d/1/up/birth", payload, 1, True, False, info, properties)  # noqa: FBT003
    mine = codec.publish("d/1/up/birth", payload, pid=7, retain=True, expiry=30)
    assert mine == paho.sent[0]


def test_a_subscribe_and_a_puback_are_pahos(paho):
    paho._send_puback(300)
    assert codec.puback(300) == paho.sent[0]
    read = codec.split(bytearray(codec.subscribe(9, "d/1/down/+")))
    assert read[0].kind == 8
    assert codec.acked(read[0]) == 9


def test_a_message_is_read_back():
    sent = codec.publish("d/1/down/cmd", b"{}", pid=5, expiry=10)
    (packet,) = codec.split(bytearray(sent))
    message = codec.message_of(packet)
    assert (message.topic, message.payload, message.qos, message.pid) == (
        "d/1/down/cmd", b"{}", 1, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\xff\xff\xff\x7f" + b"x" * 10,
    ],
)
def test_lengths_that_are_none_or_too_large_are_refused(bad):
    with pytest.raises(CodecError):
        codec.split(bytearray(bad))


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x09abc", b"\x00\x01\xff", b"\x00\x01a"])
def test_a_message_that_is_cut_short_is_refused(body):
    with pytest.raises(CodecError):
        codec.message_of(codec.Packet(codec.PUBLISH, 2, body))


def test_a_connack_without_a_reason_is_refused():
    with pytest.raises(CodecError):
        codec.reason_of(codec.Packet(codec.CONNACK, 0, b"\x00"))
