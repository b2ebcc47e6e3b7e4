"""What becomes of windows: once, at the right hour, in every sum, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from orchestrator.adapters.tables import ClassHourRow, DeviceHourRow, WindowRow
from orchestrator.errors import Invalid, NotFound
from orchestrator.services.inbox import UpMessage
from orchestrator.services.names_told import MAX_STRANGE
from orchestrator.services.telemetry_queries import Question
from orchestrator.services.telemetry_retention import Ages, TelemetryRetention
from schemas.device import DeviceState
from schemas.topics import Up, UpTopic
from schemas.window import About, Envelope, Window, encode, pack

HOUR = 3_600_000


def now_ms(platform) -> int:
    return round(platform.clock().timestamp() * 1000)


def rows(platform, table) -> int:
    with platform.database.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table))


@pytest.fixture
def fleet(platform):
    platform.models.register("digits", platform.manifest(), None)
    one, other = platform.enroll(2)
    (third,) = platform.enroll(1, "camera")
    return one, other, third


def test_an_envelope_of_several_windows_and_models_is_taken_whole(platform, fleet):
    platform.models.register("digits", platform.manifest(content=b"second"), None)
    abouts = [
        About(boot=b"a" * 16, model="digits", version=1, variant="int8"),
        About(boot=b"a" * 16, model="digits", version=2, variant="fp32", role="shadow"),
    ]
    windows = [
        Window(
            about=i % 2, seq=i, start_ms=now_ms(platform), synced=True, length_ms=5, n=10,
            compared=i % 2 * 8, agreed=i % 2 * 6,
        )
        for i in range(4)
    ]  # fmt: skip
    payload = encode(Envelope(format=1, about=abouts, windows=windows))
    for _ in range(2):
        platform.receive(fleet[0], Up.TELE, payload)
    (active,) = platform.summary()
    (shadow,) = platform.summary(version=2, role="shadow")
    assert (active.n, active.windows, active.agreement) == (20, 2, None)
    assert (shadow.n, shadow.agreement) == (20, 0.75)
    assert platform.summary(version=2) == []
    assert active.telemetry_bytes + shadow.telemetry_bytes == len(payload)
    assert platform.intake.counters() == {
        "stored": 4, "repeated": 4, "old": 0, "strange": 0, "malformed": 0
    }  # fmt: skip


def test_duplicates_in_a_batch_and_across_batches_count_once(platform, fleet):
    def message(seq):
        payload = encode(platform.envelope(seq))
        return UpMessage(UpTopic(fleet[0], Up.TELE), payload, retained=False)

    platform.inbox.handle([message(0), message(1), message(0)])
    platform.inbox.handle([message(1), message(2), message(2)])
    assert platform.summary()[0].n == 300
    assert rows(platform, WindowRow) == 3
    assert platform.intake.counters()["repeated"] == 3


@pytest.mark.parametrize(
    ("offset", "synced", "moved"),
    [
        (0, True, False),
        (4 * 60_000, True, False),
        (-13 * 24 * HOUR, False, False),
        (6 * 60_000, True, True),
        (400 * 24 * HOUR, False, True),
    ],
)
def test_a_time_is_believed_as_far_as_it_can_be(platform, fleet, offset, synced, moved):
    platform.window(fleet[0], start_ms=now_ms(platform) + offset, synced=synced)
    (found,) = platform.summary()
    assert (found.n, found.moved, found.unsynced) == (100, int(moved), int(not synced))
    (point,) = platform.telemetry.series(
        Question(
            model="digits",
            version=1,
            since=platform.clock() - timedelta(days=15),
            until=platform.clock() + timedelta(hours=1),
        ),
        "1h",
    )
    wanted = now_ms(platform) + (0 if moved else offset)
    assert point.at.timestamp() * 1000 == wanted - wanted % HOUR


def test_a_device_without_a_clock_counts_as_of_now(platform, fleet):
    platform.window(fleet[0], start_ms=5_000, synced=False)
    assert (platform.summary()[0].n, platform.summary()[0].moved) == (100, 1)


def test_what_is_older_than_windows_are_kept_is_not_taken(platform, fleet):
    platform.window(fleet[0], start_ms=now_ms(platform) - 15 * 24 * HOUR)
    assert platform.summary() == []
    assert platform.intake.counters()["old"] == 1


def test_a_window_of_an_unknown_version_is_kept_and_told_once_there_is_one(platform, fleet):
    platform.receive(fleet[0], Up.TELE, encode(platform.envelope(about={"version": 2})))
    with pytest.raises(NotFound):
        platform.summary(version=2)
    platform.models.register("digits", platform.manifest(content=b"second"), None)
    assert platform.summary(version=2)[0].n == 100


def test_a_device_that_invents_names_fills_neither_the_database_nor_prometheus(platform, fleet):
    def invented(seq: int, device: str) -> None:
        abouts = [About(b"b" * 16, f"m{seq * 64 + i}", 1, "v") for i in range(64)]
        windows = [
            Window(i, seq * 64 + i, now_ms(platform), synced=True, length_ms=1, n=1)
            for i in range(64)
        ]
        platform.receive(device, Up.TELE, encode(Envelope(1, abouts, windows)))

    for seq in range(3):
        invented(seq, fleet[0])
    assert rows(platform, ClassHourRow) == rows(platform, WindowRow) == MAX_STRANGE
    assert platform.intake.counters()["strange"] == 3 * 64 - MAX_STRANGE
    platform.window(fleet[0], 999)
    assert platform.summary()[0].n == 100, "what is registered still counts"
    variants = {series.model for series in platform.intake.series()}
    assert variants == {"digits", ""}
    odd = encode(platform.envelope(1000, about={"variant": "invented"}))
    platform.receive(fleet[0], Up.TELE, odd)
    assert [one.variant for one in platform.summary()] == ["int8"]


def test_nodes_beyond_all_numbers_do_not_lose_the_window(platform, fleet):
    nodes = {f"Odd{i}": 2**63 - 1 for i in range(16)}
    platform.receive(fleet[0], Up.TELE, encode(platform.envelope(about={"nodes": nodes})))
    assert platform.summary()[0].nodes == {"other": 2**63 - 1}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 40,
        b"{}",
        b"[" * 40_000,
        b"\x91" * 60_000,
        encode(Envelope(1, [About(b"b" * 16, "digits", 1, "v")], [])),
        encode(
            Envelope(
                1,
                [About(b"b" * 16, "digits", 1, "no\0name")],
                [Window(0, 0, 0, synced=True, length_ms=0, n=1)],
            )
        ),
        encode(
            Envelope(
                1,
                [About(b"b" * 16, "digits\n", 1, "v")],
                [Window(0, 0, 0, synced=True, length_ms=0, n=1)],
            )
        ),
    ],
)
def test_what_cannot_be_read_is_dropped_alone(platform, fleet, payload):
    good = encode(platform.envelope())
    platform.inbox.handle(
        [
            UpMessage(UpTopic(fleet[0], Up.TELE), payload, retained=False),
            UpMessage(UpTopic(fleet[1], Up.TELE), good, retained=False),
        ]
    )
    assert platform.summary()[0].n == 100
    assert platform.intake.counters()["malformed"] == 1


def test_sums_of_classes_devices_and_tags_agree(platform, fleet):
    for seq, device in enumerate(fleet):
        platform.window(
            device, seq, n=10 * (seq + 1), labelled=0, correct=0, errors=1, lost=1, shed=2,
            latency=pack({40: 5, 80: 5}), classes=pack({0: 6, 7: 4}), raw_bytes=5000,
            energy_mj=30, method=("rapl", "cpu_time")[seq % 2], rss_mib=40 + seq, celsius=50 - seq,
        )  # fmt: skip
    (whole,) = platform.summary()
    by_class = {row.device_class: row.n for row in platform.summary("class")}
    by_device = {row.device: row.n for row in platform.summary("device")}
    assert by_class == {"camera": 30, "default": 30}
    assert by_device == {fleet[0]: 10, fleet[1]: 20, fleet[2]: 30}
    assert (whole.n, whole.errors, whole.lost) == (60, 3, 3)
    assert whole.error_rate == pytest.approx(3 / 60)
    assert whole.shed_rate == pytest.approx(6 / 66)
    assert whole.classes == {0: 18, 7: 12}
    assert whole.joules_per_1000_measured == pytest.approx(60 / 40)
    assert whole.joules_per_1000_estimated == pytest.approx(30 / 20)
    assert (whole.rss_mib, whole.celsius) == (42, 50)
    assert whole.bytes_saved == 15_000 - whole.telemetry_bytes
    assert [row.n for row in platform.summary(device=fleet[1])] == [20]
    assert [row.n for row in platform.summary(device_class="camera")] == [30]
    with pytest.raises(Invalid):
        platform.summary("device", device_class="camera")


def test_one_failure_of_a_killed_process_is_no_rate_of_all(platform, fleet):
    platform.window(fleet[0], n=100, errors=1, lost=99, labelled=0, correct=0)
    assert platform.summary()[0].error_rate == 0.01


def test_devices_come_in_pages(platform, fleet):
    for device in fleet:
        platform.window(device)
    asked = Question(model="digits", version=1)
    first = platform.telemetry.summary(asked, "device", limit=2)
    rest = platform.telemetry.summary(asked, "device", limit=2, after=first[-1].device)
    assert [row.device for row in (*first, *rest)] == sorted(fleet)


def test_a_series_by_the_minute_is_of_windows(platform, fleet):
    for seq in range(3):
        platform.window(fleet[0], seq, start_ms=now_ms(platform) - 60_000 * seq)
    asked = Question(model="digits", version=1)
    assert [point.n for point in platform.telemetry.series(asked, "1m")] == [100, 100, 100]
    since = platform.clock() - timedelta(days=3)
    with pytest.raises(Invalid, match="2000 points"):
        platform.telemetry.series(Question(model="digits", version=1, since=since), "1m")


def test_a_moved_device_keeps_its_figures_where_they_were(platform, fleet):
    platform.window(fleet[0])
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(fleet[0]), device_class="moved"))
    platform.window(fleet[0], 1)
    by_class = {row.device_class: row.n for row in platform.summary("class")}
    assert by_class == {"default": 100, "moved": 100}
    with platform.uow() as tx:
        revoked = replace(tx.devices.get(fleet[0]), state=DeviceState.REVOKED)
        tx.devices.save(revoked)
    platform.window(fleet[0], 2)  # is not heard any more, and what it told before stays
    assert platform.summary()[0].n == 200


def test_each_age_is_pruned_by_itself_and_sums_stay(platform, fleet):
    platform.window(fleet[0])
    ages = Ages(windows=14, device_hours=60, class_hours=730)
    retention = TelemetryRetention(platform.uow, platform.clock, platform.samples, ages)
    tables = (WindowRow, DeviceHourRow, ClassHourRow)
    left = []
    for days in (14, 2, 50, 700):
        platform.clock.forward(days * 86_400)
        while retention.tick():
            pass
        left.append([rows(platform, table) for table in tables])
    assert left == [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]


def test_a_window_that_comes_again_after_it_was_pruned_is_not_counted_again(platform, fleet):
    payload = encode(platform.envelope())
    platform.receive(fleet[0], Up.TELE, payload)
    retention = TelemetryRetention(platform.uow, platform.clock, platform.samples)
    for _ in range(17):
        platform.clock.forward(86_400)
        while retention.tick():
            pass
        platform.receive(fleet[0], Up.TELE, payload)
    assert rows(platform, WindowRow) == 0
    assert platform.summary()[0].n == 100


def test_what_was_rolled_back_was_not_counted(platform, fleet, monkeypatch):
    """A batch that fails is tried in halves: what is counted for Prometheus is what is stored."""
    from orchestrator.services.telemetry import TelemetryService

    take = TelemetryService.take

    def failing(self, tx, heard):
        taken = take(self, tx, heard)
        if len(heard) > 1:
            raise ArithmeticError
        return taken

    monkeypatch.setattr(TelemetryService, "take", failing)
    messages = [
        UpMessage(UpTopic(device, Up.TELE), encode(platform.envelope()), retained=False)
        for device in fleet
    ]
    platform.inbox.handle(messages)
    assert platform.intake.counters()["stored"] == 3
    assert platform.summary()[0].n == 300
    assert sum(sums.n for sums in platform.intake.series().values()) == 300
