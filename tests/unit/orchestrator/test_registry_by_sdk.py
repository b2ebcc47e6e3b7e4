"""The SDK and the registry's routes, spoken for real: what one sends the other takes."""

from __future__ import annotations

import pytest

from orchestrator.client import Argosy
from orchestrator.errors import Conflict, Invalid, NotFound, Revoked
from schemas.access import Role


@pytest.fixture
def sdk(platform):
    for content in (b"1", b"2"):
        platform.models.register("digits", platform.manifest(content=content), None)
    token = platform.key(Role.ADMIN)
    return Argosy("http://testserver", token, http=platform.client()._transport)


def test_aliases_are_moved_and_looked_up(sdk):
    assert sdk.models.set_alias("digits", "next", 2).aliases == {"champion": 1, "next": 2}
    with pytest.raises(Conflict, match="is at digits@2, not at digits@1"):
        sdk.models.set_alias("digits", "next", 1, expected=1)
    assert sdk.models.remove_alias("digits", "next").aliases == {"champion": 1}
    assert [c.version for c in sdk.models.alias_history("digits", "next")] == [None, 2]
    with pytest.raises(NotFound):
        list(sdk.models.alias_history("digits", "nobody"))
    with pytest.raises(Invalid):
        sdk.models.set_alias("digits", "7", 1)


def test_versions_are_annotated_compared_and_revoked(sdk):
    found = sdk.models.compare("digits", 1, 2)
    assert (found.a.version, found.b.version, found.paired) == (1, 2, None)
    assert "not known which samples were right" in found.unpaired
    view = sdk.models.revoke("digits", 1, "labels were swapped")
    assert (view.revoked, view.revoked_reason, view.aliases) == (True, "labels were swapped", ())
    with pytest.raises(Revoked):
        sdk.models.set_alias("digits", "champion", 1)
    assert sdk.models.version("digits", 1) == view
