"""A device that was let in, against the device beside it."""

from __future__ import annotations

import json
import time

import pytest

from schemas.topics import Down, Up, down, down_filter, up
from schemas.window import About, Envelope, Window, encode, pack
from tests.attacks.intruder import be_born, birth, until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ours(site):
    return site.enroll()


@pytest.fixture(scope="module")
def theirs(site):
    return site.enroll()


def test_it_writes_nothing_but_its_own_messages(site, ours, theirs):
    last = up(ours.device, Up.TELE)
    forbidden = [
        *(up(theirs.device, leaf) for leaf in Up),
        *(down(theirs.device, leaf) for leaf in Down),
        *(down(ours.device, leaf) for leaf in Down),
        f"d/{ours.device}/up",
        f"d/{ours.device}/up/other",
        f"d/{ours.device}/up/birth/deeper",
        f"/d/{ours.device}/up/birth",
        f"d/{ours.device}/../{theirs.device}/up/birth",
        "m/shared/chunk",
        "$SYS/broker/version",
        "$CONTROL/dynamic-security/v1",
        "elsewhere",
    ]
    with site.observer() as observer, site.peer(ours) as device:
        observer.subscribe("#", "$SYS/broker/version", "$CONTROL/#")
        for topic in forbidden:
            for retain in (False, True):
                device.publish(topic, birth(), retain=retain)
        device.publish(last, b"{}")
        mine = [t for t in observer.until(last) if ours.device in t or theirs.device in t]
        assert mine == [last]
    assert site.device(theirs.device)["presence"] == "NEVER"


def test_it_hears_nothing_but_what_is_meant_for_it(site, ours, theirs):
    filters = [
        "#", "+/+/+/+", "d/#", "d/+/down/#", "d/+/up/#", "$SYS/#", "$share/x/d/+/down/#",
        f"$share/x/d/{theirs.device}/down/+", down_filter(theirs.device),
        up(theirs.device, Up.TELE), down(theirs.device, Down.DESIRED),
    ]  # fmt: skip
    last = down(ours.device, Down.CMD)
    with site.observer() as observer:
        observer.publish(down(theirs.device, Down.DESIRED), b"secret", retain=True)
        with site.peer(ours) as device:
            device.subscribe(*filters, down_filter(ours.device))
            observer.publish(down(theirs.device, Down.CMD))
            observer.publish(up(theirs.device, Up.TELE))
            observer.publish(last)
            heard = device.until(last)
        assert set(heard) == {last}
        observer.publish(down(theirs.device, Down.DESIRED), b"", retain=True)


def test_its_will_declares_nobody_else_dead(site, ours, theirs):
    """The death names the right boot and session; only the topic is not its own."""
    death = json.dumps({"boot": "a" * 32, "session": 1})
    with site.peer(theirs) as victim:
        be_born(site, victim, theirs.device)
        with site.observer() as observer:
            observer.subscribe(up(theirs.device, Up.DEATH), up(ours.device, Up.DEATH))
            try:
                with site.peer(ours, will=(up(theirs.device, Up.DEATH), death)) as device:
                    device.vanish()
                    until(lambda: device.drops, "the end of the connection")
            except AssertionError:
                pass  # a broker that refuses the connection for its will is right too
            with site.peer(ours, will=(up(ours.device, Up.DEATH), death)) as device:
                device.vanish()
                own = up(ours.device, Up.DEATH)
                assert observer.until(own) == [own]
        assert site.device(theirs.device)["presence"] == "ONLINE"
        assert victim.drops == 0


def test_it_drops_nobody_by_taking_a_client_id(site, ours, theirs):
    with site.peer(theirs) as victim:
        be_born(site, victim, theirs.device)
        victim.subscribe(down_filter(theirs.device))
        for name in (theirs.device, "gateway", "server", "argosy", ""):
            assert site.knock(ours, client_id=name) == 0
        with site.peer(ours, client_id=theirs.device) as device, site.observer() as observer:
            device.subscribe(down_filter(theirs.device))
            last = down(theirs.device, Down.CMD)
            observer.publish(last)
            assert victim.until(last) == [last]
            assert device.heard.empty()
        assert victim.drops == 0
        assert site.healthy()


def test_it_speaks_for_nobody_else_in_its_messages(site, ours, theirs, admin):
    """The topic says who it is from; a payload that says otherwise counts for nobody."""

    def window(seq: int) -> bytes:
        about = About(boot=b"a" * 16, model="spoken-for", version=1, variant="int8")
        now = Window(
            about=0, seq=seq, start_ms=int(time.time() * 1000), synced=True, length_ms=5000, n=100,
            runs=100, latency=pack({40: 100}),
        )  # fmt: skip
        return encode(Envelope(1, [about], [now]))

    def counted() -> dict[str, int]:
        answer = admin.get(
            "/v1/telemetry/summary", params={"model": "spoken-for", "version": 1, "by": "device"}
        )
        return {item["device"]: item["n"] for item in answer.json()["items"]}

    assert site.register("spoken-for") == 1
    named = {"device": theirs.device, "model": "spoken-for", "version": 1, "n": 100}
    with site.peer(ours) as device:
        device.publish(up(ours.device, Up.TELE), json.dumps(named))
        device.publish(up(ours.device, Up.TELE), window(1) + theirs.device.encode())
        device.paho.publish(up(theirs.device, Up.TELE), window(2), qos=1)
        device.publish(up(ours.device, Up.TELE), window(3))
        until(lambda: counted().get(ours.device), "our own window")
    assert counted() == {ours.device: 100}


def test_floods_and_nonsense_do_not_silence_the_neighbour(site, ours, theirs):
    nonsense = [
        b"", b"{", b"\xff" * 100, b"null", b"[]", b'{"n": NaN}', b'{"n": 1e999}',
        b"[" * 100_000, b'{"seq": -1}', b'{"boot": "\\u0000"}', b"\x00" * 500_000,
    ]  # fmt: skip
    with site.peer(ours) as device, site.peer(theirs) as neighbour:
        for leaf in Up:
            for payload in nonsense:
                device.paho.publish(up(ours.device, leaf), payload, qos=1)
        for seq in range(2000):
            need = {"kind": "manifest", "sha256": f"{seq:064x}"}
            device.paho.publish(up(ours.device, Up.NEED), json.dumps(need), qos=1)
        before = site.device(theirs.device)["last_seen_at"]
        neighbour.publish(up(theirs.device, Up.BIRTH), birth(2), retain=True)
        until(lambda: site.device(theirs.device)["last_seen_at"] != before, "the neighbour")
        assert neighbour.drops == 0


def test_the_servers_own_listener_knows_no_device(site, ours):
    from orchestrator.adapters.broker import read_gateway

    address = read_gateway(site.home)
    assert site.knock_inside(address.username, address.password) == 0
    for username, password in (
        (None, None),
        ("gateway", None),
        ("gateway", ""),
        ("gateway", "wrong"),
        (ours.device, address.password),
        ("argosy-canary", address.password),
        ("", ""),
    ):
        assert site.knock_inside(username, password) != 0, (username, password)
