"""``python -m workers.environment.start DRIVER``: how a driver starts whose code has requirements.

It sees to the packages and then becomes the driver. Where they cannot be had, its last
line says why and its exit code that another attempt would not help.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from schemas.errors import Exit
from workers.environment.overlay import ensure, search_path, wanted
from workers.errors import JobFailed, WorkerError
from workers.order import NO_ENVIRONMENT


def main(driver: str) -> None:
    """Become the driver, a module, or exit."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    env = dict(os.environ)
    asked = wanted(env, Path.cwd())
    try:
        if asked is not None:
            packages = ensure(asked, inherit=True)
            env["PYTHONPATH"] = search_path(env.get("PYTHONPATH", ""), str(packages))
    except JobFailed as error:
        _end(error.detail, NO_ENVIRONMENT)
    except (WorkerError, OSError) as error:
        _end(f"the environment could not be made: {error}", Exit.FAILED)
    os.execve(sys.executable, [sys.executable, "-m", driver], env)  # noqa: S606 - no shell is meant


def _end(line: str, code: int) -> NoReturn:
    sys.stderr.write(" ".join(line.split()) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
