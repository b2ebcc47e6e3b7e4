"""The demo, stage by stage."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.demo.crew import PLATFORM, Crew, interruptible, undisturbed
from orchestrator.cli.demo.fleet import CLASS, SPLIT, Fleet, token_request
from orchestrator.cli.demo.plan import Plan
from orchestrator.cli.demo.platform import preflight, wait_up
from orchestrator.cli.demo.report import Result, say_next, say_report, write_json
from orchestrator.cli.job_watch import watch_job
from orchestrator.cli.model_show import print_variants
from orchestrator.cli.model_text import figure
from orchestrator.cli.rollout_watch import outcome, watch_rollout
from orchestrator.client import Argosy
from schemas.errors import Exit
from schemas.gates import Gates
from schemas.job import JobState
from schemas.measure import Accuracy
from schemas.model import ModelVersionView
from schemas.rollout import RolloutSpec, WaveSpec
from schemas.telemetry import TelemetrySummary

GATE_MARGIN = 0.02
"""How far the gate lies below the registry's 95 % interval, for one device's sample."""

MIN_INFERENCES = 150
SOAK_SECONDS = 3.0
ROLLOUT_SECONDS = 600.0
JOB_SECONDS = 3600.0


@dataclass(slots=True)
class Watch:
    """How long each stage took."""

    stages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def stage(self, number: int, title: str, name: str) -> Iterator[None]:
        """Time a stage, under a heading."""
        console.say(Text(f"\n{number}  ", "cyan").append(title, "bold not cyan"))
        start = time.monotonic()
        yield
        self.stages[name] = time.monotonic() - start


def tell(plan: Plan) -> int:
    """Run the demo; the exit code. Nothing it started outlives this."""
    (plan.home / "demo").mkdir(parents=True, exist_ok=True, mode=0o700)
    crew = Crew(plan.home / "demo", plan.env, plan.home)
    code: int = Exit.FAILED
    try:
        with interruptible():
            code = _story(plan, crew)
            if plan.keep and code == Exit.OK:
                _wait_for_the_user(plan, crew)
    except KeyboardInterrupt:
        code = code if code == Exit.OK and plan.keep else Exit.INTERRUPTED
    finally:
        with undisturbed():
            _clean_up(plan, crew, code)
    return code


def _story(plan: Plan, crew: Crew) -> int:
    watch = Watch()
    title = Text.assemble(("argosy demo", "bold"), "  the whole loop on this machine")
    console.say(title)
    with watch.stage(1, "Platform", "platform"):
        preflight(plan)
        command = (sys.executable, "-m", "orchestrator.cli", "up", "--home", str(plan.home))
        ports = ("--port", str(plan.port), "--mqtt-port", str(plan.mqtt_port))
        crew.start(PLATFORM, (*command, *ports))
        argosy = wait_up(plan, crew)
    with argosy:
        fleet = Fleet(plan, crew)
        with watch.stage(2, f"Training {plan.spec.name}", "training"):
            fleet.prepare(argosy.tokens.create(token_request(plan.devices)).token, argosy.url)
            job = argosy.jobs.submit(plan.spec, plan.code)
            job = watch_job(argosy, job.id, JOB_SECONDS, fleet.status)
        if job.state is not JobState.SUCCEEDED or job.model is None or job.version is None:
            return Exit.FAILED
        with watch.stage(3, f"Version {job.model}@{job.version}", "version"):
            version = argosy.models.version(job.model, job.version)
            print_variants(version)
        with watch.stage(4, f"{plan.devices} devices", "devices"):
            fleet.join()
            fleet.start()
            fleet.wait_online(argosy)
            text = "enrolled while the model trained, online, waiting for a model"
            console.say(Text("  ✓ ", "green").append(text, "default"))
        registry = figure(version.manifest.variants[0], SPLIT)
        if registry is None:  # a training has measured it
            raise AssertionError
        spec = rollout_plan(version, registry)
        with watch.stage(5, "Rollout: one canary, then all", "rollout"):
            rollout = argosy.rollouts.start(argosy.rollouts.create(spec).id)
            rollout = watch_rollout(argosy, rollout.id, ROLLOUT_SECONDS)
        code = outcome(rollout)
        crew.check()
        with watch.stage(6, "What the devices measured", "telemetry"):
            seen = _summaries(argosy, version, plan.devices)
        result = Result(
            plan=plan,
            stages=watch.stages,
            preparation_seconds=fleet.seconds,
            total_seconds=time.monotonic() - watch.started,
            job=job,
            version=version,
            rollout=rollout,
            devices=seen,
            registry=registry,
        )
    say_report(result)
    if plan.json_file is not None:
        write_json(result, plan.json_file)
        console.say(f"figures written to {plan.json_file}", style="dim")
    say_next(result)
    return code


def rollout_plan(version: ModelVersionView, registry: Accuracy) -> RolloutSpec:
    """One canary, then all, behind a gate a bit under the registry's figure.

    Args:
        version: what is shipped.
        registry: the chosen variant's accuracy on the split that the devices see.
    """
    least = max(0.0, round(registry.low - GATE_MARGIN, 3))
    return RolloutSpec(
        model=version.model,
        version=version.version,
        device_class=CLASS,
        waves=(WaveSpec(count=1), WaveSpec(percent=100)),
        gates=Gates(min_accuracy=least, min_inferences=MIN_INFERENCES, soak_seconds=SOAK_SECONDS),
    )


def _summaries(argosy: Argosy, version: ModelVersionView, devices: int) -> list[TelemetrySummary]:
    deadline = time.monotonic() + 10
    while True:
        rows = argosy.telemetry.summary(version.model, version.version, by="device")
        found = [row for row in rows if row.device is not None and row.labelled >= MIN_INFERENCES]
        if len(found) >= devices or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _wait_for_the_user(plan: Plan, crew: Crew) -> None:
    console.say(
        Text("\neverything keeps running: Ctrl-C ends it; its folder stays at ", "bold").append(
            str(plan.home), "not bold"
        )
    )
    while True:
        crew.check()
        time.sleep(0.5)


def _clean_up(plan: Plan, crew: Crew, code: int) -> None:
    start = time.monotonic()
    console.say("\ninterrupted" if code == Exit.INTERRUPTED else "")
    stuck = crew.end()
    took = console.duration(time.monotonic() - start)
    if stuck:
        console.say(Text(f"these processes could not be ended: {', '.join(stuck)}", "red"))
    failed = code not in {Exit.OK, Exit.INTERRUPTED} and crew.has_started
    if not plan.home_is_ours or plan.keep:
        console.say(f"everything is stopped ({took}); kept: {plan.home}", style="dim")
    elif failed:
        console.say(f"everything is stopped ({took}); logs for you: {plan.home}", style="dim")
    else:
        _remove(plan.home)
        console.say(f"everything is stopped and removed ({took})", style="dim")


def _remove(home: Path) -> None:
    try:
        shutil.rmtree(home)
    except OSError as error:
        console.say(Text(f"could not remove {home}: {error.strerror}", "yellow"))
