"""People's access: API tokens, sessions of the page, and when each was last used."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from orchestrator.services import actor, keys
from orchestrator.services.keys import Principal
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import KeyRecord, SessionRecord
from schemas.access import (
    PEOPLE,
    SCOPES_OF,
    ApiTokenCreated,
    ApiTokenRequest,
    ApiTokenView,
    Role,
    Scope,
    Whoami,
)

SESSION_LIFE = timedelta(hours=12)
SESSION_IDLE = timedelta(hours=2)
MAX_SESSIONS = 50
"""Of one token; the oldest end for a newer one."""

NOTED_EVERY = timedelta(minutes=1)
"""How often the last use of tokens and sessions is written down."""

_LISTED = (*PEOPLE, Role.WORKER)


class AccessService:
    """What the API does with people's tokens and sessions.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock
        self._lock = threading.Lock()
        self._used: dict[str, datetime] = {}
        self._seen: dict[str, datetime] = {}
        self._written = clock()

    def authenticate(self, bearer: str | None) -> Principal:
        """Who a bearer token stands for.

        Raises:
            Unauthenticated: see ``keys.authenticate``.
        """
        now = self._clock()
        with self._uow.read() as tx:
            found = keys.authenticate(tx, bearer, now)
        self._note(found, now)
        return found

    def resume(self, cookie: str) -> Principal:
        """Who a session's cookie stands for: with the rights of the token it began with.

        Raises:
            Unauthenticated: it is not known, it is over, or its token works no more.
        """
        now, session_id = self._clock(), keys.digest(cookie)
        with self._uow.read() as tx:
            session = tx.sessions.get(session_id)
            if session is None or _is_over(session, now):
                raise _signed_out()
            record = tx.keys.get(session.key_id)
            if record is None:
                raise _signed_out()
            found = keys.principal_of(record, now, session_id)
        self._note(found, now)
        return found

    def sign_in(self, bearer: str) -> tuple[str, Principal]:
        """Begin a session; its cookie, the only time that it is seen, and whose it is.

        Raises:
            Unauthenticated: the token is not good.
            Forbidden: it is a program's.
        """
        now, cookie = self._clock(), secrets.token_urlsafe(32)
        with self._uow() as tx:
            caller = keys.authenticate(tx, bearer.strip(), now)
            if caller.role not in PEOPLE:
                msg = f"a token of role {caller.role} is a program's, and opens no session"
                raise Forbidden(msg)
            session = SessionRecord(
                id=keys.digest(cookie), key_id=caller.key_id, created_at=now, seen_at=now
            )
            tx.sessions.remove_of(caller.key_id, keep=MAX_SESSIONS - 1)
            tx.sessions.add(session)
            with actor.acting(caller.actor):
                tx.audit.add("session.start", caller.key_id, {"name": caller.name})
        return cookie, replace(caller, session=session.id)

    def sign_out(self, caller: Principal) -> None:
        """End the caller's session.

        Raises:
            Invalid: they came with a token, which has none.
        """
        if caller.session is None:
            msg = "there is no session to end: the request came with a token"
            raise Invalid(msg)
        with self._uow() as tx:
            tx.sessions.remove(caller.session)
            tx.audit.add("session.end", caller.key_id, {"name": caller.name})

    def create(self, caller: Principal, request: ApiTokenRequest) -> ApiTokenCreated:
        """Make a token for a person; its text is in this answer and nowhere else.

        Raises:
            Invalid: the role is a program's, or does not have a scope that is asked for.
            Forbidden: it would have a right that the caller does not have, or outlive theirs.
            Conflict: a token that works has that name.
        """
        if request.role not in PEOPLE:
            msg = f"role: tokens of role {request.role} are given out by the platform itself"
            raise Invalid(msg, hint=f"choose one of {', '.join(PEOPLE)}")
        scopes = _asked(request)
        _check_rights(caller, scopes)
        now = self._clock()
        expires = _expiry(caller, request, now)
        chosen = None if request.scopes is None else tuple(sorted(scopes))
        with self._uow() as tx:
            if any(one.name == request.name for one in _working(tx, now)):
                msg = f"a token named {request.name} is in use"
                raise Conflict(msg, hint="choose another name, or revoke that one first")
            text = keys.create(
                tx, request.role, now, name=request.name, scopes=chosen, expires_at=expires
            )
            record = _found(tx, keys.id_of(text) or "")
            detail = {"name": record.name, "role": record.role, "scopes": sorted(scopes)}
            tx.audit.add("api_token.create", record.id, detail | {"expires_at": expires})
        return ApiTokenCreated(token=text, view=view(record))

    def page(self, before: str | None, limit: int) -> Sequence[ApiTokenView]:
        """Tokens of people and of agents, newest first, without their secrets."""
        with self._uow.read() as tx:
            return [view(record) for record in tx.keys.page(_LISTED, before, limit)]

    def revoke(self, caller: Principal, key_id: str, *, force: bool = False) -> ApiTokenView:
        """End a token and its sessions; a repeat changes nothing.

        force: also the token that the caller came with.

        Raises:
            NotFound: there is no such token.
            Conflict: it is the last one that may manage tokens, or do everything; or the
                caller's own.
        """
        now = self._clock()
        with self._uow() as tx:
            record = _found(tx, key_id)
            if record.revoked:
                return view(record)
            if record.id == caller.key_id and not force:
                msg = "this is the token that you are using"
                raise Conflict(msg, hint="say --force if it is meant")
            others = [one for one in _working(tx, now) if one.id != record.id]
            for has, what in ((_manages, "manage tokens"), (_may_all, "do everything")):
                # Nobody gives a right that they lack: with the last of these it would be gone.
                if has(record) and not any(has(one) for one in others):
                    msg = f"{record.id} is the last token that may {what}"
                    hint = "make another first: argosy api-token create … -r admin"
                    raise Conflict(msg, hint=hint)
            revoked = replace(record, revoked=True)
            tx.keys.save(revoked)
            tx.sessions.remove_of(record.id)
            tx.audit.add("api_token.revoke", record.id, {"name": record.name, "role": record.role})
        return view(revoked)

    def tick(self) -> None:
        """Write down what was used, and forget sessions that are over; once a minute."""
        if self._clock() >= self._written + NOTED_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write down at once what was used."""
        now = self._written = self._clock()
        with self._lock:
            used, self._used = self._used, {}
            seen, self._seen = self._seen, {}
        with self._uow() as tx:
            for key_id, at in sorted(used.items()):
                tx.keys.used(key_id, at)
            for session_id, at in sorted(seen.items()):
                tx.sessions.seen(session_id, at)
            tx.sessions.prune(now - SESSION_LIFE, now - SESSION_IDLE)

    def _note(self, caller: Principal, now: datetime) -> None:
        # In memory, so that reading takes no writer's turn. Only tokens that are good get here.
        if caller.role is Role.JOB:
            return
        with self._lock:
            self._used[caller.key_id] = now
            if caller.session is not None:
                self._seen[caller.session] = now


def csrf_of(cookie: str) -> str:
    """What a page proves itself with: only who has the session's cookie can compute it."""
    return hmac.new(cookie.encode(), b"argosy-csrf-1", hashlib.sha256).hexdigest()


def whoami(caller: Principal, csrf: str | None = None) -> Whoami:
    """Who the caller is, and what they may do."""
    return Whoami(
        id=caller.key_id,
        name=caller.name,
        role=caller.role,
        scopes=tuple(sorted(caller.scopes)),
        expires_at=caller.expires_at,
        csrf=csrf,
    )


def view(record: KeyRecord) -> ApiTokenView:
    """A token as the API shows it."""
    return ApiTokenView(
        id=record.id,
        name=record.name,
        role=Role(record.role),
        scopes=tuple(sorted(keys.scopes_of(record))),
        expires_at=record.expires_at,
        revoked=record.revoked,
        created_at=record.created_at,
        last_used_at=record.last_used_at,
    )


def _asked(request: ApiTokenRequest) -> frozenset[Scope]:
    whole = SCOPES_OF[request.role]
    if request.scopes is None:
        return whole
    beyond = sorted(set(request.scopes) - whole)
    if beyond:
        msg = f"scopes: role {request.role} does not have {', '.join(beyond)}"
        raise Invalid(msg, hint=f"it has {', '.join(sorted(whole))}")
    return frozenset(request.scopes)


def _check_rights(caller: Principal, scopes: frozenset[Scope]) -> None:
    beyond = sorted(scopes - caller.scopes)
    if beyond:
        msg = f"your token does not have {', '.join(beyond)}, so it cannot give it"
        raise Forbidden(msg)


def _expiry(caller: Principal, request: ApiTokenRequest, now: datetime) -> datetime | None:
    """When the new token ends: never later than the one that makes it."""
    if request.ttl_seconds is None:
        return caller.expires_at
    expires = now + timedelta(seconds=request.ttl_seconds)
    if caller.expires_at is not None and expires > caller.expires_at:
        msg = f"your token ends at {caller.expires_at:%Y-%m-%d %H:%M} UTC; no other may outlive it"
        raise Forbidden(msg, hint="ask for a shorter time, or leave it out")
    return expires


def _working(tx: Transaction, now: datetime) -> list[KeyRecord]:
    found = [record for role in PEOPLE for record in tx.keys.of_role(role)]
    return [record for record in found if keys.works(record, now)]


def _manages(record: KeyRecord) -> bool:
    return Scope.ACCESS_WRITE in keys.scopes_of(record)


def _may_all(record: KeyRecord) -> bool:
    return keys.scopes_of(record) == SCOPES_OF[Role.ADMIN]


def _found(tx: Transaction, key_id: str) -> KeyRecord:
    record = tx.keys.get(key_id)
    if record is None or record.role not in _LISTED:
        msg = f"there is no API token {key_id}"
        raise NotFound(msg, hint="`argosy api-token ls` lists them")
    return record


def _is_over(session: SessionRecord, now: datetime) -> bool:
    return now >= session.created_at + SESSION_LIFE or now >= session.seen_at + SESSION_IDLE


def _signed_out() -> Unauthenticated:
    return Unauthenticated("the session is over", hint="sign in again")
