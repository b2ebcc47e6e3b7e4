"""Asking before what cannot be undone."""

from __future__ import annotations

import sys

import click

from orchestrator.errors import Invalid


def is_anyone_there() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if a person agrees.

    Args:
        question: what is about to happen, as a question.
        yes: it was agreed to on the command line.

    Raises:
        Invalid: nobody can be asked, and nobody agreed before.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not is_anyone_there():
        detail = "this needs a yes, and nobody can be asked here"
        raise Invalid(detail, hint="say --yes if it is meant")
    click.confirm(question, abort=True, err=True)
