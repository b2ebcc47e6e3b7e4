"""The renewal of one device: questions, answers good and bad, kills and full disks."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import threading

import pytest

from edge_client import certificates
from edge_client.errors import EdgeError, RefusedError, UnreachableError
from edge_client.https import Answer, Via
from edge_client.identity import load_identity
from edge_client.refusal import Refusal
from edge_client.renewal import Moment
from edge_client.renewal_https import renew_by_https
from edge_client.renewal_work import RenewalEnded, Renewer
from edge_client.settings import Home
from schemas.enroll import RenewAsk, Renewed, RenewNow, RenewRequest
from schemas.errors import Code
from schemas.ids import new_id
from tests.fakes.edge_certificates import HOUR, answer_to, enrolled, issuing, now, pem
from tests.fakes.edge_kill import full_from, killed_at_each_step, without_fsync
from tests.fakes.gateway import Ca

CA = Ca()
DEVICE = new_id("dev")
DUE = {"start": now() - 20 * HOUR, "end": now() + HOUR}


class Bench:
    """A renewer with a clock that is set, and a network that is played by hand."""

    def __init__(self, folder, **life) -> None:
        self.home = Home(folder)
        self.life = life or DUE
        self.adopted, self.asked = [], []
        self.connected, self.refusal = True, None
        self.date, self.steady = dt.datetime.now(dt.UTC), 1000.0

    def enroll(self) -> None:
        shutil.rmtree(self.home.root, ignore_errors=True)
        enrolled(self.home, CA, device=DEVICE, **self.life)

    def start(self) -> Renewer:
        self.renewer = Renewer(
            self.home,
            load_identity(self.home),
            moment=lambda: Moment(
                date=self.date,
                steady=self.steady,
                connected=self.connected,
                refusal=self.refusal,
            ),
            ask=self._ask,
            post=lambda _event: None,
            adopt=self.adopted.append,
        )
        return self.renewer

    def _ask(self, ask: RenewAsk) -> bool:
        self.asked.append(ask.csr_pem)
        return self.connected

    def answer(self, csr_pem: str | None = None, *, issuer=CA, device=DEVICE, **fields) -> bytes:
        csr_pem = csr_pem or self.asked[-1]
        told = {
            "csr_sha256": hashlib.sha256(csr_pem.encode()).hexdigest(),
            "certificate_pem": answer_to(csr_pem, device, issuer).decode(),
            "ca_pem": CA.pem.decode(),
        }
        return Renewed(**(told | fields)).model_dump_json().encode()


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    without_fsync(monkeypatch)
    bench = Bench(tmp_path / "home")
    bench.enroll()
    return bench


def test_a_new_certificate_is_kept_tried_and_settled(bench):
    before = load_identity(bench.home)
    renewer = bench.start()
    renewer.look()
    renewer.answered(bench.answer())
    (new,) = bench.adopted
    assert new.seen.serial != before.seen.serial
    assert load_identity(bench.home) == new
    renewer.connected(before.seen.serial)  # a connection that was still the old one's
    assert load_identity(bench.home).unproven
    renewer.connected(new.seen.serial)
    assert not load_identity(bench.home).unproven
    renewer.look()
    assert len(bench.asked) == 1


def test_chain_and_roots_come_with_it(bench):
    other = Ca()
    below = issuing(CA)
    renewer = bench.start()
    renewer.look()
    chain = answer_to(bench.asked[0], DEVICE, below) + pem(below.certificate)
    renewer.answered(
        bench.answer(certificate_pem=chain.decode(), ca_pem=(CA.pem + other.pem).decode())
    )
    assert len(bench.adopted[0].seen.roots) == 2


def wrong(name: str, bench: Bench) -> bytes:
    csr_pem = bench.asked[-1]
    stranger = Ca()
    return {
        "another authority": lambda: bench.answer(issuer=stranger),
        "another device": lambda: bench.answer(device=new_id("dev")),
        "another key": lambda: bench.answer(certificate_pem=CA.issue(DEVICE, CA.key.public_key())),
        "no authority among the roots": lambda: bench.answer(
            ca_pem=(CA.pem + answer_to(csr_pem, DEVICE, CA)).decode()
        ),
        "roots that do not fit": lambda: bench.answer(ca_pem=stranger.pem.decode()),
        "no certificate at all": lambda: bench.answer(certificate_pem="nonsense"),
        "not valid yet": lambda: bench.answer(
            certificate_pem=answer_to(
                csr_pem, DEVICE, CA, start=now() + HOUR, end=now() + 9 * HOUR
            ).decode()
        ),
        "a reason": lambda: bench.answer(certificate_pem=None, error="the device is suspended"),
    }[name]()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("another authority", "not issued by"),
        ("another device", "another device"),
        ("another key", "another key"),
        ("no authority among the roots", "no authority"),
        ("roots that do not fit", "not issued by"),
        ("no certificate at all", "not a certificate"),
        ("not valid yet", "set this device's clock|not valid yet"),
        ("a reason", "suspended"),
    ],
)
def test_a_bad_answer_changes_nothing_and_is_tried_again_later(bench, name, word):
    before = load_identity(bench.home)
    renewer = bench.start()
    renewer.look()
    renewer.answered(wrong(name, bench))
    assert renewer.problem is not None
    assert any(part in renewer.problem for part in word.split("|"))
    assert load_identity(bench.home) == before
    assert bench.adopted == []
    renewer.look()
    assert len(bench.asked) == 1
    bench.steady += 20
    renewer.look()
    assert len(set(bench.asked)) == 1 < len(bench.asked)
    renewer.answered(bench.answer())
    assert len(bench.adopted) == 1
    assert renewer.problem is None


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"x" * 300_000, b'{"csr_sha256": 1}'])
def test_nonsense_is_ignored(bench, payload):
    renewer = bench.start()
    renewer.look()
    renewer.answered(payload)
    renewer.wanted(payload)
    renewer.answered(bench.answer())
    assert len(bench.adopted) == 1


def test_answers_that_nobody_asked_for_are_ignored(bench):
    renewer = bench.start()
    other = Renewed(csr_sha256="0" * 64, error="no").model_dump_json().encode()
    renewer.answered(other)
    renewer.look()
    renewer.answered(other)
    assert bench.adopted == []
    renewer.answered(bench.answer())
    renewer.answered(bench.answer())
    assert len(bench.adopted) == 1


def test_the_server_may_ask_for_it_early(tmp_path):
    bench = Bench(tmp_path / "home", start=now() - HOUR, end=now() + 99 * HOUR)
    bench.enroll()
    renewer = bench.start()
    renewer.look()
    assert bench.asked == []
    renewer.wanted(RenewNow(within_seconds=60).model_dump_json().encode())
    bench.steady += 60
    renewer.look()
    assert len(bench.asked) == 1


def test_an_answer_that_comes_late_is_taken_all_the_same(bench):
    renewer = bench.start()
    renewer.look()
    bench.steady += 31
    renewer.look()
    assert "did not answer" in renewer.problem
    renewer.answered(bench.answer())
    assert len(bench.adopted) == 1
    assert renewer.problem is None


def test_a_clock_that_was_set_is_spoken_of_no_more(bench):
    renewer, right = bench.start(), bench.date
    bench.date = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    renewer.look()
    assert "set it" in renewer.problem
    bench.connected, bench.date = False, right - dt.timedelta(hours=1)
    renewer.look()
    assert renewer.problem is None


def test_by_a_way_that_is_not_safe_the_roots_stay(tmp_path):
    bench = Bench(tmp_path / "home", start=now() - 20 * HOUR, end=now() - HOUR)
    bench.enroll()
    bench.connected = False
    renewer = bench.start()
    # The server is not there: the request is on the disk, and the try ends with an error.
    renewer.look()
    csr_pem = json.loads((bench.home.renewal / "request.json").read_text())["csr_pem"]
    hostile = Ca()
    roots = (CA.pem + hostile.pem).decode()
    renewed = Renewed.model_validate_json(bench.answer(csr_pem, ca_pem=roots))
    renewer.ended(RenewalEnded(renewed, safe=False))
    assert len(bench.adopted[0].seen.roots) == 1


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (UnreachableError("nobody there"), 16),
        (RefusedError("no", Code.REVOKED), 2000),
        (RefusedError("busy", Code.TOO_MANY), 16),
    ],
)
def test_a_refusal_for_good_is_not_asked_again_soon(bench, error: EdgeError, pause):
    renewer = bench.start()
    renewer.ended(RenewalEnded(None, safe=False, error=error))
    bench.steady += pause
    renewer.look()
    assert len(bench.asked) == (pause < 1000)
    bench.steady += 3600
    renewer.look()
    assert bench.asked


def test_a_certificate_that_is_refused_is_left_while_the_old_one_holds(bench):
    before = load_identity(bench.home)
    renewer = bench.start()
    renewer.look()
    renewer.answered(bench.answer())
    renewer.disconnected(None)  # not a word about the certificate
    assert load_identity(bench.home).unproven
    renewer.disconnected(Refusal.REFUSED)
    assert load_identity(bench.home).seen == before.seen
    assert [one.seen == before.seen for one in bench.adopted] == [False, True]
    renewer.look()
    assert len(bench.asked) == 1  # not at once again


def test_a_certificate_that_is_refused_stays_when_the_old_one_is_over(bench):
    renewer = bench.start()
    renewer.look()
    renewer.answered(bench.answer())
    bench.date += dt.timedelta(hours=2)
    renewer.disconnected(Refusal.REFUSED)
    assert len(bench.adopted) == 1
    kept = load_identity(bench.home)
    assert kept.seen == bench.adopted[0].seen
    assert kept.certificate == bench.adopted[0].certificate, "its files are there yet"
    renewer.connected(kept.seen.serial)
    assert not load_identity(bench.home).unproven


@pytest.mark.parametrize("hours", [0, 2], ids=["the old one holds", "the old one is over"])
def test_a_broker_that_takes_no_certificate_is_not_sent_one_after_the_other(bench, hours):
    bench.connected, bench.refusal = False, Refusal.UNTRUSTED
    bench.date += dt.timedelta(hours=hours)
    renewer = bench.start()
    asked = []
    renewer._by_https = lambda _identity, csr_pem, _now: asked.append(csr_pem)
    for _ in range(3600):
        before = len(asked)
        renewer.look()
        if wait_for_thread() and len(asked) > before:
            answer = Renewed.model_validate_json(bench.answer(asked[-1]))
            renewer.ended(RenewalEnded(answer, safe=True))
            renewer.disconnected(Refusal.UNTRUSTED)
        bench.steady += 1
    assert 3 < len(asked) < 12


def wait_for_thread() -> bool:
    for thread in threading.enumerate():
        if thread.name == "renewal":
            thread.join()
    return True


def test_an_answer_by_https_to_another_question_ends_the_try(bench):
    bench.connected, bench.refusal = False, Refusal.EXPIRED
    renewer = bench.start()
    asked = []
    renewer._by_https = lambda _identity, csr_pem, _now: asked.append(csr_pem)
    renewer.look()
    wait_for_thread()
    renewer.ended(RenewalEnded(Renewed(csr_sha256="0" * 64, error="no"), safe=True))
    assert "another question" in renewer.problem
    bench.steady += 20
    renewer.look()
    wait_for_thread()
    assert len(asked) == 2


def test_killed_at_any_step_a_renewal_goes_on_and_never_costs_the_identity(bench):
    def work() -> None:
        renewer = bench.start()
        renewer.look()
        if bench.asked:
            renewer.answered(bench.answer())
        renewer.connected(renewer.identity.seen.serial)

    def prepare() -> None:
        bench.enroll()
        bench.asked.clear()

    for _ in killed_at_each_step(prepare, work):
        bench.asked.clear()
        before = load_identity(bench.home)
        assert before.key.exists()
        work()
        work()
        after = load_identity(bench.home)
        assert not after.unproven
        assert after.life.end > DUE["end"]
        assert not bench.home.renewal.exists()


def test_a_disk_that_fills_up_puts_a_renewal_off(bench):
    for step in range(1, 60):
        bench.enroll()
        bench.asked.clear()
        renewer = bench.start()
        with full_from(step) as hit:
            renewer.look()
            if bench.asked:
                renewer.answered(bench.answer())
            renewer.connected(renewer.identity.seen.serial)
        assert load_identity(bench.home).key.exists()
        if not hit[0]:
            assert step > 5
            assert not load_identity(bench.home).unproven
            return
        bench.steady += 60
        renewer.look()
        if not bench.adopted:
            renewer.answered(bench.answer())
        bench.adopted.clear()
    pytest.fail("it never came to its end")


@pytest.mark.parametrize(
    ("via", "safe"),
    [(Via.PINNED, True), (Via.LOOPBACK, True), (Via.SYSTEM, False), (Via.NOTHING, False)],
)
def test_who_may_say_whom_to_trust_is_as_at_enrollment(bench, monkeypatch, via, safe):
    class Answering:
        def __init__(self, url: str, _roots: bytes) -> None:
            self.url, self.via = url, via

        def post(self, _path: str, body: str) -> Answer:
            csr_pem = RenewRequest.model_validate_json(body).csr_pem
            return Answer(200, bench.answer(csr_pem))

    monkeypatch.setattr("edge_client.renewal_https.Server", Answering)
    csr_pem = certificates.request(certificates.new_key())
    assert renew_by_https(load_identity(bench.home), csr_pem, now())[1] is safe
