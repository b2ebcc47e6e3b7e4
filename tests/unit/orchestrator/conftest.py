"""The orchestrator without a network, for every test in this folder."""

from __future__ import annotations

import pytest

from schemas.access import Role
from tests.unit.orchestrator.platform import Platform


@pytest.fixture
def platform(tmp_path):
    return Platform(tmp_path)


@pytest.fixture
def admin(platform):
    """A client with an operator's key."""
    return platform.client(platform.key(Role.ADMIN))
