"""What is read of HTTP, what is refused, and where listening is allowed."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.errors import UsageError
from edge_client.server.addresses import TcpAddress, UnixAddress, is_local, parse_address
from edge_client.server.coding import decoded, encoded, wanted_coding
from edge_client.server.connection import Held
from edge_client.server.failures import Kind, RequestError
from edge_client.server.limits import Limits
from edge_client.server.pace import Pace
from edge_client.server.reader import Reader, Request
from edge_client.server.request import Posted, read_ask

LIMITS = Limits(head=2000, headers=10, body=5000, held=8000)
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: %d\r\n\r\n"


def reader(held: Held | None = None, *, check_host: bool = True) -> Reader:
    return Reader(LIMITS, check_host=check_host, take=(held or Held(LIMITS.held)).take)


def read(data: bytes, *, sizes: int = 65536, **more) -> list[Request | RequestError]:
    one = reader(**more)
    for at in range(0, len(data), sizes):
        one.feed(memoryview(data)[at : at + sizes])
    return list(one.ready)


@pytest.mark.parametrize("sizes", [1, 2, 7, 100, 65536])
def test_requests_are_the_same_in_any_pieces(sizes):
    data = b"".join(
        (
            b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nX: y\r\n\r\n",
            POST % 5 + b"hello",
            b"POST /c HTTP/1.1\r\nHost: [::1]:8000\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
            b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\nwhat follows",
        )
    )
    found = read(data, sizes=sizes)
    assert [(r.method, r.target, r.body, r.keep_alive) for r in found] == [
        (b"GET", b"/v2", b"", True),
        (b"POST", b"/v2/models/m/infer", b"hello", True),
        (b"POST", b"/c", b"abcde", True),
        (b"HEAD", b"/", b"", False),
    ]


@pytest.mark.parametrize("sizes", [1, 13, 65536])
def test_an_upgrade_that_is_not_made_leaves_the_request_as_it_is(sizes):
    # What Java's client sends first: a body, and the wish to go on in HTTP/2.
    data = (
        b"POST /a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 4\r\n\r\nbody"
    )
    found = read(data + POST % 2 + b"ok", sizes=sizes)
    assert [(r.target, r.body) for r in found] == [
        (b"/a", b"body"),
        (b"/v2/models/m/infer", b"ok"),
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"nonsense\r\n\r\n", Kind.INVALID),
        (b"\x16\x03\x01\x02\x00\x01\x00", Kind.INVALID),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", Kind.INVALID),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Kind.FORBIDDEN),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://x.example\r\n\r\n", Kind.FORBIDDEN),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", Kind.INVALID),
        (POST % 5001, Kind.TOO_LARGE),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Kind.INVALID),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Kind.INVALID,
        ),
        (b"POST / HTTP/1.1\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\n", Kind.INVALID),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", Kind.METHOD),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 11 + b"\r\n", Kind.HEAD),
        (b"GET /" + b"a" * 3000, Kind.HEAD),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 3000, Kind.HEAD),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1388\r\n" + b"a" * 5001,
            Kind.INVALID,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1389\r\n" + b"a" * 5001,
            Kind.TOO_LARGE,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"a" * 9000,
            Kind.HEAD,
        ),
    ],
)
def test_what_is_refused(data, kind):
    found = read(data, sizes=500)
    assert isinstance(found[-1], RequestError), found
    assert found[-1].kind is kind


def test_a_name_of_another_host_is_fine_on_a_unix_socket():
    found = read(b"GET / HTTP/1.1\r\nHost: anything.example\r\n\r\n", check_host=False)
    assert isinstance(found[0], Request)


def test_bytes_are_held_until_they_are_given_back():
    held = Held(6000)
    one, two = reader(held), reader(held)
    one.feed(memoryview(POST % 4000 + b"a" * 3000))
    two.feed(memoryview(POST % 4000 + b"a" * 3001))
    assert isinstance(two.ready[-1], RequestError)
    assert two.ready[-1].kind is Kind.UNAVAILABLE
    held.give(one.drop() + two.drop())
    assert held.now == 0


WORDS = st.sampled_from(
    [
        b"GET ", b"POST ", b"/v2/models/m/infer", b" HTTP/1.1\r\n", b"Host: localhost\r\n",
        b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"Connection: upgrade\r\n",
        b"Connection: close\r\n", b"\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"\0", b"\xff",
        b"a" * 600,
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(WORDS, st.binary(max_size=20)), max_size=40), st.integers(1, 64))
def test_whatever_comes_is_requests_and_at_most_one_refusal(parts, size):
    held = Held(LIMITS.held)
    one = reader(held)
    data = b"".join(parts)
    for at in range(0, len(data), size):
        one.feed(memoryview(data)[at : at + size])
    found = list(one.ready)
    assert all(isinstance(item, Request) for item in found[:-1])
    assert all(r.held == len(r.body) <= LIMITS.body for r in found if isinstance(r, Request))
    assert held.now <= LIMITS.held
    held.give(one.drop())
    assert held.now == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 400)))
def test_a_body_is_read_or_refused(body, size):
    kinds = set()
    try:
        read_ask(Posted("m", "", body, 0.0, size))
    except RequestError as error:
        kinds.add(error.kind)
    assert kinds <= {Kind.INVALID, Kind.UNSUPPORTED}


SCALARS = st.one_of(
    st.integers(-3, 2**70), st.booleans(), st.text(max_size=3), st.none(), st.floats()
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("x"), SCALARS),
        "shape": st.one_of(st.lists(st.integers(-2, 2**40), max_size=10), SCALARS),
        "datatype": st.one_of(
            st.sampled_from(["FP32", "FP16", "UINT8", "INT64", "BOOL", "BYTES"]), SCALARS
        ),
        "data": st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=12),
    },
    optional={
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "content_type", "shared_memory_region"]),
            SCALARS,
            max_size=2,
        )
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TENSOR, max_size=3), st.binary(max_size=30))
def test_json_of_any_shape_gives_arrays_of_that_shape_or_a_clear_refusal(tensors, blob):
    text = json.dumps({"inputs": tensors}).encode()
    try:
        ask = read_ask(Posted("m", "", text + blob, 0.0, len(text)))
    except RequestError:
        return
    for tensor in tensors:
        value = ask.inputs[tensor["name"]]
        if not isinstance(value, list):
            assert list(value.shape) == tensor["shape"]


def test_nested_and_flat_data_and_parameters():
    body = {
        "id": "7",
        "parameters": {"timeout": 2_000_000, "priority": 1, "binary_data_output": True},
        "inputs": [
            {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4.5]]},
            {"name": "b", "shape": [2, 2], "datatype": "UINT8", "data": [1, 2, 3, 255]},
            {"name": "c", "shape": [2], "datatype": "BYTES", "data": ["aGk=", "eW91"],
             "parameters": {"content_type": "base64"}},
        ],
        "outputs": [{"name": "y", "parameters": {"classification": 3}}, {"name": "z",
                    "parameters": {"binary_data": False}}],
    }  # fmt: skip
    ask = read_ask(Posted("m", "2", json.dumps(body).encode(), 10.0, None))
    assert np.array_equal(ask.inputs["a"], np.array([[1, 2], [3, 4.5]], np.float32))
    assert np.array_equal(ask.inputs["b"], np.array([[1, 2], [3, 255]], np.uint8))
    assert ask.inputs["c"] == [b"hi", b"you"]
    assert (ask.id, ask.version, ask.deadline, ask.priority) == ("7", "2", 12.0, 1)
    assert [(w.name, w.binary, w.classes) for w in ask.wanted] == [("y", True, 3), ("z", False, 0)]


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"datatype": "UINT8", "data": [1, 256]}, "256"),
        ({"datatype": "UINT8", "data": [1, 2.5]}, "int"),
        ({"datatype": "FP32", "data": ["1", "2"]}, "float"),
        ({"datatype": "FP32", "data": [True, False]}, "float"),
        ({"datatype": "FP32", "data": [1]}, "2 elements"),
        ({"datatype": "FP32", "data": [[1], [2, 3]]}, "FP32"),
        ({"datatype": "BF16", "data": [1, 2]}, "known are"),
        ({"datatype": "FP32"}, "no data"),
        ({"datatype": "FP32", "parameters": {"binary_data_size": 9}}, "announced"),
    ],
)
def test_wrong_tensors_are_named(tensor, words):
    body = {"inputs": [{"name": "x", "shape": [2], **tensor}]}
    with pytest.raises(RequestError, match=words) as raised:
        read_ask(Posted("m", "", json.dumps(body).encode(), 0.0, None))
    assert "'x'" in str(raised.value)


def test_codings():
    body = bytes(3000)
    for name, packed in ((b"gzip", gzip.compress(body)), (b"deflate", zlib.compress(body))):
        assert decoded(packed, name, 3000) == body
        assert decoded(encoded(body, name), name, 3000) == body
        with pytest.raises(RequestError) as raised:
            decoded(packed, name, 2999)
        assert raised.value.kind is Kind.TOO_LARGE
        for damaged in (packed[:-3], packed + b"x", b"x" + packed, b""):
            with pytest.raises(RequestError) as raised:
                decoded(damaged, name, 3000)
            assert raised.value.kind is Kind.INVALID
    with pytest.raises(RequestError) as raised:
        decoded(body, b"br", 3000)
    assert raised.value.kind is Kind.MEDIA
    assert wanted_coding(b"gzip", 1000) == b"gzip"
    assert wanted_coding(b"gzip, deflate, br", 1000) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TcpAddress("127.0.0.1", 8000)),
        ("localhost:0", TcpAddress("127.0.0.1", 0)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("unix:/run/a.sock", UnixAddress("/run/a.sock")),
        ("unix:/run/a.sock?mode=0660", UnixAddress("/run/a.sock", 0o660)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:80", "192.168.1.2:80", "[::]:80", "example.org:80", "8000", ":8000", "127.0.0.1:x",
     "127.0.0.1:99999", "unix:relative", "unix:@abstract", "unix:/a?mode=0777", "", "\n:1",
     "unix:/" + "a" * 120],
)  # fmt: skip
def test_addresses_that_others_reach_are_refused(text):
    with pytest.raises(UsageError) as raised:
        parse_address(text)
    assert raised.value.hint
    assert "\n" not in str(raised.value)


def test_local_names():
    assert all(map(is_local, ["localhost", "LOCALHOST:80", "127.0.0.9:1", "[::1]:8", "[::1]"]))
    assert not any(
        map(is_local, ["", "localhost.example", "10.0.0.1", "[::]", "a:1", "127.0.0.1.x"])
    )


def test_the_pace_runs_short_ones_at_once_and_tries_slow_ones_seldom():
    pace = Pace(200e-6)
    assert not pace.short("a", 1)
    pace.answered("a", 1, 300e-6)
    assert pace.short("a", 1)
    for _ in range(20):
        pace.ran("a", 1, 10e-6)
    pace.ran("a", 1, 1.0)  # one by chance
    assert pace.short("a", 1)
    assert not pace.short("a", 100)
    for _ in range(20):
        pace.ran("a", 1, 2e-3)
    assert not pace.short("a", 1)
    tried = 0
    for _ in range(640):
        if pace.short("a", 1):
            tried += 1
            pace.ran("a", 1, 900e-6)
        else:
            pace.answered("a", 1, 950e-6)
    assert 1 <= tried < 60
    pace.answered("b", 1, 0.05)
    assert not pace.short("b", 1)
