from __future__ import annotations

import pytest

from edge_client.actions import Report
from edge_client.errors import JournalError
from edge_client.journal import MAX_ENDED, MAX_WAITING, Floor, Journal
from edge_client.slots import Slot
from edge_client.states import Accepted, Activating, Idle, Offer
from schemas.errors import DeviceCause
from schemas.rollout import ExecReport, ExecState
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import assignment

KEY = ("exe_0000000000000001", 1)
OTHER = ("exe_0000000000000002", 1)
DEVICE = "dev_0000000000000001"
MANIFEST = release(linear_onnx(1)).manifest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path):
    journal = Journal(path, boot="0" * 32)
    yield journal
    journal.close()


def reports(journal) -> list[ExecReport]:
    return [ExecReport.model_validate_json(w.body) for w in journal.waiting(10_000)]


def put(journal, *made: Report) -> None:
    journal.commit(Idle(), made, uptime=1.0)


def report(state, key=KEY, **more) -> Report:
    return Report(key=key, state=state, **more)


def test_reports_keep_their_order_and_numbers_across_a_restart(journal, path):
    put(journal, report(ExecState.ACCEPTED))
    put(journal, report(ExecState.VERIFIED), report(ExecState.ACCEPTED, OTHER))
    journal.close()
    again = Journal(path, boot="1" * 32)
    put(again, report(ExecState.STAGED))
    found = [(r.execution, r.seq, r.boot[0]) for r in reports(again)]
    assert found == [(KEY[0], 0, "0"), (KEY[0], 1, "0"), (OTHER[0], 0, "0"), (KEY[0], 2, "1")]
    again.close()


def test_only_the_newest_progress_waits(journal):
    for done in range(5):
        put(journal, report(ExecState.DOWNLOADING, done=done, total=9))
    put(journal, report(ExecState.VERIFIED))
    assert [(r.state, r.bytes_done, r.seq) for r in reports(journal)] == [
        (ExecState.DOWNLOADING, 4, 4),
        (ExecState.VERIFIED, None, 5),
    ]


def test_a_report_goes_when_it_has_arrived(journal):
    put(journal, report(ExecState.ACCEPTED), report(ExecState.VERIFIED))
    journal.arrived(journal.waiting(1)[0].id)
    assert [r.state for r in reports(journal)] == [ExecState.VERIFIED]


def test_the_last_report_is_repeated_word_for_word(journal):
    put(journal, report(ExecState.FAILED, cause=DeviceCause.DISK_FULL, detail="full"))
    first = reports(journal)[0]
    journal.arrived(journal.waiting(1)[0].id)
    assert journal.repeat(KEY)
    assert journal.repeat(KEY)
    assert reports(journal) == [first]
    assert not journal.repeat(OTHER)


def test_a_refusal_that_is_not_kept_is_not_repeated(journal):
    put(journal, report(ExecState.REJECTED, keep=False))
    assert not journal.repeat(KEY)


def test_ends_outlast_a_flood_of_other_reports(journal):
    put(journal, report(ExecState.SUCCEEDED))
    put(journal, *(report(ExecState.PROBATION, OTHER) for _ in range(MAX_WAITING + 50)))
    waiting = reports(journal)
    assert len(waiting) == MAX_WAITING
    assert waiting[0].state is ExecState.SUCCEEDED


def offer(digit: int) -> Offer:
    wanted = assignment(DEVICE, MANIFEST, execution=f"exe_{digit:016d}")
    return Offer(assignment=wanted, sequence=digit, length=2)


def test_strays_do_not_restart_the_numbering_of_what_runs_or_waits(journal):
    running, waiting = offer(1), offer(2)
    slot = Slot(model="m", version=1, variant="v", sha256="0" * 64, manifest_sha256="0" * 64)
    for state in (
        Accepted(offer=running),
        Activating(offer=running, slot=slot, fallback=None, pending=waiting),
    ):
        for key in (running.key, waiting.key):
            journal.commit(state, (report(ExecState.ACCEPTED, key),), uptime=0)
    for stray in range(3, MAX_ENDED + 50):
        key = (f"exe_{stray:016d}", 1)
        journal.commit(state, (report(ExecState.FAILED, key),), uptime=0)
    for key in (running.key, waiting.key):
        journal.commit(state, (report(ExecState.STAGED, key),), uptime=0)
        mine = [r.seq for r in reports(journal) if r.execution == key[0]]
        assert mine[-1] == 2
    stored = journal._db.execute("SELECT count(*) FROM executions").fetchone()[0]
    assert stored == MAX_ENDED


def test_the_floor_only_rises_and_is_each_devices_own(journal, path):
    for sequence in (5, 3):
        journal.commit(Idle(), (), uptime=0, floor=Floor(device=DEVICE, sequence=sequence))
    journal.close()
    again = Journal(path, boot="0" * 32)
    assert again.floor(DEVICE) == 5
    assert again.floor("dev_0000000000000002") == 0
    again.close()


def test_a_failed_commit_writes_nothing(journal):
    bad = report(ExecState.OFFERED)  # not for a device to report
    with pytest.raises(ValueError, match="does not report"):
        journal.commit(
            Idle(),
            (report(ExecState.ACCEPTED), bad),
            uptime=0,
            floor=Floor(device=DEVICE, sequence=9),
        )
    put(journal, report(ExecState.ACCEPTED, OTHER))
    assert [r.execution for r in reports(journal)] == [OTHER[0]]
    assert journal.floor(DEVICE) == 0


def test_a_file_that_is_no_journal_is_one_clear_line(path):
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(path, boot="0" * 32)
