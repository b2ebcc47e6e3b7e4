"""Letting devices in and shutting them out, from the command line."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from argosy_fake_platform import NOW, State, token_view
from rich.cells import cell_len

from orchestrator.client import Argosy
from schemas.device import DeviceState, DeviceView, Hardware
from schemas.enroll import JoinToken, TokenCreated, TokenRequest
from schemas.ids import new_id

KEYS = ("a" * 64, "b" * 64)
HARDWARE = Hardware(arch="aarch64", cpus=4, ram_mb=1, providers=(), ort="1", agent="1")


def device(**fields: Any) -> DeviceView:
    base: dict[str, Any] = {
        "id": new_id("dev"), "device_class": "default", "tags": (), "state": "PENDING",
        "presence": "NEVER", "certificate_expires_at": None, "enrolled_at": NOW,
        "fingerprint": "3f2a-91bc-0011-2233", "token": new_id("tok"), "hardware": HARDWARE,
    }  # fmt: skip
    return DeviceView(**{**base, **fields})


def test_the_command_for_the_device_can_be_copied_whole(argosy: Any, fake: State) -> None:
    answer = argosy("token", "create")
    token = answer.out.strip()
    line = f"argosy-edge enroll {token} --server https://platform.example:8420"
    assert line in answer.err.splitlines()


def test_everything_that_a_token_allows_is_asked_for(argosy: Any, fake: State, tmp_path: Path):
    file = tmp_path / "keys.txt"
    file.write_text(f"# of the new cameras\n{KEYS[0].upper()}\n\n{KEYS[1]}  # the second\n")
    assert argosy("token", "create", "--key", f"@{file}", "--note", "lab").code == 0
    assert argosy("token", "create", "--approval", "--tag", "lab").code == 0
    lost = new_id("dev")
    answer = argosy("token", "create", "--device", lost)
    assert lost in answer.err
    named, approved, replacing = fake.tokens
    assert (named.keys, named.note) == (2, "lab")
    assert (approved.approval, approved.tags) == (True, ("lab",))
    assert replacing.device == lost
    table = argosy("token", "ls").out
    assert all(word in table for word in ("2 keys, lab", "approval, lab", lost))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--key", "xyz"], "--key: this form is not allowed"),
        (["--key", "@/nowhere"], "/nowhere cannot be read"),
        (["--device", "dev_/+#$"], "--device: this form is not allowed"),
        (["--note", "x" * 201], "--note"),
        (["--uses", "0"], "--uses: must be greater"),
    ],
)
def test_a_wrong_option_is_named_and_no_token_is_made(
    argosy: Any, fake: State, argv: list[str], words: str
) -> None:
    answer = argosy("token", "create", *argv)
    assert (answer.code, fake.tokens) == (2, [])
    assert words in answer.err


def test_the_qr_code_holds_exactly_the_command(argosy: Any, fake: State, tmp_path: Path) -> None:
    import segno

    file = tmp_path / "join.png"
    answer = argosy("token", "create", "--qr", "--qr-png", str(file))
    line = f"argosy-edge enroll {answer.out.strip()} --server https://platform.example:8420"
    wanted = segno.make(line, error="l", micro=False)
    assert wanted.symbol_size()[0] <= 80
    plain = tmp_path / "plain.png"
    wanted.save(str(plain), kind="png", scale=6)
    assert file.read_bytes() == plain.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "▄" in answer.err
    assert "▄" not in answer.out
    again = argosy("token", "create", "--qr-png", str(file))
    assert again.code == 2
    assert "is there already" in again.err


def test_the_state_of_a_token_is_told(argosy: Any, fake: State) -> None:
    fresh = token_view(TokenRequest()).model_copy(update={"expires_at": NOW + timedelta(days=9999)})
    spent = fresh.model_copy(update={"id": new_id("tok"), "uses": 1})
    fake.tokens = [fresh, spent, token_view(TokenRequest())]
    whole = str(JoinToken(fresh.id, "s" * 43, "0" * 64, "1" * 64))
    assert "lets nobody else in" in argosy("token", "revoke", whole).err
    rows = [row.split() for row in argosy("token", "ls").out.splitlines()[1:]]
    assert [row[5] for row in rows] == ["REVOKED", "SPENT", "EXPIRED"]


def test_devices_that_wait_show_what_to_compare_within_80_columns(argosy: Any, fake: State):
    waiting = device()
    fake.devices = [waiting, device(state="ACTIVE")]
    answer = argosy("device", "ls", "--state", "pending")
    assert waiting.fingerprint in answer.out
    assert len(answer.out.splitlines()) == 2
    assert max(cell_len(line) for line in answer.out.splitlines()) <= 80


def test_approving_by_name_and_rejecting_all(argosy: Any, fake: State) -> None:
    fake.devices = [device(), device(), device()]
    first = fake.devices[0].id
    answer = argosy("device", "approve", first, "-o", "name")
    assert (answer.code, answer.out) == (0, f"{first}\n")
    refused = argosy("device", "reject", "--all")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert argosy("device", "reject", "--all", "--yes").code == 0
    assert [d.state for d in fake.devices] == ["ACTIVE", "REVOKED", "REVOKED"]
    nobody = argosy("device", "approve", "--all", "--yes")
    assert (nobody.code, nobody.out) == (0, "")
    assert "no device waits" in nobody.err


def test_neither_names_nor_all_or_both_is_a_wrong_call(argosy: Any, fake: State) -> None:
    for argv in ([], [new_id("dev"), "--all"]):
        answer = argosy("device", "approve", *argv)
        assert answer.code == 2
        assert "--all" in answer.err


def test_what_was_approved_before_a_fault_is_shown(argosy: Any, fake: State) -> None:
    fake.devices = [device(), device(state="REVOKED")]
    first, second = (d.id for d in fake.devices)
    answer = argosy("device", "approve", first, second, "-o", "name")
    assert (answer.code, answer.out) == (6, f"{first}\n")
    assert "was revoked or rejected" in answer.err


def test_revoking_asks_first_and_keeps_the_reason(argosy: Any, fake: State) -> None:
    fake.devices = [device(state="ACTIVE")]
    one = fake.devices[0].id
    assert argosy("device", "revoke", one).code == 2
    assert fake.devices[0].state is DeviceState.ACTIVE
    answer = argosy("device", "revoke", one, "--reason", "stolen", "--yes")
    assert "REVOKED: stolen" in answer.err
    assert argosy("device", "revoke", one, "--yes").code == 0


def test_a_suspected_clone_is_shown_and_cleared(argosy: Any, fake: State) -> None:
    cloned = device(state="ACTIVE", clone_suspected_at=NOW)
    fake.devices = [cloned]
    assert "cloned?" in argosy("device", "ls").out
    shown = argosy("device", "get", cloned.id)
    assert f"argosy device clear-alert {cloned.id}" in shown.err
    assert all(text in shown.out for text in (cloned.fingerprint, cloned.token or "?"))
    assert argosy("device", "clear-alert", cloned.id).code == 0
    assert "cloned?" not in argosy("device", "ls").out


def test_the_sdk_speaks_of_states_and_tokens(platform_env: dict[str, str], fake: State) -> None:
    fake.devices = [device(), device(state="ACTIVE"), device(state="REVOKED")]
    with Argosy(platform_env["ARGOSY_URL"], platform_env["ARGOSY_TOKEN"]) as argosy:
        both = argosy.devices.list([DeviceState.PENDING, DeviceState.REVOKED])
        assert {view.state for view in both} == {DeviceState.PENDING, DeviceState.REVOKED}
        made: TokenCreated = argosy.tokens.create()
        assert argosy.tokens.revoke(made.view.id).revoked
