"""How often a client may ask, by an injected clock."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import JSONResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from orchestrator.adapters.intake import ASKED, MAX_BYTES, QUESTIONS, STORED, Intake
from orchestrator.api import rates
from orchestrator.api.rates import FAILURES_OF_ADDRESS, FAILURES_OF_KEY, RULES
from orchestrator.services.meter import Meter, Rate
from schemas.access import Role
from schemas.errors import Code, Problem
from schemas.topics import Up, UpTopic


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def taken(meter: Meter, key: tuple[str, ...], rate: Rate, tries: int) -> int:
    done = 0
    for _ in range(tries):
        if meter.wait(key, rate) == 0:
            meter.count(key, rate)
            done += 1
    return done


def test_so_many_at_once_and_then_at_that_rate(clock):
    meter, rate = Meter(clock), Rate(10, 60)
    assert taken(meter, ("a",), rate, 50) == 10
    assert meter.wait(("a",), rate) == pytest.approx(6)
    assert taken(meter, ("b",), rate, 1) == 1
    clock.now += 6
    assert taken(meter, ("a",), rate, 50) == 1
    clock.now += 3600
    assert taken(meter, ("a",), rate, 50) == 10


def test_a_flood_from_many_addresses_takes_no_more_memory(clock):
    meter = Meter(clock, max_keys=100)
    for i in range(1000):
        meter.count((str(i),), Rate(10, 60))
    assert len(meter) == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_an_ipv6_client_is_its_network(one, other, same):
    found = [rates.address_of({"client": (host, 1)}) for host in (one, other)]
    assert (found[0] == found[1]) is same


def an_app(clock, status: int = 200, proxies: str | None = None):
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def anything() -> JSONResponse:
        return JSONResponse({}, status)

    limited = rates.RateLimits(app, Meter(clock))
    return ProxyHeadersMiddleware(limited, proxies) if proxies else limited


@pytest.mark.parametrize("path", [path for _, path in RULES])
def test_what_is_costly_is_slowed_down_by_address(clock, path):
    app = an_app(clock)
    rule = RULES["POST", path]
    client = TestClient(app, client=("192.0.2.1", 1))
    answers = [client.post(path) for _ in range(rule.each.count + 1)]
    assert {a.status_code for a in answers[:-1]} == {200}
    refused = answers[-1]
    assert refused.status_code == 429
    assert Problem.model_validate(refused.json()).code is Code.TOO_MANY
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/v1/jobs").status_code == 200
    assert TestClient(app, client=("192.0.2.2", 1)).post(path).status_code == 200
    clock.now += int(refused.headers["retry-after"])
    assert client.post(path).status_code == 200


def test_all_addresses_together_have_a_limit_too(clock):
    app, rule = an_app(clock), RULES["POST", "/v1/session"]
    answers = [
        TestClient(app, client=(f"192.0.2.{i % 250}", 1)).post("/v1/session").status_code
        for i in range(rule.all.count + 1)
    ]
    assert answers == [200] * rule.all.count + [429]


def test_a_program_with_a_dead_key_does_not_lock_its_neighbours_out(clock):
    app = an_app(clock, 401)
    client = TestClient(app, client=("127.0.0.1", 1))
    dead = {"authorization": "Bearer arg_key_0000000000000000_" + "x" * 43}
    living = {"authorization": "Bearer arg_key_0000000000000001_" + "x" * 43}
    answers = [client.get("/v1/jobs", headers=dead).status_code for _ in range(80)]
    assert answers == [401] * FAILURES_OF_KEY.count + [429] * (80 - FAILURES_OF_KEY.count)
    assert client.get("/v1/jobs", headers=living).status_code == 401


def test_who_guesses_at_keys_is_stopped(clock):
    client = TestClient(an_app(clock, 401), client=("192.0.2.1", 1))
    answers = [
        client.get("/v1/jobs", headers={"authorization": f"Bearer arg_key_{i:016d}_x"}).status_code
        for i in range(FAILURES_OF_ADDRESS.count + 1)
    ]
    assert answers == [401] * FAILURES_OF_ADDRESS.count + [429]
    # Without a key there is nothing to guess, and the refusal costs nothing.
    assert client.get("/v1/jobs").status_code == 401


def test_who_guesses_does_not_lock_out_whoever_shares_the_address(platform, clock, monkeypatch):
    monkeypatch.setattr(rates, "Meter", lambda: Meter(clock))
    one = ("192.0.2.1", 1)
    client = TestClient(platform.client().app, client=one)
    good = {"authorization": f"Bearer {platform.key(Role.VIEWER)}"}
    late = {"authorization": f"Bearer {platform.key(Role.VIEWER)}"}

    def ask(headers, path="/v1/whoami"):
        return client.get(path, headers=headers).status_code

    assert ask(good) == 200
    for i in range(FAILURES_OF_ADDRESS.count):
        bad = {"authorization": f"Bearer arg_key_{i:016d}_{'x' * 43}"}
        # An open route answers any key; that makes none of them a good one.
        assert (ask(bad, "/v1/health"), ask(bad)) == (200, 401)
    assert ask(bad) == 429
    assert ask(late) == 429
    assert [ask(good) for _ in range(3)] == [200] * 3
    spoilt = {"authorization": good["authorization"][:-1] + "!"}
    assert (ask(spoilt), ask(good)) == (401, 429)


def test_only_a_trusted_proxy_may_name_the_client(clock):
    def statuses(app):
        client = TestClient(app, client=("10.0.0.1", 1))
        return {
            client.post("/v1/session", headers={"x-forwarded-for": f"192.0.2.{i}"}).status_code
            for i in range(RULES["POST", "/v1/session"].each.count + 5)
        }

    assert statuses(an_app(clock)) == {200, 429}
    assert statuses(an_app(clock, proxies="10.0.0.1")) == {200}


def test_a_device_that_floods_is_not_listened_to_and_its_neighbour_is(clock, caplog):
    intake = Intake(clock)
    taken_ = sum(intake.takes(UpTopic("dev_a", Up.TELE), 100) for _ in range(STORED.count + 500))
    assert taken_ == STORED.count
    assert intake.takes(UpTopic("dev_a", Up.NEED), 100), "it may still ask"
    assert intake.takes(UpTopic("dev_b", Up.TELE), 100)
    asked = sum(intake.takes(UpTopic("dev_b", Up.NEED), 100) for _ in range(ASKED.count + 500))
    assert asked == ASKED.count
    # Their answers may be large, and the broker keeps them for who does not read.
    asks = [Up.META, Up.ASK] * QUESTIONS.count
    assert sum(intake.takes(UpTopic("dev_b", leaf), 100) for leaf in asks) == QUESTIONS.count
    assert sum("sends too much" in line for line in caplog.messages) == 2
    clock.now += 1
    assert sum(intake.takes(UpTopic("dev_a", Up.TELE), 100) for _ in range(500)) == 20
    assert not intake.takes(UpTopic("dev_c", Up.TELE), MAX_BYTES + 1)
