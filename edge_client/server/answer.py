"""Answers as HTTP carries them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np

from edge_client.errors import EdgeError
from edge_client.inference import Array
from edge_client.server.coding import encoded, wanted_coding
from edge_client.server.datatypes import BYTES, datatype_of, texts_to_bytes, to_bytes
from edge_client.server.failures import Kind, invalid, kind_of, text_of
from edge_client.server.limits import MAX_TEXTS
from edge_client.server.messages import Failure, InferAnswer, OutTensor
from edge_client.server.request import Ask, Wanted
from edge_client.server.served import Served

RECORDS = "records"
"""The name of the output that holds what the manifest's post-processing made."""

_ENCODER = msgspec.json.Encoder()
_OK_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def json_answer(value: Any, accept: bytes | None = None) -> bytes:
    """A value as a 200 answer."""
    return _sent(_ENCODER.encode(value), accept)


def empty_answer(status: int) -> bytes:
    """Only a status."""
    return b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n" % (status, _phrase(status))


def failure_answer(error: EdgeError, *, close: bool) -> bytes:
    """An error as every client of the protocol reads it: ``{"error": "..."}``."""
    kind = kind_of(error)
    body = _ENCODER.encode(Failure(text_of(error)[:2000]))
    more = b""
    if kind is Kind.METHOD:
        more += b"Allow: GET, HEAD, POST\r\n"
    if kind is Kind.UNAVAILABLE:
        more += b"Retry-After: 1\r\n"
    if close:
        more += b"Connection: close\r\n"
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
    return head % (kind.status, _phrase(kind.status), len(body), more) + body


def infer_answer(ask: Ask, served: Served, accept: bytes | None = None) -> bytes:
    """The outputs of an inference, in JSON or as bytes after it.

    Raises:
        RequestError: an output is asked for that the model does not have.
    """
    tensors: list[OutTensor] = []
    blobs: list[bytes] = []
    for wanted in all_wanted(ask, served):
        _add(wanted, served, tensors, blobs)
    head = _ENCODER.encode(
        InferAnswer(served.slot.model, str(served.slot.version), tensors, ask.id)
    )
    if not any(tensor.parameters for tensor in tensors):
        return _sent(head, accept)
    size = b"Inference-Header-Content-Length: %d\r\n" % len(head)
    return _sent(b"".join((head, *blobs)), accept, b"application/octet-stream", size)


def ranked(scores: Array, n: int, classes: int, labels: tuple[str, ...] | list[str]) -> Array:
    """[n, classes] of bytes ``score:index[:label]``, best first: the classification extension."""
    rows = scores.reshape(n, -1)
    best = np.argsort(-rows, axis=1, kind="stable")[:, :classes]
    named = len(labels) == rows.shape[1]
    texts = [
        [f"{row[i]:f}:{i}{':' + labels[i] if named else ''}".encode() for i in order]
        for row, order in zip(rows, best.tolist(), strict=True)
    ]
    return np.array(texts, dtype=object)


def texts_of(wanted: Wanted, served: Served) -> tuple[list[int], list[bytes]]:
    """Shape and elements of an output that is text: the best classes of a tensor, or records.

    Raises:
        RequestError: the tensor holds no scores over classes.
    """
    if wanted.name == RECORDS and served.records is not None:
        return [len(served.records)], list(served.records)
    scores = served.outputs[wanted.name]
    if scores.dtype.kind == "b" or not scores.size or scores.size % max(1, served.n):
        msg = f"output {wanted.name!r} holds no scores to rank (classification)"
        raise invalid(msg)
    if min(wanted.classes * served.n, scores.size) > MAX_TEXTS:
        msg = (
            f"output {wanted.name!r}: the best {wanted.classes} of {served.n} samples are too many"
        )
        raise invalid(msg)
    best = ranked(scores, served.n, wanted.classes, list(served.labels))
    return list(best.shape), best.ravel().tolist()


def all_wanted(ask: Ask, served: Served) -> tuple[Wanted, ...]:
    """The outputs of the answer, records last.

    Raises:
        RequestError: one is not there, or is asked for twice.
    """
    if ask.wanted is None:
        wanted = tuple(Wanted(name, ask.binary) for name in served.outputs)
    else:
        wanted = ask.wanted
        names = [w.name for w in wanted]
        for name in names:
            if name not in served.outputs or names.count(name) > 1:
                why = "is asked for twice" if name in served.outputs else "is not there"
                msg = f"output {name[:100]!r} {why}; the model has {', '.join(served.outputs)}"
                raise invalid(msg)
    if served.records is not None:
        wanted += (Wanted(RECORDS, ask.binary),)
    return wanted


def _add(wanted: Wanted, served: Served, tensors: list[OutTensor], blobs: list[bytes]) -> None:
    if wanted.classes or wanted.name not in served.outputs:
        shape, texts = texts_of(wanted, served)
        if wanted.binary:
            blobs.append(texts_to_bytes(texts))
            sizes = {"binary_data_size": len(blobs[-1])}
            tensors.append(OutTensor(wanted.name, BYTES, shape, sizes))
        else:
            data = [text.decode() for text in texts]
            tensors.append(OutTensor(wanted.name, BYTES, shape, None, data))
        return
    array = served.outputs[wanted.name]
    datatype, shape = datatype_of(array.dtype), list(array.shape)
    if wanted.binary:
        blobs.append(to_bytes(array))
        sizes = {"binary_data_size": len(blobs[-1])}
        tensors.append(OutTensor(wanted.name, datatype, shape, sizes))
    else:
        tensors.append(OutTensor(wanted.name, datatype, shape, None, array.ravel().tolist()))


def _sent(
    body: bytes, accept: bytes | None, kind: bytes = b"application/json", more: bytes = b""
) -> bytes:
    coding = wanted_coding(accept, len(body))
    if coding is None and not more:
        return _OK_JSON % len(body) + body
    if coding is not None:
        body = encoded(body, coding)
        more += b"Content-Encoding: %s\r\n" % coding
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n"
    return head % (kind, len(body), more) + body


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()
