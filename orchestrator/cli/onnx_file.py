"""A look at an ONNX file before it travels: what the platform would refuse, said at once."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from orchestrator.errors import Invalid, TooLarge
from schemas.measure import MAX_FILE_BYTES
from schemas.onnx_guard import check_model
from schemas.onnx_wire import UnsafeModelError

_HEAD = 16
_OTHER: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and NumPy write them"),
    (0, b"\x89HDF", "HDF5, as Keras writes it"),
    (4, b"TFL3", "a LiteRT (TensorFlow Lite) model"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x80", "a pickle, as older PyTorch writes it"),
    (0, b"<", "HTML or XML"),
    (0, b"{", "JSON"),
)
_EXPORT = "export the model to ONNX first"


def check_onnx(path: Path) -> int:
    """See that a file may be an ONNX model that the platform takes.

    Returns:
        Its size in bytes.

    Raises:
        Invalid: it cannot be read, is no ONNX file, or is one that is refused.
        TooLarge: it has more bytes than a file of a version may have.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            detail = f"{path} is not a file"
            raise Invalid(detail, hint="give the path of an ONNX file")
        if found.st_size > MAX_FILE_BYTES:
            most = MAX_FILE_BYTES // 1024**2
            detail = f"{path} has {found.st_size / 1024**2:,.0f} MiB; at most {most} are taken"
            raise TooLarge(detail, hint="a device gets it in one piece: quantize or prune it first")
        with path.open("rb") as file:
            _refuse_others(path, file.read(_HEAD))
            _refuse_unsafe(path, file.fileno())
    except OSError as error:
        detail = f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail, hint="give the path of an ONNX file") from error
    return found.st_size


def _refuse_others(path: Path, head: bytes) -> None:
    if not head:
        detail = f"{path} is empty"
        raise Invalid(detail, hint=_EXPORT)
    for at, magic, what in _OTHER:
        if head[at : at + len(magic)] == magic:
            detail = f"{path} is not an ONNX file but {what}"
            raise Invalid(detail, hint=_EXPORT)


def _refuse_unsafe(path: Path, handle: int) -> None:
    length = os.fstat(handle).st_size
    # It is unmapped when the last view into it goes, those in a traceback included.
    mapped = mmap.mmap(handle, length, access=mmap.ACCESS_READ)
    try:
        check_model(memoryview(mapped))
    except UnsafeModelError as error:
        detail = f"{path} is refused: {error}"
        raise Invalid(detail, hint="what is taken stands in docs/models.md") from error
