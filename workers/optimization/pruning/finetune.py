"""One pruned net: channels out, then trained until it has recovered. A unit of work.

The order and the result travel between machines: both are plain values.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from schemas.jobfile import JobSpec
from schemas.model import Pass
from workers.blame import user_code
from workers.files import sha256_bytes
from workers.optimization.pruning.netfile import load_net, pack_net
from workers.optimization.pruning.prune import Pruned, prune
from workers.optimization.pruning.tune import Tuned, tune
from workers.task import Task, load_task
from workers.training.checkpoint import unpack
from workers.training.feed import fetch

__all__ = ["PruneOrder", "PrunedNet", "load_net", "prune_and_tune"]

log = logging.getLogger(__name__)

RATE = 0.5
"""Of the task's own learning rate: the weights that stay are not far from where they belong."""

EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class PruneOrder:
    """What to prune.

    spec: the job, with a task. checkpoint: of the training (``workers.training.checkpoint``).
    share: of the channels to go, 0..1. device: ``cpu`` or ``cuda``, where to train after.
    """

    spec: JobSpec
    checkpoint: bytes
    share: float
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class PrunedNet:
    """What came of it.

    net: weights and sizes; ``load_net`` makes a module of them and of a fresh one, without
    running any code of the file. channels: output channels by layer, before and after.
    epochs: of training since. validation_accuracy: of these weights, in torch.
    """

    net: bytes
    channels: dict[str, tuple[int, int]]
    epochs: int
    validation_accuracy: float
    passes: tuple[Pass, ...]


def prune_and_tune(order: PruneOrder) -> PrunedNet:
    """Prune the trained net and train what is left. Deterministic on a CPU.

    Raises:
        UsageError: the net cannot be pruned, and why.
        JobFailed: it diverged, or the task's own code raised.
    """
    started = time.monotonic()
    spec, rules = order.spec, order.spec.optimize
    task = load_task(spec.entrypoint, spec.config, spec.seed, spec.dataset.path)
    whole = trained_net(task, order.checkpoint)
    pruned = prune(whole, examples(task), order.share, classes=len(task.labels))
    with user_code():
        fresh = task.model()
    between = pack_net(pruned.net, fresh)
    name = f"pruned {order.share:.0%}"
    tuned = tune(
        task,
        spec,
        pruned.net,
        epochs=rules.finetune_epochs,
        rate=RATE,
        device=device_of(order.device),
        name=name,
        teacher=whole,
        distill=rules.distill,
    )
    net = pack_net(pruned.net, fresh)
    log.info(
        "%s: %d of %d weights are left; accuracy %.4f, after %d epochs %.4f; %.1f s",
        name,
        pruned.parameters[1],
        pruned.parameters[0],
        tuned.before,
        tuned.epochs,
        tuned.accuracy,
        time.monotonic() - started,
    )
    passes = (
        _prune_pass(order, pruned, between),
        tune_pass("finetune", tuned, between, net, rate=RATE, distill=rules.distill),
    )
    return PrunedNet(net, pruned.channels, tuned.epochs, tuned.accuracy, passes)


def trained_net(task: Task, checkpoint: bytes) -> nn.Module:
    """The net of a checkpoint, on the CPU and in eval mode."""
    weights = unpack(checkpoint)["model"]
    with user_code():
        net = task.model()
        net.load_state_dict(weights)
    return net.eval()


def examples(task: Task) -> Tensor:
    """A few training inputs, spread over the split."""
    with user_code():
        train = task.splits().train
        rows = np.linspace(0, len(train) - 1, EXAMPLES).astype(np.int64)
        x, _ = fetch(train, rows)
    return x


def device_of(name: str) -> torch.device:
    """The device; the CPU where there is no GPU that torch can use."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        log.warning("there is no GPU that torch can use here: on the CPU instead")
        return torch.device("cpu")
    return torch.device(name)


def tune_pass(
    name: str, tuned: Tuned, before: bytes, after: bytes, **parameters: str | float
) -> Pass:
    """What a training did, for the lineage."""
    return Pass(
        name=name,
        parameters={
            "epochs": tuned.epochs,
            "best_epoch": tuned.best_epoch,
            "validation_accuracy_before": tuned.before,
            "validation_accuracy": tuned.accuracy,
            **parameters,
        },
        input_sha256=sha256_bytes(before),
        output_sha256=sha256_bytes(after),
    )


def _prune_pass(order: PruneOrder, pruned: Pruned, after: bytes) -> Pass:
    return Pass(
        name="prune",
        parameters={
            "share": order.share,
            "importance": "group magnitude, L2",
            "weights_before": pruned.parameters[0],
            "weights": pruned.parameters[1],
            "layers": len(pruned.channels),
            "layers_kept_out": len(pruned.kept_out),
        },
        input_sha256=sha256_bytes(order.checkpoint),
        output_sha256=sha256_bytes(after),
    )
