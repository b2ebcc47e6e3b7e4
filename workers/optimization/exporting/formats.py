"""The net for other runtimes than ONNX Runtime, each in parity with torch on real samples.

``torch-export``: an archive of ``torch.export`` (.pt2), for PyTorch's own runtimes, C++ among
them. ``litert``: a flatbuffer for LiteRT (TensorFlow Lite), of a batch of one, by the package
litert-torch, which is no dependency of ours: see ``LITERT_MISSING``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from schemas.job import JobCause
from schemas.measure import MAX_FILE_BYTES
from workers.blame import user_code
from workers.errors import JobFailed, UsageError
from workers.files import write_atomic
from workers.optimization.exporting.export import PARITY_TOLERANCE, Servable
from workers.optimization.session import Array

log = logging.getLogger(__name__)

Format = Literal["torch-export", "litert"]
SUFFIXES: dict[Format, str] = {"torch-export": "pt2", "litert": "tflite"}

LITERT_PACKAGES = ("litert_torch", "ai_edge_litert")
LITERT_MISSING = (
    "optimize.formats asks for litert, and litert-torch is not installed where the job runs: "
    "litert-torch 0.10.0 needs xdsl 0.28.0, which asks for typing-extensions below 4.13, and "
    "pydantic 2.14 asks for 4.16 or later, so pip installs no two of them together"
)
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A file for another runtime, and its parity with torch on ``samples`` inputs."""

    format: Format
    path: Path
    parity_max_abs: float
    samples: int


def require_formats(formats: Sequence[str]) -> None:
    """See, before anything is trained, that each of the formats can be made here.

    Raises:
        UsageError: one cannot, and which packages stand in its way.
    """
    if "litert" in formats and any(importlib.util.find_spec(p) is None for p in LITERT_PACKAGES):
        hint = "install it without its dependencies' pins (docs/models.md), or leave litert out"
        raise UsageError(LITERT_MISSING, hint)


def make(
    form: Format,
    net: nn.Module,
    samples: Array,
    folder: Path,
    *,
    tolerance: float = PARITY_TOLERANCE,
) -> OtherFile:
    """Write the net in a format to ``folder`` and compare both on real samples.

    Args:
        form: which.
        net: the trained net, in float.
        samples: real inputs, (n ≥ 2, …), in the served dtype.
        folder: where to write ``model.<suffix>``.
        tolerance: largest difference of a probability.

    Raises:
        UsageError: the format cannot be made here.
        JobFailed: parity: the outputs differ by more; user_code: the net cannot be exported.
    """
    require_formats((form,))
    servable = Servable(net).eval().cpu()
    path = folder / f"model.{SUFFIXES[form]}"
    # Zeros, not samples: an archive keeps the inputs that it was traced with.
    example = torch.zeros((2, *samples.shape[1:]), dtype=torch.from_numpy(samples[:1]).dtype)
    writer, runner = _WAYS[form]
    data = writer(servable, example)
    if len(data) > MAX_FILE_BYTES:
        detail = f"the net as {form} has {len(data)} bytes, more than {MAX_FILE_BYTES}"
        raise JobFailed(JobCause.USER_CODE, detail)
    write_atomic(path, data)
    run = runner(path)
    with torch.inference_mode():
        expected = servable(torch.from_numpy(samples)).numpy()
    difference = float(np.max(np.abs(expected - run(samples))))
    if not difference <= tolerance:  # NaN must not pass
        detail = (
            f"torch and the net as {form} differ by {difference:.3g} on {len(samples)} samples "
            f"(allowed {tolerance:.3g}); leave {form} out of optimize.formats"
        )
        raise JobFailed(JobCause.PARITY, detail)
    log.info("as %s: %d bytes, largest difference %.2g", form, len(data), difference)
    return OtherFile(form, path, difference, len(samples))


def _torch_export(servable: nn.Module, example: Tensor) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=65536)
    with user_code():
        program = torch.export.export(servable, (example,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        for key in _TRACES:  # they name the files and lines of whoever made it
            node.meta.pop(key, None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _torch_export_runner(path: Path) -> Callable[[Array], Array]:
    module = torch.export.load(path).module()

    def run(samples: Array) -> Array:
        with torch.inference_mode():
            found: Array = module(torch.from_numpy(samples)).numpy()
        return found

    return run


def _litert(servable: nn.Module, example: Tensor) -> bytes:
    converter: Any = importlib.import_module("litert_torch")
    with tempfile.TemporaryDirectory(prefix="litert-") as folder, _quiet(), user_code():
        path = Path(folder) / "model.tflite"
        converter.convert(servable, (example[:1],)).export(str(path))
        return path.read_bytes()


def _litert_runner(path: Path) -> Callable[[Array], Array]:
    library: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = library.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def run(samples: Array) -> Array:
        found = []
        for start in range(len(samples)):
            interpreter.set_tensor(source, samples[start : start + 1])
            interpreter.invoke()
            found.append(interpreter.get_tensor(target))
        return np.concatenate(found)

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter prints its progress; a job's log is for the job."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


_Writer = Callable[[nn.Module, Tensor], bytes]
_Runner = Callable[[Path], Callable[[Array], Array]]
_WAYS: dict[Format, tuple[_Writer, _Runner]] = {
    "torch-export": (_torch_export, _torch_export_runner),
    "litert": (_litert, _litert_runner),
}
