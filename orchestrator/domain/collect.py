"""Which versions lose their files, and which artifacts nothing needs: pure.

A version is kept while anything may ask for it: an alias, a tag, a device that runs it or
had it last, a rollout or a job that is not over; and while it is among the newest of its
model, or young. An artifact is kept while a version that is kept, or a job that may run
(again), names it; and for a day, because whoever uploads it has yet to say what for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

GRACE = timedelta(days=1)
"""How long an artifact is safe after it was stored, or stored again."""

Ref = tuple[str, int]
"""A version: its model's name and its number."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored file. size: bytes. put_at: when somebody last stored it, in UTC."""

    sha256: str
    size: int
    put_at: datetime


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """A version whose files are there.

    files: their digests. job_id: of the job that made it. restored_at: when its files came
    back after a collection had taken them.
    """

    model: str
    version: int
    created_at: datetime
    files: frozenset[str]
    tagged: bool = False
    revoked: bool = False
    job_id: str | None = None
    restored_at: datetime | None = None

    @property
    def since(self) -> datetime:
        """From when its age counts: whoever brings its files back wants them."""
        return self.restored_at or self.created_at

    @property
    def ref(self) -> Ref:
        """Its model's name and its number."""
        return self.model, self.version


@dataclass(frozen=True, slots=True)
class HeldJob:
    """What a job needs. ended_at: None while it is not over.

    inputs: artifacts it reads (code, a file made elsewhere). versions: models it reads.
    """

    id: str
    ended_at: datetime | None
    inputs: frozenset[str] = frozenset()
    versions: frozenset[Ref] = frozenset()


@dataclass(frozen=True, slots=True)
class HeldPatch:
    """A patch that makes a file, which is of use while that file is there."""

    sha256: str
    target: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """Everything that may need a file, at one moment.

    versions: that are not purged. used: that an alias, a device or a rollout names.
    """

    versions: tuple[HeldVersion, ...] = ()
    used: frozenset[Ref] = frozenset()
    jobs: tuple[HeldJob, ...] = ()
    patches: tuple[HeldPatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """keep_last: versions of each model. older_than: the age from which one may go."""

    keep_last: int
    older_than: timedelta


@dataclass(frozen=True, slots=True)
class Plan:
    """purge: versions that lose their files. needed: digests that must stay."""

    purge: tuple[Ref, ...]
    needed: frozenset[str]


def plan(holdings: Holdings, policy: Policy, now: datetime) -> Plan:
    """Decide what goes.

    Args:
        holdings: all that there is.
        policy: what the operator asks for.
        now: the time, in UTC.
    """
    horizon = now - policy.older_than
    kept = holdings.used | _newest(holdings.versions, policy.keep_last)
    kept |= {ref for job in holdings.jobs if job.ended_at is None for ref in job.versions}
    purge = {
        v.ref for v in holdings.versions if v.ref not in kept and not v.tagged and v.since < horizon
    }
    staying = [v for v in holdings.versions if v.ref not in purge]
    makers = {v.job_id for v in staying}
    needed = {digest for v in staying for digest in v.files}
    for job in holdings.jobs:
        # A job that ended of late may be cloned; the maker of a kept version is its lineage.
        if job.ended_at is None or job.ended_at >= horizon or job.id in makers:
            needed |= job.inputs
    needed |= {patch.sha256 for patch in holdings.patches if patch.target in needed}
    return Plan(tuple(sorted(purge)), frozenset(needed))


def garbage(
    artifacts: Iterable[Artifact], needed: Collection[str], now: datetime
) -> tuple[Artifact, ...]:
    """The artifacts that may go: nothing needs them, and they have lain for a day."""
    return tuple(a for a in artifacts if a.sha256 not in needed and a.put_at < now - GRACE)


def _newest(versions: Iterable[HeldVersion], count: int) -> frozenset[Ref]:
    """The newest of each model: of all, and of those that were not taken back."""
    numbers: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
    for v in versions:
        numbers[v.model, False].append(v.version)
        if not v.revoked:
            numbers[v.model, True].append(v.version)
    return frozenset(
        (model, number)
        for (model, _), found in numbers.items()
        for number in sorted(found, reverse=True)[:count]
    )
