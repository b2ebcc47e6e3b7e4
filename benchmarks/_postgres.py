"""A PostgreSQL server of a benchmark's own, as its package sets it up, and gone with it."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 60
_STOP_SECONDS = 20
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _binaries() -> Path | None:
    on_path = shutil.which("initdb", path=_PATH)
    if on_path:
        return Path(on_path).resolve().parent
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    there = [folder for folder in folders if (folder / "initdb").exists()]
    return max(there, default=None)


def _as_ordinary_user(home: Path) -> list[str]:
    """The prefix that runs a command as somebody else than root, whom the server refuses."""
    if os.geteuid() != 0:
        return []
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        account = pwd.getpwnam("nobody")
    os.chown(home, account.pw_uid, account.pw_gid)
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return [shutil.which("setpriv", path=_PATH) or "setpriv", *ids, "--pdeathsig=QUIT"]


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """The address of a server that listens on a socket in its folder alone; None without one."""
    binaries = _binaries()
    if binaries is None:
        yield None
        return
    home = Path(tempfile.mkdtemp(prefix="argosy-pg-"))
    try:
        prefix, data, log = _as_ordinary_user(home), home / "data", home / "log"
        options = ["--username=argosy", "--encoding=UTF8", "--locale=C", "--auth=trust"]
        initdb = [*prefix, str(binaries / "initdb"), *options, f"--pgdata={data}"]
        subprocess.run(initdb, cwd=home, capture_output=True, check=True)
        serve = [*prefix, str(binaries / "postgres"), "-D", str(data), "-k", str(home)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*serve, "-c", "listen_addresses="],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _wait(home, process, log)
            yield str(home)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(home)


def _wait(home: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg  # noqa: PLC0415 - not where SQLite alone is measured

    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"host={home} user=argosy dbname=postgres").close()
            return
        time.sleep(0.05)
    msg = f"the database server did not start: {log.read_text()[-500:]}"
    raise RuntimeError(msg)


def new_database(home: str) -> str:
    """Make an empty database; its SQLAlchemy URL."""
    import psycopg  # noqa: PLC0415 - not where SQLite alone is measured

    name = f"b_{secrets.token_hex(6)}"
    with psycopg.connect(f"host={home} user=argosy dbname=postgres", autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://argosy@/{name}?host={home}"
