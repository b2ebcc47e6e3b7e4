"""Random devices and random selectors over the same few values, so that they meet often."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from orchestrator.services.facts import facts_of
from orchestrator.services.records import DeviceRecord, Target
from schemas.device import ActiveModel, DeviceState, Hardware, Presence
from schemas.ids import new_id
from schemas.selector import matches
from schemas.selector_fields import FIELDS, MODEL, Kind, value_of
from schemas.selector_nodes import And, Everything, Not, Op, Or, Term

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORDS = {
    "class": ("cam", "pi", "jetson"),
    "tag": ("lab", "old", "roof", "a.b_c"),
    "presence": ("online", "offline", "never"),
    "arch": ("x86_64", "aarch64", "it's", 'a"b', "%", ""),
    "isa": ("avx2", "vnni", "neon"),
    "provider": ("CPUExecutionProvider", "CPU", "a", 'a","b', "x\\y", "é"),
    "board": ("Pi 5", "none", "Ünsinn 漢"),
    "cpus": ("1", "4", "64"),
    "ram_mb": ("0", "512", "1024", "999999999999999"),
    "ort": ("1.9", "1.20", "1.20.0", "1.20.1", "2"),
    "agent": ("0.1.9", "0.1.10", "0.2", "999999999.1"),
    "seen": ("0s", "30s", "2h", "7d", "10000d"),
    "enrolled": ("0s", "1h", "30d"),
    "certificate": ("0s", "2d", "1w"),
    "model": ("1", "3", "4", "10"),
}
VERSIONS = ("1.9", "1.20", "1.20.0", "1.20.1+cu12", "2.0.0rc1", "", "dev", "1" * 12, "01.020")
MODELS = ("digits", "parts")
SPANS = (0, 30, 7200, 7 * 86400, 10000 * 86400)


def a_device(draw: random.Random) -> DeviceRecord:
    """A device that may have told anything or nothing."""

    def ago() -> datetime:
        return NOW - timedelta(seconds=draw.choice(SPANS), microseconds=draw.choice((-1, 0, 1)))

    def some(name: str) -> tuple[str, ...]:
        return tuple(word for word in WORDS[name] if draw.random() < 0.4)

    hardware = Hardware(
        arch=draw.choice(WORDS["arch"]),
        isa=some("isa"),
        board=draw.choice((None, *WORDS["board"])),
        cpus=draw.choice((1, 4, 64)),
        ram_mb=draw.choice((1, 512, 1024, 2**70)),
        providers=some("provider"),
        ort=draw.choice(VERSIONS),
        agent=draw.choice((*VERSIONS, "0.1.9", "0.1.10")),
    )
    served = [model for model in MODELS if draw.random() < 0.5]
    return DeviceRecord(
        id=new_id("dev", entropy=draw.getrandbits(32)),
        device_class=draw.choice(WORDS["class"]),
        tags=some("tag"),
        state=DeviceState.ACTIVE,
        presence=draw.choice(list(Presence)),
        hardware=hardware if draw.random() < 0.8 else None,
        active=tuple(
            ActiveModel(model=one, version=draw.choice((1, 3, 4)), variant="int8", sha256="a" * 64)
            for one in served
        ),
        token_id="tok_x",
        certificate_expires_at=draw.choice((None, NOW, NOW + timedelta(days=2), ago())),
        spki_sha256="0" * 64,
        enrolled_at=ago(),
        last_seen_at=draw.choice((None, ago())),
    )


def a_fleet(seed: int, size: int) -> list[DeviceRecord]:
    """The same devices for the same seed, but for their ids."""
    draw = random.Random(seed)  # noqa: S311 - a fleet of a test
    return [a_device(draw) for _ in range(size)]


def terms(ids: tuple[str, ...]) -> st.SearchStrategy[Term]:
    """Any comparison."""
    words = {**WORDS, "id": ids}

    @st.composite
    def one(draw) -> Term:
        field = draw(st.sampled_from([*FIELDS.values(), MODEL]))
        choices = [word for word in words[field.name] if field.pattern.fullmatch(word)]
        values = [value_of(field, word) for word in choices]
        model = draw(st.sampled_from((*MODELS, "other"))) if field is MODEL else ""
        equal = st.sampled_from((Op.EQ, Op.NE))
        several = st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)
        if not field.known and draw(st.booleans()):
            return Term(field, draw(equal), (), model)
        if field.kind is Kind.SPAN or (field.ordered and draw(st.booleans())):
            op = draw(st.sampled_from((Op.LT, Op.LE, Op.GT, Op.GE)))
            return Term(field, op, (draw(st.sampled_from(values)),), model)
        return Term(field, draw(equal), draw(several), model)

    return one()


def selectors(ids: tuple[str, ...]) -> st.SearchStrategy:
    """Any selector, of a few levels."""
    return st.recursive(
        st.one_of(terms(ids), terms(ids), terms(ids), st.just(Everything())),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=6,
    )


def check_one_meaning(uow, fleet, node) -> None:
    """SQL finds exactly the devices that match, and of the rest exactly those of ``not``."""
    meant = {one.id for one in fleet if matches(node, facts_of(one, NOW))}
    with uow.read() as tx:
        found = tx.devices.candidates(Target(where=node), NOW)
        rest = tx.devices.candidates(Target(exclude=node), NOW)
    assert {one.device for one in found} == meant
    assert {one.device for one in rest} == {one.id for one in fleet} - meant
