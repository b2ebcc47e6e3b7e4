"""What a job's driver is started with: a few variables, and the order they lead to.

Neither the lease nor the agent's token is among them. The job's token is: it opens this
job's part of the API and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from schemas.errors import Exit
from schemas.job import JobClaim, JobOrder
from workers.errors import UsageError
from workers.settings import Connection

URL = "ARGOSY_URL"
CA = "ARGOSY_CA"
JOB_ID = "ARGOSY_JOB_ID"
JOB_TOKEN = "ARGOSY_JOB_TOKEN"  # noqa: S105 - a variable's name, not a secret
JOB_DIR = "ARGOSY_JOB_DIR"
MARK = "ARGOSY_JOB"
"""``<job>-<attempt>``, in the environment of every process of an attempt: how they are found."""

REQUIREMENTS = "ARGOSY_REQUIREMENTS"
"""The file in the working directory that names what is to be installed; unset: nothing."""

CODE = "ARGOSY_CODE"
"""The digest of the working directory's archive."""

ENVIRONMENTS = "ARGOSY_ENVIRONMENTS"
"""Where a node keeps what it installed; unset: below the user's cache."""

INSTALL_SECONDS = "ARGOSY_INSTALL_SECONDS"

DRIVER = "workers.driver.main"
"""The module that runs a job."""

NO_ENVIRONMENT = 78
"""The exit code of a driver whose requirements cannot be met; its last line says why."""

SAID_FAILED = Exit.GATE_FAILED
"""The exit code of a driver that failed and was heard saying so."""


class Orders(Protocol):
    """Where an order is read: ``workers.client.Api``."""

    def order(self, job: str) -> JobOrder:
        """The order of a job."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a driver is to do.

    connection: with the job's token. job_dir: a folder or a URL that every node sees.
    """

    job: JobOrder
    connection: Connection
    job_dir: str


def order_environment(claim: JobClaim, connection: Connection, job_dir: str) -> dict[str, str]:
    """The variables that ``read_order`` reads. connection: its token is not passed on."""
    found = {
        URL: connection.url,
        JOB_ID: claim.id,
        JOB_TOKEN: claim.job_token,
        JOB_DIR: job_dir,
        MARK: f"{claim.id}-{claim.attempt}",
    }
    return {**found, CA: connection.ca} if connection.ca else found


def read_order(env: Mapping[str, str], api_of: Callable[[Connection], Orders]) -> Order:
    """What this driver is to do, asked of the orchestrator.

    Args:
        env: the driver's variables.
        api_of: makes the API of a connection.

    Raises:
        UsageError: a variable is missing, or the job is at another attempt by now.
        ApiError: the orchestrator was not reached, or refused.
    """
    names = (URL, JOB_ID, JOB_TOKEN, JOB_DIR, MARK)
    missing = [name for name in names if not env.get(name)]
    if missing:
        msg = f"a driver is started by the agent; missing: {', '.join(missing)}"
        raise UsageError(msg, "run `argosy-worker agent`, or `argosy-worker run-local`")
    try:
        connection = Connection(url=env[URL], token=env[JOB_TOKEN], ca=env.get(CA) or None)
    except ValidationError as error:
        msg = f"{URL} or {CA} is not valid: {error.errors()[0]['msg']}"
        raise UsageError(msg, "run `argosy-worker agent`") from error
    job = api_of(connection).order(env[JOB_ID])
    if f"{job.id}-{job.attempt}" != env[MARK]:
        msg = f"this driver is of attempt {env[MARK]}, the job is at attempt {job.attempt}"
        raise UsageError(msg, "nothing: the newer attempt does the work")
    return Order(job, connection, env[JOB_DIR])
