"""What a running agent must not cost: modules that it does without, and writes that say nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edge_client.live_file import AT_LEAST_SECONDS, LiveFile
from edge_client.status import Live

WITHOUT = {
    "httpx", "rich", "pygments", "rich_click", "click", "grpc", "PIL", "pyarrow", "pandas",
    "schemas.jobfile", "schemas.sweep",
    "onnx", "torch", "boto3", "botocore", "azure",
    "psutil", "fastapi", "sqlalchemy", "edge_client.bench", "edge_client.enroll",
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    code = (
        "import json, sys; from edge_client.lean import import_signers; import_signers();"
        "import edge_client.agent; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_an_agent_runs_without_what_is_rarely_used(loaded):
    assert "onnxruntime" in loaded
    assert sorted(WITHOUT & loaded) == []


def live(uptime: float, **more) -> Live:
    return Live(boot="0" * 32, connected=True, uptime=uptime, **more)


def test_the_live_file_is_written_when_it_says_something_new_and_once_a_minute(tmp_path):
    path, now = tmp_path / "agent.json", [0.0]
    file = LiveFile(path, lambda: now[0])
    written = 0
    for second in range(600):
        now[0] = float(second)
        written += file.tell(live(now[0]))
    assert written == 600 / AT_LEAST_SECONDS
    assert file.tell(live(600.0, windows_waiting=1))
    assert Live.model_validate_json(path.read_bytes()).windows_waiting == 1
    assert not file.tell(live(600.5, windows_waiting=1))
    path.unlink()
    assert file.tell(live(601.0, windows_waiting=1))
    assert path.exists()


def test_what_could_not_be_written_is_tried_again(tmp_path):
    file = LiveFile(tmp_path / "none" / "agent.json", lambda: 0.0)
    for _ in range(2):
        with pytest.raises(OSError, match="agent"):
            file.tell(live(0.0))
    (tmp_path / "none").mkdir()
    assert file.tell(live(0.0))
