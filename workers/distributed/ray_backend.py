"""Ray Train without what a training here does not need: it starts seconds earlier.

The process group is started as Ray's own torch backend does, but torch is named only in
functions that workers run: the driver and Ray Train's controller do not import it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 5.0


SPARED = frozenset({"PlacementGroupCleanerCallback", "DatasetsCallback"})
"""Parts of Ray Train with a process each, of two seconds to start. A placement group goes
with the controller that made it, and no Ray Data sets are handed to the workers."""


class Trainer(DataParallelTrainer):
    """Ray Train's trainer of any backend, without its spare parts.

    run: the name under which it reserves resources (see ``workers.distributed.reservations``).
    """

    def __init__(self, *args: Any, run: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # Frozen, and by itself a random name that the next attempt could not know.
        object.__setattr__(self.train_run_context, "run_id", run)

    def _create_default_callbacks(self) -> list[Any]:
        made: list[Any] = super()._create_default_callbacks()
        return [one for one in made if type(one).__name__ not in SPARED]


@dataclass
class GangConfig(BackendConfig):
    """How workers meet. backend: gloo or nccl. timeout_s: of a collective."""

    backend: str = "gloo"
    timeout_s: float = 1800.0

    @property
    def backend_cls(self) -> type[Gang]:
        """What starts and ends the group."""
        return Gang


class Gang(Backend):
    """Starts and ends the process group, from the controller."""

    # NCCL talks directly between the GPUs of a node only if each worker sees all of them.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Make all workers meet at the first one."""
        import ray  # noqa: PLC0415 - typed as Any, for it ships no types
        from ray.train._internal.utils import get_address_and_port  # noqa: PLC0415 - likewise

        address, port = worker_group.execute_single(0, get_address_and_port)
        cluster: Any = ray
        cluster.get(
            [
                worker_group.execute_single_async(
                    rank, join, backend_config.backend, address, port, backend_config.timeout_s
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Leave the group; a worker that hangs or is gone is not waited for."""
        del backend_config
        import ray  # noqa: PLC0415 - see on_start

        cluster: Any = ray
        with contextlib.suppress(cluster.exceptions.GetTimeoutError):
            cluster.get(worker_group.execute_async(leave), timeout=SHUTDOWN_SECONDS)


def join(backend: str, address: str, port: int, timeout_s: float) -> None:
    """Enter the process group; runs on each worker."""
    import ray.train  # noqa: PLC0415 - on the worker only
    import torch  # noqa: PLC0415 - likewise
    import torch.distributed as dist  # noqa: PLC0415 - likewise

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    # What torchrun sets, and libraries of the user read.
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
    )
    if backend == "nccl":
        from ray.train.torch import get_device  # noqa: PLC0415 - likewise

        torch.cuda.set_device(get_device())
        # A collective that fails or times out ends its process instead of waiting on.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    dist.init_process_group(
        backend=backend,
        init_method="env://",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout_s),
    )


def leave() -> None:
    """Leave the process group; runs on each worker."""
    import torch.distributed as dist  # noqa: PLC0415 - see join

    if dist.is_initialized():
        dist.destroy_process_group()
