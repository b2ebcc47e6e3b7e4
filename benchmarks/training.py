"""Training: a job's samples/s and its way to the first step, against torchrun.

All sides run the platform's own loop on the same net and the same real images, and the
same code takes the time (``_training_task``): two workers through Ray Train, two processes
of ``torchrun``, and one plain process. In turn; who begins changes each round. On a machine
with GPUs there is one worker per GPU, over nccl.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT, Figure, Options, Report, main, note
from benchmarks._training_marks import first_step, read, samples_per_s
from schemas.jobfile import JobSpec

WHAT = "training: a job's loop through Ray Train against torchrun with the same loop"
LIMIT_SECONDS = 1200
TRAIN_IMAGES = 1041
"""Of the digits' training split."""

Measured = dict[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """What is trained. workers: of the two parallel sides. batch: over all workers."""

    workers: int
    gpus: int
    epochs: int
    repeat: int
    batch: int
    width: float = 1.0

    @property
    def samples(self) -> int:
        """Of an epoch."""
        return TRAIN_IMAGES * self.repeat // self.batch * self.batch

    def spec(self, marks: Path, *, epochs: int | None = None, repeat: int | None = None) -> JobSpec:
        """The job of a side."""
        number = epochs or self.epochs
        return JobSpec.model_validate(
            {
                "name": "bench",
                "task": "benchmarks._training_task:TimedDigits",
                "config": {
                    "marks": str(marks),
                    "repeat": repeat or self.repeat,
                    "batch_size": self.batch,
                    "width": self.width,
                },
                "resources": {"workers": self.workers, "gpus_per_worker": self.gpus},
                "stop": {"max_epochs": number, "patience": number, "require_target": False},
            }
        )


def load_of(gpus: int, *, quick: bool) -> Load:
    """What to train on a machine with so many GPUs.

    An epoch must be long against the report at its end, as any real one is.
    """
    if gpus:
        return Load(gpus, 1, 4 if quick else 8, 20 if quick else 400, 512 * gpus)
    return Load(2, 0, 3 if quick else 5, 1 if quick else 20, 64)


def count_gpus() -> int:
    """CUDA devices; asked for in another process, so that none is held here."""
    code = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    return int(_run([sys.executable, "-c", code]).split()[-1])


def through_ray(load: Load) -> Measured:
    """A job's training on a Ray that is started for it."""
    with _folder() as name:
        folder = Path(name)
        warm = load.spec(folder / "warm", epochs=1, repeat=1)
        files = [_write(folder, "warm", warm), _write(folder, "job", load.spec(folder / "marks"))]
        begun = time.time()
        said = _run([sys.executable, "-m", "benchmarks._training_ray", *files, name])
        called = json.loads(said.splitlines()[-1])["begun"]
        cold, workers = read(folder / "warm"), read(folder / "marks")
        return {
            "samples_per_s": samples_per_s(workers, load.samples),
            "start_to_first_step": first_step(cold) - begun,
            "warm_fit_to_first_step": first_step(workers) - called[1],
        }


def through_torchrun(load: Load) -> Measured:
    """The same loop under ``torchrun``."""
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    return _plain(load, [*launcher, f"--nproc-per-node={load.workers}", "-m"])


def alone(load: Load) -> Measured:
    """The same loop in one process, with the whole batch."""
    return _plain(load, ["-m"])


def _plain(load: Load, launcher: Sequence[str]) -> Measured:
    with _folder() as name:
        folder = Path(name)
        spec = _write(folder, "job", load.spec(folder / "marks"))
        begun = time.time()
        _run([sys.executable, *launcher, "benchmarks._training_torchrun", spec, name])
        workers = read(folder / "marks")
        return {
            "samples_per_s": samples_per_s(workers, load.samples),
            "start_to_first_step": first_step(workers) - begun,
        }


def in_turn(
    sides: Mapping[str, Callable[[], Measured]], rounds: int
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Measure every side ``rounds`` times; who begins moves on by one each round.

    Returns:
        Per side and figure, the values of the rounds.
    """
    names = list(sides)
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            note(f"round {number + 1} of {rounds}: {name}")
            measured = sides[name]()
            note("  " + "  ".join(f"{key} {value:.4g}" for key, value in measured.items()))
            found[name].append(measured)
    return {
        name: {key: tuple(one[key] for one in values) for key in values[0]}
        for name, values in found.items()
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the quartiles."""
    if len(values) == 1:
        return {"median": values[0], "q1": values[0], "q3": values[0]}
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def ratios(ours: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Ours over the other's of the same round."""
    return spread([a / b for a, b in zip(ours, other, strict=True)])


def overhead(rounds: int) -> dict[str, Any]:
    """Of the loop per step, in µs, against one written by hand: wall and CPU time."""
    with _folder() as name:
        said = _run([sys.executable, "-m", "benchmarks._training_overhead", name, str(rounds)])
    return overhead_of(json.loads(said.splitlines()[-1]))


def overhead_of(found: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Per round ``{"ours": [wall, cpu], "bare": [wall, cpu]}`` → spreads, in µs."""
    steps = {
        side: {kind: spread([one[side][i] for one in found]) for i, kind in enumerate(_KINDS)}
        for side in ("ours", "bare")
    }
    extra = {
        kind: spread([one["ours"][i] - one["bare"][i] for one in found])
        for i, kind in enumerate(_KINDS)
    }
    return {"step_us": steps, "overhead_us": extra}


_KINDS = ("wall", "cpu")


def submitted(load: Load, jobs: int, *, warm: bool) -> tuple[float, ...]:
    """Seconds from submit to first step, of jobs on a platform; none without a broker.

    warm: a job before them has warmed it.
    """
    if shutil.which("mosquitto") is None:
        note("submit to first step is left out: it needs mosquitto, for the platform")
        return ()
    from benchmarks._training_submit import measure  # noqa: PLC0415 - the client, for this alone

    note(f"submit to first step: {jobs} jobs on a {'warm' if warm else 'cold'} platform")
    with _folder() as name:
        return tuple(measure(Path(name), jobs, load.workers, load.gpus, warm=warm))


def run(options: Options) -> Report:
    """Measure."""
    load = load_of(count_gpus(), quick=options.quick)
    sides: dict[str, Callable[[], Measured]] = {
        "ours": lambda: through_ray(load),
        "torchrun": lambda: through_torchrun(load),
        "alone": lambda: alone(load),
    }
    found = in_turn(sides, options.rounds)
    ours, torchrun = found["ours"], found["torchrun"]
    submits = submitted(load, options.rounds, warm=not options.quick)
    note("per-step overhead of the loop")
    steps = overhead(1 if options.quick else 4 * options.rounds)
    first = torchrun["start_to_first_step"]
    figures = {
        "samples_per_s": Figure("1/s", ours["samples_per_s"], torchrun["samples_per_s"]),
        "samples_per_s_to_one_process": Figure(
            "1/s", ours["samples_per_s"], found["alone"]["samples_per_s"]
        ),
        "start_to_first_step": Figure("s", ours["start_to_first_step"], first),
        "warm_fit_to_first_step": Figure("s", ours["warm_fit_to_first_step"], first),
    }
    if submits:
        figures["submit_to_first_step"] = Figure("s", submits, first)
    details: dict[str, Any] = {
        "load": {name: getattr(load, name) for name in Load.__dataclass_fields__},
        "samples_per_epoch": load.samples,
        "ratio_to_torchrun": ratios(ours["samples_per_s"], torchrun["samples_per_s"]),
        "spread": {side: {k: spread(v) for k, v in one.items()} for side, one in found.items()},
        **steps,
    }
    if submits:
        details["submit_to_first_step"] = spread(submits)
    for name in ("ratio_to_torchrun", "overhead_us"):
        note(f"{name}: {json.dumps(details[name])}")
    return Report(figures, details)


def _write(folder: Path, name: str, spec: JobSpec) -> str:
    path = folder / f"{name}.json"
    path.write_text(spec.model_dump_json())
    return str(path)


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="argosy-bench-")


def _run(command: Sequence[str]) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ARGOSY_", "RAY_"))}
    env.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        msg = f"{' '.join(command)} ended with {done.returncode}:\n{tail}"
        raise RuntimeError(msg)
    return done.stdout


if __name__ == "__main__":
    main(run, what=WHAT, rounds=5)
