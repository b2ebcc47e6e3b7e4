"""``argosy agent``: what runs jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.job import AgentView


@click.group()
def agent() -> None:
    """See the clusters that train."""


@agent.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List the agents that ask for work, with what their clusters have in all."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        agents = list(argosy.agents.list())
    empty = "no agents: `argosy up` starts one, `argosy-worker agent` more"
    emit_list(agents, form, _shape(), empty)


def _shape() -> Shape[AgentView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    def of(view: AgentView, name: str) -> str:
        value = getattr(view.capacity, name, None)
        return console.NONE if value is None else f"{value:g}"

    def memory(view: AgentView) -> str:
        found = view.capacity
        return f"{found.memory_gb:.1f} GiB" if found and found.memory_gb else console.NONE

    def grows(view: AgentView) -> str:
        return ("yes" if view.capacity.grows else "no") if view.capacity else console.NONE

    return Shape(
        lambda view: view.name,
        ("NAME", lambda view: view.name),
        ("NODES", lambda view: of(view, "nodes")),
        ("CPUS", lambda view: of(view, "cpus")),
        ("GPUS", lambda view: of(view, "gpus")),
        ("MEMORY", memory),
        ("GROWS", grows),
        ("JOBS", lambda view: " ".join(view.jobs) or console.NONE),
        ("SEEN", lambda view: f"{console.age(view.seen_at)} ago"),
    )
