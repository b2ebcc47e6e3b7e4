"""The broker may open as many files as the system allows, one for each device; nobody else may."""

from __future__ import annotations

import resource
import subprocess
import sys

from orchestrator.home import Home
from orchestrator.settings import Settings
from orchestrator.supervisor import children

_SAYS = """
import os, resource, sys
from pathlib import Path
from orchestrator.adapters.process_tree import Child, StopSignal, Supervisor
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
folder, stop = Path(sys.argv[3]), StopSignal()
says = "import resource, sys, time; from pathlib import Path;"
says += "Path(sys.argv[1]).write_text(str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]));"
says += "time.sleep(600)"
def child(name, many):
    def ready():
        return (folder / name).exists() and (folder / name).read_text() != ""
    command = (sys.executable, "-c", says, str(folder / name))
    return Child(name=name, command=command, ready=ready, many_files=many)
def told(event):
    if event.kind == "up":
        stop.request()
tree = [child("broker", True), child("server", False)]
Supervisor(tree, logs=folder, env=os.environ, mark="t", stop=stop, on_event=told).run()
"""


def limits(folder, soft: int, hard: int) -> tuple[int, int]:
    """Of a child that may open many, and of one started after it."""
    said = [sys.executable, "-c", _SAYS, str(soft), str(hard), str(folder)]
    subprocess.run(said, check=True, timeout=60)
    return int((folder / "broker").read_text()), int((folder / "server").read_text())


def test_a_child_gets_what_the_system_allows_and_the_others_what_they_had(tmp_path):
    """A program that waits by select() does not get on with files beyond 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    assert limits(tmp_path, 256, allowed) == (allowed, 256)


def test_it_is_the_broker_that_does(tmp_path, mosquitto):
    its = children(Settings(home=tmp_path), Home(tmp_path))
    assert {one.name: one.many_files for one in its} == {
        "broker": True,
        "server": False,
        "agent": False,
    }
