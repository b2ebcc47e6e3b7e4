"""When a device asks for its next certificate, and by which way. Pure.

The moment lies between 70 and 90 % of the certificate's life, and follows from its serial
number: so a fleet that was enrolled at once does not ask at once, and a restart changes nothing.
Over MQTT while there is a connection, which the present certificate opened; by HTTPS, with the
old key's signature, once the broker does not take the certificate any more.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from edge_client.certificates import Life
from edge_client.identity import Identity
from edge_client.refusal import Refusal

EARLIEST, LATEST = 0.7, 0.9
"""Shares of a certificate's life between which it is renewed."""

FIRST_PAUSE, LAST_PAUSE = 15.0, 3600.0
CUT_OFF_PAUSE = 900.0
"""Seconds between two tries at most: while the present certificate serves, and when it does not."""

ANSWER_SECONDS = 30.0


class Way(StrEnum):
    """How a new certificate is asked for."""

    MQTT = "mqtt"
    HTTPS = "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When, and how things are. date: has a zone. steady: seconds that only grow.

    refusal: how the last try to connect ended, if it was refused.
    """

    date: dt.datetime
    steady: float
    connected: bool
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known of the next renewal.

    seed: the certificate's serial. wanted_at: the steady second at which to follow the server's
    wish. asked_at: since when an answer over MQTT, or the end of a try by HTTPS, is awaited.
    """

    life: Life
    seed: str
    wanted_at: float | None = None
    asked_at: float | None = None
    way: Way | None = None
    failures: int = 0
    not_before: float = 0.0

    @property
    def due(self) -> dt.datetime:
        """When to renew."""
        share = EARLIEST + (LATEST - EARLIEST) * draw(self.seed, "due")
        return self.life.start + (self.life.end - self.life.start) * share


def plan_of(identity: Identity) -> Plan:
    """The plan for a certificate that nothing has happened to yet."""
    return Plan(life=identity.life, seed=identity.seen.serial)


def draw(*seeds: object) -> float:
    """A number in [0, 1) that follows from its seeds."""
    text = "\n".join(str(seed) for seed in seeds)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def decide(plan: Plan, at: Moment) -> Way | None:
    """Whether to ask now, and how.

    While the clock is before the certificate's start it is wrong, and says nothing about
    when the certificate ends.
    """
    if plan.asked_at is not None or at.steady < plan.not_before:
        return None
    if at.connected:
        wanted = plan.wanted_at is not None and at.steady >= plan.wanted_at
        return Way.MQTT if wanted or at.date >= plan.due else None
    if at.refusal in {Refusal.EXPIRED, Refusal.UNTRUSTED}:
        return Way.HTTPS
    if at.date >= plan.life.end and at.refusal is not Refusal.REVOKED:
        return Way.HTTPS
    return None


def wanted(plan: Plan, within: float, steady: float) -> Plan:
    """The server asks for it, at a moment within so many seconds."""
    moment = steady + within * draw(plan.seed, "wanted")
    if plan.wanted_at is not None:
        moment = min(moment, plan.wanted_at)
    return replace(plan, wanted_at=moment)


def asked(plan: Plan, way: Way, steady: float) -> Plan:
    """It has been asked for."""
    return replace(plan, asked_at=steady, way=way)


def overdue(plan: Plan, steady: float) -> bool:
    """Whether an answer over MQTT can no longer be expected."""
    late = plan.asked_at is not None and steady - plan.asked_at >= ANSWER_SECONDS
    return late and plan.way is Way.MQTT


def failed(plan: Plan, at: Moment, *, for_good: bool = False) -> Plan:
    """A try came to nothing. for_good: the server said that others will, too."""
    most = LAST_PAUSE if for_good or at.connected else CUT_OFF_PAUSE
    pause = most if for_good else min(most, FIRST_PAUSE * 2.0 ** min(plan.failures, 16))
    pause *= 0.75 + 0.25 * draw(plan.seed, plan.failures)
    return replace(
        plan,
        asked_at=None,
        way=None,
        failures=plan.failures + 1,
        not_before=at.steady + pause,
    )


def clock_trouble(plan: Plan, date: dt.datetime) -> str | None:
    """What to say when the clock cannot be right."""
    if date >= plan.life.start:
        return None
    return (
        f"the clock says {date:%Y-%m-%d %H:%M} UTC, before this device's certificate begins"
        f" ({plan.life.start:%Y-%m-%d %H:%M}): set it"
    )
