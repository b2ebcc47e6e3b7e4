"""What a user writes: a task, in plain PyTorch.

A task says what to learn from what. It knows nothing of Ray, of ONNX or of Argosy's
other parts: the loop, the export and the package are built around it.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from schemas.ops import Postprocess, Preprocess
from schemas.signature import Signature, TensorSpec
from workers.blame import user_code
from workers.errors import JobFailed, UsageError
from workers.files import sha256_file

SPLITS = ("train", "validation", "test")
DEFAULT_RATE = 1e-3
MAX_RATE = 1e6
MAX_BATCH = 1_000_000


class Samples(Protocol):
    """A map-style data set: ``samples[i]`` is ``(x, y)``.

    x: a tensor of one input, in the dtype that is served. y: the class, a whole number.
    A set too large for each worker's memory is given as ``workers.shards.ShardedSamples``.
    """

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Any]:
        """The input and its class."""
        ...


@dataclass(frozen=True, slots=True)
class Splits:
    """Three disjoint sets: to learn from, to decide by, to report on."""

    train: Samples
    validation: Samples
    test: Samples

    def get(self, name: str) -> Samples:
        """A split by its name.

        Raises:
            UsageError: there is no such split.
        """
        if name not in SPLITS:
            msg = f"no split is called {name!r}"
            raise UsageError(msg, f"choose one of {', '.join(SPLITS)}")
        found: Samples = getattr(self, name)
        return found


class Task(ABC):
    """A classification task.

    Args:
        config: ``JobSpec.config``, as written.
        seed: of the weights and of the split. The same config and seed must give the
            same splits in every process.

    ``labels`` names the classes in the order of the logits. ``batch_size`` is the number
    of samples per batch over all workers; ``config["batch_size"]`` sets it. ``data_path``
    is ``dataset.path`` of the job file, there from the constructor on. ``preprocess`` and
    ``postprocess`` say, as ``schemas.ops``, what whoever serves the model does to inputs
    before the graph and to outputs after it; the samples are as they are after ``preprocess``,
    and what a graph can do belongs into the net. ``class_weights``
    is what ``training.class_weights`` asks for, float32 (classes,) on the device of the
    training, or None; ``loss`` may use it.
    """

    labels: tuple[str, ...]
    batch_size: int = 64
    data_path: str | None = None
    preprocess: tuple[Preprocess, ...] = ()
    postprocess: tuple[Postprocess, ...] = ()
    class_weights: Tensor | None = None

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        self.config = config
        self.seed = seed
        if "batch_size" in config:
            self.batch_size = int(_number(config, "batch_size", MAX_BATCH, whole=True))

    @property
    @abstractmethod
    def input_spec(self) -> TensorSpec:
        """The served input, its batch as -1 in front."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh net.

        Its forward takes a batch in the *served* dtype (normalization belongs inside)
        and gives logits, float32 of shape (batch, classes).
        """

    @abstractmethod
    def splits(self) -> Splits:
        """The data."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss to minimize, a scalar: cross entropy unless overridden.

        It must be a mean over the samples: what batches and workers give is put together
        by their numbers of samples.
        """
        return cross_entropy(logits, y, self.class_weights)

    def metrics(self, logits: Tensor, y: Tensor) -> Mapping[str, Tensor]:  # noqa: ARG002 - for overriding
        """Own figures of the validation split, one per sample: none, unless overridden.

        Each is float (batch,). Their means over the split join the epoch's metrics, under
        these names. At most 32, and the same in every batch. logits: float32 (batch, classes).
        """
        return {}

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - for overriding
        """Vary a training batch, on the CPU; as it is, unless overridden."""
        return x

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW at ``config["lr"]`` (0.001), unless overridden; fused on CUDA."""
        rate = _number(self.config, "lr", MAX_RATE) if "lr" in self.config else DEFAULT_RATE
        parameters = list(model.parameters())
        fused = True if parameters and all(p.is_cuda for p in parameters) else None
        return torch.optim.AdamW(parameters, lr=rate, fused=fused)

    @property
    def signature(self) -> Signature:
        """What the exported model takes and gives: class probabilities."""
        output = TensorSpec(
            name="probabilities",
            dtype="float32",
            shape=(-1, len(self.labels)),
            range=(0.0, 1.0),
            meaning="class probabilities, in the order of the labels",
        )
        return Signature(inputs=(self.input_spec,), outputs=(output,))


def cross_entropy(
    logits: Tensor, y: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy, as a mean over the samples.

    With weights (classes,), each sample counts by that of its class, and the sum is divided
    by the number of samples: unlike the mean of ``torch.nn.functional.cross_entropy``, which
    divides by the weights that a batch happens to hold, parts of a batch then add up.
    """
    if weights is None:
        return nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
    total = nn.functional.cross_entropy(
        logits, y, weight=weights, label_smoothing=smoothing, reduction="sum"
    )
    return total / len(y)


def _number(config: Mapping[str, Any], key: str, most: float, *, whole: bool = False) -> float:
    value = config[key]
    try:
        number = float(value)  # YAML takes 1e-3 for text
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not 0 < number <= most or (whole and number != int(number)):
        kind = "whole number" if whole else "number"
        msg = f"config.{key}: {value!r} is no {kind} above 0 and up to {most:g}"
        raise UsageError(msg, "correct it in the job file")
    return number


def load_task(
    entrypoint: str, config: Mapping[str, Any], seed: int, data_path: str | None = None
) -> Task:
    """Make the task that ``module:Class`` names.

    Args:
        entrypoint: of the code folder, or a recipe that is installed.
        config: ``JobSpec.config``.
        seed: ``JobSpec.seed``.
        data_path: ``JobSpec.dataset.path``.

    Raises:
        UsageError: the module or the class is not there, or is no task.
        JobFailed: with cause user_code, if its own code raises.
    """
    module_name, _, class_name = entrypoint.partition(":")
    module = _import(module_name, entrypoint)
    found = getattr(module, class_name, None)
    if found is None:
        msg = f"task {entrypoint!r}: module {module_name} has no class {class_name!r}"
        raise UsageError(msg, "write it as module:Class")
    if not (inspect.isclass(found) and issubclass(found, Task)):
        msg = f"task {entrypoint!r}: {class_name} is not a subclass of workers.task.Task"
        raise UsageError(msg, "derive it from Task")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        msg = f"task {entrypoint!r}: {class_name} does not define {missing}"
        raise UsageError(msg, "define them")
    with user_code():
        task: Task = found.__new__(found)
        task.data_path = data_path  # a constructor may well want to read it
        task.__init__(config, seed)  # type: ignore[misc]
    if not getattr(task, "labels", ()):
        msg = f"task {entrypoint!r}: {class_name}.labels is empty"
        raise UsageError(msg, "name its classes")
    for field, kind in _OPERATIONS.items():
        _check_operations(entrypoint, field, getattr(task, field), kind)
    return task


_OPERATIONS: dict[str, Any] = {"preprocess": Preprocess, "postprocess": Postprocess}
_MOST_OPERATIONS = 16


def _check_operations(entrypoint: str, field: str, found: Any, kind: Any) -> None:
    try:
        made = TypeAdapter(tuple[kind, ...]).validate_python(tuple(found))
    except (TypeError, ValidationError) as error:
        msg = f"task {entrypoint!r}: {field} is no tuple of operations of schemas.ops"
        raise UsageError(msg, f"correct it: {str(error).splitlines()[0]}") from error
    if len(made) > _MOST_OPERATIONS:
        msg = f"task {entrypoint!r}: {field} has {len(made)} operations, allowed are 16"
        raise UsageError(msg, "put what a graph can do into the net")


def _import(module_name: str, entrypoint: str) -> ModuleType:
    try:
        with user_code():
            return importlib.import_module(module_name)
    except JobFailed as failure:
        missing = failure.__cause__
        name = missing.name if isinstance(missing, ModuleNotFoundError) else None
        if name is not None and (module_name == name or module_name.startswith(f"{name}.")):
            msg = f"task {entrypoint!r}: there is no module {name!r}"
            raise UsageError(msg, "install it where the job runs") from missing
        raise


def source_of(task: Task) -> Path:
    """The file in which a task's class is written."""
    return Path(inspect.getfile(type(task)))


def code_sha256(task: Task) -> str:
    """The hash of that file: a name for the code a model was trained by."""
    return sha256_file(source_of(task))
