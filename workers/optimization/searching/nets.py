"""Nets that must be trained: ordered from the executor, exported here, kept by content."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from schemas.jobfile import JobSpec
from schemas.model import Pass
from workers.errors import WorkerError
from workers.files import sha256_bytes, sha256_file
from workers.optimization.cache import Cache, key_of
from workers.optimization.executor import Executor, TrialFailed, failed
from workers.optimization.exporting.export import export
from workers.optimization.point import static_schemes
from workers.optimization.pruning.finetune import PruneOrder, load_net, prune_and_tune
from workers.optimization.pruning.qat import QatOrder, train_quantized
from workers.optimization.quantizing.quantizer import STATIC
from workers.optimization.searching.make import Net
from workers.optimization.session import Array
from workers.task import Task

log = logging.getLogger(__name__)

_PASSES = TypeAdapter(tuple[Pass, ...])
_NET, _MODEL, _RECORD = "net.pt", "model.onnx", "passes.json"


class _Made(Protocol):
    """What a training gives: ``PrunedNet`` and its like."""

    @property
    def net(self) -> bytes:
        """As ``netfile`` packs it."""
        ...

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What was done."""
        ...


class TrainedNets:
    """Pruned nets of a task; see ``search.Nets``.

    Args:
        task: the task.
        spec: the job.
        checkpoint: of the training.
        weights_sha256: what names these weights in the cache.
        executor: where nets are trained.
        cache: where they are kept.
        samples: real inputs, (n ≥ 2, …), for the exporter and the check of parity.
        scratch: a folder for what is being made.
    """

    def __init__(
        self,
        task: Task,
        spec: JobSpec,
        checkpoint: bytes,
        weights_sha256: str,
        *,
        executor: Executor,
        cache: Cache,
        samples: Array,
        scratch: Path,
    ) -> None:
        self._task, self._spec, self._checkpoint = task, spec, checkpoint
        self._executor, self._cache = executor, cache
        self._samples, self._scratch = samples, scratch
        self._device = "cuda" if spec.resources.gpus_per_worker else "cpu"
        self._decides = {
            "weights": weights_sha256,
            "task": spec.task,
            "config": spec.config,
            "code": spec.code.sha256 if spec.code is not None else None,
            "seed": spec.seed,
            "batch_size": task.batch_size,
            "precision": spec.resources.precision,
            "training": spec.training.model_dump(mode="json"),
            "torch": version("torch"),
        }

    @property
    def can_train(self) -> bool:
        """Whether quantization in the loop is to be had."""
        return self._spec.optimize.qat_epochs > 0

    def pruned(self, shares: Sequence[float]) -> Iterator[tuple[float, Net | TrialFailed]]:
        """See ``search.Nets``."""
        keys = {share: self._pruned_key(share) for share in shares}
        orders = {
            share: PruneOrder(self._spec, self._checkpoint, share, self._device) for share in shares
        }
        yield from self._nets(keys, orders, prune_and_tune)

    def trained(self, shares: Sequence[float]) -> Iterator[tuple[float, Net | TrialFailed]]:
        """See ``search.Nets``. A pruned net must have been asked for before."""
        optimize = self._spec.optimize
        bits = 7 if STATIC[static_schemes(platform.machine(), ())[1]].reduce_range else 8
        keys, orders = {}, {}
        for share in shares:
            packed = self._packed(share)
            keys[share] = key_of(
                "qat",
                net=None if packed is None else sha256_bytes(packed),
                epochs=optimize.qat_epochs,
                distill=optimize.distill,
                bits=bits,
                **self._decides,
            )
            orders[share] = QatOrder(
                self._spec, self._checkpoint, packed, weight_bits=bits, device=self._device
            )
        yield from self._nets(keys, orders, train_quantized)

    def _packed(self, share: float) -> bytes | None:
        """A pruned net as it is kept; None for the one that is not pruned."""
        if share == 0:
            return None
        folder = self._cache.get(self._pruned_key(share))
        if folder is None:
            msg = f"the net pruned by {share:g} is not there"
            raise ValueError(msg)
        return (folder / _NET).read_bytes()

    def _pruned_key(self, share: float) -> str:
        optimize = self._spec.optimize
        return key_of(
            "pruned",
            share=share,
            epochs=optimize.finetune_epochs,
            distill=optimize.distill,
            **self._decides,
        )

    def _nets(
        self, keys: Mapping[float, str], orders: Mapping[float, Any], function: Any
    ) -> Iterator[tuple[float, Net | TrialFailed]]:
        """First those that are kept, then the others as they end."""
        left = []
        for share, key in keys.items():
            if (kept := self._kept(key)) is not None:
                log.info("the net pruned by %g is there from an earlier attempt", share)
                yield share, self._exported(key, *kept)
            else:
                left.append(share)
        for index, made in self._executor.map(function, [orders[share] for share in left]):
            share = left[index]
            yield share, made if isinstance(made, TrialFailed) else self._taken(keys[share], made)

    def _kept(self, key: str) -> tuple[bytes, tuple[Pass, ...]] | None:
        """A trained net as it is kept, with its passes."""
        folder = self._cache.get(key)
        if folder is None:
            return None
        try:
            passes = _PASSES.validate_json((folder / _RECORD).read_bytes())
            return (folder / _NET).read_bytes(), passes
        except (OSError, ValidationError):
            return None

    def _taken(self, key: str, made: _Made) -> Net | TrialFailed:
        """Keep a net as soon as it is trained: whoever is killed later need not do it again."""
        self._cache.put(key, {_NET: made.net, _RECORD: _PASSES.dump_json(tuple(made.passes))})
        return self._exported(key, made.net, made.passes)

    def _exported(
        self, trained: str, packed: bytes, trained_by: tuple[Pass, ...]
    ) -> Net | TrialFailed:
        """The net as a graph, kept too. What is wrong with it ends this trial, not the job."""
        key = key_of("exported", net=trained)
        folder = self._cache.get(key)
        if folder is not None:
            try:
                passes = _PASSES.validate_json((folder / _RECORD).read_bytes())
                return Net(folder / _MODEL, passes)
            except (OSError, ValidationError):
                pass  # it is made again
        try:
            net = load_net(self._task, packed)
            path = self._scratch / f"{key}.onnx"
            exported = export(net, self._task.signature, self._samples, path)
        except WorkerError as error:
            return failed(error)
        step = Pass(
            name="export",
            parameters={"opset": exported.opset, "parity_max_abs": exported.parity_max_abs},
            input_sha256=trained_by[-1].output_sha256,
            output_sha256=sha256_file(path),
        )
        passes = (*trained_by, step)
        files = {
            _MODEL: path.read_bytes(),
            _RECORD: _PASSES.dump_json(passes),
        }
        return Net(self._cache.put(key, files) / _MODEL, passes)
