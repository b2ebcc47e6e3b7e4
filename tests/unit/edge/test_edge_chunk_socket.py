"""Chunks taken out of a TLS stream, whatever pieces it comes in."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge_client.chunk_socket import BUFFER_BYTES, Tap, tapped
from tests.fakes.gateway import Ca, key_pem

CHUNKS, OTHER = "d/dev_1/down/chunk", "d/dev_1/down/reply"


def publish(topic: str, payload: bytes, *, qos: int = 0, properties: bytes = b"\x00") -> bytes:
    """A PUBLISH of MQTT 5."""
    mid = b"\x00\x07" if qos else b""
    rest = len(topic).to_bytes(2, "big") + topic.encode() + mid + properties + payload
    size, head = len(rest), bytearray([0x30 | qos << 1])
    while True:
        size, byte = divmod(size, 128)
        head.append(byte | (128 if size else 0))
        if not size:
            return bytes(head) + rest


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca, folder = Ca(), tmp_path_factory.mktemp("ca")
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "key").write_bytes(key_pem(key))
    (folder / "cert").write_bytes(ca.issue("server", key.public_key(), server=True))
    (folder / "ca").write_bytes(ca.pem)
    return folder


class Stream:
    """A tapped connection, and what came out of it on both sides."""

    def __init__(self, ca, topics: set[str], stream: bytes, seed: int) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.library = bytearray()
        self.tap = Tap(lambda topic, view: self.taken.append((topic, bytes(view))))
        self.tap.listen(topics)
        self.random = random.Random(seed)  # noqa: S311 - pieces by seed
        mine, theirs = socket.socketpair()
        client = tapped(ssl.create_default_context(cafile=str(ca / "ca")), self.tap)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(str(ca / "cert"), str(ca / "key"))
        sender = threading.Thread(target=self._send, args=(server, theirs, stream), daemon=True)
        sender.start()
        with client.wrap_socket(mine, server_hostname="127.0.0.1") as sock:
            sock.settimeout(0)
            self._read(sock)
        sender.join(5)

    def _send(self, context: ssl.SSLContext, raw: socket.socket, stream: bytes) -> None:
        with context.wrap_socket(raw, server_side=True) as sock:
            at = 0
            while at < len(stream):
                size = self.random.choice([1, 3, 70, 5_000, 16_384, 70_000])
                sock.sendall(stream[at : at + size])
                at += size
            with contextlib.suppress(OSError):
                sock.unwrap()  # the other end does not say goodbye

    def _read(self, sock: ssl.SSLSocket) -> None:
        """As the library does: wait unless something is pending, then read a little."""
        while True:
            if not sock.pending():
                assert select.select([sock], [], [], 10)[0], "nothing comes"
            try:
                data = sock.recv(self.random.choice([1, 2, 100, 70_000]))
            except ssl.SSLWantReadError:
                continue
            if not data:
                return
            self.library += data


@pytest.mark.parametrize("seed", range(6))
def test_chunks_and_the_rest_come_out_whole_and_in_order(ca, seed):
    rng = random.Random(seed)  # noqa: S311 - messages by seed
    chunks, rest, stream = [], b"", b""
    for _ in range(40):
        body = rng.randbytes(rng.choice([0, 1, 20, 100, 16_000, 65_556]))
        kind = rng.randrange(6)
        if kind < 3:
            chunks.append((CHUNKS, body))
            stream += publish(CHUNKS, body)
            continue
        other = [publish(OTHER, body), publish(CHUNKS, body, qos=1), b"\xd0\x00"][kind - 3]
        rest += other
        stream += other
    big = publish(OTHER, rng.randbytes(BUFFER_BYTES * 2))
    found = Stream(ca, {CHUNKS}, stream + big + publish(CHUNKS, b"last"), seed)
    assert found.taken == [*chunks, (CHUNKS, b"last")]
    assert bytes(found.library) == rest + big


def test_only_topics_that_are_listened_to_are_taken(ca):
    stream = publish("m/ab/chunk", b"one") + publish(CHUNKS, b"two")
    found = Stream(ca, {"m/ab/chunk"}, stream, 1)
    assert found.taken == [("m/ab/chunk", b"one")]
    assert bytes(found.library) == publish(CHUNKS, b"two")


def test_properties_are_skipped_and_a_list_of_them_too_long_to_be_true_is_dropped(ca):
    properties = b"\x05\x02\x00\x00\x00\x09"
    stream = publish(CHUNKS, b"a", properties=properties) + publish(
        CHUNKS, b"b", properties=b"\xff\x7f"
    )
    stream += publish(CHUNKS, b"c", properties=b"\x64") + publish(CHUNKS, b"d")
    assert Stream(ca, {CHUNKS}, stream, 2).taken == [(CHUNKS, b"a"), (CHUNKS, b""), (CHUNKS, b"d")]


@pytest.mark.parametrize(
    "bad", [b"\x30\xff\xff\xff\xff\x7f", b"\x30\x00", b"\x30\x01\x00", b"\x30\x02\xff\xff"]
)
def test_what_is_malformed_is_left_to_the_library(ca, bad):
    found = Stream(ca, {CHUNKS}, publish(CHUNKS, b"a") + bad, 3)
    assert found.taken == [(CHUNKS, b"a")]
    assert bytes(found.library) == bad
