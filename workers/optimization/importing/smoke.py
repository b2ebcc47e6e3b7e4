"""The first run of a model from elsewhere: in a process that it can do no harm to.

The child has limits of memory, CPU time and wall time, may write no file, and knows no
secret of this process. What a model needs beyond them is told as a reason. The guard
(``schemas.onnx_guard``) has been before: this finds what only running shows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.job import JobCause
from schemas.signature import Signature
from workers.errors import JobFailed

GIB = 1024**3
MAX_ANSWER = 1024 * 1024
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the child. memory_bytes: of its address space; it is started for a few runs."""

    memory_bytes: int = 4 * GIB
    cpu_seconds: int = 60
    wall_seconds: int = 120


@dataclass(frozen=True, slots=True)
class Smoked:
    """What the run showed.

    signature: as given, or read from the file and the runs. sizes: the concrete shape of each
    input for a single sample. batched: inputs and outputs have the batch in front and it is
    free, so that samples can be cut out of them.
    """

    signature: Signature
    sizes: Mapping[str, tuple[int, ...]]
    batched: bool


def smoke(
    model: Path,
    signature: Signature | None = None,
    *,
    seed: int = 0,
    limits: Limits | None = None,
    name: str | None = None,
) -> Smoked:
    """Load a model and run it on drawn inputs, in a process with limits.

    Args:
        model: a file that the guard has passed.
        signature: what its maker says of it; dimensions that it leaves open are tried.
        seed: of the drawn inputs.
        limits: other than the usual ones.
        name: for people; the file's own, unless given.

    Raises:
        JobFailed: user_code, with the reason why the model is not usable.
    """
    bounds = limits or Limits()
    order = {
        "model": str(model.resolve()),
        "signature": None if signature is None else signature.model_dump(mode="json"),
        "seed": seed,
        "limits": asdict(bounds),
    }
    told = _child(order, bounds)
    if "reason" in told:
        raise _refused(name or model.name, str(told["reason"]))
    sizes = {name: tuple(size) for name, size in told["sizes"].items()}
    return Smoked(Signature.model_validate(told["signature"]), sizes, bool(told["batched"]))


def _child(order: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="argosy-smoke-") as folder:
        process = subprocess.Popen(
            # -P: modules of the folder it starts in are not taken for the platform's.
            [sys.executable, "-P", "-m", "workers.optimization.importing.smoke_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(json.dumps(order).encode(), timeout=limits.wall_seconds)
        except subprocess.TimeoutExpired:
            return {"reason": f"ran longer than {limits.wall_seconds} s"}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return _answer(process.returncode, out, limits)


def _answer(code: int, out: bytes, limits: Limits) -> dict[str, Any]:
    if code == 0 and len(out) <= MAX_ANSWER:
        try:
            told: dict[str, Any] = json.loads(out)
        except ValueError:
            return {"reason": "ended without an answer"}
        return told
    match -code:
        case signal.SIGXCPU | signal.SIGKILL:
            return {"reason": f"ran longer than {limits.cpu_seconds} s"}
        case number if number > 0:
            return {"reason": f"crashed the process that ran it ({signal.Signals(number).name})"}
    return {"reason": f"ended the process that ran it with status {code}"}


def _environment(folder: str) -> dict[str, str]:
    """What Python needs to start, and nothing else: a job's environment holds its token."""
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    found = os.pathsep.join(part for part in sys.path if part)
    return kept | {
        "PYTHONPATH": found,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": folder,
        "OMP_NUM_THREADS": "1",
    }


def _refused(name: str, reason: str) -> JobFailed:
    detail = f"{name} is not usable: it {reason}"
    return JobFailed(JobCause.USER_CODE, detail[:MAX_REASON])
