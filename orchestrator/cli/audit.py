"""``argosy audit``: who did what, and whether the log of it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import Span, home_option, output_option

if TYPE_CHECKING:
    from orchestrator.client.audit_chain import Verdict
    from schemas.access import AuditEntry

MAX_SHOWN = 1000
_DETAIL = 200


@click.group()
def audit() -> None:
    """See who did what."""


@audit.command()
@click.option("--actor", help="Only by this one, as in admin:key_….")
@click.option("--action", help="Only this, as in model.revoke.")
@click.option("--since", type=Span(), help="Only of this long ago until now, as in 24h.")
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, MAX_SHOWN),
    default=50,
    show_default=True,
    help="How many.",
)
@click.option("--detail", "wide", is_flag=True, help="With what else is known of each.")
@home_option
@output_option
def ls(
    *,
    actor: str | None,
    action: str | None,
    since: float | None,
    count: int,
    wide: bool,
    home: Path | None,
    form: str,
) -> None:
    """List the newest entries, the last of them at the end."""
    from datetime import UTC, datetime, timedelta

    from orchestrator.cli.output import Column, Shape, emit_list
    from orchestrator.client import Argosy

    start = None if since is None else datetime.now(UTC) - timedelta(seconds=since)
    with Argosy.from_profile(home) as argosy:
        found = argosy.audit.last(count, actor=actor, action=action, since=start)
    columns: list[Column[AuditEntry]] = [
        ("NO", lambda entry: str(entry.seq)),
        ("TIME", lambda entry: f"{entry.at.astimezone():%m-%d %H:%M:%S}"),
        ("WHO", _who),
        ("DID", lambda entry: entry.action),
        ("TO", lambda entry: entry.subject),
    ]
    if wide:
        columns.append(("DETAIL", _detail))
    shape: Shape[AuditEntry] = Shape(lambda entry: str(entry.seq), *columns)
    emit_list(found, form, shape, "no entries")


def _who(entry: AuditEntry) -> str:
    """The actor with the end of a token's id, which differs sooner; `-o json` has it whole."""
    role, colon, key_id = entry.actor.partition(":key_")
    return f"{role}:…{key_id[-6:]}" if colon else entry.actor


def _detail(entry: AuditEntry) -> str:
    shown = " ".join(
        f"{key}={value}" for key, value in entry.detail.items() if value not in (None, "", [], {})
    )
    return shown if len(shown) <= _DETAIL else shown[: _DETAIL - 1] + "…"


@audit.command()
@click.option("--forget", is_flag=True, help="Forget how far it was verified: it begins anew.")
@home_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the result on stdout.",
)
def verify(*, forget: bool, home: Path | None, form: str) -> int:
    """Compute the whole log anew here; exit code 7 if it was changed, cut or rewritten."""
    from orchestrator.client import Argosy
    from orchestrator.client import audit_chain as chain
    from orchestrator.client.profile import Profile
    from orchestrator.client.profiles import Profiles
    from schemas.errors import Exit

    profile = Profile.load(home)
    memory = chain.Memory(Profiles.of(), f"{profile.source} {profile.url}")
    if forget:
        memory.forget()
    before = memory.head()
    with Argosy(profile.url, profile.token, profile.ca) as argosy:
        verdict = chain.verify(argosy.audit.raw(), before)
    if verdict.fault is None and verdict.head is not None:
        memory.keep(verdict.head)
    _report(verdict, before, form)
    return Exit.OK if verdict.fault is None else Exit.GATE_FAILED


def _report(verdict: Verdict, before: object, form: str) -> None:
    import json
    from dataclasses import asdict

    from orchestrator.cli import console
    from orchestrator.cli.failures import say_error

    if form == "json":
        click.echo(json.dumps({"ok": verdict.fault is None, **asdict(verdict)}, indent=2))
    if verdict.fault is not None:
        detail = f"the audit log is not whole: entry {verdict.bad}: {verdict.fault}"
        hint = (
            f"entries 1 to {verdict.entries} hold; after a platform that was set up anew, "
            "say --forget"
        )
        say_error(detail, hint)
        return
    if form == "table":
        since = (
            "as when it was last verified here, and more" if before else "remembered from now on"
        )
        console.out().print(f"{verdict.entries} entries hold, {since}")
        if verdict.head is not None:
            console.say(f"head {verdict.head.seq} {verdict.head.digest}", style="dim")
