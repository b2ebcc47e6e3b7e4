"""The demo's platform: what it needs, and when it is up."""

from __future__ import annotations

import time

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.demo.crew import PLATFORM, Crew
from orchestrator.cli.demo.plan import Plan
from orchestrator.client import Argosy
from orchestrator.client.errors import ProfileError
from orchestrator.client.profile import Profile
from orchestrator.errors import ArgosyError, Conflict, Unavailable

UP_SECONDS = 90.0


def preflight(plan: Plan) -> None:
    """See that all it needs is here, before anything starts.

    Raises:
        Unavailable: something is missing; the hint mends it.
        Conflict: a port is taken.
    """
    from orchestrator.doctor import checks
    from orchestrator.supervisor import check_ports

    try:
        check_ports(plan.settings)
    except Conflict as error:
        hint = "end what holds it, or add --port auto --mqtt-port auto"
        raise Conflict(error.detail, hint=hint) from None
    for check in checks(plan.settings):
        # A demo trains and infers here, so it needs every extra.
        if not check.ok and (check.required or check.name.startswith("argosy[")):
            detail = f"{check.name}: {check.detail}"
            raise Unavailable(detail, hint=check.hint)


def wait_up(plan: Plan, crew: Crew) -> Argosy:
    """A client of the platform, once it answers.

    Raises:
        Unavailable: it does not, or ended.
    """
    start = time.monotonic()
    while True:
        crew.check()
        try:
            argosy = _connect(plan)
        except ArgosyError as error:
            if time.monotonic() - start > UP_SECONDS:
                what = f"is not up: {error.detail}"
                raise crew.failure(PLATFORM, what) from error
            time.sleep(0.1)
        else:
            took = console.duration(time.monotonic() - start)
            line = Text("  ✓ ", "green").append("up at ", "default")
            console.say(
                line.append(argosy.url, "bold not green").append(f"  {took}", "not bold dim")
            )
            console.say(f"    everything it keeps is in {plan.home}", style="dim")
            return argosy


def _connect(plan: Plan) -> Argosy:
    profile = Profile.load(plan.home, {})
    if profile.url != plan.settings.url:
        # Left by an earlier platform on this home: the new one has not written its own yet.
        detail = "the credentials are of another platform"
        raise ProfileError(detail)
    argosy = Argosy(profile.url, profile.token, profile.ca)
    try:
        argosy.health()
    except ArgosyError:
        argosy.close()
        raise
    return argosy
