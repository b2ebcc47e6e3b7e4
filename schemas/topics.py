"""MQTT topic names: built and parsed here and nowhere else.

``d/<device>/up/<leaf>`` is written by that device alone, ``d/<device>/down/<leaf>``
is read by that device alone. The broker's ACL follows from the patterns below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from schemas.ids import device_id_pattern


class Up(StrEnum):
    """What a device publishes."""

    BIRTH = "birth"
    DEATH = "death"
    EXEC = "exec"
    TELE = "tele"
    NEED = "need"
    ASK = "ask"
    BENCH = "bench"
    RENEW = "renew"
    META = "meta"
    TIME = "time"
    SAMPLE = "sample"


class Down(StrEnum):
    """What a device receives."""

    DESIRED = "desired"
    CMD = "cmd"
    CHUNK = "chunk"
    REPLY = "reply"
    RENEW = "renew"
    RENEWED = "renewed"
    META = "meta"
    TIME = "time"


ALL_UP = "d/+/up/+"
"""The filter by which the gateway hears every device."""

ACL_DEVICE_WRITES = tuple(f"d/%u/up/{leaf}" for leaf in Up)
"""One for each message there is: with a wildcard, a device could leave retained messages under
as many names as it likes, which nobody would ever clear from the broker's memory."""

ACL_DEVICE_READ = "d/%u/down/#"
ACL_SHARED_READ = "m/#"

SHARED_NEEDS = "$share/transfer/d/+/up/need"
"""Requests for chunks, each of which goes to one of the processes that answer them."""

UP_OF_SERVER = tuple(f"d/+/up/{leaf}" for leaf in Up if leaf is not Up.NEED)
"""The filters by which the gateway hears everything else."""

ALL_DEATHS = f"d/+/up/{Up.DEATH}"

PEERS = "g/transfer/+"
"""What the processes that answer requests for chunks tell each other. No device reads it."""

_BROADCAST = re.compile(r"^m/([0-9a-f]{64})/chunk$")
_UP = re.compile(rf"^d/({device_id_pattern()})/up/([a-z]+)$")
_DOWN = re.compile(rf"^d/({device_id_pattern()})/down/([a-z]+)$")


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A parsed ``d/<device>/up/<leaf>``."""

    device: str
    leaf: Up


@dataclass(frozen=True, slots=True)
class DownTopic:
    """A parsed ``d/<device>/down/<leaf>``."""

    device: str
    leaf: Down


def up(device: str, leaf: Up) -> str:
    """The topic on which ``device`` publishes ``leaf``."""
    return f"d/{device}/up/{leaf}"


def down(device: str, leaf: Down) -> str:
    """The topic on which ``device`` receives ``leaf``."""
    return f"d/{device}/down/{leaf}"


def down_filter(device: str) -> str:
    """The filter by which ``device`` hears everything meant for it."""
    return f"d/{device}/down/+"


def broadcast(sha256: str) -> str:
    """The topic on which a file's chunks are sent to all who listen."""
    return f"m/{sha256}/chunk"


def peer(name: str) -> str:
    """The topic on which the transfer process of that name says how busy it is."""
    return f"g/transfer/{name}"


def parse_broadcast(topic: str) -> str | None:
    """The SHA-256 of the file that a broadcast topic is of; None when it is not one."""
    found = _BROADCAST.match(topic)
    return None if found is None else found[1]


def parse_up(topic: str) -> UpTopic | None:
    """Read an up topic; None when it is not one."""
    found = _UP.match(topic)
    if found is None or found[2] not in set(Up):
        return None
    return UpTopic(found[1], Up(found[2]))


def parse_down(topic: str) -> DownTopic | None:
    """Read a down topic; None when it is not one."""
    found = _DOWN.match(topic)
    if found is None or found[2] not in set(Down):
        return None
    return DownTopic(found[1], Down(found[2]))
