"""The files of a search: each form of each net, made once and kept by content."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from schemas.model import Pass
from workers.errors import WorkerError
from workers.files import sha256_file
from workers.inspection.stream import SetHash, Stream
from workers.optimization.cache import Cache, key_of
from workers.optimization.executor import beat
from workers.optimization.point import Point, SchemeName
from workers.optimization.quantizing.hotspots import slow_nodes
from workers.optimization.quantizing.quantizer import STATIC, Quantizer, to_fp16
from workers.optimization.quantizing.sensitivity import PERFECT_DB, scan
from workers.optimization.searching.trials import Trial, first_line, recall
from workers.optimization.session import Array

log = logging.getLogger(__name__)

MAX_TOLD = 3


@dataclass(frozen=True, slots=True)
class Net:
    """A net in FP32: its file, and the passes that led to it from the trained weights."""

    path: Path
    passes: tuple[Pass, ...] = ()


@dataclass(frozen=True, slots=True)
class _Calibration:
    """x: inputs, (n, …), evenly spaced over the training split: it may be sorted by class."""

    x: Array
    sha256: str


@dataclass(slots=True)
class _Source:
    """A net and what quantizes it, once it is needed; why nothing can, if it cannot."""

    net: Net
    sha256: str
    quantizer: Quantizer | None = None
    fault: str | None = None


class Maker:
    """Makes files.

    Args:
        cache: where they are kept.
        scratch: a folder for what is not.
        train: to calibrate with; None: only forms that need no data.
        samples: of ``train`` to take.
        arch: of the machines to be served.
        portable: the static scheme that all of them run.
    """

    def __init__(
        self,
        cache: Cache,
        scratch: Path,
        train: Stream | None,
        samples: int,
        arch: str,
        portable: SchemeName,
    ) -> None:
        self._cache, self._scratch, self._arch = cache, scratch, arch
        self._train, self._samples, self._portable = train, samples, portable
        self._sources: dict[Point, _Source] = {}
        self._read: _Calibration | None = None

    def add(self, point: Point, net: Net) -> None:
        """Take a net in FP32 as the source of ``point`` (and of its other forms)."""
        self._sources[point] = _Source(net, sha256_file(net.path))

    def wants_dynamic(self) -> bool:
        """Whether the unpruned net is of a kind that is quantized as inputs come."""
        source = self._sources[Point()]
        quantizer = self._quantizer(source)
        return quantizer is not None and quantizer.dynamic

    def make(self, point: Point, judged: str) -> tuple[str, Trial]:
        """A point's file, not yet scored unless it was kept so.

        Args:
            point: whose net was added.
            judged: the hash of the samples on which it will be scored.

        Returns:
            The name under which to keep it, and the trial, which may have failed.
        """
        source = self._source(point)
        if point == point.plain:
            key = key_of("plain", net=source.sha256, judged=judged)
            found = recall(self._cache, key, point)
            return key, found or Trial(point, source.net.path, source.net.passes)
        key = self._key(point, source, judged)
        if (found := recall(self._cache, key, point)) is not None:
            return key, found
        try:
            return key, self._made(point, source, self._scratch / f"{point.id}.onnx")
        except WorkerError:
            raise
        except Exception as error:  # noqa: BLE001 - the libraries raise what they like
            return key, Trial(point, failed=first_line(error))

    def scan(self, point: Point) -> tuple[tuple[str, ...], ...]:
        """The layers of a quantized form by the damage they do; none if nothing is learnt."""
        source = self._source(point)
        quantizer = self._quantizer(source)
        if quantizer is None:
            return ()
        found = scan(quantizer, point.scheme, self._calibration().x, beat=beat)
        if all(one.sqnr_db is None for one in found):
            return ()
        worst = ", ".join(str(one) for one in found[:MAX_TOLD])
        log.info("%s: of %d layers the worst: %s", point.id, len(found), worst)
        return tuple(one.layer.nodes for one in found if one.sqnr_db != PERFECT_DB)

    def slow(self, point: Point, trial: Trial, x: Array) -> tuple[str, ...]:
        """The operators of a quantized form that had better stay in float; see ``hotspots``."""
        source = self._source(point)
        quantizer = self._quantizer(source)
        if quantizer is None or trial.path is None:
            return ()
        try:
            graph = onnx.load(quantizer.prepared).graph
            layers = [
                one for one in quantizer.layers if not set(one.nodes) & set(point.float_nodes)
            ]
            found = slow_nodes(source.net.path, trial.path, layers, graph, x)
        except Exception as error:  # noqa: BLE001 - only a chance is lost
            log.debug("no profile of %s: %s", point.id, error)
            return ()
        if found:
            log.info("%s: slower than in float: %s", point.id, ", ".join(found[:MAX_TOLD]))
        return found

    def _source(self, point: Point) -> _Source:
        own = self._sources.get(Point(point.pruned, point.precision, point.scheme))
        return own or self._sources[point.plain]

    def _made(self, point: Point, source: _Source, target: Path) -> Trial:
        if point.scheme == "fp16":
            to_fp16(source.net.path, target)
            step = _pass("fp16", source.sha256, target, {"inputs_and_outputs": "float32"})
            return Trial(point, target, (*source.net.passes, step))
        quantizer = self._quantizer(source)
        if quantizer is None:
            return Trial(point, failed=source.fault)
        between = sha256_file(quantizer.prepared)
        ready = Pass(name="quant_pre_process", input_sha256=source.sha256, output_sha256=between)
        if point.scheme == "dynamic":
            quantizer.dynamic_to(target, self._arch, point.float_nodes)
            step = _pass("quantize_dynamic", between, target, {"per_channel": True})
        else:
            scheme = point.scheme if point.scheme in STATIC else self._portable
            quantizer.static(target, scheme, point.float_nodes)
            step = _pass("quantize_static", between, target, self._parameters(point, scheme))
        passes = (*source.net.passes, ready, step)
        return Trial(point, target, passes, forced=quantizer.forced)

    def _parameters(self, point: Point, scheme: SchemeName) -> dict[str, str | int | float | bool]:
        calibration = self._calibration()
        return {
            "scheme": scheme,
            "per_channel": True,
            "reduce_range": STATIC[scheme].reduce_range,
            "float_nodes": len(point.float_nodes),
            "calibration_split": "train",
            "calibration_choice": "evenly spaced",
            "calibration_samples": len(calibration.x),
            "calibration_sha256": calibration.sha256,
        }

    def _quantizer(self, source: _Source) -> Quantizer | None:
        if source.quantizer is None and source.fault is None:
            folder = self._scratch / source.sha256
            folder.mkdir(exist_ok=True)
            x = self._calibration().x if self._train is not None else None
            try:
                source.quantizer = Quantizer(source.net.path, x, folder)
            except WorkerError:
                raise
            except Exception as error:  # noqa: BLE001 - the libraries raise what they like
                source.fault = first_line(error)
        return source.quantizer

    def _calibration(self) -> _Calibration:
        if self._read is None:
            if self._train is None:
                msg = "static quantization needs samples of the training data"
                raise ValueError(msg)
            block = self._train.spaced(self._samples)
            digest = SetHash(len(block))
            digest.update(block)
            self._read = _Calibration(block.x, digest.hexdigest())
        return self._read

    def _key(self, point: Point, source: _Source, judged: str) -> str:
        static = point.precision == "int8" and point.scheme != "dynamic"
        return key_of(
            "form",
            net=source.sha256,
            scheme=point.scheme,
            float_nodes=point.float_nodes,
            arch=self._arch,
            calibration=self._calibration().sha256 if static else None,
            judged=judged,
            ort=onnxruntime.__version__,
            onnx=onnx.__version__,
        )


def _pass(
    name: str, before: str, target: Path, parameters: Mapping[str, str | int | float | bool]
) -> Pass:
    return Pass(
        name=name,
        parameters=dict(parameters),
        input_sha256=before,
        output_sha256=sha256_file(target),
    )
