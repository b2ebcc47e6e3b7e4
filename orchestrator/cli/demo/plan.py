"""What a demo is to do: the job, the home, the ports, checked before anything starts."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.jobfile import load_job
from orchestrator.errors import Invalid, NotFound
from orchestrator.settings import LOOPBACK, Settings, load
from schemas.api import MQTT_PORT, PORT
from schemas.jobfile import JobSpec

EXAMPLE = Path("examples/digits/job.yaml")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A demo, decided.

    code: the folder to send with the job, if any. root: the folder that its task is
    imported from here. home_is_ours: the home is a fresh one, to be removed. env: the
    environment of everything that is started.
    """

    job_file: Path
    spec: JobSpec
    code: Path | None
    root: Path
    home: Path
    home_is_ours: bool
    devices: int
    port: int
    mqtt_port: int
    keep: bool
    json_file: Path | None
    env: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        """The settings of its platform."""
        return load(self.env, home=self.home, port=self.port, mqtt_port=self.mqtt_port)


def make_plan(
    *,
    job: Path | None,
    devices: int,
    home: Path | None,
    port: str,
    mqtt_port: str,
    keep: bool,
    json_file: Path | None,
) -> Plan:
    """Decide; makes the fresh home where none is given.

    Raises:
        Invalid: an option or the job file is wrong.
        NotFound: there is no job file.
    """
    job_file = (job or find_example()).absolute()
    loaded = load_job(job_file)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        detail = f"--json: there is no folder {json_file.absolute().parent}"
        raise Invalid(detail)
    ports = pick_ports(port, mqtt_port)
    root = loaded.folder or root_of(job_file)
    folder = home.expanduser().absolute() if home else Path(tempfile.mkdtemp(prefix="argosy-"))
    env = environment(os.environ, folder, root)
    if home is None:
        # What a killed program leaves in its temporary folder goes with the home. A home
        # of the user's may have a path too long for the sockets that lie there.
        (folder / "tmp").mkdir()
        env["TMPDIR"] = str(folder / "tmp")
    return Plan(
        job_file=job_file,
        spec=loaded.spec,
        code=loaded.folder,
        root=root,
        home=folder,
        home_is_ours=home is None,
        devices=devices,
        port=ports[0],
        mqtt_port=ports[1],
        keep=keep,
        json_file=json_file.absolute() if json_file else None,
        env=env,
    )


def find_example() -> Path:
    """The digits' job file, in the working folder or beside the package.

    Raises:
        NotFound: it is in neither.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[3]):
        if (folder / EXAMPLE).is_file():
            return folder / EXAMPLE
    detail = f"{EXAMPLE} is neither here nor beside the package"
    raise NotFound(detail, hint="run it in a checkout of argosy, or name a job with --job FILE")


def root_of(job_file: Path) -> Path:
    """The folder that a job's task is imported from: the one around ``examples/``."""
    around = (folder for folder in job_file.parents if folder.name == EXAMPLE.parts[0])
    found = next(around, None)
    return found.parent if found is not None else job_file.parent


def environment(env: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """The environment of what a demo starts: no settings of another platform reach it."""
    kept = {key: value for key, value in env.items() if not key.startswith("ARGOSY_")}
    paths = [str(root), *filter(None, [env.get("PYTHONPATH")])]
    return {**kept, "ARGOSY_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}


def pick_ports(port: str, mqtt_port: str) -> tuple[int, int]:
    """Read the two ports; ``auto`` takes the default where it is free, else any that is."""
    chosen = _port("--port", port, PORT, set())
    return chosen, _port("--mqtt-port", mqtt_port, MQTT_PORT, {chosen})


def _port(option: str, text: str, default: int, taken: set[int]) -> int:
    if text == "auto":
        return default if default not in taken and _is_free(default) else _free_port()
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= _MAX_PORT):
        detail = f"{option}: {text!r} is neither a port nor auto"
        raise Invalid(detail)
    return int(text)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
