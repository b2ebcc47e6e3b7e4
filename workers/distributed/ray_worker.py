"""What runs in each worker of Ray Train: the loop, and what watches and reports it."""

from __future__ import annotations

import queue
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.jobfile import JobSpec
from workers.blame import blame, is_broken_link, is_collective_timeout
from workers.distributed.logs import Capture
from workers.distributed.mailbox import Mailbox
from workers.distributed.ray_engine import (
    FLUSH_SECONDS,
    RayEngine,
    hang_teller,
    printer,
    teller,
)
from workers.distributed.vitals import Sampler
from workers.memory import limit_memory
from workers.training.watchdog import Watchdog


def train_worker(config: Mapping[str, Any]) -> None:
    """What each of Ray Train's workers runs."""
    import torch  # noqa: PLC0415 - the controller imports this module too, and needs no torch
    from ray.train.v2._internal.execution.context import (  # noqa: PLC0415 - on a worker only
        get_train_context,
    )

    from workers.task import load_task  # noqa: PLC0415 - likewise
    from workers.training.loop import run  # noqa: PLC0415 - torch

    spec = JobSpec.model_validate_json(config["spec"])
    mailbox, trial = Mailbox(config["mailbox"]), int(config["trial"])
    context: Any = get_train_context()
    failures: queue.SimpleQueue[Any] = (
        context.execution_context.training_thread_runner.get_exception_queue()
    )
    # Where cores are few, a second thread doubles the CPU time and gains nothing.
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    scratch = Path(context.get_storage().local_working_directory)
    scratch.mkdir(parents=True, exist_ok=True)
    tell = hang_teller(mailbox, trial, failures.put)
    watchdog = Watchdog(spec.training.hang_minutes * 60, context.get_world_rank(), tell)
    engine = RayEngine(mailbox, trial, watchdog, scratch, _device(spec))
    with _heard(spec, mailbox, trial, engine), watchdog:
        try:
            _limit(spec)
            task = load_task(spec.entrypoint, spec.config, spec.seed, spec.dataset.path)
            run(task, spec, engine)
        except BaseException as error:  # SystemExit too, from wherever it comes
            _unlimit()  # saying what happened takes memory, too
            if is_broken_link(error) and not is_collective_timeout(error):
                raise  # another worker is gone: Ray Train starts the group again
            raise blame(error) from None


def _device(spec: JobSpec) -> Any:
    import torch  # noqa: PLC0415 - see train_worker

    if not spec.resources.gpus_per_worker:
        return torch.device("cpu")
    from ray.train.torch import get_device  # noqa: PLC0415 - likewise

    return get_device()


@contextmanager
def _heard(spec: JobSpec, mailbox: Mailbox, trial: int, engine: RayEngine) -> Iterator[None]:
    """While the loop runs: what this process prints and takes reaches the driver."""
    capture = Capture(printer(mailbox, trial, engine.rank if engine.world_size > 1 else None))
    sampler = Sampler(
        teller(mailbox, trial, engine.rank),
        children=spec.training.loader_workers > 0,
        device=engine.device if engine.device.type == "cuda" else None,
    )
    capture.start()
    sampler.start()
    try:
        yield
    finally:
        sampler.stop()
        capture.stop()
        mailbox.flush(FLUSH_SECONDS)


def _limit(spec: JobSpec) -> None:
    # CUDA maps far more than it uses: there, the reservation is all that is kept.
    if spec.resources.memory_gb is not None and not spec.resources.gpus_per_worker:
        limit_memory(spec.resources.memory_gb)


def _unlimit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
