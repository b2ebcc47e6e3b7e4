"""The training loop of one worker: plain PyTorch, the same with and without Ray.

Data-parallel by ``DistributedDataParallel`` where a process group exists. What the
loop needs of its surroundings is the ``Engine`` protocol.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.blame import user_code
from workers.data import Feed
from workers.errors import JobFailed
from workers.steps import Step
from workers.stop import History, Verdict, judge, observe
from workers.task import Task, code_sha256

Metrics = dict[str, float]
MAX_GRADIENT_NORM = 5.0


class Engine(Protocol):
    """What surrounds the loop.

    rank, world_size: this worker's place among those that train together. device: where
    to compute.
    """

    rank: int
    world_size: int
    device: torch.device

    def restore(self) -> bytes | None:
        """The last checkpoint, if this is not the first start."""

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Hand over an epoch. Every worker calls it once per epoch: it is a barrier.

        checkpoint: None after an epoch that none is taken of.
        """

    def beat(self) -> None:
        """Progress was made: a batch, or what comes between them. Cheap."""

    def live(self, step: Step) -> None:
        """How the epoch goes; at most twice a second."""


@dataclass(frozen=True, slots=True)
class Trained:
    """How training ended. history counts the epochs of all attempts."""

    verdict: Verdict
    history: History


def run(task: Task, spec: JobSpec, engine: Engine) -> Trained:
    """Train until the stop rules say so, from the last checkpoint if there is one.

    Raises:
        JobFailed: a loss or metric was not finite, or the task's own code raised.
    """
    trainer = _Trainer(task, spec, engine)
    history = trainer.restore()
    while (verdict := judge(history, spec.stop)) is Verdict.CONTINUE:
        metrics = trainer.epoch(history.epochs + 1)
        history = observe(history, spec.stop, metrics)
        if not history.diverged:
            engine.report(metrics, trainer.checkpoint(history))
    if verdict is Verdict.DIVERGED:
        detail = (
            f"a loss or metric was not finite in epoch {history.epochs}; lower the learning rate"
        )
        raise JobFailed(JobCause.DIVERGED, detail)
    return Trained(verdict, history)


class _Trainer:
    def __init__(self, task: Task, spec: JobSpec, engine: Engine) -> None:
        self._task = task
        self._code_sha256 = code_sha256(task)
        self._engine = engine
        self._bf16 = spec.resources.precision == "bf16"
        # The same weights everywhere, other augmentation in each worker.
        torch.manual_seed(spec.seed)
        with user_code():
            self._net = task.model().to(engine.device)
            self._optimizer = task.optimizer(self._net)
            splits = task.splits()
        self._feed = Feed(
            splits,
            batch_size=task.batch_size,
            rank=engine.rank,
            world_size=engine.world_size,
            seed=spec.seed,
        )
        self._model: nn.Module = self._net
        if dist.is_available() and dist.is_initialized() and engine.world_size > 1:
            self._model = DistributedDataParallel(self._net)
        self._seed = spec.seed
        self._generator = torch.Generator()

    def restore(self) -> History:
        stored = self._engine.restore()
        if stored is None:
            return History()
        state = unpack(stored)
        self._net.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        return History(**state["history"])

    def checkpoint(self, history: History) -> bytes:
        return pack(self._net, self._optimizer, history, self._code_sha256)

    def epoch(self, number: int) -> Metrics:
        started = time.perf_counter()
        # A new stream per epoch, so that a resumed run draws what an unbroken one would.
        stream = (self._seed * 1_000_003 + number) * 1009 + self._engine.rank
        self._generator.manual_seed(stream)
        torch.manual_seed(stream)  # for what the net draws itself, as dropout does
        train_loss, seen = self._train(number)
        elapsed = time.perf_counter() - started
        loss, accuracy = self._validate()
        totals = self._sum([train_loss, seen])
        slowest = self._max(elapsed)
        return {
            "epoch": float(number),
            "loss": totals[0] / max(totals[1], 1.0),
            "validation_loss": loss,
            "accuracy": accuracy,
            "samples_per_s": totals[1] / slowest,
            "epoch_seconds": self._max(time.perf_counter() - started),
        }

    def _autocast(self) -> torch.autocast:
        device = self._engine.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self._bf16)

    def _train(self, number: int) -> tuple[float, float]:
        self._model.train()
        device = self._engine.device
        total = torch.zeros((), device=device, dtype=torch.float64)
        seen = 0
        with user_code():
            for x, y in self._feed.train(number):
                batch = self._task.augment(x, self._generator).to(device)
                labels = y.to(device)
                with self._autocast():
                    loss = self._task.loss(self._model(batch), labels)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self._net.parameters(), MAX_GRADIENT_NORM)
                self._optimizer.step()
                total += loss.detach().double() * len(y)
                seen += len(y)
        return float(total), float(seen)

    def _validate(self) -> tuple[float, float]:
        self._share_buffers()
        self._net.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.inference_mode(), user_code():
            for x, y in self._feed.validation():
                labels = y.to(self._engine.device)
                with self._autocast():
                    logits = self._net(x.to(self._engine.device))
                    loss = self._task.loss(logits, labels)
                right = (logits.argmax(1) == labels).sum()
                sums += torch.tensor([float(loss) * len(y), float(right), len(y)])
        loss_sum, right_sum, n = self._sum(sums.tolist())
        return loss_sum / max(n, 1.0), right_sum / max(n, 1.0)

    def _share_buffers(self) -> None:
        """Judge the net that is saved: running statistics differ between the workers."""
        if isinstance(self._model, DistributedDataParallel):
            for buffer in self._net.buffers():
                dist.broadcast(buffer, src=0)

    def _sum(self, values: list[float]) -> list[float]:
        return self._reduce(values, dist.ReduceOp.SUM)

    def _max(self, value: float) -> float:
        return self._reduce([value], dist.ReduceOp.MAX)[0]

    def _reduce(self, values: list[float], how: Any) -> list[float]:
        if not isinstance(self._model, DistributedDataParallel):
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self._engine.device)
        dist.all_reduce(tensor, op=how)
        found: list[float] = tensor.tolist()
        return found


def pack(model: nn.Module, optimizer: torch.optim.Optimizer, history: History, code: str) -> bytes:
    """A checkpoint, readable with ``weights_only``.

    It holds weights, optimizer, history and ``code_sha256``: the hash of the task's code
    as this training began, which the file may not have any more at the export.
    """
    buffer = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": asdict(history),
        "code_sha256": code,
    }
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """Read a checkpoint. Only tensors and plain values are ever unpickled.

    Raises:
        JobFailed: it is damaged.
    """
    try:
        state: Mapping[str, Any] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
        found = {key: state[key] for key in ("model", "optimizer", "history")}
        # Checkpoints did not always name their code.
        return {**found, "code_sha256": state.get("code_sha256")}
    except Exception as error:
        detail = f"the checkpoint cannot be read: {error}; remove the job's folder and submit again"
        raise JobFailed(JobCause.INTERNAL, detail) from error
