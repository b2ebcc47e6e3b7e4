"""What a model costs a process that loads and runs it: a process of its own tells."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from workers.errors import WorkerError
from workers.optimization.session import Array

CHILD_SECONDS = 180
MAX_ANSWER = 64 * 1024

Feed = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Footprint:
    """load_ms: to open the file. first_ms: the first run after it, of the first batch size.

    rss_mb, growth_mb: per batch size, in the order asked for: the peak of the process so far,
    MiB, and how much of that the model added; None where the system does not tell.
    nodes: per execution provider.
    """

    load_ms: float
    first_ms: float
    rss_mb: tuple[float | None, ...]
    growth_mb: tuple[float | None, ...]
    nodes: dict[str, int]


def footprint(model: Path, feeds: Sequence[Feed], *, starts: int = 1) -> Footprint:
    """Load and run a model in processes of their own, one after the other.

    Args:
        model: the file.
        feeds: inputs by name, one batch size each.
        starts: processes; of times and memory the median is taken.

    Raises:
        WorkerError: it cannot be loaded or run there.
    """
    with tempfile.TemporaryDirectory(prefix="argosy-footprint-") as folder:
        files = []
        for i, feed in enumerate(feeds):
            files.append(str(Path(folder) / f"{i}.npz"))
            np.savez(files[-1], *feed.values())
        names = list(feeds[0]) if feeds else []
        order = {"model": str(model.resolve()), "feeds": files, "names": names}
        found = [_child(model.name, {**order, "nodes": i == 0}, folder) for i in range(starts)]
    return Footprint(
        load_ms=median(one.load_ms for one in found),
        first_ms=median(one.first_ms for one in found),
        rss_mb=_medians([one.rss_mb for one in found]),
        growth_mb=_medians([one.growth_mb for one in found]),
        nodes=found[0].nodes,
    )


def _child(name: str, order: Mapping[str, object], folder: str) -> Footprint:
    try:
        done = subprocess.run(
            # -P: modules of the folder it starts in are not taken for the platform's.
            [sys.executable, "-P", "-m", "workers.optimization.measuring.alone"],
            input=json.dumps(order),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        msg = f"{name} took longer than {CHILD_SECONDS} s to load and run by itself"
        raise WorkerError(msg) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        msg = f"{name} cannot be loaded and run by itself: {lines[-1][:500]}"
        raise WorkerError(msg)
    told = json.loads(done.stdout[-MAX_ANSWER:].splitlines()[-1])
    told |= {key: tuple(told[key]) for key in ("rss_mb", "growth_mb")}
    return Footprint(**told)


def _medians(rows: Sequence[Sequence[float | None]]) -> tuple[float | None, ...]:
    columns = zip(*rows, strict=True)
    return tuple(None if None in one else median(one) for one in columns)
