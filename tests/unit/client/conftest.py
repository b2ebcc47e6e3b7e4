from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str, path: Path) -> ModuleType:
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


_load("argosy_fake_platform", Path(__file__).with_name("fake_platform.py"))

from argosy_fake_platform import TOKEN, State, serve  # noqa: E402 - it is loaded above

from orchestrator.client import Argosy  # noqa: E402 - likewise


@pytest.fixture(scope="session")
def fake_server() -> Iterator[tuple[str, State]]:
    state = State()
    with serve(state) as url:
        yield url, state


@pytest.fixture
def fake(fake_server: tuple[str, State]) -> State:
    fresh = State()
    state = fake_server[1]
    for name, value in vars(fresh).items():
        setattr(state, name, value)
    return state


@pytest.fixture
def argosy(
    fake_server: tuple[str, State], fake: State, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Argosy]:
    monkeypatch.setattr("orchestrator.client.follow.LOOK_SECONDS", 0.02)
    with Argosy(fake_server[0], TOKEN) as client:
        yield client
