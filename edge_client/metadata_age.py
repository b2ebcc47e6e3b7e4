"""When the trust metadata was last found to hold: for a status, so it imports next to nothing."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing

from edge_client.database import open_readonly
from edge_client.errors import JournalError
from edge_client.settings import Home

REFRESHED = "refreshed"
"""The journal's name of that moment, in seconds since 1970."""


def last_refresh(home: Home) -> dt.datetime | None:
    """Read it beside a running agent.

    Returns:
        None when it never was, or the journal cannot be read.
    """
    if not home.journal.exists():
        return None
    try:
        with closing(open_readonly(home.journal, what="journal")) as db:
            row = db.execute("SELECT value FROM facts WHERE name = ?", (REFRESHED,)).fetchone()
    except (JournalError, sqlite3.Error):
        return None
    return None if row is None else dt.datetime.fromtimestamp(row[0], dt.UTC)
