"""The shim that the power cuts rest on: it keeps what was synced, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.durable import Disk

pytestmark = pytest.mark.integration

PRELUDE = """
import os, sqlite3
from pathlib import Path
from edge_client.files import fsync_folder, write_atomic
def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""


@pytest.fixture
def disk(durable: Path, tmp_path: Path) -> Disk:
    disk = Disk(durable, tmp_path / "home")
    disk.home.mkdir()
    return disk


def on(disk: Disk, code: str) -> None:
    """Run code in the folder, and take the power away at its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{code}\nos.kill(os.getpid(), 9)"],
        cwd=disk.home, env=os.environ | disk.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    disk.cut()


def test_what_was_there_before_is_durable(disk: Disk) -> None:
    (disk.home / "folder").mkdir()
    (disk.home / "folder" / "old").write_text("kept")
    on(disk, "Path('folder/new').write_text('gone')")
    assert (disk.home / "folder" / "old").read_text() == "kept"
    assert not (disk.home / "folder" / "new").exists()


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("Path('a').write_text('x')", None),
        ("Path('a').write_text('x'); sync('a')", None),
        ("Path('a').write_text('x'); sync('.')", ""),  # the name, and nothing in it
        ("Path('a').write_text('x'); sync('a'); sync('.')", "x"),
        ("Path('a').write_text('x'); sync('a'); sync('.'); Path('a').write_text('y')", "x"),
        ("Path('a').write_text('x'); sync('a'); sync('.'); Path('a').unlink()", "x"),
        ("write_atomic(Path('a'), b'x')", "x"),
        ("write_atomic(Path('a'), b'x'); write_atomic(Path('a'), b'y', durable=False)", "x"),
    ],
)
def test_only_what_was_synced_is_left(disk: Disk, code: str, left: str | None) -> None:
    on(disk, code)
    found = disk.home / "a"
    assert (found.read_text() if found.exists() else None) == left


def test_a_rename_that_was_not_synced_is_undone(disk: Disk) -> None:
    on(disk, "write_atomic(Path('a'), b'x'); os.rename('a', 'b')")
    assert [path.name for path in disk.home.iterdir()] == ["a"]
    on(disk, "os.rename('a', 'b'); sync('.')")
    assert [path.name for path in disk.home.iterdir()] == ["b"]
    assert (disk.home / "b").read_text() == "x"


def test_a_folder_that_nobody_synced_is_gone_with_all_in_it(disk: Disk) -> None:
    on(disk, "Path('f').mkdir(); write_atomic(Path('f/a'), b'x')")
    assert not (disk.home / "f").exists()


def test_sqlite_keeps_what_it_promised(disk: Disk) -> None:
    on(
        disk,
        """
for name, level in (("full", "FULL"), ("normal", "NORMAL")):
    db = sqlite3.connect(f"{name}.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={level}")
    db.execute("CREATE TABLE t (x)")
    db.execute("INSERT INTO t VALUES (1)")
""",
    )

    def rows(name: str) -> int:
        with sqlite3.connect(disk.home / name) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            there = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            return db.execute("SELECT count(*) FROM t").fetchone()[0] if there else 0

    assert rows("full.db") == 1
    assert rows("normal.db") == 0


def test_a_full_disk_takes_nothing_and_then_does(disk: Disk) -> None:
    disk.full.touch()
    on(
        disk,
        f"""
try:
    Path('a').write_text('x')
except OSError as error:
    assert error.errno == 28, error
else:
    raise SystemExit("it was written")
print("elsewhere there is room")
Path({str(disk.full)!r}).unlink()
write_atomic(Path('a'), b'x')
""",
    )
    assert (disk.home / "a").read_text() == "x"
