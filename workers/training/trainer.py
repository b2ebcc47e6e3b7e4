"""One worker's net, optimizer and data, and what an epoch does with them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.blame import user_code
from workers.errors import JobFailed
from workers.task import Task, code_sha256
from workers.training.checkpoint import pack, unpack
from workers.training.diagnosis import Diagnosis
from workers.training.engine import Engine, Metrics
from workers.training.feed import Feed, seed_all
from workers.training.group import Group
from workers.training.schedule import Rates
from workers.training.step_guard import StepGuard
from workers.training.steps import Pulse
from workers.training.stop import EPOCH_SECONDS, TRAIN_ACCURACY, History, history_of
from workers.training.validation import Tally, check_finite


class Trainer:
    """Trains and validates, epoch by epoch.

    Args:
        task: the user's.
        spec: the job.
        engine: what surrounds it.
        clock: seconds, monotonic.
        read_every: see ``StepGuard``.
    """

    def __init__(
        self,
        task: Task,
        spec: JobSpec,
        engine: Engine,
        *,
        clock: Callable[[], float] = time.perf_counter,
        read_every: int | None = None,
    ) -> None:
        self._task, self._spec, self._engine, self._clock = task, spec, engine, clock
        self._code_sha256 = code_sha256(task)
        self._group = Group(engine)
        cuda = engine.device.type == "cuda"
        seed_all(spec.seed)  # the same weights everywhere
        with user_code():
            self._net = task.model().to(engine.device)
            self._optimizer = task.optimizer(self._net)
            splits = task.splits()
            self._group.same_splits(splits)
        self._feed = Feed(
            splits,
            batch_size=task.batch_size,
            rank=engine.rank,
            world_size=engine.world_size,
            seed=spec.seed,
            loaders=spec.training.loader_workers,
            pin=cuda,
        )
        self._rates = Rates(self._optimizer, spec.training.schedule)
        if spec.training.class_weights == "balanced":
            task.class_weights = self._class_weights()
        # The net is kept beside what runs it, so that its weights keep their plain names.
        # Not Module.compile: it silently compiles nothing of torch's own kinds of modules.
        self._alone: nn.Module = self._net
        if spec.training.compile:
            self._alone = cast("nn.Module", torch.compile(self._net))
        self._model = self._group.wrap(self._alone)
        self._parameters = [p for p in self._net.parameters() if p.requires_grad]
        self._guard = StepGuard(engine.device, read_every)
        self._pulse = Pulse(engine.live, clock, spec.stop.max_epochs)
        self._diagnosis = Diagnosis(task, self._net, self._feed, engine, self._group)
        self._generator = torch.Generator()
        self._own_names: tuple[str, ...] | None = None
        self._checked = self._stepped = False

    def restore(self) -> History:
        """Take over the last checkpoint, if there is one."""
        stored = self._engine.restore()
        if stored is None:
            return History()
        state = unpack(stored)
        self._net.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        return history_of(state["history"])

    def checkpoint(self, history: History) -> bytes | None:
        """The training as it is now; only the first worker's is kept, so only it makes one."""
        if self._engine.rank != 0:
            return None
        return pack(self._net, self._optimizer, history, self._code_sha256)

    def epoch(self, number: int, budget: float = math.inf) -> Metrics:
        """Train and validate once. budget: seconds of training that are left.

        Raises:
            JobFailed: diverged: a loss or a gradient was not finite; user_code.
        """
        started = self._clock()
        # A new stream per epoch, so that a resumed run draws what an unbroken one would;
        # other augmentation in each worker.
        stream = (self._spec.seed * 1_000_003 + number) * 1009 + self._engine.rank
        self._generator.manual_seed(stream)
        seed_all(stream)
        with user_code(), _compiling(on=self._spec.training.compile):
            right, seen = self._train(number, budget)
            elapsed = self._clock() - started
            validation = self._validate(number)
        totals = self._group.sum([self._guard.total, right, seen])
        n = max(totals[2], 1.0)
        seconds = self._group.max(self._clock() - started)
        self._pulse.end(seconds)
        return {
            "epoch": float(number),
            "loss": totals[0] / n,
            TRAIN_ACCURACY: totals[1] / n,
            **validation,
            "samples_per_s": totals[2] / max(self._group.max(elapsed), 1e-9),
            EPOCH_SECONDS: seconds,
            "lr": self._rates.now,
        }

    def _train(self, epoch: int, budget: float) -> tuple[float, float]:
        """Train an epoch; how many of this worker's samples were right, of how many."""
        self._model.train()
        self._guard.begin()
        self._optimizer.zero_grad(set_to_none=True)
        sizes = [len(batch) for batch in self._feed.plan(epoch)]
        world, seen, last = self._engine.world_size, 0, len(sizes) - 1
        self._pulse.begin(epoch, batches=len(sizes), samples=sum(sizes) * world, budget=budget)
        right = torch.zeros((), dtype=torch.int64, device=self._engine.device)
        together = self._spec.training.accumulate
        for number, (x, y) in enumerate(self._feed.train(epoch)):
            self._engine.beat()
            first = number - number % together
            share = len(y) / sum(sizes[first : first + together])
            steps = number % together == together - 1 or number == last
            right += self._batch(x, y, share, exchange=steps)
            if steps:
                self._step(epoch, number // together, -(-len(sizes) // together))
            seen += len(y)
            if self._engine.rank == 0:
                self._pulse.tick(number + 1, seen * world, self._guard.peek)
        if (bad := self._guard.read()) is not None:
            raise self._diagnosis.lost(epoch, bad, together, self._rates.now)
        return float(right), float(seen)

    def _batch(self, x: Tensor, y: Tensor, share: float, *, exchange: bool) -> Tensor:
        """Forward and backward of a batch that is this share of its step's samples."""
        device = self._engine.device
        batch = self._task.augment(x, self._generator).to(device, non_blocking=True)
        labels = y.to(device, non_blocking=True)
        if exchange:
            loss, logits = self._forward(batch, labels, share)
        else:
            with self._group.alone(self._model):
                loss, logits = self._forward(batch, labels, share)
        self._guard.saw(loss, len(y))
        return (logits.detach().argmax(1) == labels).sum()

    def _forward(self, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
        with self._autocast():
            logits = self._model(x)
            self._check(logits, len(y))
            loss = self._task.loss(logits, y)
        if not self._checked:
            _check_loss(loss)
            self._checked = True
        loss = loss.reshape(())
        (loss if share == 1.0 else loss * share).backward()  # type: ignore[no-untyped-call]
        return loss, logits

    def _step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """One step of the optimizer, unless the gradients are known not to be finite."""
        if not self._stepped:
            self._group.all_used(self._net)
            self._stepped = True
        norm = get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if (bad := self._guard.step(norm)) is not None:
            together = self._spec.training.accumulate
            raise self._diagnosis.lost(epoch, bad, together, self._rates.now)
        if self._guard.deferred and getattr(self._optimizer, "_step_supports_amp_scaling", False):
            # As GradScaler does: a fused optimizer then makes no such step, on the device.
            self._optimizer.grad_scale = None  # type: ignore[attr-defined]
            self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        if (limit := self._spec.training.clip_norm) is not None:
            clip_grads_with_norm_(self._parameters, limit, norm)
        done = (epoch - 1) * steps_per_epoch + step
        self._rates.apply(done, steps_per_epoch, self._spec.stop.max_epochs)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _validate(self, epoch: int) -> Metrics:
        # Judge the net that is saved: running statistics differ between the workers.
        self._group.share_buffers(self._net)
        self._model.eval()
        device = self._engine.device
        tally = Tally(device)
        with torch.inference_mode():
            for x, y in self._feed.validation():
                self._engine.beat()
                labels = y.to(device, non_blocking=True)
                with self._autocast():
                    logits = self._alone(x.to(device, non_blocking=True))
                    self._check(logits, len(y))
                    loss = self._task.loss(logits, labels).reshape(())
                own = self._task.metrics(logits.float(), labels)
                tally.add(loss, logits, labels, own)
        if self._own_names is None:
            self._own_names = tally.own_names(self._group)
        loss_mean, accuracy, own_means = tally.means(self._group, self._own_names)
        if not math.isfinite(loss_mean):
            last = self._guard.last_loss
            raise self._diagnosis.lost_in_validation(epoch, tally.losses(), last, self._rates.now)
        check_finite(own_means, epoch)
        return {"validation_loss": loss_mean, "accuracy": accuracy, **own_means}

    def _autocast(self) -> torch.autocast:
        bf16 = self._spec.resources.precision == "bf16"
        return torch.autocast(self._engine.device.type, dtype=torch.bfloat16, enabled=bf16)

    def _check(self, logits: Tensor, n: int) -> None:
        wanted = (n, len(self._task.labels))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            detail = (
                f"the model gives {found} for a batch of {n}, but there are {wanted[1]} labels: "
                f"its logits must be {list(wanted)}"
            )
            raise JobFailed(JobCause.USER_CODE, detail)

    def _class_weights(self) -> Tensor:
        counts = self._feed.class_counts(len(self._task.labels), self._engine.beat)
        weights = balanced(self._group.sum(counts.tolist()))
        return torch.tensor(weights, dtype=torch.float32, device=self._engine.device)


def balanced(counts: Sequence[float]) -> list[float]:
    """Weights n / (k · n_c) of k classes with n_c samples each, n in all.

    Their mean over the samples is 1. A class without samples gets 1 and does not count in k
    (King and Zeng, Political Analysis 9, 2001, as scikit-learn's ``balanced``).
    """
    present = sum(1 for c in counts if c)
    return [sum(counts) / (present * c) if c else 1.0 for c in counts]


def _check_loss(loss: Tensor) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        detail = f"Task.loss gives {found}, not one number: return a mean over the batch"
        raise JobFailed(JobCause.USER_CODE, detail)


@contextmanager
def _compiling(*, on: bool) -> Iterator[None]:
    """Within: what ``torch.compile`` raises says how to do without it."""
    try:
        yield
    except Exception as error:
        if on and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            text = " ".join(lines[:2])[:500] or type(error).__name__
            detail = f"torch.compile cannot compile the model: {text}; set training.compile: false"
            raise JobFailed(JobCause.USER_CODE, detail) from error
        raise
