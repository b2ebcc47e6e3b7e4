"""One variant in a process of its own, measured run by run as it is told.

``python -m edge_client.measure`` reads an ``Order`` as one line of JSON, loads the variant as
serving does, and answers with what that took; then each line asks for runs, until its input
ends. Only so is the memory that of the model alone, and can two variants be timed in turn.
The files of the home are read and never touched.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pydantic import Field

from edge_client.bench_inputs import feeds_of, golden_inputs, made_up, read_blob
from edge_client.energy import find_meter, metered
from edge_client.errors import BenchError, EdgeError
from edge_client.inference import Array, load_model
from edge_client.settings import MIB, Home
from schemas.base import Wire
from schemas.ids import Name, Sha256
from schemas.measure import MAX_FILE_BYTES, Energy
from schemas.model import MAX_MANIFEST_BYTES, Manifest

MAX_RUNS = 10_000
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Order(Wire):
    """What to measure. address_bytes: the most memory it may map. nice: added to the priority."""

    home: str
    manifest_sha256: Sha256
    variant: Name
    batches: tuple[int, ...]
    address_bytes: int
    nice: int = 0


class Loading(Wire):
    """What loading and the first runs took; ``error`` instead, when there were none.

    batches: that the model takes. rss_mb, growth_mb: for each of them the peak so far, MiB,
    and how much of it the model added.
    """

    error: str | None = None
    provider: str = ""
    batches: tuple[int, ...] = ()
    load_ms: float = 0.0
    first_ms: float = 0.0
    rss_mb: tuple[float | None, ...] = ()
    growth_mb: tuple[float | None, ...] = ()
    nodes: dict[str, int] = Field(default_factory=dict)


class Ask(Wire):
    """Time ``runs`` runs of a batch; or meter them for ``energy_seconds``."""

    batch: int
    runs: int = 0
    energy_seconds: float | None = None


class Answer(Wire):
    """Nanoseconds of each run, by the wall clock and of the thread's CPU time."""

    error: str | None = None
    wall_ns: tuple[int, ...] = ()
    cpu_ns: tuple[int, ...] = ()
    energy: Energy | None = None


class Subject:
    """A variant that is measured."""

    def __init__(self, order: Order) -> None:
        """Load it, and run each batch size.

        Raises:
            EdgeError: a file is damaged or the model does not run.
        """
        home = Home(Path(order.home))
        text = read_blob(home.manifests / f"{order.manifest_sha256}.json", MAX_MANIFEST_BYTES)
        manifest = Manifest.model_validate_json(text)
        variant = manifest.variant(order.variant)
        if variant is None:
            msg = f"the manifest has no variant {order.variant}"
            raise BenchError(msg)
        specs = manifest.signature.inputs
        samples = golden_inputs(home, variant.golden, specs) or made_up(specs)
        with suppress(OSError):
            _CLEAR.write_text("5")  # VmHWM begins anew at what is resident now
        idle = _memory("VmRSS")
        began = time.perf_counter()
        onnx = read_blob(home.blobs / variant.file.sha256, MAX_FILE_BYTES)
        self.model = load_model(onnx, manifest, order.variant)
        loaded = time.perf_counter()
        del onnx
        self.feeds: dict[int, list[dict[str, Array]]] = {}
        self._turn = 0
        took, peaks = [], []
        for size, feeds in feeds_of(samples, specs, order.batches).items():
            seconds = self._first_runs(size, feeds)
            if seconds is not None:
                took.append(seconds)
                peaks.append(_memory("VmHWM"))
        if not took:
            msg = "the model does not take the inputs that it was shipped with"
            raise BenchError(msg)
        growth = [None if p is None or idle is None else max(0.0, p - idle) for p in peaks]
        data = read_blob(home.blobs / variant.file.sha256, MAX_FILE_BYTES)
        self.loading = Loading(
            provider=self.model.provider,
            batches=tuple(self.feeds),
            load_ms=(loaded - began) * 1e3,
            first_ms=took[0] * 1e3,
            rss_mb=tuple(peaks),
            growth_mb=tuple(growth),
            nodes=nodes_of(data, manifest, order.variant),
        )

    def _first_runs(self, size: int, feeds: list[dict[str, Array]]) -> float | None:
        """Seconds of the first run of a batch size; None when the model does not take it."""
        try:
            checked = [self.model.check(feed) for feed in feeds]
            begun = time.perf_counter()
            self.model.run(checked[0])
            seconds = time.perf_counter() - begun
            self.model.run(checked[0])  # some kernels grow at the second run
        except Exception:  # noqa: BLE001 - a model can make the runtime raise anything
            return None
        self.feeds[size] = checked
        return seconds

    def answer(self, ask: Ask) -> Answer:
        """Do what is asked for."""
        feeds = self.feeds[ask.batch]
        if ask.energy_seconds is not None:
            meter = find_meter()
            if meter is None:
                return Answer()
            found = metered(meter, lambda: self._next(feeds), seconds=ask.energy_seconds)
            return Answer(energy=found)
        wall, cpu = [], []
        for _ in range(min(ask.runs, MAX_RUNS)):
            cpu_before, before = time.thread_time_ns(), time.perf_counter_ns()
            self._next(feeds)
            after, cpu_after = time.perf_counter_ns(), time.thread_time_ns()
            wall.append(after - before)
            cpu.append(cpu_after - cpu_before)
        return Answer(wall_ns=tuple(wall), cpu_ns=tuple(cpu))

    def _next(self, feeds: list[dict[str, Array]]) -> None:
        self.model.run(feeds[self._turn % len(feeds)])
        self._turn += 1


def nodes_of(onnx: bytes, manifest: Manifest, variant: str) -> dict[str, int]:
    """How many nodes each execution provider runs, by a profile of one run; {} if there is none."""
    return load_model(onnx, manifest, variant, profile_in=Path.cwd()).nodes


def _memory(key: str) -> float | None:
    """A figure of this process, in MiB: VmRSS now, or VmHWM at its highest."""
    with suppress(OSError):
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else None
    return None


def serve(lines: Iterable[str], answers: TextIO) -> None:
    """Answer an order, and then each question, a line of JSON each."""
    asked = iter(lines)

    def tell(what: Wire) -> None:
        print(what.model_dump_json(exclude_none=True), file=answers, flush=True)

    try:
        order = Order.model_validate_json(next(asked))
        resource.setrlimit(resource.RLIMIT_AS, (order.address_bytes, order.address_bytes))
        os.nice(order.nice)
        subject = Subject(order)
    except (EdgeError, MemoryError, ValueError, KeyError, StopIteration) as error:
        tell(Loading(error=_line(error)))
        return
    tell(subject.loading)
    for line in asked:
        try:
            tell(subject.answer(Ask.model_validate_json(line)))
        except Exception as error:  # noqa: BLE001 - a model can make the runtime raise anything
            tell(Answer(error=_line(error)))
            return


def _line(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return first if isinstance(error, EdgeError) else f"{type(error).__name__}: {first}"


def main() -> int:
    """Be measured."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A model that made onnxruntime print must not be able to forge an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(iter(lambda: sys.stdin.readline(MIB), ""), answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
