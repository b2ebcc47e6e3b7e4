from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

FAKE = "argosy_fake_platform"

if FAKE not in sys.modules:
    where = Path(__file__).parent.with_name("client") / "fake_platform.py"
    spec = spec_from_file_location(FAKE, where)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[FAKE] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[FAKE])

from argosy_fake_platform import TOKEN, State, serve  # noqa: E402 - it is loaded above

from orchestrator.cli.main import run  # noqa: E402 - likewise


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Argosy = Callable[..., Answer]


@pytest.fixture(scope="session")
def cli_server() -> Iterator[tuple[str, State]]:
    state = State()
    with serve(state) as url:
        yield url, state


@pytest.fixture
def fake(cli_server: tuple[str, State]) -> State:
    state = cli_server[1]
    for name, value in vars(State()).items():
        setattr(state, name, value)
    return state


@pytest.fixture
def platform_env(
    cli_server: tuple[str, State], fake: State, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    env = {"ARGOSY_URL": cli_server[0], "ARGOSY_TOKEN": TOKEN}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("orchestrator.client.follow.LOOK_SECONDS", 0.02)
    return env


@pytest.fixture
def argosy(platform_env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Argosy:
    """Run a command line in this process."""

    def call(*argv: str) -> Answer:
        capsys.readouterr()
        code = run(list(argv))
        out, err = capsys.readouterr()
        return Answer(int(code), out, err)

    return call
