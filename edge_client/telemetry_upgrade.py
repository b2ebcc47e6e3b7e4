"""The file of windows of an older agent, taken over."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_client.database import open_database, transaction
from edge_client.errors import JournalError


def replace_old(path: Path, schema: str) -> None:
    """Remove windows in the JSON of older agents; the next window counts them as dropped.

    Args:
        path: the file; nothing is done where there is none.
        schema: what is to be there.

    Raises:
        JournalError: the file cannot be used.
    """
    if not path.exists():
        return
    db = open_database(path, "", what="telemetry buffer", synchronous="FULL")
    try:
        with transaction(db):
            columns = {row[1] for row in db.execute("PRAGMA table_info(windows)")}
            if not columns or "boot" in columns:
                return
            n = int(db.execute("SELECT count(*) + total(dropped) FROM windows").fetchone()[0])
            db.execute("DROP TABLE windows")
            db.execute("DROP TABLE IF EXISTS lost")
            for statement in schema.split(";\n"):
                if "TRIGGER" not in statement and statement.strip():
                    db.execute(statement)
            db.execute("UPDATE store SET lost = lost + ?", (n,))
    except sqlite3.Error as error:
        msg = f"the telemetry buffer {path} cannot be used: {error}"
        raise JournalError(msg) from error
    finally:
        db.close()
