"""SQLite files in the device's home, opened and written the same way everywhere.

WAL mode: a transaction is there whole or not at all after a crash. With
``synchronous=FULL`` it is on the disk when it is committed; with ``NORMAL`` the last
ones may be lost in a power cut, never in a crash of the program
(https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from edge_client.errors import JournalError


def open_database(
    path: Path, schema: str, *, what: str, synchronous: Literal["FULL", "NORMAL"]
) -> sqlite3.Connection:
    """Open or create.

    Args:
        path: the file.
        schema: SQL that creates what is not there yet.
        what: the file's name in an error, such as "journal".
        synchronous: when a transaction is on the disk.

    Raises:
        JournalError: the file cannot be used.
    """
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.executescript(schema)
    except sqlite3.Error as error:
        raise unusable(what, path, error) from error
    return db


def open_readonly(path: Path, *, what: str, alone: bool = False) -> sqlite3.Connection:
    """Open a database that another process may be writing, to read from it.

    alone: none is. Then it can be read also where nothing can be written, not even the index
    that SQLite keeps beside a log (https://sqlite.org/wal.html#readonly).

    Raises:
        JournalError: the file cannot be used.
    """
    try:
        still = alone and not path.with_name(f"{path.name}-wal").exists()
        options = "mode=ro&immutable=1" if still else "mode=ro"
        return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)
    except sqlite3.Error as error:
        raise unusable(what, path, error) from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or, whatever goes wrong, none of it."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    finally:
        with suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")


def unusable(what: str, path: Path, error: Exception) -> JournalError:
    """The error that says which file failed, and why."""
    first, _, _ = str(error).partition("\n")
    return JournalError(f"the {what} {path} cannot be used: {first}")
