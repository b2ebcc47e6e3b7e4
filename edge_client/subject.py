"""The other end of ``edge_client.measure``: a process that loads a variant and is asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import ValidationError

from edge_client.errors import BenchError
from edge_client.measure import Answer, Ask, Loading, Order
from edge_client.settings import GIB, Home
from edge_client.slots import Slot
from edge_client.staging import MEMORY_FACTOR
from schemas.base import Wire

LOAD_SECONDS = 120.0
ASK_SECONDS = 60.0
MAX_LINE = 4 * 1024**2

_W = TypeVar("_W", bound=Wire)


class Subjected:
    """A variant that is loaded and can be asked for runs."""

    def __init__(self, process: subprocess.Popen[str], order: Order) -> None:
        """Have it loaded.

        Raises:
            BenchError: it cannot be.
        """
        self._process = process
        self.loading = self._talk(order, Loading, LOAD_SECONDS)
        if self.loading.error is not None:
            raise BenchError(self.loading.error)

    def ask(self, ask: Ask) -> Answer:
        """Have it run.

        Raises:
            BenchError: it failed, died or took too long.
        """
        answer = self._talk(ask, Answer, ASK_SECONDS)
        if answer.error is not None:
            raise BenchError(answer.error)
        return answer

    def _talk(self, what: Wire, kind: type[_W], seconds: float) -> _W:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101 - likewise
        late = threading.Timer(seconds, self._process.kill)
        late.start()
        try:
            stdin.write(what.model_dump_json() + "\n")
            stdin.flush()
            line = stdout.readline(MAX_LINE)
            return kind.model_validate_json(line)
        except (OSError, ValidationError):
            self._process.kill()
            code = self._process.wait()
            msg = f"the process that runs it ended with status {code}, or took over {seconds:g} s"
            raise BenchError(msg) from None
        finally:
            late.cancel()


@contextmanager
def start(home: Home, slot: Slot, *, batches: tuple[int, ...], nice: int) -> Iterator[Subjected]:
    """A variant in a process of its own, which ends with this.

    Raises:
        BenchError: it cannot be loaded.
        OSError: there is no such process, or no such file.
    """
    order = Order(
        home=str(home.root.resolve()),
        manifest_sha256=slot.manifest_sha256,
        variant=slot.variant,
        batches=batches,
        address_bytes=2 * GIB + MEMORY_FACTOR * (home.blobs / slot.sha256).stat().st_size,
        nice=nice,
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edge_client.measure"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=home.bench_work,
        text=True,
    )
    with process:
        try:
            yield Subjected(process, order)
        finally:
            process.kill()


@contextmanager
def work_folder(home: Home) -> Iterator[None]:
    """An empty folder to work in: nothing that a model could name lies there.

    In the home, so that what one that was killed left is found and removed.
    """
    shutil.rmtree(home.bench_work, ignore_errors=True)
    home.bench_work.mkdir(exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(home.bench_work, ignore_errors=True)
