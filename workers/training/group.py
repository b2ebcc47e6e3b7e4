"""The workers that train together, as far as they exchange anything but gradients."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from schemas.job import JobCause
from workers.errors import JobFailed
from workers.task import SPLITS, Splits
from workers.training.engine import Engine


class Group:
    """Collectives over the workers; with one worker, each is what it would be of one."""

    def __init__(self, engine: Engine) -> None:
        self._device = engine.device
        self.together = dist.is_available() and dist.is_initialized() and engine.world_size > 1

    def wrap(self, net: nn.Module) -> nn.Module:
        """The net whose backward averages gradients over the workers."""
        if not self.together:
            return net
        devices = [self._device] if self._device.type == "cuda" else None
        # Nothing to average: DistributedDataParallel refuses such a net.
        if not any(p.requires_grad for p in net.parameters()):
            return net
        return DistributedDataParallel(net, device_ids=devices, gradient_as_bucket_view=True)

    def all_used(self, net: nn.Module) -> None:
        """After the first exchange of gradients: whether each parameter has one.

        Raises:
            JobFailed: user_code: one has none, and the workers would wait for it.
        """
        if not self.together:
            return
        named = net.named_parameters()
        unused = [name for name, p in named if p.requires_grad and p.grad is None]
        if unused:
            shown = ", ".join(unused[:5]) + (" …" if len(unused) > 5 else "")  # noqa: PLR2004
            detail = (
                f"{len(unused)} parameters of the model have no part in the loss ({shown}), which "
                "workers that train together must all have; leave them out, or set their "
                "requires_grad to False"
            )
            raise JobFailed(JobCause.USER_CODE, detail)

    def same_splits(self, splits: Splits) -> None:
        """Whether all workers have made the same splits, as far as their sizes tell.

        Raises:
            JobFailed: user_code: they have not.
        """
        mine = {name: len(splits.get(name)) for name in SPLITS}
        for rank, theirs in enumerate(self.gather(mine)):
            for name, n in theirs.items():
                if n != mine[name]:
                    detail = (
                        f"Task.splits gives {mine[name]} samples of {name} on one worker and {n} "
                        f"on rank {rank}; it must give the same everywhere: draw by self.seed"
                    )
                    raise JobFailed(JobCause.USER_CODE, detail)

    def alone(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within: forward and backward without an exchange of gradients."""
        found: AbstractContextManager[None] = nullcontext()
        if isinstance(model, DistributedDataParallel):
            found = model.no_sync()
        return found

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over the workers."""
        return self._reduce(values, dist.ReduceOp.SUM) if self.together else list(values)

    def max(self, value: float) -> float:
        """The largest of the workers' values."""
        return self._reduce([value], dist.ReduceOp.MAX)[0] if self.together else value

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in the order of the ranks."""
        if not self.together:
            return [value]
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, value)
        return found

    def share_buffers(self, net: nn.Module) -> None:
        """Take rank 0's running statistics: they differ, and rank 0's are what is saved."""
        if self.together:
            for buffer in net.buffers():
                dist.broadcast(buffer, src=0)

    def _reduce(self, values: Sequence[float], how: Any) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, op=how)
        found: list[float] = tensor.tolist()
        return found
