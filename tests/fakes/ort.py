"""An ONNX Runtime with providers that this machine lacks, over the real one on CPU.

What matters of the real thing: a provider that cannot start is left out of ``get_providers``
without an error, or raises; nodes that it does not take run on the next one; a profile is a
JSON file whose name ``end_profiling`` gives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as real

CPU = "CPUExecutionProvider"


@dataclass
class FakeOrt:
    """In the place of the module.

    has: providers that this build has. dead: those that do not start. takes: how many of a
    graph's nodes each takes; CPU gets the rest.
    """

    has: tuple[str, ...] = (CPU,)
    dead: tuple[str, ...] = ()
    raises: tuple[str, ...] = ()
    takes: dict[str, int] = field(default_factory=dict)
    nodes: int = 5
    asked: list[list[tuple[str, dict[str, str]]]] = field(default_factory=list)
    fallback_off: int = 0

    def get_available_providers(self) -> list[str]:
        return list(self.has)

    def InferenceSession(self, onnx, options, *, providers, enable_fallback):  # noqa: N802 - the real one's name
        assert enable_fallback == 0
        self.asked.append(providers)
        names = [name for name, _ in providers]
        for name in names:
            if name in self.raises:
                msg = f"[ONNXRuntimeError] : 1 : FAIL : {name} has no device\nmore"
                raise RuntimeError(msg)
        prefix = options.profile_file_prefix if options.enable_profiling else None
        plain = real.SessionOptions()
        session = real.InferenceSession(onnx, plain, providers=[CPU])
        return _Session(self, session, [n for n in names if n not in self.dead], prefix)


@dataclass
class _Session:
    ort: FakeOrt
    session: real.InferenceSession
    used: list[str]
    prefix: str | None

    def __getattr__(self, name):
        return getattr(self.session, name)

    def get_providers(self):
        return self.used

    def disable_fallback(self):
        self.ort.fallback_off += 1

    def end_profiling(self):
        left, events = self.ort.nodes, []
        for provider in self.used:
            took = left if provider == CPU else min(left, self.ort.takes.get(provider, 0))
            left -= took
            events += [
                {
                    "cat": "Node",
                    "name": f"node{left}_{i}_kernel_time",
                    "args": {"provider": provider, "node_index": str(i)},
                }
                for i in range(took)
            ]
        path = Path(f"{self.prefix}_now.json")
        path.write_text(json.dumps(events))
        return str(path)
