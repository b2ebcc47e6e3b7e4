"""What verdicts read, against a slow and plain reading of every window, in fleets made by chance.

Devices have several processes that begin windows in the same millisecond, go back to an older
version and on again, idle, tell late and out of order; windows lie on hours' edges and in
other rollouts' time.
"""

from __future__ import annotations

import random
from datetime import timedelta

import msgspec
import pytest

from orchestrator.adapters import cohort_repository, served_repository
from orchestrator.domain.judge import Served
from orchestrator.domain.placing import AHEAD_MS
from orchestrator.domain.rollup import Kept
from orchestrator.services.records import WindowRecord
from schemas.device import DeviceState, Presence
from schemas.rollout import ExecState, RolloutSpec
from schemas.window import Window
from tests.contract.test_execution_sets import BEFORE, execution, stored
from tests.contract.test_repositories import NOW, milliseconds, rollout

MINUTE, HOUR = 60_000, 3_600_000
CREATED = milliseconds(BEFORE)
LEAST = 12
FIGURES = ("n", "errors", "labelled", "correct")


def a_fleet(uow, seed):
    """A rollout with devices of its wave, and all windows that they told of."""
    chance = random.Random(seed)  # noqa: S311 - the same fleet each time
    gates = {"min_inferences": LEAST, "baseline_seconds": 1800}
    of = rollout(created_at=BEFORE, spec=RolloutSpec(model="digits", version=1, gates=gates))
    at = {"offered_at": BEFORE + timedelta(minutes=9), "updated_at": BEFORE + timedelta(minutes=20)}
    alive = {"state": DeviceState.ACTIVE, "presence": Presence.ONLINE, "last_seen_at": NOW}
    records = [execution(of, n, ExecState.SUCCEEDED, **at) for n in range(7)]
    records = stored(uow, of, records, **alive)
    told = []
    for record in records:
        many = chance.choice([0, 3, 25])
        told += [_window(chance, record.device_id, seq) for seq in range(many)]
    chance.shuffle(told)
    with uow() as tx:
        for begin in range(0, len(told), 9):
            tx.telemetry.add(told[begin : begin + 9])
        # What its device tells again counts once.
        tx.telemetry.add(told[:20])
    return of, [record.device_id for record in records], told


def _window(chance, device, seq):
    n = chance.choice([0, 1, 1, 5, 40])
    errors, labelled = chance.randint(0, n), chance.randint(0, n)
    correct = chance.randint(0, labelled)
    start = CREATED + chance.choice([-HOUR, -1, 0, HOUR // 2, HOUR - 1, HOUR])
    start += MINUTE * chance.choice([0, 0, 1, 2, 7, -7])
    model, version = chance.choice([("digits", 1)] * 4 + [("digits", 3), ("faces", 1)])
    boot, role = bytes([chance.randint(0, 2)]) * 16, chance.choice(["active"] * 4 + ["shadow"])
    own = Window(
        0, seq, start, synced=True, length_ms=MINUTE, n=n, errors=errors,
        labelled=labelled, correct=correct,
    )  # fmt: skip
    late = start + chance.choice([MINUTE, 5 * HOUR])
    return WindowRecord(
        device, boot, seq, model, version, "int8", role, start, late, n, errors, 0,
        labelled, correct, msgspec.msgpack.encode(Kept(own)),
    )  # fmt: skip


def newest(windows, each):
    """The newest ones, and those that began with the last of them."""
    starts = sorted((one.start_ms for one in windows), reverse=True)
    oldest = starts[each - 1] if len(starts) >= each else -(2**62)
    return [one for one in windows if one.start_ms >= oldest]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("each", [None, LEAST])
def test_what_a_wave_infers_is_what_all_its_windows_come_to(uow, monkeypatch, seed, each):
    if each:
        monkeypatch.setattr(served_repository, "_WINDOWS", 1)
    of, devices, told = a_fleet(uow, seed)
    with uow.read() as tx:
        found = tx.executions.served(of, 0)
    mine = []
    for device in devices:
        its = [
            one
            for one in told
            if (one.device_id, one.model, one.version, one.role) == (device, "digits", 1, "active")
            and one.start_ms >= CREATED
            and one.n > 0
        ]
        mine.append(newest(its, each or 10_000))
    sums = [[sum(getattr(w, k) for w in its) for k in FIGURES] for its in mine]
    assert found == Served(
        devices=7,
        least=min(n for n, *_ in sums),
        voters=sum(n >= LEAST for n, *_ in sums),
        errors=pytest.approx(sum(e / n for n, e, *_ in sums if n >= LEAST)),
        short_errors=pytest.approx(sum(e / LEAST for n, e, *_ in sums if n < LEAST)),
        labelling=sum(of > 0 for _, _, of, _ in sums),
        correct=pytest.approx(sum(right / of for *_, of, right in sums if of)),
        labels=sum(min(of, LEAST) for _, _, of, _ in sums),
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("each", [240, 3])
def test_a_device_before_and_after_is_what_all_its_windows_come_to(uow, monkeypatch, seed, each):
    monkeypatch.setattr(cohort_repository, "_FEWEST", 1)
    monkeypatch.setattr(cohort_repository, "_MOST", each)
    of, devices, told = a_fleet(uow, seed)
    now = NOW + timedelta(minutes=3)
    with uow.read() as tx:
        found = {one.device: one for one in tx.executions.cohorts(of, 0, now, 300).treated}
    assert set(found) == set(devices)
    offered, until = CREATED + 9 * MINUTE - AHEAD_MS, milliseconds(now) + AHEAD_MS
    for device in devices:
        its = [w for w in told if (w.device_id, w.model, w.role) == (device, "digits", "active")]
        new = [w for w in its if w.version == 1 and offered <= w.start_ms < until]
        turn = min((w.start_ms for w in new), default=CREATED + 20 * MINUTE)
        past = turn - 30 * MINUTE
        old = [w for w in its if w.version != 1 and past <= w.start_ms < turn]
        for span, expected in ((found[device].pre, old), (found[device].post, new)):
            kept = newest(expected, each)
            assert (span is None) == (not kept)
            if span is not None:
                figures = [getattr(span, key) for key in FIGURES]
                assert figures == [sum(getattr(w, k) for w in kept) for k in FIGURES]
                assert span.seconds == 60 * len(kept)
