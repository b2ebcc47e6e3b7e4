"""``argosy doctor``: what this machine has, what it lacks, and the command that mends it.

Imports nothing heavy and nothing that only an extra installs.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator import health
from orchestrator.adapters import broker
from orchestrator.adapters.artifact_place import check_artifacts
from orchestrator.errors import Unavailable
from orchestrator.home import Home
from orchestrator.settings import Settings

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 2 * 1024**3
MIN_RAM_BYTES = 3 * 1024**3
MIN_FILES = 4096
_ASK_SECONDS = 5.0

# One module that stands for each requirement of an extra.
EXTRAS = {
    "server": (
        "fastapi",
        "uvicorn",
        "sqlalchemy",
        "alembic",
        "psycopg",
        "paho",
        "cryptography",
        "tuf",
        "psutil",
    ),
    "train": ("torch", "ray", "onnx", "onnxscript", "onnxruntime", "numpy", "sklearn", "psutil"),
    "edge": ("paho", "onnxruntime", "numpy", "cryptography", "tuf"),
}
_NEEDED = frozenset({"server"})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    required: the platform does not start without it. hint: what to do when it is not ok.
    """

    name: str
    ok: bool
    detail: str
    hint: str | None = None
    required: bool = True


def checks(settings: Settings) -> list[Check]:
    """Look at everything that a platform on this machine needs."""
    home = Home(settings.home)
    found = [_python(), *(_extra(name, settings) for name in EXTRAS)]
    if settings.embedded_broker:
        found.append(_mosquitto())
    found += [_home_folder(home), *_ports(settings, home), _disk(home)]
    if settings.artifacts is not None:
        found.append(_artifacts(settings))
    found += [_memory(), _cores(), _open_files()]
    if settings.embedded_agent:
        found.append(_ray())
    if home.up() is not None:
        found.append(_platform(settings, home))
    return found


def _platform(settings: Settings, home: Home) -> Check:
    """How the platform fares that runs on this home."""
    said = health.ask(settings, home, _ASK_SECONDS)
    wrong = ["its server does not answer"] if said is None else health.troubles(said)
    hint = f"{home.logs / 'server.log'} has the reason" if wrong else None
    return Check("platform", not wrong, "; ".join(wrong) or "all is well", hint, required=False)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] >= MIN_PYTHON
    needed = ".".join(map(str, MIN_PYTHON))
    return Check("python", ok, version, None if ok else f"install Python {needed} or newer")


def _extra(name: str, settings: Settings) -> Check:
    missing = [module for module in EXTRAS[name] if not _installed(module)]
    required = name in _NEEDED or (name == "train" and settings.embedded_agent)
    if not missing:
        return Check(f"argosy[{name}]", ok=True, detail="installed", required=required)
    hint = f"{Path(sys.executable).name} -m pip install 'argosy[{name}]'"
    if name == "train":
        hint += "  (or run without training here: ARGOSY_EMBEDDED_AGENT=false)"
    detail = f"not installed: {', '.join(missing)}"
    return Check(f"argosy[{name}]", ok=False, detail=detail, hint=hint, required=required)


def _mosquitto() -> Check:
    try:
        program = broker.find_mosquitto()
    except Unavailable as error:
        return Check("mosquitto", ok=False, detail=error.detail, hint=error.hint)
    version = broker.mosquitto_version(program)
    if version is None:
        return Check("mosquitto", ok=False, detail=f"{program} does not tell its version")
    text = f"{'.'.join(map(str, version))} at {program}"
    ok = version >= broker.MIN_VERSION
    return Check("mosquitto", ok, text, None if ok else f"upgrade it: {broker.install_command()}")


def _home_folder(home: Home) -> Check:
    existing = _existing(home.path)
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    detail = f"{home.path}" if ok else f"{existing} cannot be written"
    return Check("home", ok, detail, None if ok else "name another one: argosy up --home FOLDER")


def _artifacts(settings: Settings) -> Check:
    try:
        return Check("artifacts", ok=True, detail=check_artifacts(settings))
    except Unavailable as error:
        return Check("artifacts", ok=False, detail=error.detail, hint=error.hint)


def _ports(settings: Settings, home: Home) -> list[Check]:
    wanted = [("api port", settings.host, settings.port, "ARGOSY_PORT")]
    if settings.embedded_broker:
        wanted.append(("mqtt port", settings.mqtt_host, settings.mqtt_port, "ARGOSY_MQTT_PORT"))
    up = home.up()
    return [
        _port(name, host, port, variable, up.pid if up else None)
        for name, host, port, variable in wanted
    ]


def _port(name: str, host: str, port: int, variable: str, ours: int | None) -> Check:
    if broker.port_is_free(host, port):
        return Check(name, ok=True, detail=f"{host}:{port} is free")
    if ours is not None:
        detail = f"{host}:{port} is held; a platform of this home runs as process {ours}"
        return Check(name, ok=True, detail=detail)
    hint = f"end what holds it (see: ss -ltnp 'sport = :{port}'), or set {variable} to another"
    return Check(name, ok=False, detail=f"{host}:{port} cannot be listened on", hint=hint)


def _disk(home: Home) -> Check:
    free = shutil.disk_usage(_existing(home.path)).free
    ok = free >= MIN_FREE_BYTES
    hint = None if ok else f"free some space, {_gib(MIN_FREE_BYTES)} at least, or move the home"
    return Check("disk", ok, f"{_gib(free)} free at {home.path}", hint, required=False)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ok = total >= MIN_RAM_BYTES
    hint = None if ok else "training with Ray needs more; ARGOSY_EMBEDDED_AGENT=false does without"
    return Check("memory", ok, _gib(total), hint, required=False)


def _cores() -> Check:
    count = _available_cores()
    ok = count > 1
    hint = None if ok else "training works on one core, slowly and with one worker"
    return Check("cores", ok, str(count), hint, required=False)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft == resource.RLIM_INFINITY or soft >= MIN_FILES
    hint = None if ok else f"before starting: ulimit -n {MIN_FILES}  (a connection is a file)"
    limits = " of ".join(
        "unlimited" if n == resource.RLIM_INFINITY else str(n) for n in (soft, hard)
    )
    return Check("open files", ok, limits, hint, required=False)


def _ray() -> Check:
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Check("ray", ok=False, detail="not installed", hint="pip install 'argosy[train]'")
    ok = _installed("ray")
    return Check("ray", ok, version, None if ok else "pip install --force-reinstall ray")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _available_cores() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
