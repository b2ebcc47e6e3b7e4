"""The groups in which the help of ``argosy`` lists commands, by what one wants of them."""

from __future__ import annotations

import rich_click as click

_BY_PATH: dict[str, dict[str, tuple[str, ...]]] = {
    "*argosy": {
        "Begin": ("demo", "up", "doctor"),
        "Work": ("job", "batch", "model", "device", "fleet", "token", "rollout", "experiment"),
        "People": ("login", "logout", "whoami", "profile", "api-token", "audit"),
        "Trust": ("trust", "ca"),
        "More": ("device-class", "agent", "telemetry", "simulate", "completion"),
    },
    "*argosy job": {
        "Begin": ("submit", "clone", "run-local"),
        "See": ("ls", "get", "watch", "logs", "profile", "plot", "compare"),
        "End": ("cancel",),
    },
    "*argosy model": {
        "See": ("ls", "get", "compare"),
        "Make": ("register", "optimize"),
        "Name": ("alias", "tag", "note"),
        "Fetch": ("download", "export"),
        "Take away": ("revoke", "gc"),
    },
    "*argosy model alias": {"See": ("history",), "Change": ("set", "rm")},
    "*argosy rollout": {
        "Begin": ("plan", "start", "approve"),
        "See": ("ls", "get", "devices", "watch"),
        "Steer": ("pause", "resume", "edit", "activate", "promote", "retry", "finish"),
        "End": ("abort", "rollback"),
    },
    "*argosy device": {
        "See": ("ls", "get"),
        "Sort": ("tag",),
        "Let in and shut out": ("approve", "reject", "revoke"),
        "More": ("clear-alert",),
    },
    "*argosy device-class": {"See": ("ls", "get"), "Change": ("set", "rm")},
    "*argosy fleet": {"See": ("ls", "get"), "Change": ("create", "delete")},
    "*argosy experiment": {"Begin and end": ("start", "stop"), "See": ("ls", "get")},
    "*argosy token": {"See": ("ls",), "Change": ("create", "revoke")},
    "*argosy api-token": {"See": ("ls",), "Change": ("create", "revoke")},
    "*argosy agent": {"See": ("ls",)},
    "*argosy audit": {"See": ("ls",), "Check": ("verify",)},
    "*argosy profile": {"See": ("ls",), "Choose": ("use",)},
    "*argosy telemetry": {"See": ("summary", "series", "features", "samples")},
    "*argosy trust": {
        "See": ("status",),
        "Sign": ("sign", "renew", "upload"),
        "Keys": ("init", "rotate", "sign-root"),
    },
    "*argosy ca": {"See": ("status",), "Replace": ("rotate", "retire")},
}

STYLE = click.RichHelpConfiguration(
    theme="default-slim",
    command_groups={
        path: [{"name": name, "commands": list(commands)} for name, commands in groups.items()]
        for path, groups in _BY_PATH.items()
    },
)
"""How help looks."""
