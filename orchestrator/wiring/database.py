"""The database and its first tokens, before anything starts."""

from __future__ import annotations

from orchestrator.adapters.artifact_place import check_artifacts
from orchestrator.adapters.authority.served import local_ca
from orchestrator.adapters.database import migrate
from orchestrator.adapters.prices import load_prices
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.clock import utc_now
from orchestrator.errors import ArgosyError, Unavailable
from orchestrator.home import Credentials, Home
from orchestrator.services import keys
from orchestrator.settings import Settings
from schemas.access import Role


def prepare_database(settings: Settings) -> str | None:
    """Migrate, and see to a token for the CLI and one for the embedded agent.

    Tokens that already work are kept, so a restart does not lock anybody out.

    Returns:
        The first admin's token, if this database had none before; else None.

    Raises:
        Invalid: the price table is damaged: told here, before anything has started.
        Unavailable: artifacts cannot be kept where the settings say: likewise.
    """
    load_prices(settings)
    check_artifacts(settings)
    home = Home(settings.home)
    engine = make_engine(settings.database)
    migrate(engine)
    uow = SqlUnitOfWork(engine)
    ca = local_ca(settings, home)
    with uow.read() as tx:
        is_first = not tx.keys.of_role(Role.ADMIN)
    first = None
    for role, name, read, write in (
        (Role.ADMIN, "home", home.credentials, home.write_credentials),
        (Role.WORKER, "agent", home.worker, home.write_worker),
    ):
        try:
            token: str | None = read().token
        except ArgosyError:
            token = None
        if not _works(uow, token, role):
            with uow() as tx:
                token = keys.create(tx, role, utc_now(), name=name)
                detail = {"name": name, "role": role}
                tx.audit.add("api_token.create", keys.id_of(token) or "", detail)
            first = token if is_first and role is Role.ADMIN else first
        write(Credentials(settings.url, token or "", ca))
    engine.dispose()
    return first


def _works(uow: SqlUnitOfWork, token: str | None, role: Role) -> bool:
    try:
        with uow() as tx:
            return keys.authenticate(tx, token, utc_now()).role is role
    except Unavailable:
        raise
    except ArgosyError:
        return False
