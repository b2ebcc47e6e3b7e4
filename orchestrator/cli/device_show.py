"""How devices look on a terminal."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.output import Cell, Shape, print_facts
from schemas.device import ActiveModel, DeviceState, DeviceView

_SHOWN = 4
"""Models that a row of the fleet names."""


def device_shape() -> Shape[DeviceView]:
    """The fleet as a table."""
    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("CLASS", lambda view: view.device_class),
        ("TAGS", lambda view: ",".join(view.tags) or console.NONE),
        ("STATE", _state),
        ("PRESENCE", lambda view: console.state(view.presence)),
        ("SERVES", _serves),
        ("SEEN", lambda view: console.age(view.last_seen_at)),
    )


def waiting_shape() -> Shape[DeviceView]:
    """Devices that wait for approval, with what to compare before giving it."""
    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("CLASS", lambda view: view.device_class),
        ("FINGERPRINT", lambda view: view.fingerprint),
        ("HARDWARE", _board),
        ("WAITS", lambda view: console.age(view.enrolled_at)),
    )


def show_device(view: DeviceView) -> None:
    """One device, with everything."""
    hardware = view.hardware
    if view.clone_suspected_at is not None:
        console.say(
            f"{view.id} seems to be used from two places at once since"
            f" {_time(view.clone_suspected_at)}: two boots of it take turns.",
            style="red",
        )
        console.say(
            f"If it was copied: argosy device revoke {view.id}, then argosy token create"
            f" --device {view.id} for the real one. If not: argosy device clear-alert {view.id}",
            style="dim",
        )
    print_facts(
        [
            ("device", view.id),
            ("state", console.state(view.state)),
            ("revoked", _revoked(view)),
            ("presence", console.state(view.presence)),
            ("seen", f"{console.age(view.last_seen_at)} ago" if view.last_seen_at else "never"),
            ("class", view.device_class),
            ("tags", ", ".join(view.tags)),
            *_models(view),
            ("last offer", _last_offer(view)),
            ("hardware", f"{hardware.arch}, {hardware.cpus} CPUs, {hardware.ram_mb} MB"
             if hardware else None),
            ("runtime", f"ONNX Runtime {hardware.ort}: {', '.join(hardware.providers)}"
             if hardware else None),
            ("enrolled", f"{_time(view.enrolled_at)} with {view.token or 'a token'}"),
            ("fingerprint", view.fingerprint),
            ("certificate", _certificate(view)),
        ]
    )  # fmt: skip


def _state(view: DeviceView) -> Text:
    state = console.state(view.state)
    if view.clone_suspected_at is None:
        return state
    return Text.assemble(state, " ", ("cloned?", "red"))


def _name(one: ActiveModel) -> str:
    return f"{one.model}@{one.version} {one.variant}"


def _missing(view: DeviceView) -> list[ActiveModel]:
    """What it should serve and does not."""
    return [one for one in view.desired if one not in view.active]


def _serves(view: DeviceView) -> Text:
    """What it serves, of several by version alone, and in a word what is wrong with it."""
    active = view.active
    several = ", ".join(f"{one.model}@{one.version}" for one in active[:_SHOWN])
    more = f" and {len(active) - _SHOWN} more" if len(active) > _SHOWN else ""
    text = Text((_name(active[0]) if len(active) == 1 else several + more) or console.NONE)
    if view.drifted_at is not None:
        return text.append(" drifted", "red")
    if view.rolled_back:
        return text.append(" put back", "yellow")
    missing = [f"{one.model}@{one.version}" for one in _missing(view)[:_SHOWN]]
    return text.append(f" → {', '.join(missing)}", "dim") if missing else text


def _models(view: DeviceView) -> list[tuple[str, Cell | None]]:
    """A line for each model that it serves, or should serve instead, and why it does not."""
    lines: list[tuple[str, Cell | None]] = [("serves", _serving(view, a)) for a in view.active]
    lines = lines or [("serves", console.NONE)]
    missing: list[tuple[str, Cell | None]] = [
        ("should serve", _name(one)) for one in _missing(view)
    ]
    if view.drifted_at is not None:
        why = f"it was never given something that it serves since {_time(view.drifted_at)}"
        missing.append(("drifted", Text(why, "red")))
    if view.rolled_back:
        missing.append(("put back", Text("a model before was put back by hand, there", "yellow")))
    return lines + missing


def _serving(view: DeviceView, one: ActiveModel) -> Text:
    since = view.serving_since.get(one.model)
    return Text(_name(one)).append(f", since {_time(since)}" if since else "", "dim")


def _last_offer(view: DeviceView) -> Text | None:
    """By which rollout, and how it stands with that: what it serves may come from another."""
    if view.rollout is None:
        return None
    text = Text(f"by {view.rollout}")
    return text if view.rollout_state is None else text.append_text(_of_state(view.rollout_state))


def _of_state(state: str) -> Text:
    return Text(": ").append_text(console.state(state))


def _board(view: DeviceView) -> str:
    hardware = view.hardware
    return console.NONE if hardware is None else hardware.board or hardware.arch


def _certificate(view: DeviceView) -> str | None:
    until = view.certificate_expires_at
    if until is None:
        waits = view.state is DeviceState.PENDING
        return "none before it is approved" if waits else None
    return f"until {_time(until)}, serial {view.certificate_serial or 'unknown'}"


def _revoked(view: DeviceView) -> str | None:
    if view.revoked_at is None:
        return None
    reason = console.clean(view.revoke_reason)
    return _time(view.revoked_at) + (f": {reason}" if reason else "")


def _time(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"
