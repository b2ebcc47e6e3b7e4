"""Manifests, devices and figures as the resolution of variants needs them, from few words."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.device import Hardware
from schemas.measure import Benchmark, Golden, MeasuredVariant, ModelFile
from schemas.model import Manifest, Requires, Variant
from schemas.signature import Signature, TensorSpec

CPU = "CPUExecutionProvider"
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
TENSOR = TensorSpec(name="x", dtype="uint8", shape=(-1, 1, 8, 8))
SIGNATURE = Signature(inputs=(TENSOR,), outputs=(TENSOR,))


def file(name: str, size: int = 1000) -> ModelFile:
    digest = name.encode().hex().ljust(64, "0")[:64]
    return ModelFile(path=f"{name}.onnx", size=size, sha256=digest, leaves_sha256="0" * 64)


def bench(p50: float, **more) -> Benchmark:
    values = {"host": "maker", "arch": "x86_64", "provider": CPU, "batch": 1, "runs": 100}
    times = {"p50_ms": p50, "p95_ms": p50 * 2, "p99_ms": p50 * 3, "load_ms": 5}
    return Benchmark.model_validate({**values, **times, **more})


def variant(name: str, p50: float | None = None, *, size: int = 1000, **more) -> Variant:
    requires = Requires(**{k: more.pop(k) for k in list(more) if k in Requires.model_fields})
    values = {
        "id": name,
        "precision": "int8" if "int8" in name else "fp32",
        "scheme": "none",
        "opset": 20,
        "file": file(name, size),
        "requires": requires,
        "benchmarks": () if p50 is None else (bench(p50),),
        "golden": Golden(file=file("golden"), samples=1, tolerance=0.01),
    }
    return Variant.model_validate({**values, **more})


def manifest(*variants: Variant, **more) -> Manifest:
    return Manifest(model="digits", signature=SIGNATURE, variants=variants, **more)


def hardware(**more) -> Hardware:
    values = {"arch": "x86_64", "cpus": 4, "ram_mb": 4096, "providers": (CPU,), "ort": "1.31.1"}
    return Hardware.model_validate({**values, "agent": "0.1.0", **more})


def measured(name: str, p50: float, device_class: str = "cam", **more) -> MeasuredVariant:
    values = {"variant": name, "device_class": device_class, "devices": 3, "p50_ms": p50}
    return MeasuredVariant.model_validate(
        {**values, "p95_ms": p50 * 2, "load_ms": 5, "at": AT, **more}
    )
