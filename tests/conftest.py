"""What every test may ask for: a real PostgreSQL server, the broker's binary, a free port.

The database server is the session's own: made from the installed binaries in a
temporary folder, on a loopback port, and gone at the end. Where the binaries are
missing the tests that need them are skipped, except in CI, where that is a failure.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# The benchmarks and examples are part of the checkout and not of the installed package.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

# A shell that runs this in the background leaves SIGINT ignored, which every program that a
# test starts would inherit: their Ctrl-C could not be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_SYSTEM_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"]
)
_POSTGRES_USER = "postgres"
_START_SECONDS = 60
_STOP_SECONDS = 20


_LONGEST = (
    "test_kill_matrix", "test_training_ray", "test_batch_ray", "test_judged_rollout",
    "test_exact_sums", "test_imports", "test_examples", "test_benchmarks_run", "test_tasks_ray",
    "test_class_budgets", "test_edge_acts", "test_loop", "test_agent_job", "test_sweep_ray",
    "test_agent_environment", "test_agent_two_nodes", "test_kill_table", "test_random_faults",
)  # fmt: skip
_THEN = ("attacks", "integration", "e2e", "matrix", "delivery", "contract", "property", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that none runs alone at the end."""

    def rank(item: pytest.Item) -> int:
        if item.path.stem in _LONGEST:
            return _LONGEST.index(item.path.stem)
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return len(_LONGEST) + (_THEN.index(folder) if folder in _THEN else len(_THEN))

    items.sort(key=rank)


def _missing(what: str) -> NoReturn:
    """Skip the test that needs ``what``; fail it in CI, where nothing may go unrun."""
    message = f"{what} is not installed; `make test` installs it"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _version_of(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())


def _postgres_bin() -> Path | None:
    """The folder that holds initdb and postgres: on PATH, or where packages put it."""
    on_path = shutil.which("initdb", path=_SYSTEM_PATH)
    if on_path:
        return Path(on_path).resolve().parent
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    with_server = [folder for folder in folders if (folder / "initdb").exists()]
    return max(with_server, key=_version_of, default=None)


@dataclass(frozen=True, slots=True)
class _Server:
    """A running database server; every database is reached with the same login."""

    login: str

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{self.login}/{database}"

    def new_database(self, template: str = "template1") -> str:
        """Create a database, a copy of ``template``, and give its SQLAlchemy URL."""
        name = f"t_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, and with it who is still connected to it."""
        self._execute(f"DROP DATABASE {_database_of(url)} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(f"postgresql://{self.login}/postgres", autocommit=True) as link:
            link.execute(statement)


def _database_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


def _as_postgres(home: Path) -> list[str]:
    """The prefix that runs a command as an ordinary user; the server refuses root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv", path=_SYSTEM_PATH)
    if setpriv is None:
        _missing("setpriv (util-linux)")
    try:
        account = pwd.getpwnam(_POSTGRES_USER)
    except KeyError:
        account = pwd.getpwnam("nobody")
    os.chown(home, account.pw_uid, account.pw_gid)
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return [setpriv, *ids, "--pdeathsig=QUIT"]


def _wait_until_it_answers(login: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            psycopg.connect(f"postgresql://{login}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the database server did not start:\n{log.read_text()[-2000:]}", pytrace=False)


@contextlib.contextmanager
def _running(binaries: Path, home: Path) -> Iterator[_Server]:
    prefix = _as_postgres(home)
    password, port = secrets.token_hex(16), _pick_port()
    password_file, data, log = home / "password", home / "data", home / "log"
    password_file.write_text(password)
    if os.geteuid() == 0:
        shutil.chown(password_file, home.stat().st_uid)
    password_file.chmod(0o600)
    initdb = [
        *prefix, str(binaries / "initdb"), "--no-sync", "--username=argosy", "--encoding=UTF8",
        "--locale=C", "--auth=scram-sha-256", f"--pwfile={password_file}", f"--pgdata={data}",
    ]  # fmt: skip
    made = subprocess.run(initdb, cwd=home, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    serve = [
        *prefix, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(home),
        "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off",
    ]  # fmt: skip
    login = f"argosy:{password}@127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            serve, cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_until_it_answers(login, process, log)
        yield _Server(login)
    finally:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[_Server]:
    """A PostgreSQL server of this test session."""
    binaries = _postgres_bin()
    if binaries is None:
        _missing("PostgreSQL's server (initdb)")
    home = Path(tempfile.mkdtemp(prefix="argosy-pg-"))
    try:
        with _running(binaries, home) as server:
            yield server
    finally:
        shutil.rmtree(home)


@pytest.fixture
def fresh_postgres_url(postgres_server: _Server) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test alone."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="session")
def _migrated_template(postgres_server: _Server) -> str:
    """The name of a database with today's tables, of which tests get copies."""
    from tests.fakes.databases import migrate_at

    url = postgres_server.new_database()
    migrate_at(url)
    return _database_of(url)


@pytest.fixture
def migrated_postgres_url(postgres_server: _Server, _migrated_template: str) -> Iterator[str]:
    """The SQLAlchemy URL of a migrated, empty database of this test alone."""
    url = postgres_server.new_database(_migrated_template)
    yield url
    postgres_server.drop(url)


@pytest.fixture
def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    return _pick_port()


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Gives as many different free loopback TCP ports as it is asked for."""

    def pick(count: int) -> list[int]:
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(count)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            return [probe.getsockname()[1] for probe in probes]

    return pick


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The path of the mosquitto broker, which is often outside an ordinary PATH."""
    found = shutil.which("mosquitto", path=_SYSTEM_PATH)
    if found is None:
        _missing("mosquitto")
    return found


@pytest.fixture(scope="session")
def repo() -> Path:
    """The folder of this checkout."""
    return ROOT
