from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.client.sse import MAX_EVENT_CHARS, Message, Parser

STREAM = (
    ": hello\n\n"
    'id: 1\nevent: job\ndata: {"a": "é"}\n\n'
    "data: two\r\ndata: lines\r\n\r\n"
    "id: 3\n\n"
    "data:bare\n\n"
    "data: unfinished\n"
).encode()

EXPECTED = [Message('{"a": "é"}', "1"), Message("two\nlines"), Message("bare")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_messages_do_not_depend_on_where_the_stream_is_cut(cuts: list[int]) -> None:
    parser, bounds = Parser(), [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in itertools.pairwise(bounds)]
    assert [m for part in parts for m in parser.feed(part)] == EXPECTED


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000 + b"\n", b"x" * 1000])
def test_an_endless_event_is_refused(line: bytes) -> None:
    parser = Parser()
    lines = (line for _ in range(MAX_EVENT_CHARS // 900))
    with pytest.raises(ValueError, match="longer than"):
        list(itertools.chain.from_iterable(parser.feed(line) for line in lines))
