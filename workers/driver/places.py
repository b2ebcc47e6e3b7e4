"""Where a driver makes things, and how long that took."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("workers.driver")


def local(job_dir: str) -> Path | None:
    """The job's folder; None if it is a URL."""
    return None if "://" in job_dir else Path(job_dir)


@contextmanager
def package_folder(job_dir: str, attempt: int) -> Iterator[Path]:
    """Where to build the package: in the job's folder, or a temporary one if that is a URL.

    Each attempt has its own: an earlier one may not know yet that its lease is over.
    """
    here = local(job_dir)
    if here is None:
        with tempfile.TemporaryDirectory(prefix="argosy-package-") as name:
            yield Path(name)
        return
    for earlier in here.glob("package-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    yield here / f"package-{attempt}"


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    started = time.monotonic()
    yield
    log.info("%s took %.1f s", what, time.monotonic() - started)
