from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.client.profile import MAX_CREDENTIALS_BYTES, Profile
from orchestrator.errors import ArgosyError
from schemas.errors import Exit


def write(home: Path, **values: object) -> Path:
    (home / "credentials.json").write_text(json.dumps(values))
    return home


def test_the_file_in_the_home_is_read(tmp_path: Path) -> None:
    write(tmp_path, url="https://127.0.0.1:8420/", token="t", ca="ca/ca.pem")
    assert Profile.load(tmp_path, {}) == Profile(
        "https://127.0.0.1:8420", "t", str(tmp_path / "ca/ca.pem")
    )


def test_argosy_home_names_the_folder(tmp_path: Path) -> None:
    write(tmp_path, url="http://127.0.0.1:1", token="t", ca=None)
    assert Profile.load(None, {"ARGOSY_HOME": str(tmp_path)}).token == "t"


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    env = {"ARGOSY_URL": "https://a.example", "ARGOSY_TOKEN": "t", "ARGOSY_CA": "/ca.pem"}
    assert Profile.load(tmp_path, env) == Profile("https://a.example", "t", "/ca.pem")


def test_the_token_in_the_file_never_goes_to_another_address(tmp_path: Path) -> None:
    write(tmp_path, url="http://127.0.0.1:1", token="secret", ca=None)
    with pytest.raises(ArgosyError, match="ARGOSY_TOKEN is not set") as caught:
        Profile.load(tmp_path, {"ARGOSY_URL": "https://evil.example"})
    assert "secret" not in str(caught.value.hint)


def test_a_token_is_not_sent_in_the_clear_to_another_machine(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="not encrypted"):
        Profile.load(tmp_path, {"ARGOSY_URL": "http://a.example", "ARGOSY_TOKEN": "t"})


def test_no_credentials_say_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="no credentials at") as caught:
        Profile.load(tmp_path, {})
    assert "argosy up" in (caught.value.hint or "")
    assert caught.value.exit is Exit.AUTH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"url": 1, "token": "t"}',
        "\0",
        "[" * 60_000,
        " " * (MAX_CREDENTIALS_BYTES + 1),
    ],
)
def test_damaged_credentials_are_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(ArgosyError, match="is damaged"):
        Profile.load(tmp_path, {})


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "127.0.0.1:8420", "http://", "http://[", "http://h:x"]
)
def test_a_bad_address_is_refused(tmp_path: Path, url: str) -> None:
    write(tmp_path, url=url, token="t")
    with pytest.raises(ArgosyError, match="not the address"):
        Profile.load(tmp_path, {})


def test_a_profile_does_not_print_its_token() -> None:
    assert "secret" not in repr(Profile("http://127.0.0.1", "secret"))
