"""``argosy job run-local``: the training program as a child of this one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import rich_click as click

NEEDED = ("torch", "onnx", "onnxruntime", "sklearn")
_SHELL_SIGNALS = 128


@click.command("run-local")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Empty folder for the model and its figures.",
)
def run_local(file: Path, out: Path) -> int:
    """Run the job of FILE in one process, without Ray and without a platform.

    It trains, exports and optimizes as a cluster would. Under a debugger:
    `python -m pdb -m workers.cli run-local FILE --out DIR`.
    """
    from orchestrator.cli import console
    from orchestrator.cli.jobfile import load_job

    loaded = load_job(file)
    if loaded.spec.batch is not None:
        from orchestrator.errors import Invalid

        detail = f"{file} is batch inference, which runs on a cluster"
        raise Invalid(detail, hint="queue it with `argosy job submit`")
    if loaded.spec.base is not None or loaded.spec.onnx is not None:
        from orchestrator.errors import Invalid

        detail = f"{file} begins with what is in the registry, or goes into it"
        raise Invalid(detail, hint="queue it with `argosy job submit`")
    for note in loaded.notes:
        console.say(f"note: {note}", style="yellow")
    check_installed(NEEDED)
    command = [sys.executable, "-m", "workers.cli", "run-local", str(file), "--out", str(out)]
    return run_child(command)


def check_installed(modules: Sequence[str]) -> None:
    """See that what training needs is here, without importing it.

    Raises:
        Unavailable: something is not.
    """
    from importlib.util import find_spec

    from orchestrator.errors import Unavailable

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        detail = f"training on this machine needs {', '.join(missing)}, which it does not have"
        raise Unavailable(detail, hint="install it with `pip install 'argosy[train]'`")


def run_child(command: Sequence[str]) -> int:
    """Run a program on this terminal; its exit code, as a shell would tell it.

    Ctrl-C reaches it through the terminal, and it ends as it likes; SIGTERM is passed on.
    """
    child: subprocess.Popen[bytes] | None = None
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        if child is not None:
            child.terminate()

    # Handlers, and not SIG_IGN, which the child would inherit.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
    }
    try:
        child = subprocess.Popen(command)
        if stopped:
            child.terminate()
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else _SHELL_SIGNALS - code
