"""Starting a driver: all of it that takes time, away from the thread that keeps the leases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from schemas.job import JobCause, JobClaim
from workers.agent.claims import Claimed
from workers.agent.code import CodeCache
from workers.agent.follow import AWAY_SECONDS, DriverState, Followed, Seen
from workers.client import Api, backoff
from workers.environment.requirements import FILE
from workers.errors import JobFailed
from workers.order import CODE, ENVIRONMENTS, REQUIREMENTS, order_environment
from workers.settings import Connection

RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 15.0


class Submits(Protocol):
    """The cluster, as a launch uses it: ``workers.agent.ray_jobs.RayJobs``."""

    def submit(
        self, submission: str, environment: Mapping[str, str], python: str, code: Path | None
    ) -> None:
        """Start a driver, once."""
        ...


@dataclass(frozen=True, slots=True)
class Launcher:
    """Fetches a job's code and hands its driver to the cluster.

    Args:
        drivers: the cluster.
        connection: what drivers are given to reach the orchestrator; the token is not.
        job_dir: gives a job's folder or URL, which every node must see.
        code: the cache of unpacked code.
        python: the interpreter of the drivers, on the cluster.
        environments: where nodes keep installed packages; None: where they like.
    """

    drivers: Submits
    connection: Connection
    job_dir: Callable[[str], str]
    code: CodeCache
    python: str
    environments: Path | None = None

    def __call__(self, claim: JobClaim, submission: str) -> None:
        """Start the driver of a claim, once.

        Raises:
            JobFailed: it never can be.
            WorkerError: not at the moment.
        """
        environment = order_environment(claim, self.connection, self.job_dir(claim.id))
        folder = self._folder(claim)
        if claim.spec.code is not None:
            environment[CODE] = claim.spec.code.sha256
            if claim.spec.code.requirements:
                environment[REQUIREMENTS] = FILE
            if self.environments is not None:
                environment[ENVIRONMENTS] = str(self.environments)
        self.drivers.submit(submission, environment, self.python, folder)

    def _folder(self, claim: JobClaim) -> Path | None:
        if claim.spec.code is None:
            return None
        connection = self.connection.model_copy(update={"token": claim.job_token})
        with Api(connection, tries=2) as api:
            return self.code.folder_of(
                claim.spec.code,
                lambda sha256, path, limit: api.artifact(sha256, path, max_bytes=limit),
            )


@dataclass(slots=True, eq=False)
class Launch:
    """One try in a thread of its own. error: set before ``done`` where it failed."""

    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


def in_background(call: Callable[[], None]) -> Launch:
    """Run a launch in a daemon thread: a process that ends does not wait for it."""
    launch = Launch()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the agent's thread decides about it
            launch.error = error
        finally:
            launch.done.set()

    threading.Thread(target=run, name="launch", daemon=True).start()
    return launch


@dataclass(frozen=True, slots=True)
class Following:
    """A claim and where its following stands.

    launch: a try to start its driver. launch_since: of the first. retry_at: of the next.
    failed: why it cannot be started.
    """

    claimed: Claimed
    state: Followed
    launch: Launch | None = None
    launch_since: float | None = None
    retry_at: float = 0.0
    tries: int = 0
    failed: Seen | None = None


def launched(one: Following, error: Exception | None, now: float) -> Following:
    """What follows from a launch that is done: a driver, another try, or no more tries."""
    if error is None:
        claimed = one.claimed.model_copy(update={"submitted": True})
        return replace(one, claimed=claimed, launch=None)
    failed = None
    if isinstance(error, JobFailed):
        failed = Seen(DriverState.ENDED, None, error.detail, error.cause)
    elif one.launch_since is not None and now - one.launch_since > AWAY_SECONDS:
        detail = f"the job's driver could not be started: {error}"
        failed = Seen(DriverState.ENDED, None, detail, JobCause.DRIVER_DIED)
    tries = one.tries + 1
    retry_at = now + backoff(tries, 1.0, base=RETRY_SECONDS, cap=MAX_RETRY_SECONDS)
    return replace(one, launch=None, tries=tries, retry_at=retry_at, failed=failed)


def local_job_dir(home: Path) -> Callable[[str], str]:
    """Jobs keep their checkpoints and exports in ``HOME/jobs/<job>``."""

    def folder(job: str) -> str:
        path = home / "jobs" / job
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    return folder
