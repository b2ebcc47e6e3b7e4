"""pip, run twice: to say what it would install, and to install exactly that elsewhere.

Resolving sees the platform's packages as installed and held by constraints; installing
into a folder of its own (``--target``) would not, and so takes the result alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from workers.environment.requirements import explain, is_network, refuse
from workers.errors import WorkerError

MAX_OUTPUT = 256 * 1024

# -P: the job's folder must not shadow what pip imports.
_PIP = (sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check")
_IN_THE_WAY = frozenset(
    f"PIP_{name}"
    for name in ("TARGET", "PREFIX", "ROOT", "USER", "CONSTRAINT", "REPORT", "DRY_RUN", "NO_DEPS",
                 "REQUIREMENT", "REQUIRE_VIRTUALENV", "QUIET", "VERBOSE", "LOG")
) | {"PYTHONPATH", "PYTHONHOME"}  # fmt: skip


def resolve(file: Path, held: Path, report: Path, where: Path, seconds: float) -> None:
    """Write what ``file`` would add to the platform, of which ``held`` names the versions.

    Raises:
        JobFailed: it cannot be met.
        WorkerError: not at the moment.
    """
    options = ["--dry-run", "--report", str(report), "-c", str(held), "-r", str(file)]
    _run(["install", "--progress-bar", "off", *options], where, seconds)


def install(exact: Path, target: Path, where: Path, seconds: float) -> None:
    """Install what ``exact`` lists into a folder, and nothing else; errors as above."""
    options = ["--no-deps", "--no-warn-script-location", "--target", str(target), "-r", str(exact)]
    _run(["install", "--progress-bar", "off", *options], where, seconds)


def _run(arguments: list[str], where: Path, seconds: float) -> None:
    env = {name: value for name, value in os.environ.items() if name not in _IN_THE_WAY}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*_PIP, *arguments],
            cwd=where,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            refuse("installing took too long; name fewer or pinned packages, or wheels")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code != 0:
            _fail(_tail(output))


def _fail(said: str) -> None:
    if "No module named pip" in said:
        msg = "pip is missing beside the platform's packages on this node"
        refuse(f"cannot be installed: {msg}; run `python -m ensurepip` there")
    if is_network(said):
        msg = f"the packages cannot be fetched just now: {explain(said)}"
        raise WorkerError(msg, "check the index and the network of the cluster")
    refuse(explain(said))


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - MAX_OUTPUT))
    return output.read().decode(errors="replace")
