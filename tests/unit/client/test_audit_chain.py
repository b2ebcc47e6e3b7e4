"""What a verified audit log is worth: each way of tampering with it is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.audit_chain import Head, Memory, Verdict, verify
from orchestrator.client.profiles import Profiles
from schemas.access import AUDIT_START, AuditEntry, audit_digest

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def log(count: int = 5, mark: str = "") -> list[dict[str, Any]]:
    """A log that holds."""
    items: list[dict[str, Any]] = []
    for seq in range(1, count + 1):
        entry = AuditEntry(
            seq=seq,
            at=NOW + timedelta(seconds=seq),
            actor="admin:key_0000000000000000",
            action="model.revoke",
            subject=f"digits@{seq}{mark}",
            detail={"reason": "é", "n": seq, "share": 0.1},
            previous=items[-1]["digest"] if items else AUDIT_START,
            digest=AUDIT_START,
        )
        whole = entry.model_copy(update={"digest": audit_digest(entry)})
        items.append(whole.model_dump(mode="json"))
    return items


def head(items: list[dict[str, Any]]) -> Head:
    return Head(items[-1]["seq"], items[-1]["digest"])


def test_a_log_that_was_left_alone_holds() -> None:
    items = log()
    assert verify(items) == Verdict(5, head(items))
    assert verify(items, head(items[:3])) == Verdict(5, head(items))
    assert verify([]) == Verdict(0, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at", "2026-11-22T12:00:03.123457Z"),
        ("actor", "platform"),
        ("action", "model.note"),
        ("subject", "digits@9"),
        ("detail", {"reason": "é", "n": 4, "share": 0.1}),
        ("detail", {}),
        ("previous", "0" * 64),
        ("digest", "f" * 64),
        ("digest", "nonsense"),
        ("at", None),
    ],
)
def test_a_changed_entry_is_named(field: str, value: object) -> None:
    items = log()
    items[2][field] = value
    verdict = verify(items)
    assert (verdict.entries, verdict.bad) == (2, 3)
    assert verdict.fault


def test_an_entry_that_was_taken_out_is_named() -> None:
    items = log()
    del items[2]
    verdict = verify(items)
    assert verdict.bad == 3
    assert "missing" in (verdict.fault or "")


def test_renumbering_does_not_hide_it() -> None:
    items = log()
    del items[2]
    for seq, item in enumerate(items, 1):
        item["seq"] = seq
    assert verify(items).bad == 3


def test_entries_in_another_order_are_found() -> None:
    items = log()
    items[1], items[3] = items[3], items[1]
    assert verify(items).bad == 2


def test_an_entry_of_another_log_does_not_fit() -> None:
    items = log()
    items[3] = log(mark="x")[3]
    assert verify(items).bad == 4


def test_a_log_that_was_cut_off_shows_against_what_is_remembered() -> None:
    items = log()
    assert verify(items[:3]).fault is None
    verdict = verify(items[:3], head(items))
    assert verdict.bad == 4
    assert "entry 5 was verified" in (verdict.fault or "")
    assert verify([], head(items)).bad == 1


def test_a_log_that_was_computed_anew_shows_against_what_is_remembered() -> None:
    items, other = log(), log(7, mark="x")
    assert verify(other).fault is None
    assert verify(other, head(items)).bad == 5


def test_the_head_is_remembered_by_platform(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "argosy")
    one, other = Memory(profiles, "a https://x"), Memory(profiles, "b https://x")
    assert one.head() is None
    one.keep(Head(3, "0" * 64))
    assert one.head() == Head(3, "0" * 64)
    assert other.head() is None
    one.forget()
    assert one.head() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0", '{"seq": "x", "digest": 1}'])
def test_a_damaged_memory_is_as_none(tmp_path: Path, text: str) -> None:
    memory = Memory(Profiles(tmp_path), "a")
    memory.keep(Head(1, "0" * 64))
    memory.path.write_text(text)
    assert memory.head() is None
