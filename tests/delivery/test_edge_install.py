"""What a device installs: `.[edge]` alone, in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.errors import Exit

pytestmark = pytest.mark.integration

# Distributions that belong to the cloud and may never reach a device.
CLOUD = (
    "ray", "torch", "sqlalchemy", "fastapi", "starlette", "uvicorn", "alembic", "psycopg",
    "scikit-learn", "scipy", "pandas", "pyarrow", "onnx", "onnxscript", "pytest", "mypy",
)  # fmt: skip
MAX_MEGABYTES = 250
SOURCES = ("schemas", "orchestrator", "workers", "edge_client")
FILES = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")

_ASK = """
import json
from importlib.metadata import distributions
print(json.dumps(sorted({d.name.lower().replace("_", "-") for d in distributions()})))
"""
# Modules that an extra brings to life; whatever else fails to import is a fault.
EXTRA = ("grpc_server", "grpc_codec", "grpc_messages")
_IMPORT_ALL = """
import edge_client, importlib, pkgutil, sys
names = [m.name for m in pkgutil.walk_packages(edge_client.__path__, "edge_client.")]
for name in names:
    if not name.endswith(("__main__", *sys.argv[1:])):
        importlib.import_module(name)
print(len(names))
"""
_IMPORT_GRPC = """
from edge_client.errors import ServeError
try:
    import edge_client.server.grpc_server
except ServeError as error:
    print(error, error.hint)
"""


@dataclass(frozen=True)
class Device:
    """A device's environment and an empty folder for its home."""

    folder: Path

    def run(self, program: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a program of that environment, with nothing of ours in its environment."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("ARGOSY_", "PYTHON"))}
        return subprocess.run(
            [self.folder / "env" / "bin" / program, *args],
            cwd=self.folder,
            env=keep | {"HOME": str(self.folder / "home"), "NO_COLOR": "1", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def device(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Device:
    folder = tmp_path_factory.mktemp("device")
    source = folder / "source"
    for name in SOURCES:
        shutil.copytree(repo / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(repo / name, source / name)
    venv.create(folder / "env", symlinks=True)
    constraints = source / "constraints.txt"
    installed = subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", folder / "env" / "bin" / "python",
            "install", "-q", "-c", constraints, f"{source}[edge]",
        ],
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return Device(folder)


def test_nothing_of_the_cloud_is_installed(device: Device) -> None:
    asked = device.run("python", "-c", _ASK)
    names = set(json.loads(asked.stdout))
    assert {"argosy", "onnxruntime", "paho-mqtt", "tuf", "pydantic"} <= names
    assert names.isdisjoint(CLOUD), names & set(CLOUD)


def test_every_module_of_the_device_imports(device: Device) -> None:
    asked = device.run("python", "-c", _IMPORT_ALL, *EXTRA)
    assert asked.returncode == 0, asked.stderr
    assert int(asked.stdout) > 5


def test_what_needs_an_extra_names_it(device: Device) -> None:
    asked = device.run("python", "-c", _IMPORT_GRPC)
    assert asked.returncode == 0, asked.stderr
    assert "argosy[edge,grpc]" in asked.stdout


def test_it_fits_a_device(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f for f in (device.folder / "env").rglob("*") if f.is_file() and not f.is_symlink()]
    megabytes = sum(f.stat().st_size for f in files) / 2**20
    with capsys.disabled():
        sys.stdout.write(f" argosy[edge] installs {megabytes:.0f} MB ")
    assert 1 < megabytes < MAX_MEGABYTES


def test_the_help_names_the_commands(device: Device) -> None:
    shown = device.run("argosy-edge", "--help")
    assert shown.returncode == Exit.OK, shown.stderr
    for command in ("enroll", "run", "status", "bench"):
        assert command in shown.stdout


def test_status_before_enrollment_says_what_to_do(device: Device) -> None:
    home = device.folder / "empty"
    home.mkdir()
    shown = device.run("argosy-edge", "status", "--home", str(home))
    said = shown.stdout + shown.stderr
    assert shown.returncode != Exit.OK or "not enrolled" in said.lower(), said
    assert "enroll" in said
    assert "Traceback" not in said
