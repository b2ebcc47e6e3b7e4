"""The parts of a job as words: what it used, where its code is from, how it does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.cli import console
from schemas.job import Cost, JobState, JobView, Live, Trial, Usage
from schemas.jobfile import JobSpec
from schemas.lineage import Code

_HOUR = 3600.0
_SHORT = 12


def usage_text(usage: Usage) -> str | None:
    """Core-hours and GPU-hours, as in ``1.25 core-hours (82 % used), 0.5 GPU-hours``."""
    parts = []
    if usage.cpu_seconds:
        text = f"{usage.cpu_seconds / _HOUR:.3g} core-hours"
        if usage.cpu_used_seconds:
            text += f" ({100 * usage.cpu_used_seconds / usage.cpu_seconds:.0f} % used)"
        parts.append(text)
    if usage.gpu_seconds:
        parts.append(f"{usage.gpu_seconds / _HOUR:.3g} GPU-hours")
    return ", ".join(parts) or None


def cost_text(cost: Cost | None) -> str | None:
    """An amount of money, as in ``0.0124 EUR``."""
    if cost is None:
        return None
    digits = 2 if cost.amount >= 1 or cost.amount == 0 else 4
    return f"{cost.amount:,.{digits}f} {console.clean(cost.currency)}"


def code_text(code: Code | None) -> str | None:
    """What code a job runs."""
    if code is None:
        return None
    parts = [code.sha256[:_SHORT], f"{code.files} files" if code.files > 1 else "1 file"]
    parts.append(console.size(code.size))
    if code.requirements:
        parts.append("requirements.txt")
    if code.git_commit:
        dirty = ", with changes" if code.git_dirty else ""
        parts.append(f"commit {code.git_commit[:_SHORT]}{dirty}")
    return ", ".join(parts)


def trains(spec: JobSpec) -> bool:
    """Whether a job trains from the beginning, so that it has epochs and a target."""
    return spec.task is not None and spec.base is None


def source_text(spec: JobSpec) -> str | None:
    """What a job begins with that does not train from the beginning."""
    if spec.base is not None:
        return f"the weights of {spec.base}"
    if spec.onnx is None:
        return None
    return f"{console.clean(spec.onnx.name)}, {console.size(spec.onnx.size)}"


def resources_text(view: JobView) -> str:
    """What a job asks for."""
    res = view.spec.resources
    if view.spec.batch is not None:
        return f"{res.workers} x {_count(res.cpus_per_worker, 'CPU')}"
    gpus = f" and {_count(res.gpus_per_worker, 'GPU')}" if res.gpus_per_worker else ""
    memory = f", {res.memory_gb:g} GiB each" if res.memory_gb else ""
    cpus = _count(res.cpus_per_worker, "CPU")
    return f"{res.workers} x {cpus}{gpus}, {res.precision}{memory}"


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"


def waiting_text(view: JobView, now: datetime | None = None) -> str | None:
    """What a job waits for, where it does."""
    now = now or datetime.now(UTC)
    parts = [console.clean(view.notice)] if view.notice else []
    if view.state is JobState.QUEUED:
        if view.not_before is not None and view.not_before > now:
            left = console.duration((view.not_before - now).total_seconds())
            parts.insert(0, f"it failed, and is tried again in {left}")
        elif view.position is not None:
            parts.insert(0, f"number {view.position} in the queue")
    return "; ".join(parts) or None


def parameters_text(trial: Trial) -> str:
    """What a trial tried, as in ``lr=0.1 seed=2``."""
    return " ".join(
        f"{console.clean(key).removeprefix('config.')}={plain_value(value)}"
        for key, value in trial.parameters.items()
    )


def plain_value(value: Any) -> str:
    """A value of a job file, as it would be written there, with six digits."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else console.clean(str(value))


def live_parts(live: Live, *, rows: bool = False) -> list[tuple[str, str]]:
    """The live figures with their names; what is not known is left out."""
    unit = "rows/s" if rows else "samples/s"
    gpu = [] if live.gpu_percent is None else [f"{live.gpu_percent:.0f} %"]
    gpu += [] if live.gpu_mem_mb is None else [console.size(int(live.gpu_mem_mb * 1024**2))]
    known: list[tuple[str, str | None]] = [
        ("loss", None if live.loss is None else f"{live.loss:.4g}"),
        (unit, None if live.samples_per_s is None else f"{live.samples_per_s:,.0f}"),
        ("ETA", None if live.eta_seconds is None else console.duration(live.eta_seconds)),
        ("workers", str(live.workers) if live.workers else None),
        ("CPU", None if live.cpu_percent is None else f"{live.cpu_percent:.0f} %"),
        ("memory", None if live.rss_mb is None else console.size(int(live.rss_mb * 1024**2))),
        ("GPU", ", ".join(gpu) or None),
    ]
    return [(name, value) for name, value in known if value is not None]


def problems_text(view: JobView) -> str | None:
    """How many problems the data has, and how to see them."""
    if not view.problems:
        return None
    count = len(view.problems)
    what = "1 problem" if count == 1 else f"{count} problems"
    return f"{what} in the data: `argosy job profile {view.id}`"


def ordered(values: dict[str, float], metric: str) -> list[tuple[str, float]]:
    """The judged metric first, then losses, then other accuracies; not what was timed."""
    first = [metric] if metric in values else []
    losses = sorted(k for k in values if "loss" in k and k != metric)
    shares = sorted(k for k in values if "acc" in k and k != metric)
    return [(name, values[name]) for name in [*first, *losses, *shares]]


def words(name: str) -> str:
    """A metric's name, for people."""
    return console.clean(name).replace("_", " ")


def value_text(name: str, value: float, metric: str) -> str:
    """A metric's value: a percentage where it is a share."""
    is_share = name == metric or "acc" in name
    return console.percent(value) if is_share and 0 <= value <= 1 else f"{value:.4g}"


def best_trial(view: JobView) -> Trial | None:
    """The trial with the best figure so far."""
    judged = [trial for trial in view.trials if trial.best is not None]
    return max(judged, key=lambda trial: (trial.best or 0.0, -trial.number), default=None)
