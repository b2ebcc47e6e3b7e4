"""One of two workers over gloo, without Ray: ``two_workers.py RANK STORE SCENARIOS``.

SCENARIOS is a JSON list of [spec, config]. For each, a line of JSON says what was reported
and the last weights, or the failure.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist

from schemas.jobfile import JobSpec
from tests.unit.workers import blobs
from workers.errors import JobFailed
from workers.training import loop
from workers.training.local import LocalEngine


def main(rank: int, store: str, scenarios: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for spec, config in json.loads(scenarios):
        found = train(rank, JobSpec.model_validate(spec), config)
        sys.stdout.write(json.dumps(found) + "\n")
    dist.destroy_process_group()


def train(rank: int, spec: JobSpec, config: dict[str, object]) -> dict[str, object]:
    engine = LocalEngine("accuracy")
    engine.rank, engine.world_size = rank, 2
    task = getattr(blobs, spec.entrypoint.partition(":")[2])(config, spec.seed)
    try:
        loop.run(task, spec, engine)
    except JobFailed as failure:
        return {"failure": [failure.cause, failure.detail]}
    last = engine.last
    model = {} if last is None else loop.unpack(last)["model"]
    return {
        "reports": engine.reports,
        "checkpoint": last is not None,
        "weights": {key: value.tolist() for key, value in model.items()},
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:4])
