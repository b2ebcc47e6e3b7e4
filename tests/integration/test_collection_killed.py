"""A collection whose process is killed between marking and deleting: only garbage is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta

import pytest

from orchestrator.services.holds import CONDEMNED, Holds
from orchestrator.services.uploads import UploadService
from schemas.model import CollectRequest
from tests.unit.orchestrator.platform import Platform

pytestmark = pytest.mark.integration

EVERYTHING = CollectRequest(dry_run=False, keep_last=1, older_than_days=0)

_CHILD = """
    import sys, time
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    from orchestrator.adapters.artifacts import ArtifactStore
    from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
    from orchestrator.services.collection import CollectionService
    from schemas.model import CollectRequest

    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    deleted = []

    class Slow(ArtifactStore):
        def delete(self, sha256, before):
            if len(deleted) == limit:
                print("now", flush=True)
                time.sleep(600)
            deleted.append(sha256)
            return super().delete(sha256, before)

    uow = SqlUnitOfWork(make_engine(f"sqlite:///{folder / 'argosy.db'}"))
    clock = lambda: datetime.now(UTC) + timedelta(days=40)
    service = CollectionService(uow, clock, Slow(folder / "artifacts"), batch=2)
    service.collect(CollectRequest(dry_run=False, keep_last=1, older_than_days=0))
"""


@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_a_killed_collection_leaves_only_what_the_next_one_takes(tmp_path, deleted: int) -> None:
    platform = Platform(tmp_path)
    for _ in range(4):
        made = platform.manifest("int8", content=os.urandom(32))
        platform.models.register("digits", made, None)
    with platform.uow() as tx:
        for alias in tx.models.aliases("digits"):
            tx.models.drop_alias("digits", alias)
    child = [sys.executable, "-c", textwrap.dedent(_CHILD), str(tmp_path), str(deleted)]
    with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [platform.models.get("digits", v).purged for v in (1, 2, 3, 4)] == [True] * 3 + [False]
    needed = {f.sha256 for f in platform.models.get("digits", 4).manifest.files()}
    stored = {found.sha256 for found in platform.artifacts.stored()}
    assert needed <= stored
    assert len(stored - needed) == 3 - deleted
    platform.clock.forward(timedelta(days=40).total_seconds())
    report = platform.collection.collect(EVERYTHING)
    assert (report.purged, report.artifacts) == ((), 3 - deleted)
    assert {found.sha256 for found in platform.artifacts.stored()} == needed


def test_an_upload_after_a_kill_waits_out_the_mark_of_the_dead(tmp_path) -> None:
    """Its request may still be on the way, so the bytes are put there only when it cannot be."""
    platform = Platform(tmp_path)
    data = b"packed code"
    file = platform.file("code.zip", data)
    child = [sys.executable, "-c", textwrap.dedent(_CHILD), str(tmp_path), "0"]
    with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    platform.clock.forward(timedelta(days=40).total_seconds())
    waited: list[datetime] = []

    def pause(_seconds: float) -> None:
        waited.append(platform.clock())
        platform.clock.forward(10)
        if len(waited) == 2:
            # What the dead had asked for is carried out now.
            platform.artifacts.delete(file.sha256, platform.clock())

    holds = Holds(platform.uow, platform.clock, pause=pause)
    uploads = UploadService(platform.artifacts, 1000, lambda _sha: None, holds)
    assert uploads.put(file.sha256, [data]).created
    assert 2 <= len(waited) <= 1 + CONDEMNED.total_seconds() / 10
    assert platform.artifacts.read_chunk(file.sha256, 0) == data
