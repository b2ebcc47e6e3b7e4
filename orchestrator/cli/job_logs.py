"""``argosy job logs``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option

if TYPE_CHECKING:
    from orchestrator.client import Argosy
    from schemas.job import LogLine

MAX_TAIL = 2000
_STYLES = {"error": "red", "warning": "yellow", "debug": "dim"}


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--search", metavar="TEXT", help="Only lines that hold this text.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Only lines of this level or a graver one.",
)
@click.option("--tail", type=click.IntRange(1, MAX_TAIL), metavar="N", help="Only the last lines.")
@home_option
def logs(
    *,
    job_id: str,
    follow: bool,
    search: str | None,
    level: str | None,
    tail: int | None,
    home: Path | None,
) -> None:
    """Print what a job printed; it is kept when the cluster is gone."""
    from orchestrator.cli.failures import detaches
    from orchestrator.client import Argosy

    with (
        Argosy.from_profile(home) as argosy,
        detaches(f"job {job_id}", f"argosy job logs -f {job_id}"),
    ):
        reader = _Reader(argosy, job_id, search, level)
        if tail is not None:
            reader.last(tail)
        elif not follow:
            reader.drain()
        if follow:
            for _look in argosy.jobs.follow(job_id, beside=lambda _view: reader.drain()):
                pass


class _Reader:
    """Prints a log's lines once each."""

    def __init__(self, argosy: Argosy, job: str, search: str | None, level: str | None) -> None:
        self._argosy = argosy
        self._job = job
        self._search = search
        self._level = level
        self._cursor: str | None = None

    def last(self, count: int) -> None:
        """Print the last lines."""
        page = self._argosy.jobs.log_page(
            self._job, search=self._search, level=self._level, tail=count
        )
        for line in page.items:
            _print(line)
        self._cursor = page.next

    def drain(self) -> None:
        """Print what there is and was not printed."""
        while True:
            page = self._argosy.jobs.log_page(
                self._job, self._cursor, search=self._search, level=self._level
            )
            for line in page.items:
                _print(line)
            # Also where nothing was found: what was searched is not searched again.
            before, self._cursor = self._cursor, page.next or self._cursor
            if not page.items or self._cursor == before:
                return


def _print(line: LogLine) -> None:
    from rich.text import Text

    from orchestrator.cli import console

    style = _STYLES.get(line.level, "not dim")
    at = Text(f"{line.at.astimezone():%H:%M:%S} ", "dim")
    console.out().print(at.append(console.clean(line.text), style), soft_wrap=True)
