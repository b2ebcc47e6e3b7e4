from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.client.profile import CHOSEN, MAX_CREDENTIALS_BYTES, Profile
from orchestrator.client.profiles import Profiles
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
    assert Profile.load(None, env) == Profile("https://a.example", "t", "/ca.pem")


def test_the_token_in_the_file_never_goes_to_another_address(tmp_path: Path) -> None:
    write(tmp_path, url="http://127.0.0.1:1", token="secret", ca=None)
    with pytest.raises(ArgosyError, match="ARGOSY_TOKEN is not set") as caught:
        Profile.load(None, {"ARGOSY_HOME": str(tmp_path), "ARGOSY_URL": "https://evil.example"})
    assert "secret" not in str(caught.value.hint)


def test_a_token_is_not_sent_in_the_clear_to_another_machine(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="not encrypted"):
        Profile.load(None, {"ARGOSY_URL": "http://a.example", "ARGOSY_TOKEN": "t"})


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


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which each source names another platform."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    write(make(tmp_path / "user/.argosy"), url="https://default.example", token="default")
    write(make(tmp_path / "named"), url="https://home.example", token="home")
    env = {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "ARGOSY_HOME": str(tmp_path / "named"),
        "ARGOSY_PROFILE": "by-env",
        "ARGOSY_URL": "https://url.example",
        "ARGOSY_TOKEN": "t",
    }
    profiles = Profiles.of(env)
    for name in ("by-flag", "by-env", "in-use"):
        profiles.save(name, f"https://{name}.example", name, None)
    return env


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_first_source_that_is_there_counts(everything: dict[str, str], tmp_path: Path) -> None:
    env, explicit = everything, make(tmp_path / "explicit")
    write(explicit, url="https://flag-home.example", token="x")

    def url(home: Path | None = None, name: str | None = None) -> str:
        return Profile.load(home, env, name).url

    assert url(name="by-flag") == "https://by-flag.example"
    assert url(explicit) == "https://flag-home.example"
    assert url() == "https://url.example"
    del env["ARGOSY_URL"], env["ARGOSY_TOKEN"]
    assert url() == "https://by-env.example"
    del env["ARGOSY_PROFILE"]
    assert url() == "https://home.example"
    del env["ARGOSY_HOME"]
    assert url() == "https://in-use.example"
    Profiles.of(env).remove("in-use")
    assert url() == "https://default.example"


def test_two_platforms_at_once_are_refused(everything: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="two platforms"):
        Profile.load(tmp_path, everything, "by-flag")


def test_the_command_line_names_a_profile_for_every_connection(everything: dict[str, str]) -> None:
    token = CHOSEN.set("by-flag")
    try:
        assert Profile.load(None, everything).token == "by-flag"
    finally:
        CHOSEN.reset(token)


def test_profiles_are_for_their_owner_alone(everything: dict[str, str]) -> None:
    folder = Profiles.of(everything).folder
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("name", ["", "../x", "A", "a" * 64, "-a", "a/b", "é"])
def test_a_profile_has_a_harmless_name(everything: dict[str, str], name: str) -> None:
    with pytest.raises(ArgosyError):
        Profiles.of(everything).save(name, "https://a.example", "t", None)
    with pytest.raises(ArgosyError):
        Profiles.of(everything).path(name)


def test_a_profile_that_is_not_there_says_which_are(everything: dict[str, str]) -> None:
    with pytest.raises(ArgosyError, match="by-env, by-flag, in-use") as caught:
        Profile.load(None, everything, "other")
    assert caught.value.exit is Exit.AUTH
