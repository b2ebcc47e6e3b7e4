"""Parts of artifacts: what a request asks for, over the whole server, and for the SDK."""

from __future__ import annotations

import hashlib
import os

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.ranges import Span, UnsatisfiableError, asked
from orchestrator.client.artifacts import Artifacts
from orchestrator.client.errors import InterruptedAnswerError
from orchestrator.client.profile import Profile
from orchestrator.client.transport import Transport
from schemas.access import Role
from schemas.transfer import CHUNK_BYTES

TAG = '"abc"'
DATA = os.urandom(3 * CHUNK_BYTES + 17)
SHA = hashlib.sha256(DATA).hexdigest()
SIZE = len(DATA)


@pytest.mark.parametrize(
    ("wanted", "span"),
    [
        (None, None),
        ("bytes=0-", Span(0, 100)),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=99-", Span(99, 100)),
        ("bytes=40-49", Span(40, 50)),
        ("bytes=40-1000", Span(40, 100)),
        ("bytes=-10", Span(90, 100)),
        ("bytes=-1000", Span(0, 100)),
        (" Bytes = 5-9 ", Span(5, 10)),
        ("bytes=0-1,5-6", None),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=+1-2", None),
        ("bytes=²-", None),
        ("chapters=1-2", None),
        ("bytes=1" + "0" * 30 + "-", None),
    ],
)
def test_a_range_is_read(wanted: str | None, span: Span | None) -> None:
    assert asked(wanted, None, TAG, 100) == span


@pytest.mark.parametrize("wanted", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_without_a_byte_is_told(wanted: str) -> None:
    with pytest.raises(UnsatisfiableError, match="100 bytes"):
        asked(wanted, None, TAG, 100)


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=-5", "bytes=0-0"])
def test_of_an_empty_file_there_is_no_part(wanted: str) -> None:
    with pytest.raises(UnsatisfiableError):
        asked(wanted, None, TAG, 0)


@pytest.mark.parametrize(
    "other", ['"abd"', f"W/{TAG}", "abc", "", "Wed, 21 Oct 2026 07:28:00 GMT", "*"]
)
def test_a_condition_that_does_not_hold_gives_all(other: str) -> None:
    assert asked("bytes=5-", other, TAG, 100) is None
    assert asked("bytes=500-", other, TAG, 100) is None
    assert asked("bytes=5-", TAG, TAG, 100) == Span(5, 100)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 1000))
def test_whatever_is_asked_a_part_lies_within_the_file(wanted: str, size: int) -> None:
    try:
        span = asked(wanted, None, TAG, size)
    except UnsatisfiableError:
        return
    assert span is None or 0 <= span.start < span.end <= size


@pytest.fixture
def client(platform):
    platform.artifacts.put([DATA], SHA, SIZE)
    return platform.client(platform.key(Role.ADMIN))


def fetch(client, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(f"/v1/artifacts/{SHA}", headers=named)


def test_all_of_it_says_that_parts_can_be_had(client) -> None:
    answer = fetch(client)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{SHA}"'
    assert "content-range" not in answer.headers


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (0, SIZE),
        (5, CHUNK_BYTES),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        (CHUNK_BYTES, 3 * CHUNK_BYTES),
        (SIZE - 1, SIZE),
    ],
)
def test_a_part_is_its_bytes(client, start: int, end: int) -> None:
    answer = fetch(client, range=f"bytes={start}-{end - 1}")
    assert (answer.status_code, answer.content) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["etag"] == f'"{SHA}"'


def test_a_part_of_another_file_is_all_of_this_one(client) -> None:
    part = fetch(client, range="bytes=7-", if_range=f'"{SHA}"')
    assert (part.status_code, part.content) == (206, DATA[7:])
    whole = fetch(client, range="bytes=7-", if_range=f'"{"0" * 64}"')
    assert (whole.status_code, whole.content) == (200, DATA)


def test_a_part_that_is_not_there_is_a_problem(client) -> None:
    answer = fetch(client, range=f"bytes={SIZE}-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["status"]) == ("invalid", 416)
    assert f"{SIZE} bytes" in answer.json()["detail"]


def test_parts_are_for_whom_the_whole_is(platform, client) -> None:
    part = {"range": "bytes=0-1"}
    where = f"/v1/artifacts/{SHA}"
    assert platform.client().get(where, headers=part).status_code == 401
    assert platform.client(platform.key(Role.WORKER)).get(where, headers=part).status_code == 403
    assert client.get(f"/v1/artifacts/{'0' * 64}", headers=part).status_code == 404


class Breaking(httpx.BaseTransport):
    """The real application, over a network that gives way after so many bytes of a file."""

    def __init__(self, application, most: int) -> None:
        self.application, self.most = application, most
        self.seen: list[tuple[str | None, int, int]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = dict(request.headers)
        answer = self.application.request(request.method, str(request.url), headers=sent)
        asked_for = request.headers.get("range")
        self.seen.append((asked_for, answer.status_code, len(answer.content)))
        return httpx.Response(
            answer.status_code, headers=answer.headers, stream=_Broken(answer.content, self.most)
        )


class _Broken(httpx.SyncByteStream):
    def __init__(self, content: bytes, most: int) -> None:
        self.content, self.most = content, most

    def __iter__(self):
        yield self.content[: self.most]
        if len(self.content) > self.most:
            msg = "the connection broke"
            raise httpx.ReadError(msg)


def test_a_download_that_broke_goes_on_where_it_was(platform, client, tmp_path) -> None:
    file = platform.file("model.onnx", DATA)
    token = platform.key(Role.ADMIN)
    network = Breaking(client, most=100_000)
    with Transport(Profile(url="http://testserver", token=token), http=network) as transport:
        artifacts, target = Artifacts(transport), tmp_path / "model.onnx"
        with pytest.raises(InterruptedAnswerError):
            artifacts.save(file, target)
        assert target.with_name("model.onnx.part").read_bytes() == DATA[:100_000]
        assert not target.exists()
        counted: list[int] = []
        assert artifacts.save(file, target, counted.append)
    assert network.seen == [
        (None, 200, SIZE),
        ("bytes=100000-", 206, SIZE - 100_000),
    ]
    assert target.read_bytes() == DATA
    assert counted[0] == 100_000
    assert sum(counted) == SIZE
    assert list(tmp_path.glob("*.part")) == []
