"""What must hold after any storm (docs/architecture.md, "What must hold, always").

Each check answers with what is wrong; nothing is right. They read what devices said of
themselves as it happened, the server's database, and the API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from schemas.rollout import DEVICE_TERMINAL, ExecState, WaveState
from tests.chaos.stand import Puppet, Stand


def always_a_model(puppet: Puppet) -> Iterator[str]:
    """A device that had a model has one, after each start and at the end."""
    events = puppet.events()
    had = False
    for pid in dict.fromkeys(event["pid"] for event in events):
        mine = [event for event in events if event["pid"] == pid]
        serving = [event["slot"] for event in mine if event["what"] == "serves"]
        if had and None in serving:
            yield f"{puppet.name}: served nothing: {[s and s['version'] for s in serving]}"
        if had and not serving and len(mine) > 1:
            yield f"{puppet.name}: never served again after a start"
        had = had or any(slot is not None for slot in serving)
    if not had:
        yield f"{puppet.name}: never had a model"
    elif not puppet.running or puppet.serves() is None:
        yield f"{puppet.name}: serves nothing now: {puppet.tail()}"
    elif puppet.serves() != puppet.points_to():
        yield f"{puppet.name}: serves {puppet.serves()}, its pointer says {puppet.points_to()}"


def only_genuine(puppet: Puppet) -> Iterator[str]:
    """Nothing was loaded that is not a registered file; no order older than the floor was taken."""
    events = puppet.events()
    genuine = puppet.stand.genuine()
    for event in events:
        if event["what"] == "loaded" and event["sha256"] not in genuine:
            yield f"{puppet.name}: loaded {event['sha256']}, which nobody registered"
        if event["what"] == "state" and event["device"] not in {None, puppet.id}:
            yield f"{puppet.name}: took the order of {event['device']}"
    floor = 0
    for event in events:
        sequence = event.get("sequence")
        if event["what"] != "state" or sequence is None:
            continue
        if sequence < floor:
            yield f"{puppet.name}: went back from order {floor} to {sequence}"
        floor = max(floor, sequence)


def telemetry_arrived(puppet: Puppet) -> Iterator[str]:
    """What was acknowledged to the device is in the database once."""
    acknowledged = [
        (event["boot"], event["seq"])
        for event in puppet.events()
        if event["what"] == "acknowledged"
    ]
    query = "SELECT boot, seq, count(*) FROM windows WHERE device_id = ? GROUP BY boot, seq"
    kept = {(boot.hex(), seq): n for boot, seq, n in puppet.stand.rows(query, puppet.id)}
    if not acknowledged:
        yield f"{puppet.name}: no telemetry arrived at all"
    for boot, seq in acknowledged:
        if (boot, seq) not in kept:
            yield f"{puppet.name}: window {seq} of {boot[:8]} was acknowledged and is not kept"
        elif kept[boot, seq] > 1:
            yield f"{puppet.name}: window {seq} of {boot[:8]} is kept {kept[boot, seq]} times"


def waves_in_order(stand: Stand, rollout: str) -> Iterator[str]:
    """No device of a wave was offered anything before the wave before it passed."""
    query = "SELECT kind, data FROM events WHERE subject = ? ORDER BY id"
    passed: set[int] = set()
    for kind, text in stand.rows(query, rollout):
        data: dict[str, Any] = json.loads(text)
        if kind == "wave" and data["state"] == WaveState.PASSED:
            passed.add(data["wave"])
        begun = kind == "execution" and data["state"] != ExecState.SCHEDULED
        started = kind == "wave" and data["state"] != WaveState.PENDING
        if (begun or started) and data["wave"] > 0 and data["wave"] - 1 not in passed:
            yield f"{rollout}: wave {data['wave']} went on before wave {data['wave'] - 1} passed"


def outcomes(puppet: Puppet) -> dict[tuple[str, int], str]:
    """How each execution ended on the device, by (execution, attempt)."""
    return {
        tuple(event["key"]): event["outcome"]
        for event in puppet.events()
        if event["what"] == "state" and event["outcome"] is not None
    }


def records_converged(puppet: Puppet, rollouts: list[str]) -> Iterator[str]:
    """What the server says of a device is what the device did."""
    stand = puppet.stand
    ended = outcomes(puppet)
    state = puppet.state()
    if state is not None and state[0] not in {"Ended", "Idle"}:
        yield f"{puppet.name}: it is still {state[0]}"
    for rollout in rollouts:
        record = stand.execution(rollout, puppet.id)
        did = ended.get((record.id, record.attempt))
        if record.state in DEVICE_TERMINAL and record.state.value != did:
            yield f"{puppet.name}: {record.id} is {record.state}, the device says {did}"
        if did is not None and record.state not in DEVICE_TERMINAL:
            (late,) = stand.rows("SELECT late FROM executions WHERE id = ?", record.id)[0]
            if late != did:
                yield f"{puppet.name}: {record.id} is {record.state}, the device says {did}"
    active = stand.device(puppet.id).active
    said = active[0].version if active else None
    if said != puppet.points_to():
        yield f"{puppet.name}: serves {puppet.points_to()}, the server says {said}"
