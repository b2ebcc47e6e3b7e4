"""How a model's session runs: threads, memory and execution provider, chosen for small machines.

One thread and no spinning: a device's cores belong to the device, and a thread that spins
between two inferences costs several times the CPU of the inference itself (docs/inference.md
has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnxruntime as ort

MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session may use.

    threads: inside one operator. spinning: idle threads wait busily. arena: memory that an
    inference used is kept for the next one. provider: an execution provider by its name or its
    short form (``cuda``, ``openvino:GPU``), or None for what the variant asks for. fallback:
    where that provider cannot be had, CPU may take its place. provider_options: as ONNX
    Runtime's documentation of the provider names them.

    Raises:
        ValueError: a number of threads that cannot be meant.
    """

    threads: int = 1
    spinning: bool = False
    arena: bool = True
    provider: str | None = None
    fallback: bool = False
    provider_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            msg = f"threads must be 1..{MAX_THREADS}, not {self.threads}"
            raise ValueError(msg)

    def options(self) -> ort.SessionOptions:
        """As ONNX Runtime takes them; a new object each time, for sessions change theirs.

        All optimizations: at a lower level MobileNetV2 was three times slower.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.enable_cpu_mem_arena = self.arena
        options.enable_mem_pattern = self.arena
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if self.spinning else "0"
        )
        options.log_severity_level = 3
        return options
