"""What a device can say about itself, from its files alone."""

from __future__ import annotations

import datetime as dt

from pydantic import ValidationError

from edge_client.advice import Trouble, read_facts, troubles
from edge_client.certificates import read_key, spki_sha256
from edge_client.errors import JournalError, NotEnrolledError
from edge_client.identity import Identity, load_identity
from edge_client.lock import is_locked
from edge_client.metadata_age import last_refresh
from edge_client.refusal import Refusal, in_words
from edge_client.renewal import plan_of
from edge_client.requested import EnrollmentNote, kept_note
from edge_client.settings import Home
from edge_client.slots import read_pointers
from schemas.base import UtcTime, Wire
from schemas.device import ActiveModel, ActiveModels
from schemas.enroll import BrokerAddress, fingerprint
from schemas.ids import BootId, DeviceId, ExecutionId, Name, Sha256
from schemas.rollout import ExecState


class Live(Wire):
    """``agent.json``: what the running agent knows, at most a second or two old.

    uptime: when it was written: as soon as anything else changes, and once a minute.
    serving: in memory; the pointer may lag behind it while the disk is full. waits: why the
    update waits; waits_until: the server's time at which it goes on by itself. shadow_idle: a
    shadow runs, and there was nothing to compare yet. read_only: why no updates are taken.
    """

    boot: BootId
    connected: bool
    uptime: float
    serving: ActiveModels = ()
    execution: ExecutionId | None = None
    state: ExecState | None = None
    waits: str | None = None
    waits_until: UtcTime | None = None
    shadow_idle: bool = False
    windows_waiting: int = 0
    refused: Refusal | None = None
    next_renewal: UtcTime | None = None
    renewal_problem: str | None = None
    read_only: str | None = None
    last_error: str | None = None


class Pending(Wire):
    """An enrollment that is not over. device, fingerprint: once the server has answered."""

    server: str
    began: UtcTime
    device: DeviceId | None = None
    fingerprint: str | None = None


class Identified(Wire):
    """Who a device is, and what it trusts.

    fingerprint: of its key, as the operator sees it. roots: SHA-256 of each authority.
    """

    device: DeviceId
    device_class: Name
    server: str
    broker: BrokerAddress
    fingerprint: str
    certificate_serial: str
    certificate_starts_at: UtcTime
    certificate_expires_at: UtcTime
    certificate_unproven: bool = False
    next_renewal: UtcTime
    roots: tuple[Sha256, ...]


class Status(Identified):
    """The answer of ``argosy-edge status``.

    active, fallback: by the pointer, of each model. trust_refreshed_at: when the trust metadata was
    last found to hold. rolled_back: a model was put back by hand. troubles: what is wrong around
    it, and what to do.
    """

    running: bool
    active: ActiveModels = ()
    fallback: ActiveModels = ()
    rolled_back: bool = False
    troubles: tuple[Trouble, ...] = ()
    trust_refreshed_at: UtcTime | None = None
    enrollment: Pending | None = None
    live: Live | None = None


def read_status(home: Home) -> Status:
    """Read a home.

    Raises:
        NotEnrolledError: it holds no identity; the hint says whether one is awaited.
    """
    pending = _pending(home)
    try:
        identity = load_identity(home)
    except NotEnrolledError as error:
        raise _awaiting(error, pending) from error
    pointers = read_pointers(home.pointer)
    before = (pointers.of(name).fallback for name in sorted(pointers.models))
    running = is_locked(home)
    return Status(
        **_identified(identity).model_dump(),
        running=running,
        active=tuple(slot.as_active() for slot in pointers.active),
        fallback=tuple(slot.as_active() for slot in before if slot is not None),
        rolled_back=bool((read_facts(home) or {}).get("rolled_back")),
        troubles=troubles(home, dt.datetime.now(dt.UTC)),
        trust_refreshed_at=_refreshed(home),
        enrollment=pending,
        live=_live(home) if running else None,
    )


def _identified(identity: Identity) -> Identified:
    record = identity.record
    key = read_key(identity.key.read_bytes(), str(identity.key))
    return Identified(
        device=record.device,
        device_class=record.device_class,
        server=record.server,
        broker=record.broker,
        fingerprint=fingerprint(spki_sha256(key)),
        certificate_serial=identity.seen.serial,
        certificate_starts_at=identity.life.start,
        certificate_expires_at=identity.life.end,
        certificate_unproven=identity.unproven,
        next_renewal=plan_of(identity).due,
        roots=identity.seen.roots,
    )


def _pending(home: Home) -> Pending | None:
    note = kept_note(home.enrollment, EnrollmentNote)
    return None if note is None else Pending.model_validate(note.model_dump(), extra="ignore")


def _awaiting(error: NotEnrolledError, pending: Pending | None) -> NotEnrolledError:
    if pending is None:
        return error
    if pending.device is None:
        return NotEnrolledError(
            f"{error}: an enrollment at {pending.server} was begun and has no answer yet",
            hint="give the same `argosy-edge enroll` command again: it goes on",
        )
    return NotEnrolledError(
        f"{error}: {pending.device} waits for approval at {pending.server},"
        f" with fingerprint {pending.fingerprint}",
        hint=f"`argosy device approve {pending.device}`, then enroll with the same command again",
    )


def _refreshed(home: Home) -> dt.datetime | None:
    try:
        return last_refresh(home)
    except JournalError:
        return None


def lines(status: Status, now: dt.datetime) -> list[tuple[str, str]]:
    """The status in words: (what, value)."""
    live = status.live
    state = "not running" if live is None else "running, not connected"
    if live is not None and live.connected:
        state = "running, connected"
    refreshed = status.trust_refreshed_at
    rows = [
        ("device", status.device),
        ("class", status.device_class),
        ("fingerprint", status.fingerprint),
        ("agent", state if not status.running or live else "starting"),
        ("broker", f"{status.broker.host}:{status.broker.port}"),
        ("certificate", _certificate(status, now)),
        ("next renewal", _renewal(status, now)),
        ("roots", ", ".join(root[:16] for root in status.roots)),
        ("trust refreshed", "never" if refreshed is None else _date(refreshed)),
        *_models(status),
    ]
    if status.enrollment is not None:
        what = status.enrollment.device or f"at {status.enrollment.server}"
        rows.append(("enrollment", f"{what}, begun {_date(status.enrollment.began)}, not over"))
    if live is not None:
        rows += _live_rows(status, live)
    for trouble in status.troubles:
        rows += [("trouble", trouble.what), ("what to do", trouble.do)]
    return rows


def _live_rows(status: Status, live: Live) -> list[tuple[str, str]]:
    doing = "-" if live.execution is None else f"{live.execution} {live.state}"
    rows = [("execution", doing)]
    if live.waits is not None:
        rows.append(("reason", live.waits))
        rows.append(("go on at once", "argosy-edge proceed"))
    if live.shadow_idle:
        rows.append(("shadow", "nothing to compare yet: it sees what this agent itself answers"))
    rows.append(("windows waiting", str(live.windows_waiting)))
    if live.serving != status.active:
        serving = "; ".join(_words(one) for one in live.serving) or "-"
        rows.append(("serving", f"{serving}, not what is active"))
    if live.read_only is not None:
        rows.append(("no updates", live.read_only))
    if live.renewal_problem is not None:
        rows.append(("renewal", live.renewal_problem))
    if live.refused is not None:
        rows.append(("refused", in_words(live.refused, status.device)))
    if live.last_error is None or live.refused is None:
        rows.append(("last error", live.last_error or "-"))
    return rows


def _certificate(status: Status, now: dt.datetime) -> str:
    left = status.certificate_expires_at - now
    text = _date(status.certificate_expires_at)
    if now < status.certificate_starts_at:
        begins = _date(status.certificate_starts_at)
        return f"{text} (begins {begins}, so the clock is wrong: set it)"
    if left <= dt.timedelta():
        return f"{text} (expired: the agent renews it by HTTPS)"
    days = f"{left.days} days left" if left.days else f"{left.seconds // 3600} hours left"
    return f"{text} ({days}{', not tried yet' if status.certificate_unproven else ''})"


def _renewal(status: Status, now: dt.datetime) -> str:
    live = status.live
    planned = status.next_renewal if live is None else live.next_renewal or status.next_renewal
    if not status.running:
        return f"{_date(planned)}, if the agent runs"
    return _date(planned) if planned > now else f"{_date(planned)}: being tried"


def _date(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _models(status: Status) -> list[tuple[str, str]]:
    """What serves of each model, and what would serve in its place."""
    active = {one.model: _words(one) for one in status.active}
    before = {one.model: _words(one) for one in status.fallback}
    rows = []
    for name in sorted(active | before):
        rows += [("active", active.get(name, "-")), ("fallback", before.get(name, "-"))]
    if status.rolled_back:
        rows.append(("put back", "by hand"))
    return rows or [("active", "-"), ("fallback", "-")]


def _words(model: ActiveModel) -> str:
    return f"{model.model} v{model.version} {model.variant} ({model.sha256[:12]})"


def _live(home: Home) -> Live | None:
    try:
        return Live.model_validate_json(home.live.read_bytes())
    except (OSError, ValidationError):
        return None
