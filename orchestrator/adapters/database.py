"""Bringing a database to the tables that this version needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.adapters.tables import Base
from orchestrator.errors import Unavailable

_MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for a connection that is open already."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(engine: Engine) -> None:
    """Upgrade to the newest revision; nothing happens when it is there.

    Raises:
        Unavailable: the database cannot be reached, or belongs to a newer version.
    """
    try:
        with engine.begin() as connection:
            command.upgrade(alembic_config(connection), "head")
    except SQLAlchemyError as error:
        msg = f"the database cannot be prepared: {error}"
        raise Unavailable(msg, hint="check ARGOSY_DATABASE_URL and that it is reachable") from error
    except CommandError as error:
        msg = f"the database belongs to another version of Argosy: {error}"
        raise Unavailable(msg, hint="run the version that wrote it, or a newer one") from error


def differences(engine: Engine) -> list[object]:
    """What sets the database apart from ``tables``; empty when migrations are complete."""
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))
