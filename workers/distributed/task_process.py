"""What runs in the process of one call: the call, and what watches and reports it."""

from __future__ import annotations

import os
import queue
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.distributed.logs import Capture
from workers.distributed.mailbox import Mailbox
from workers.distributed.ray_engine import FLUSH_SECONDS, printer, teller
from workers.distributed.vitals import Sampler
from workers.memory import limit_memory
from workers.optimization.executor import TrialFailed, beating, failed
from workers.training.watchdog import Hang, Watchdog


def run_call(function: Callable[[Any], Any], argument: Any, spec_json: str, mailbox: str) -> Any:
    """Call ``function`` and give its result, or the ``TrialFailed`` that came of it.

    The call has a thread of its own. Without a ``beat`` for ``training.hang_minutes`` it is
    given up; its process ends anyway.

    Args:
        function: of one argument.
        argument: its argument.
        spec_json: the job.
        mailbox: of the job; empty: nothing is told.
    """
    spec = JobSpec.model_validate_json(spec_json)
    _bound_threads(max(1, int(spec.resources.cpus_per_worker)))
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def hung(hang: Hang) -> None:
        results.put(TrialFailed(JobCause.HUNG, hang.detail))

    watchdog = Watchdog(spec.training.hang_minutes * 60, 0, hung)

    def work() -> None:
        with watchdog, beating(watchdog.beat):
            try:
                if spec.resources.memory_gb is not None and not spec.resources.gpus_per_worker:
                    limit_memory(spec.resources.memory_gb)
                found = function(argument)
            except BaseException as error:  # noqa: BLE001 - SystemExit too, from wherever it comes
                _unlimit()  # saying what happened takes memory, too
                found = failed(error)
        results.put(found)

    with _heard(spec, mailbox) if mailbox else nullcontext():
        threading.Thread(target=work, name="trial", daemon=True).start()
        return results.get()


@contextmanager
def _heard(spec: JobSpec, name: str) -> Iterator[None]:
    """While the call runs: what this process prints and takes reaches the driver."""
    mailbox = Mailbox(name)
    capture = Capture(printer(mailbox, 0, None))
    sampler = Sampler(
        teller(mailbox, 0, 0),
        children=spec.training.loader_workers > 0,
        device=_gpu(spec),
    )
    capture.start()
    sampler.start()
    try:
        yield
    finally:
        sampler.stop()
        capture.stop()
        mailbox.flush(FLUSH_SECONDS)


def _unlimit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _bound_threads(n: int) -> None:
    """Of arithmetic. Not every call needs torch, which takes seconds to import."""
    os.environ["OMP_NUM_THREADS"] = str(n)  # read when it is imported
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(n)


def _gpu(spec: JobSpec) -> Any:
    if not spec.resources.gpus_per_worker:
        return None
    import torch  # noqa: PLC0415 - where it is used at once

    return torch.device("cuda") if torch.cuda.is_available() else None
