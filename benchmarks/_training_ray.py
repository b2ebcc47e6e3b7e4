"""Our side of ``training``: a job's training through Ray Train, on a Ray of its own.

``python -m benchmarks._training_ray WARM_UP SPEC FOLDER`` starts Ray, trains the job of the
file WARM_UP, as a cluster's first, and then that of SPEC. It prints, as JSON, when each was
begun (seconds since 1970).
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.jobfile import JobSpec
from workers.distributed.train import fit, worker_resources

MAILBOX = "argosy-bench"


@contextmanager
def cluster(spec: JobSpec) -> Iterator[None]:
    """A Ray on this machine with room for the job's workers, and its mailbox emptied."""
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
    )
    import ray  # noqa: PLC0415 - its environment is read as it is imported

    from workers.distributed.mailbox import Postbox  # noqa: PLC0415 - with it

    local: Any = ray
    cpus = worker_resources(spec)["CPU"] * spec.resources.workers.max
    with tempfile.TemporaryDirectory(prefix="argosy-bench-ray-") as folder:
        local.init(
            address="local",
            num_cpus=max(2, int(cpus)),
            include_dashboard=False,
            object_store_memory=128 * 1024**2,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=folder,
        )
        done = threading.Event()
        postbox = Postbox(MAILBOX)

        def empty() -> None:
            while not done.is_set():
                postbox.take(0.5)

        thread = threading.Thread(target=empty)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            local.shutdown()


def main(files: list[Path], folder: Path) -> None:
    """Train one after the other."""
    logging.disable(logging.WARNING)
    specs = [JobSpec.model_validate_json(file.read_text()) for file in files]
    begun = []
    with cluster(specs[-1]):
        for number, spec in enumerate(specs):
            begun.append(time.time())
            fit(spec, str(folder / f"job-{number}"), MAILBOX)
    print(json.dumps({"begun": begun}))


if __name__ == "__main__":
    main([Path(sys.argv[1]), Path(sys.argv[2])], Path(sys.argv[3]))
