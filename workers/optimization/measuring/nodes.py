"""Which execution provider runs how many nodes of a graph: asked of the runtime, not assumed.

ONNX Runtime's profile of one run names the provider of each node that ran, after all its
fusions; it is the same in every version that devices have. Nodes of a branch that was not
taken are not in it.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from workers.optimization.session import PROVIDER, Array, options

_SUFFIX = "_kernel_time"


def count_nodes(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Nodes per execution provider in a profile; one that ran often counts once."""
    seen: set[tuple[str, str, str]] = set()
    for event in events:
        args = event.get("args", {})
        name, provider = str(event.get("name", "")), args.get("provider")
        if event.get("cat") == "Node" and name.endswith(_SUFFIX) and provider:
            seen.add((str(provider), name, str(args.get("node_index", ""))))
    return dict(Counter(provider for provider, _, _ in seen))


def nodes_of(model: Path, feed: Mapping[str, Array]) -> dict[str, int]:
    """Run a model once and count; empty where the runtime wrote no readable profile."""
    with tempfile.TemporaryDirectory(prefix="argosy-nodes-") as folder:
        chosen = options()
        chosen.enable_profiling = True
        chosen.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(str(model), chosen, providers=[PROVIDER])
        session.run(None, dict(feed))
        try:
            events = json.loads(Path(session.end_profiling()).read_text())
        except (OSError, ValueError):
            return {}
    return count_nodes(events)
