"""Drivers as Ray jobs, through the Jobs API of any cluster, over HTTP with time-outs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from schemas.job import Capacity
from workers.agent.follow import DriverState, Seen
from workers.errors import ClusterError
from workers.order import DRIVER, REQUIREMENTS

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
UPLOAD_SECONDS = 120.0
HOOK = "workers.environment.overlay.enter"
MAX_NODES = 10_000
MAX_LINE = 2000
_GIB = 1024**3
_NOT_FOUND = 404
_OK = 200


class RayJobs:
    """Drivers as Ray jobs. Submission ids are ours, so that a restarted agent finds them.

    Args:
        address: of the dashboard; None takes what ``RAY_ADDRESS`` says. The token to it
            comes from Ray's own variables and goes to Ray's client alone.
        grows: an autoscaler adds nodes when asked for more.
        driver: the module that runs a job.

    Raises:
        ClusterError: no dashboard answers there, or it refuses the token.
    """

    def __init__(self, address: str | None, *, grows: bool = False, driver: str = DRIVER) -> None:
        self._client: Any = _asked(lambda: _client_of(address))
        self._grows = grows
        self._driver = driver

    def submit(
        self, submission: str, environment: Mapping[str, str], python: str, code: Path | None = None
    ) -> None:
        """Start a driver; does nothing if one of that id was started before.

        Args:
            submission: its id.
            environment: variables of all processes of the job.
            python: the interpreter, on the cluster.
            code: the job's working directory, sent to every node.

        Raises:
            ClusterError: the cluster does not answer, or refuses.
        """
        if self.look(submission).state is not DriverState.MISSING:
            return
        runtime: dict[str, Any] = {"env_vars": dict(environment)}
        module = self._driver
        if code is not None:
            runtime["working_dir"] = str(code)
        if REQUIREMENTS in environment:
            runtime["worker_process_setup_hook"] = HOOK
            module = f"workers.environment.start {self._driver}"
        entrypoint = f"exec {shlex.quote(python)} -m {module}"
        # What was packed is what is meant: Ray would leave out what .gitignore names.
        os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
        os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] = ""
        _asked(
            lambda: self._client.submit_job(
                entrypoint=entrypoint, submission_id=submission, runtime_env=runtime
            )
        )

    def look(self, submission: str) -> Seen:
        """What the cluster says of a driver.

        Raises:
            ClusterError: the cluster does not answer.
        """
        try:
            info = self._client.get_job_info(submission)
        except RuntimeError as error:
            if f"status code {_NOT_FOUND}" in str(error):
                return Seen(DriverState.MISSING)
            raise _cluster_error(error) from error
        except Exception as error:
            raise _cluster_error(error) from error
        if not info.status.is_terminal():
            return Seen(DriverState.ACTIVE)
        lines = (info.message or "").strip().splitlines()
        return Seen(DriverState.ENDED, info.driver_exit_code, lines[-1][:MAX_LINE] if lines else "")

    def stop(self, submission: str) -> None:
        """Ask Ray to end a driver: SIGTERM, then SIGKILL, to it and what it started.

        Ray ends the driver's workers, on every node, when the driver is gone.
        """
        _asked(lambda: self._client.stop_job(submission))

    def capacity(self) -> Capacity:
        """What the nodes that live have in all.

        Raises:
            ClusterError: the cluster does not answer.
        """
        where = f"/api/v0/nodes?limit={MAX_NODES}"
        response = _asked(lambda: self._client._do_request("GET", where))  # noqa: SLF001 - its only way
        if response.status_code != _OK:
            msg = f"the Ray cluster does not list its nodes: status {response.status_code}"
            raise ClusterError(msg, "its dashboard needs ray[default]")
        nodes = _asked(lambda: response.json()["data"]["result"]["result"])
        return capacity_of(nodes, grows=self._grows)


def capacity_of(nodes: Iterable[Mapping[str, Any]], *, grows: bool) -> Capacity:
    """The sum of the nodes that live, as Ray's state API lists them."""
    alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]

    def total(name: str) -> float:
        return float(sum(resources.get(name, 0.0) for resources in alive))

    return Capacity(
        nodes=len(alive),
        cpus=total("CPU"),
        gpus=total("GPU"),
        memory_gb=round(total("memory") / _GIB, 3),
        grows=grows,
    )


def _client_of(address: str | None) -> Any:
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 - half a second

    class Client(JobSubmissionClient):
        """Ray's own waits for ever."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            sends = method == "PUT" or endpoint == "/api/jobs/"
            seconds = UPLOAD_SECONDS if sends else ANSWER_SECONDS
            options.setdefault("timeout", (CONNECT_SECONDS, seconds))
            return super()._do_request(method, endpoint, **options)

    return Client(address)


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise _cluster_error(error) from error


def _cluster_error(error: Exception) -> ClusterError:
    text = str(error).strip().splitlines()
    first = text[0][:500] if text else type(error).__name__
    return ClusterError(f"the Ray cluster did not do as asked: {first}", "check that it runs")
