"""The table of audit actions in docs/access.md has those that the code writes, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.domain.acts import Act

ROOT = Path(__file__).parents[3]
_ADD = re.compile(r"audit\.add\(\s*(f?)\"([^\"]+)\"")
_BY_ACT = "rollout.{act.value}"
_BY_END = "rollout.{kind.value}"  # of a rollout whose place another takes


def written() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for is_format, action in _ADD.findall(path.read_text()):
            if not is_format:
                found.add(action)
            elif action == _BY_ACT:
                found |= {f"rollout.{act.value}" for act in Act}
            else:
                assert action == _BY_END, f"{path}: which actions does {action} write?"
                found |= {"rollout.finish", "rollout.abort"}
    return found


def test_the_table_of_audit_actions_is_whole() -> None:
    text = (ROOT / "docs" / "access.md").read_text()
    table = text.partition("| actions |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[1:] if line.startswith("| `")]
    told = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", " ".join(rows)))
    assert len(told) > 40
    assert told == written()
