"""What devices tell of a version, and the inputs that they gave away."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.client.errors import AnswerError, Invalid
from orchestrator.client.resources import Resource
from orchestrator.client.transport import Params
from schemas.api import Page
from schemas.telemetry import FeatureView, SampleView, TelemetryPoint, TelemetrySummary

By = Literal["device", "class", "tag"]
Bucket = Literal["1m", "1h", "1d"]
Stream = Literal["uniform", "uncertain"]


class Telemetry(Resource):
    """What the devices report.

    Every method takes ``role`` (``active`` or ``shadow``), ``variant``, ``since`` and ``until``
    (with a time zone), and ``device``, ``device_class`` or ``tag`` to look at a part of the fleet.
    """

    def summary(
        self, model: str, version: int, *, by: By | None = None, **narrow: Any
    ) -> Iterator[TelemetrySummary]:
        """Windows of a version added up, by variant, and by device, class or tag if asked."""
        params = _params(model, version, by=by, **narrow)
        return self._pages("/v1/telemetry/summary", TelemetrySummary, params)

    def series(
        self, model: str, version: int, *, bucket: Bucket = "1h", **narrow: Any
    ) -> Sequence[TelemetryPoint]:
        """The same over time, oldest first; buckets in which nothing came are left out."""
        params = _params(model, version, bucket=bucket, **narrow)
        return self._transport.get("/v1/telemetry/series", Page[TelemetryPoint], params).items

    def features(self, model: str, version: int, **narrow: Any) -> Sequence[FeatureView]:
        """Input statistics of devices beside those of the training data."""
        params = _params(model, version, **narrow)
        return self._transport.get("/v1/telemetry/features", Page[FeatureView], params).items

    def samples(
        self,
        model: str,
        version: int | None = None,
        *,
        stream: Stream | None = None,
        inputs: bool = False,
    ) -> Iterator[SampleView]:
        """Inputs that devices gave away, oldest first; with ``inputs`` their bytes too.

        Fetching bytes is written into the platform's audit log.
        """
        params = _params(model, version, stream=stream, inputs=str(inputs).lower())
        return self._pages("/v1/telemetry/samples", SampleView, params)

    def save_samples(self, model: str, version: int | None, target: Path, *, stream: Stream) -> int:
        """Write samples of a stream to a NumPy file (npz); how many there were.

        It holds ``input:NAME`` for each input, stacked, and beside them ``probability``,
        ``predicted``, ``confidence``, ``truth`` (-1 or NaN where unknown), ``version``, ``device``
        and ``at`` (seconds since 1970). A stream alone: the two must not be mixed.

        Raises:
            Invalid: numpy is missing, shapes differ, or it cannot be written.
        """
        found = list(self.samples(model, version, stream=stream, inputs=True))
        if found:
            write_npz(target, found)
        return len(found)


def write_npz(target: Path, samples: Sequence[SampleView]) -> None:
    """Write samples as arrays, whole or not at all.

    Raises:
        Invalid: as ``Telemetry.save_samples``.
    """
    try:
        import numpy as np  # noqa: PLC0415 - not in the base, and only this needs it
    except ImportError as error:
        detail = "writing .npz needs numpy"
        raise Invalid(detail, hint="pip install 'argosy[server]', or use -o json") from error
    arrays = {f"input:{name}": _stacked(np, name, samples) for name in _input_names(samples)}
    arrays |= {
        "probability": np.array([sample.probability for sample in samples]),
        "predicted": np.array([_or(sample.predicted, -1) for sample in samples]),
        "confidence": np.array([_or(sample.confidence, float("nan")) for sample in samples]),
        "truth": np.array([_or(sample.truth, -1) for sample in samples]),
        "version": np.array([sample.version for sample in samples]),
        "device": np.array([sample.device for sample in samples]),
        "at": np.array([sample.at.timestamp() for sample in samples]),
    }
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with part.open("wb") as out:
            np.savez_compressed(out, **arrays)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        detail = f"{target} cannot be written: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail, hint="see the folder's rights and its free space") from error


def _input_names(samples: Iterable[SampleView]) -> list[str]:
    return list(dict.fromkeys(tensor.name for sample in samples for tensor in sample.inputs))


def _stacked(np: Any, name: str, samples: Sequence[SampleView]) -> Any:
    arrays = [_array(np, name, sample) for sample in samples]
    kinds = {(array.dtype.str, array.shape) for array in arrays}
    if len(kinds) > 1:
        detail = f"samples of {name!r} differ in shape or type, so they make no one array"
        raise Invalid(detail, hint="name one --version, or use -o json")
    return np.stack(arrays)


def _array(np: Any, name: str, sample: SampleView) -> Any:
    """One input; what a device says of it is believed only as far as its bytes agree."""
    where = f"sample {sample.seq} of {sample.device}"
    tensor = next((one for one in sample.inputs if one.name == name), None)
    if tensor is None:
        detail = f"{where} has no input {name!r}"
        raise Invalid(detail, hint="name one --version")
    try:
        data = base64.b64decode(tensor.data, validate=True)
        kind = np.dtype(tensor.dtype)
        if kind.hasobject or kind.names:
            detail = f"{where}: {tensor.dtype!r} is no type of numbers"
            raise AnswerError(detail)
        return np.frombuffer(data, kind).reshape(tensor.shape)
    except (ValueError, TypeError, binascii.Error) as error:
        detail = f"{where}: its bytes are no {tensor.dtype} of shape {list(tensor.shape)}"
        raise AnswerError(detail) from error


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _params(model: str, version: int | None, **more: Any) -> Params:
    params: dict[str, str | int | None] = {"model": model, "version": version}
    for name, value in more.items():
        params[name] = value.isoformat() if isinstance(value, datetime) else value
    return params
