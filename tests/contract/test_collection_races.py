"""A collection beside uploads, registrations and submissions, of this server and of another.

The deletes of these stores take as long as a test says, and then take away whatever is
there by then: as a request to a bucket does that is still on its way.
"""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.errors import Conflict, DigestMismatch, Invalid, NotFound, Unavailable
from orchestrator.services.collection import CollectionService
from orchestrator.services.holds import CONDEMNED, Holds
from orchestrator.services.jobs import JobService
from orchestrator.services.models import ModelService
from orchestrator.services.uploads import UploadService
from schemas.jobfile import JobSpec
from schemas.model import CollectRequest
from tests.contract.test_registration_race import manifest
from tests.fakes.tiny_onnx import tiny_onnx

pytestmark = pytest.mark.integration

EVERYTHING = CollectRequest(dry_run=False, keep_last=1, older_than_days=0)
DATA = b"packed code"
SHA = hashlib.sha256(DATA).hexdigest()
LIMIT = 10_000
SPEC = JobSpec.model_validate(
    {
        "name": "digits",
        "task": "m:T",
        "stop": {"target": 0.9},
        "code": {"sha256": SHA, "size": len(DATA), "files": 1},
    }
)


class Clock:
    """It stands still until it is moved."""

    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now

    def forward(self, **more):
        self.now += timedelta(**more)


class Bucket:
    """One server's store over the folder that all share, with what happens before each call."""

    def __init__(self, folder, **hooks):
        self._store = ArtifactStore(folder)
        self._hooks = hooks
        self.deleted = []

    def delete(self, sha256, _before):
        self._hooks.get("delete", lambda _sha: None)(sha256)
        gone = self._store.delete(sha256, datetime.max.replace(tzinfo=UTC))
        self.deleted += [sha256] if gone else []
        return gone

    def stored(self):
        found = list(self._store.stored())
        self._hooks.get("stored", lambda: None)()
        return found

    def exists(self, sha256, *, anew=False):
        if anew:
            self._hooks.get("exists", lambda: None)()
        return self._store.exists(sha256, anew=anew)

    def __getattr__(self, name):
        return getattr(self._store, name)


class Server:
    """The services of one server over the database and the folder that all share."""

    def __init__(self, site, pause=lambda _seconds: None, **hooks):
        self.artifacts = Bucket(site.folder, **hooks)
        self.collection = CollectionService(site.uow, site.clock, self.artifacts, batch=3)
        self.holds = Holds(site.uow, site.clock, pause=pause)
        self.uploads = UploadService(self.artifacts, LIMIT, lambda _sha: None, self.holds)
        self.models = ModelService(site.uow, site.clock, self.artifacts)
        self.jobs = JobService(site.uow, site.clock, 30, artifacts=self.artifacts)


class Site:
    def __init__(self, uow, folder):
        self.uow, self.clock = uow, Clock()
        self.folder = folder / "artifacts"

    def server(self, **hooks):
        return Server(self, **hooks)

    def old(self, data=DATA):
        """A file that has lain there for long; its digest."""
        sha256 = hashlib.sha256(data).hexdigest()
        store = ArtifactStore(self.folder)
        store.put([data], sha256, LIMIT)
        os.utime(store.path(sha256), (0, 0))
        return sha256

    def manifest(self, content):
        """A manifest whose file has lain there for long."""
        store = ArtifactStore(self.folder)
        made = manifest(store, content)
        for file in made.files():
            os.utime(store.path(file.sha256), (0, 0))
        return made

    def marks(self, *digests):
        with self.uow.read() as tx:
            return tx.artifact_marks.condemned(digests or [SHA], self.clock())


@pytest.fixture
def site(uow, tmp_path):
    return Site(uow, tmp_path)


class Gate:
    """A delete that is under way until it is let go."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, _sha256):
        self.reached.set()
        assert self.open.wait(30)


@pytest.fixture
def slow(site):
    """A server whose deletion of the one old file is under way."""
    site.old()
    gate = Gate()
    server = site.server(delete=gate)
    with ThreadPoolExecutor(1) as pool:
        server.gate, server.report = gate, pool.submit(server.collection.collect, EVERYTHING)
        assert gate.reached.wait(30)
        yield server
        gate.open.set()


def test_while_a_file_is_deleted_everybody_else_writes(site, slow):
    with site.uow() as tx:
        tx.events.add("model", "digits", {}, site.clock())
    assert site.marks() == {SHA}
    assert not slow.report.done()
    slow.gate.open.set()
    assert slow.report.result(30).artifacts == 1
    assert site.marks() == set()


def test_an_upload_waits_for_a_deletion_and_ends_with_the_bytes_there(site, slow):
    waits = threading.Event()

    def pause(_seconds):
        waits.set()
        slow.gate.open.wait(0.05)

    other = site.server(pause=pause)
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(other.uploads.put, SHA, [DATA])
        assert waits.wait(30)
        assert not upload.done()
        slow.gate.open.set()
        stored = upload.result(30)
    assert stored.created
    assert slow.report.result(30).artifacts == 1
    assert other.artifacts.read_chunk(SHA, 0) == DATA
    assert other.jobs.submit(SPEC).spec == SPEC


def test_an_upload_does_not_wait_for_ever(site, slow):
    seconds = iter(range(0, 1000, 10))
    holds = Holds(site.uow, site.clock, pause=lambda _s: None, ticking=lambda: next(seconds))
    uploads = UploadService(slow.artifacts, LIMIT, lambda _sha: None, holds)
    with pytest.raises(Conflict, match="is being collected") as told:
        uploads.put(SHA, [DATA])
    assert "upload it again" in told.value.hint


def test_nobody_names_a_file_that_is_being_deleted(site, slow):
    other = site.server()
    with pytest.raises(Invalid, match=f"code: artifact {SHA} is being collected; upload it again"):
        other.jobs.submit(SPEC)
    assert other.jobs.page(None, 10) == []
    slow.gate.open.set()
    assert slow.report.result(30).artifacts == 1
    with pytest.raises(NotFound, match="has not been uploaded"):
        other.jobs.submit(SPEC)


def test_no_version_gets_a_number_while_its_file_is_deleted(site):
    made = site.manifest(b"collected")
    other = site.server()

    def register(_sha256):
        with pytest.raises(Invalid, match="is being collected; upload it again") as told:
            other.models.register("digits", made, None)
        assert [error.field for error in told.value.fields] == ["file m.onnx"]

    assert site.server(delete=register).collection.collect(EVERYTHING).artifacts == 1
    with site.uow.read() as tx:
        assert tx.models.last_version("digits") == 0


def test_what_is_held_is_not_collected(site):
    """Whoever has begun to look whether the files are there gets its version, or its job."""
    made, collector = site.manifest(b"held"), site.server()
    site.old()

    def collect():
        collected.append(collector.collection.collect(EVERYTHING).artifacts)

    collected = []
    server = site.server(exists=collect)
    assert server.models.register("digits", made, None).version == 1
    assert collected == [1]
    site.old()
    assert server.jobs.submit(SPEC).spec == SPEC
    assert collected == [1, 0]
    assert collector.collection.collect(EVERYTHING).artifacts == 0
    assert all(server.artifacts.exists(file.sha256) for file in made.files())
    with site.uow.read() as tx:
        digests = [SHA, *(file.sha256 for file in made.files())]
        assert tx.artifact_marks.held(digests, site.clock()) == set()


def test_a_file_that_is_uploaded_after_it_was_listed_stays(site):
    site.old()
    other = site.server()
    server = site.server(stored=lambda: other.uploads.put(SHA, [DATA]))
    assert server.collection.collect(EVERYTHING).artifacts == 0
    assert server.artifacts.deleted == []
    site.clock.forward(days=1)
    os.utime(server.artifacts.path(SHA), (0, 0))
    assert site.server().collection.collect(EVERYTHING).artifacts == 1


def test_an_upload_that_comes_to_nothing_names_nothing(site):
    server = site.server()
    with pytest.raises(DigestMismatch):
        server.uploads.put(SHA, [b"other bytes"])
    with pytest.raises(NotFound, match="has not been uploaded"):
        server.jobs.submit(SPEC)


def test_an_upload_that_took_more_than_a_day_is_not_vouched_for(site):
    def slowly():
        yield DATA
        site.clock.forward(days=1)

    with pytest.raises(Conflict, match="took so long"):
        site.server().uploads.put(SHA, slowly())


def test_a_registration_that_outlives_its_hold_is_refused(site):
    made = site.manifest(b"late")
    server = site.server(exists=lambda: site.clock.forward(hours=2))
    with pytest.raises(Conflict, match="took so long that its files may have been collected"):
        server.models.register("digits", made, None)
    with site.uow.read() as tx:
        assert tx.models.last_version("digits") == 0


def test_a_refusal_lets_go_of_its_files(site):
    made = site.manifest(b"refused")
    wrong = made.model_copy(update={"lineage": made.lineage.model_copy(update={"parent": "a@9"})})
    server = site.server()
    with pytest.raises(Invalid, match="there is no a@9"):
        server.models.register("digits", wrong, None)
    assert server.collection.collect(EVERYTHING).artifacts == 1


def test_a_deletion_that_failed_may_still_come_and_so_bars_the_file_a_while(site):
    """The request was given up, not taken back: the bucket may carry it out later."""
    sha = site.old()

    def timeout(_sha256):
        msg = "the bucket does not answer"
        raise Unavailable(msg)

    broken = site.server(delete=timeout)
    with pytest.raises(Unavailable):
        broken.collection.collect(EVERYTHING)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            broken.artifacts._store.delete(sha, datetime.max.replace(tzinfo=UTC))
            site.clock.forward(seconds=CONDEMNED.total_seconds())

    other = site.server(pause=pause)
    assert other.uploads.put(sha, [DATA]).created
    assert len(pauses) == 3
    assert other.artifacts.read_chunk(sha, 0) == DATA


def test_no_deletion_is_begun_that_may_outlast_its_mark(site):
    digests = {site.old(b"%d" % number) for number in range(7)}
    seconds, marked = [0.0], []

    def delete(sha256):
        assert sha256 in site.marks(sha256)
        marked.append(len(site.marks(*digests)))
        seconds[0] += 20

    server = site.server(delete=delete)
    slow = CollectionService(
        site.uow, site.clock, server.artifacts, batch=5, ticking=lambda: seconds[0]
    )
    assert slow.collect(EVERYTHING).artifacts == 7
    assert set(server.artifacts.deleted) == digests
    # Two of five by then, and the other three are condemned anew with what else there is.
    assert marked == [5, 5, 5, 5, 3, 3, 1]
    assert site.marks(*digests) == set()


def test_two_servers_that_collect_at_once_take_the_same_and_no_more(site):
    digests = {site.old(b"%d" % number) for number in range(20)}
    kept = site.manifest(b"kept")
    first, second = site.server(), site.server()
    first.models.register("digits", kept, None)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(s.collection.collect, EVERYTHING) for s in (first, second)]
        assert sum(call.result(60).artifacts for call in calls) == 20
    assert digests == {*first.artifacts.deleted, *second.artifacts.deleted}
    assert all(first.artifacts.exists(file.sha256) for file in kept.files())
    assert site.marks(*digests) == set()


def test_uploading_registering_and_collecting_at_once_loses_nothing(site):
    """Deletes that spare nothing young: only the marks are in their way."""
    made = {number: site.manifest(b"%d" % number) for number in range(12)}
    codes = [b"code %d" % number for number in range(12)]
    digests = [site.old(code) for code in codes]
    done, failures, collector = threading.Event(), [], site.server()

    def collect():
        while not done.is_set():
            try:
                collector.collection.collect(EVERYTHING)
            except Exception as error:  # noqa: BLE001 - told by the test
                failures.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    server = site.server(pause=lambda seconds: done.wait(seconds / 50))
    try:
        for number, one in made.items():
            server.uploads.put(digests[number], [codes[number]])
            try:
                server.models.register("digits", one, None)
            except Invalid:
                server.uploads.put(one.variants[0].file.sha256, [tiny_onnx(b"%d" % number)])
                server.models.register("digits", one, None)
    finally:
        done.set()
        thread.join()
    assert failures == []
    kept = [file.sha256 for one in made.values() for file in one.files()]
    assert all(server.artifacts.exists(sha256) for sha256 in (*kept, *digests))
