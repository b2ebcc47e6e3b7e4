"""One platform for all attacks: it has to stand them one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.intruder import Site, until


@pytest.fixture(scope="session")
def site(mosquitto) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="argosy-attacks-") as folder:
        site = Site(Path(folder))
        try:
            site.start()
            yield site
        finally:
            site.stop()


@pytest.fixture(autouse=True)
def still_stands(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every attack the platform is well again; a revocation takes a moment to be proven."""
    yield
    if "site" in request.fixturenames:
        until(request.getfixturevalue("site").healthy, "the platform's health")


@pytest.fixture
def admin(site: Site):
    with site.http(site.admin_token) as client:
        yield client
