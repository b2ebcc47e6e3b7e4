"""The baseline of ``loop``: the same work in one plain process, without a platform.

``python -m benchmarks._sequential JOB FOLDER`` trains, exports, quantizes and evaluates
with the very functions that a job runs, then loads the preferred variant and infers once.
It prints when each of the two was done, as seconds since 1970.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from workers.optimization.session import infer, open_session
from workers.run_local import read_job, run
from workers.task import load_task
from workers.training.data import split_arrays


def main(job: Path, folder: Path) -> None:
    """Do the work and say when."""
    logging.disable(logging.INFO)
    package = run(job, folder)
    packaged_at = time.time()
    spec = read_job(job)
    sample = split_arrays(load_task(spec.entrypoint, spec.config, spec.seed), "test").x[:1]
    session = open_session(folder / package.manifest.variants[0].file.path)
    assert len(infer(session, sample)) == 1
    print(json.dumps({"packaged_at": packaged_at, "serving_at": time.time()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
