"""Windows, roll-ups and samples in every database."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from orchestrator.domain.rollup import ClassHour, DeviceHour, Kept, Sums
from orchestrator.services.records import Asked, SamplePage, SampleRecord, Span, WindowRecord
from schemas.window import Window

pytestmark = pytest.mark.integration

NOW_MS = 1_780_000_000_000
ASKED = Asked(model="digits", version=1)
ALL = Span(0, 2**31)


def record(device="dev_a", seq=0, **more) -> WindowRecord:
    made = WindowRecord(
        device, b"b" * 16, seq, "digits", 1, "int8", "active", NOW_MS, NOW_MS,
        n=10, errors=1, lost=0, labelled=10, correct=9, body=b"",
    )  # fmt: skip
    return made._replace(**more)


def sums(n: int) -> Sums:
    made = Sums()
    made.add(Kept(Window(0, 0, NOW_MS, synced=True, length_ms=5, n=n, latency=[4, n])))
    return made


def sample(seq=0, **more) -> SampleRecord:
    values = {
        "device_id": "dev_a", "boot": b"b" * 16, "seq": seq, "model": "digits", "version": 1,
        "variant": "int8", "stream": "uniform", "received_ms": NOW_MS + seq, "body": b"x" * 100,
    }  # fmt: skip
    return SampleRecord(**(values | more))


def test_a_window_is_added_once(uow):
    first = [record(seq=seq) for seq in range(600)]
    with uow() as tx:
        assert len(tx.telemetry.add(first)) == 600
    again = [*first[500:], record(seq=600), record(seq=2**62), record("dev_b")]
    with uow() as tx:
        assert [r.key for r in tx.telemetry.add(again)] == [r.key for r in again[100:]]
    with uow() as tx:
        assert tx.telemetry.add(again) == []
        assert tx.telemetry.add([]) == []


def test_hours_are_merged_into_what_is_kept(uow):
    hours = [
        DeviceHour("digits", 1, hour, device, role, "int8")
        for hour in (5, 6)
        for device in ("dev_a", "dev_b")
        for role in ("active", "shadow")
    ]
    other = DeviceHour("digits", 2, 5, "dev_a", "active", "int8")
    its_class = ClassHour("digits", 1, 5, "default", "active", "int8")
    with uow() as tx:
        tx.telemetry.keep({key: sums(1) for key in hours}, {its_class: sums(1)})
    with uow() as tx:
        kept, classes = tx.telemetry.kept([hours[0], other], [its_class])
        assert (set(kept), set(classes)) == ({hours[0]}, {its_class})
        kept[hours[0]].merge(sums(2))
        classes[its_class].merge(sums(2))
        tx.telemetry.keep(kept | {other: sums(7)}, classes)
    with uow.read() as tx:
        found = dict(tx.telemetry.device_hours(ASKED, ALL, 100))
        narrow = Asked(model="digits", version=1, role=None, devices=("dev_b",))
        of_one = dict(tx.telemetry.device_hours(narrow, Span(6, 7), 100))
        of_one_long = dict(tx.telemetry.device_hours(narrow, ALL, 100))
        (classes,) = tx.telemetry.class_hours(ASKED, ALL, 100)
        pages = [tx.telemetry.devices(ASKED, ALL, after, 1) for after in ("", "dev_a", "dev_b")]
        missing = Asked(model="digits", version=1, device_class="other")
        assert list(tx.telemetry.class_hours(missing, ALL, 100)) == []
    assert {key: one.n for key, one in found.items()} == {
        hours[0]: 3, hours[2]: 1, hours[4]: 1, hours[6]: 1
    }  # fmt: skip
    assert (found[hours[0]].latency, found[hours[0]].windows) == ({4: 3}, 2)
    assert set(of_one) == {hours[6], hours[7]}
    assert set(of_one_long) == {hours[2], hours[3], hours[6], hours[7]}
    assert (classes[0], classes[1].n) == (its_class, 3)
    assert pages == [["dev_a"], ["dev_b"], []]


def test_pruning_is_by_age_and_by_little(uow):
    day = timedelta(days=1) // timedelta(milliseconds=1)
    with uow() as tx:
        tx.telemetry.add([record(seq=seq, received_ms=NOW_MS - seq * day) for seq in range(5)])
        hours = {
            DeviceHour("digits", version, hour, "dev_a", "active", "int8"): sums(1)
            for version in (1, 2)
            for hour in range(4)
        }
        classes = {ClassHour("digits", 1, hour, "c", "active", "int8"): sums(1) for hour in (0, 9)}
        tx.telemetry.keep(hours, classes)
    gone = []
    for _ in range(4):
        with uow() as tx:
            gone.append(tx.telemetry.prune(NOW_MS - 2 * day, 2, 5, 2))
    assert gone == [5, 2, 0, 0]
    with uow.read() as tx:
        assert {key.hour for key, _ in tx.telemetry.device_hours(ASKED, ALL, 9)} == {2, 3}
        assert {key.hour for key, _ in tx.telemetry.class_hours(ASKED, ALL, 9)} == {9}


def test_samples_are_counted_paged_and_dropped(uow):
    with uow() as tx:
        assert tx.samples.add([sample(seq) for seq in range(5)]) == 500
        assert tx.samples.add([sample(4), sample(5, stream="uncertain")]) == 100
        assert tx.samples.kept() == {("digits", "uniform"): 500, ("digits", "uncertain"): 100}
    with uow.read() as tx:
        first = tx.samples.page(SamplePage(model="digits", stream="uniform", limit=2))
        last = first[-1]
        after = (last.received_ms, last.device_id, last.boot, last.seq)
        rest = tx.samples.page(SamplePage(model="digits", version=1, after=after, limit=9))
        none = tx.samples.page(SamplePage(model="digits", version=2, limit=9))
    assert [one.seq for one in (*first, *rest)] == [0, 1, 2, 3, 4, 5]
    assert (bytes(first[0].body), none) == (b"x" * 100, [])
    with uow() as tx:
        assert tx.samples.drop("digits", "uniform", 150) == 200
        assert tx.samples.prune(NOW_MS + 4, 1) == 1
        assert tx.samples.prune(NOW_MS + 4, 9) == 1
        assert tx.samples.kept() == {("digits", "uniform"): 100, ("digits", "uncertain"): 100}


def test_windows_of_a_span_are_those_that_began_in_it(uow):
    asked = Asked(model="digits", version=1, devices=("dev_a",))
    kept = Kept(Window(0, 0, NOW_MS, synced=True, length_ms=5, n=10))
    body = msgspec.msgpack.encode(kept)
    with uow() as tx:
        tx.telemetry.add([record(seq=seq, start_ms=NOW_MS - seq, body=body) for seq in range(3)])
        tx.telemetry.add([record("dev_b", body=body)])
    with uow.read() as tx:
        found = [row.seq for row, _ in tx.telemetry.windows(asked, NOW_MS - 1, NOW_MS + 1, 9)]
    assert sorted(found) == [0, 1]
