"""``argosy job``: training. Its commands stand in modules of their own."""

from __future__ import annotations

import rich_click as click

from schemas.commands import Entry, LazyGroup

_HERE = "orchestrator.cli"
_ENTRIES = {
    "submit": Entry(f"{_HERE}.job_submit:submit", "Queue the job that a file describes."),
    "run-local": Entry(
        f"{_HERE}.job_local:run_local", "Run a job in one process, on this machine."
    ),
    "clone": Entry(f"{_HERE}.job_submit:clone", "Queue a job again, with changes."),
    "ls": Entry(f"{_HERE}.job_show:ls", "List jobs, newest first."),
    "get": Entry(f"{_HERE}.job_show:get", "Show one job."),
    "watch": Entry(f"{_HERE}.job_show:watch", "Watch a job until it ends."),
    "logs": Entry(f"{_HERE}.job_logs:logs", "Print what a job printed."),
    "profile": Entry(f"{_HERE}.job_profile:profile", "Show what a job found in its data."),
    "plot": Entry(f"{_HERE}.job_plot:plot", "Draw curves into a PNG or SVG file."),
    "compare": Entry(f"{_HERE}.job_compare:compare", "Show in what jobs differ."),
    "cancel": Entry(f"{_HERE}.job_show:cancel", "Stop a job."),
}


@click.group(cls=LazyGroup, entries=_ENTRIES)
def job() -> None:
    """Train models."""
