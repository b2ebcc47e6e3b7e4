"""Training a net a little further, by the same loop and the task's own data and loss."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from schemas.jobfile import JobSpec, Schedule, StopRules
from schemas.signature import TensorSpec
from workers.blame import user_code
from workers.optimization.executor import beat
from workers.task import Splits, Task
from workers.training.engine import Metrics
from workers.training.feed import Feed, seed_all
from workers.training.local import LocalEngine
from workers.training.loop import run, unpack

log = logging.getLogger(__name__)

TEMPERATURE = 4.0
"""Of the answers that a net learns from another (Hinton et al., 2015, arXiv 1503.02531)."""

WARM_UP_EPOCHS = 0.5


@dataclass(frozen=True, slots=True)
class Tuned:
    """How it went. accuracy: on the validation split, of the weights that were kept.

    before: that of the net as it came; best_epoch: 0 if that was the best.
    """

    accuracy: float
    before: float
    best_epoch: int
    epochs: int


class Tuning(Task):
    """A task whose net is given, learns at another rate, and may have a teacher.

    Args:
        task: the user's.
        net: to be trained, in place.
        rate: factor of the task's own learning rate.
        teacher: whose answers count ``distill`` in the loss.
        distill: 0..1.
    """

    def __init__(
        self,
        task: Task,
        net: nn.Module,
        rate: float,
        teacher: nn.Module | None = None,
        distill: float = 0.0,
    ) -> None:
        self._task, self._net, self._rate = task, net, rate
        self._distill = distill
        self._taught: Tensor | None = None
        super().__init__({}, task.seed)
        self.config = task.config
        self.labels, self.batch_size = task.labels, task.batch_size
        self.data_path = task.data_path
        # In a closure, not as a submodule: its weights are no part of what is trained.
        self._hook = None if teacher is None else partial(self._teach, teacher)

    @property
    def input_spec(self) -> TensorSpec:
        """The task's."""
        return self._task.input_spec

    @property
    def class_weights(self) -> Tensor | None:
        """The task's."""
        return self._task.class_weights

    @class_weights.setter
    def class_weights(self, value: Tensor | None) -> None:
        self._task.class_weights = value

    def model(self) -> nn.Module:
        """The net that was given."""
        return self._net

    def splits(self) -> Splits:
        """The task's."""
        return self._task.splits()

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """As the task does."""
        return self._task.augment(x, generator)

    def metrics(self, logits: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """The task's."""
        return self._task.metrics(logits, y)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The task's, at ``rate`` of its rate."""
        found = self._task.optimizer(model)
        for group in found.param_groups:
            group["lr"] = group["lr"] * self._rate
        return found

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The task's; with a teacher, a share of it is how far the answers are from its own."""
        own = self._task.loss(logits, y)
        taught, self._taught = self._taught, None
        if taught is None:
            return own
        return (1.0 - self._distill) * own + self._distill * distance(logits, taught)

    def listen(self, stack: ExitStack) -> None:
        """Ask the teacher of each training batch until the stack closes."""
        if self._hook is not None:
            stack.callback(self._net.register_forward_hook(self._hook).remove)

    def _teach(self, teacher: nn.Module, net: nn.Module, x: tuple[Any, ...], _: Any) -> None:
        if net.training and torch.is_grad_enabled():
            with torch.no_grad():
                self._taught = teacher(*x).float()


def distance(logits: Tensor, taught: Tensor) -> Tensor:
    """The divergence of softened answers, as a mean over the samples, times T²."""
    mine = torch.log_softmax(logits.float() / TEMPERATURE, dim=1)
    theirs = torch.log_softmax(taught / TEMPERATURE, dim=1)
    found = nn.functional.kl_div(mine, theirs, reduction="batchmean", log_target=True)
    return found * TEMPERATURE**2


class _Engine(LocalEngine):
    """Beats for whoever watches, and keeps the weights that came if no epoch is better."""

    def __init__(self, metric: str, before: float, name: str, device: torch.device) -> None:
        super().__init__(metric, self._tell, device=device)
        self._best_value = before
        self._name = name

    def restore(self) -> bytes | None:
        """Nothing: the net that was given is the beginning."""
        return None

    def beat(self) -> None:
        """Progress was made."""
        beat()

    def _tell(self, metrics: Metrics) -> None:
        epoch, accuracy = int(metrics["epoch"]), metrics["accuracy"]
        log.info(
            "%s, epoch %d: loss %.4g, accuracy %.4f", self._name, epoch, metrics["loss"], accuracy
        )


def tune(
    task: Task,
    spec: JobSpec,
    net: nn.Module,
    *,
    epochs: int,
    rate: float,
    device: torch.device,
    name: str,
    teacher: nn.Module | None = None,
    distill: float = 0.0,
) -> Tuned:
    """Train ``net`` further, in place; the best epoch's weights stay, in eval mode on the CPU.

    The rate rises for half an epoch, then falls to 0 as half a cosine. With the same seed on
    a CPU the result is the same.

    Args:
        task: of this call alone: what it weighs its classes by is set on it.
        spec: the job.
        net: of the task's inputs and labels.
        epochs: 0: it is judged alone.
        rate: factor of the task's learning rate.
        device: where to train.
        name: in the log.
        teacher: see ``Tuning``. It is moved to ``device``.
        distill: see ``Tuning``.

    Raises:
        JobFailed: as ``workers.training.loop.run``.
    """
    seed_all(spec.seed)
    net.to(device)
    before = validate(task, spec, net, device)
    engine = _Engine(spec.stop.metric, before, name, device)
    kept = copy.deepcopy(net.state_dict())
    best = 0
    if epochs:
        if teacher is not None:
            teacher.to(device).eval()
        used = teacher if distill > 0 else None
        tuning = Tuning(task, net, rate, used, distill)
        with ExitStack() as stack:
            tuning.listen(stack)
            run(tuning, _spec(spec, epochs), engine)
        if engine.best is not None:
            state = unpack(engine.best)
            kept, best = state["model"], int(state["history"]["epochs"])
    net.load_state_dict(kept)
    net.cpu().eval()
    accuracy = engine.reports[best - 1]["accuracy"] if best else before
    return Tuned(accuracy, before, best, len(engine.reports))


def _spec(spec: JobSpec, epochs: int) -> JobSpec:
    """The job's rules, but for what concerns the first training alone."""
    stop = StopRules(
        metric=spec.stop.metric,
        patience=epochs,
        max_epochs=epochs,
        require_target=False,
    )
    schedule = Schedule(kind="cosine", warmup_epochs=min(WARM_UP_EPOCHS, epochs / 2))
    # Compiling takes longer than the few epochs that it would speed up.
    training = spec.training.model_copy(
        update={"schedule": schedule, "compile": False, "checkpoint_every": epochs}
    )
    return spec.model_copy(update={"stop": stop, "training": training})


def validate(task: Task, spec: JobSpec, net: nn.Module, device: torch.device) -> float:
    """The accuracy on the validation split, as the training loop measures it."""
    right = seen = 0
    bf16 = spec.resources.precision == "bf16"
    net.eval()
    with user_code(), torch.inference_mode():
        feed = Feed(task.splits(), batch_size=task.batch_size, rank=0, world_size=1, seed=spec.seed)
        for x, y in feed.validation():
            beat()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                logits = net(x.to(device))
            right += int((logits.argmax(1).cpu() == y).sum())
            seen += len(y)
    return right / max(1, seen)
