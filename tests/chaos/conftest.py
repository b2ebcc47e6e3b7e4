"""What the tests of chaos share: the shim, a platform, and the seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.durable import compile_shim, compiler
from tests.chaos.stand import Stand, standing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="run this one schedule of faults")


@pytest.fixture(scope="session")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    if compiler() is None:
        pytest.skip("there is no C compiler (cc) to make the shim for power cuts with")
    return compile_shim(tmp_path_factory.mktemp("durable"))


@pytest.fixture(scope="session")
def stand(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One platform for all that is broken here."""
    with standing(tmp_path_factory.mktemp("chaos")) as stand:
        yield stand
