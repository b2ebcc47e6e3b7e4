"""``argosy-worker agent``: the process around the agent.

The main thread watches: for signals, for the parent, for Ray. All work is done by a
second thread, so that a stop never waits for a request.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from schemas.errors import Exit
from workers.agent.agent import Agent
from workers.agent.claims import Claims
from workers.agent.code import CodeCache
from workers.agent.follow import AWAY_SECONDS
from workers.agent.head import Address, LocalHead, logical_cpus
from workers.agent.launch import Launcher, local_job_dir
from workers.agent.ray_jobs import RayJobs
from workers.client import Api
from workers.errors import UsageError, WorkerError
from workers.files import write_atomic
from workers.settings import Connection, load_connection

log = logging.getLogger("workers.agent")

WATCH = 0.2
PRIVATE = frozenset({"ARGOSY_TOKEN", "ARGOSY_DATABASE_URL", "ARGOSY_BROKER_URL"})
"""What no job may see, whatever the operator says."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the agent runs.

    home: its folder. embedded: start a Ray head of its own. storage: where jobs keep
    their checkpoints, if not in the home; a URL or a folder that every node sees.
    python: the interpreter of the drivers. slots: jobs at once. cpus: of the embedded
    head, logical; None: the machine's, at least four. pass_env: variables that user code
    on the embedded head may see. autoscaling: the cluster adds nodes when asked for more.
    """

    home: Path
    embedded: bool
    storage: str | None = None
    python: str = sys.executable
    slots: int = 1
    cpus: int | None = None
    pass_env: tuple[str, ...] = ()
    autoscaling: bool = False


def run(options: Options) -> int:
    """Run until a signal, the parent's end (embedded) or Ray's end; the exit code."""
    parent = os.getppid()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("httpx", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not options.embedded and not os.environ.get("RAY_ADDRESS"):
        msg = "there is no cluster to work on"
        raise UsageError(msg, "set RAY_ADDRESS to its dashboard's URL, or use --embedded")
    named = sorted(PRIVATE.intersection(options.pass_env))
    if named:
        msg = f"--pass-env {named[0]} would hand the platform's own secret to user code"
        raise UsageError(msg, "jobs get a token of their own; leave it out")
    connection = load_connection(options.home)
    lock = _lock(options.home / "agent")
    stop = threading.Event()
    _stop_on_signals(stop)
    head = _head(options)
    failed: list[BaseException] = []
    worker = threading.Thread(
        target=_work, args=(options, connection, head, stop, failed), daemon=True
    )
    worker.start()
    try:
        _watch(stop, worker, lambda: not options.embedded or os.getppid() == parent)
    finally:
        stop.set()
        if head is not None:
            head.stop()
        (options.home / "agent" / "ray.json").unlink(missing_ok=True)
        lock.close()
    if failed:
        log.error("%s", failed[0])
        return failed[0].exit_code if isinstance(failed[0], WorkerError) else Exit.FAILED
    return Exit.OK


def _work(
    options: Options,
    connection: Connection,
    head: LocalHead | None,
    stop: threading.Event,
    failed: list[BaseException],
) -> None:
    try:
        address = _up(options, head, stop)
        jobs = RayJobs(None if address is None else address.dashboard, grows=options.autoscaling)
        if address is not None:
            said = {"address": address.gcs, "dashboard": address.dashboard}
            write_atomic(options.home / "agent" / "ray.json", json.dumps(said).encode())
            log.info("Ray is up: dashboard %s", address.dashboard)
        agent = _agent(options, connection, jobs)
        guard = (
            None
            if head is None
            else threading.Thread(target=_guard, args=(head, stop, failed), daemon=True)
        )
        if guard is not None:
            guard.start()
        agent.run(stop)
    except BaseException as error:  # noqa: BLE001 - the main thread says it and ends
        if not stop.is_set():
            failed.append(error)
    finally:
        stop.set()


def _agent(options: Options, connection: Connection, jobs: RayJobs) -> Agent:
    folder = options.home / "agent"
    code = CodeCache(folder / "code")
    launcher = Launcher(
        drivers=jobs,
        connection=_handed_on(connection),
        job_dir=_job_dir(options),
        code=code,
        python=options.python,
        environments=folder / "environments" if options.embedded else None,
    )
    return Agent(
        f"{socket.gethostname()}-{os.getpid()}"[:100],
        api=Api(connection),
        drivers=jobs,
        claims=Claims(folder / "claims"),
        launch=launcher,
        slots=options.slots,
        # A head of our own that hangs is started anew, with this process.
        patience=AWAY_SECONDS if options.embedded else math.inf,
        tidy=code.prune,
    )


def _head(options: Options) -> LocalHead | None:
    if not options.embedded:
        return None
    return LocalHead(options.home, options.cpus or _cpus(), options.pass_env)


def _up(options: Options, head: LocalHead | None, stop: threading.Event) -> Address | None:
    if head is None:
        return None
    cpus = options.cpus or _cpus()
    log.info("starting Ray with %d logical CPUs on %d cores", cpus, _cores())
    return head.start(stop)


def _guard(head: LocalHead, stop: threading.Event, failed: list[BaseException]) -> None:
    """End the agent when Ray ends: whoever started it starts both anew."""
    while not stop.wait(WATCH):
        if not head.alive():
            failed.append(WorkerError("Ray ended by itself", f"see {head.log}"))
            stop.set()


def _watch(stop: threading.Event, worker: threading.Thread, wanted: Callable[[], bool]) -> None:
    while not stop.wait(WATCH):
        if not wanted():
            log.info("the parent process ended: ending too")
            return
        if not worker.is_alive():
            return


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)


def _lock(folder: Path) -> IO[str]:
    """Hold the home's agent lock for as long as the process lives.

    Raises:
        UsageError: another agent holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        msg = f"another agent works in {folder.parent}"
        raise UsageError(msg, "stop it first, or use another --home") from error
    return file


def _handed_on(connection: Connection) -> Connection:
    """The connection for drivers: with the CA's text, for a file may not be on their node."""
    if connection.ca is None or connection.ca.startswith("-----BEGIN"):
        return connection
    return connection.model_copy(update={"ca": Path(connection.ca).read_text()})


def _job_dir(options: Options) -> Callable[[str], str]:
    if options.storage is None:
        return local_job_dir(options.home)
    base = options.storage.rstrip("/")
    return lambda job: f"{base}/{job}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpus() -> int:
    return logical_cpus(_cores())
