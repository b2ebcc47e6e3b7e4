"""What is told of the platform's own authorities."""

from __future__ import annotations

from orchestrator.adapters.authority.generations import Generation, Generations
from orchestrator.adapters.authority.parts import SKEW, common_name
from orchestrator.services.ports.authority import RootFacts


def facts_of(generation: Generation, *, active: bool) -> RootFacts:
    """What is told of a root. active: it issues to devices."""
    root, issuing = generation.root, generation.issuing
    return RootFacts(
        sha256=generation.sha256,
        name=common_name(root) or "",
        active=active,
        external=False,
        key_held=generation.root_key.exists(),
        cross_signed=generation.cross is not None,
        created_at=root.not_valid_before_utc + SKEW,
        expires_at=root.not_valid_after_utc,
        issuing_expires_at=issuing.not_valid_after_utc,
    )


def problems_of(trusted: Generations) -> tuple[str, ...]:
    """What somebody should do something about."""
    found = []
    active, anchor = trusted.active, trusted.anchor
    if active.issues_itself:
        found.append(
            "the root issues to devices itself, so that its key cannot be moved away:"
            " `argosy ca rotate` makes one that need not"
        )
    if anchor is not active:
        found.append(
            "the old root did not sign the new one: join tokens pin the old root until it"
            " is retired, and count no more after that"
        )
    return tuple(found)
