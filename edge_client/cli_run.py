"""``argosy-edge run``: the agent, and how it is told to infer."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import rich_click as click

from edge_client.cli_common import end, home_option, log_to_stderr

_source = partial(click.option, panel="Samples to infer over")
_models = partial(click.option, panel="Models")
_inference = partial(click.option, panel="Inference")
_server = partial(click.option, panel="Local server")
_telemetry = partial(click.option, panel="Telemetry")


@click.command()
@home_option
@_server("--serve", multiple=True, metavar="ADDRESS",
              help="Serve the Open Inference Protocol by HTTP there: a port of this machine"
              " (127.0.0.1:8000) or unix:/path. May be given several times.")  # fmt: skip
@_server("--serve-grpc", multiple=True, metavar="ADDRESS",
              help="The same by gRPC; needs argosy[grpc].")  # fmt: skip
@_server("--max-batch", type=click.IntRange(1, 65_536), default=32, show_default=True,
              help="Samples of requests that may go into one inference together.")  # fmt: skip
@_server("--max-delay", type=click.FloatRange(0, 60_000), default=0.0, show_default=True,
              metavar="MS", help="Wait so long for others to join a batch.")  # fmt: skip
@_server("--queue", type=click.IntRange(1, 1_000_000), default=256, show_default=True,
              help="Requests that may wait; more are refused.")  # fmt: skip
@_inference("--threads", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Threads that one inference may use.")  # fmt: skip
@_inference("--provider", metavar="NAME",
              help="Execution provider to use: cpu, cuda, tensorrt, openvino, or its full name."
              " Where it cannot run the model, that is an error.")  # fmt: skip
@_inference("--provider-fallback", is_flag=True,
              help="Use the CPU then, and say so in telemetry.")  # fmt: skip
@_inference("--spin", is_flag=True,
              help="Let threads wait actively for work: sooner, for much more CPU.")  # fmt: skip
@_inference("--arena/--no-arena", default=True, show_default=True,
              help="Keep memory between inferences: faster, for more memory.")  # fmt: skip
@_models("--bandwidth", type=click.IntRange(min=1024), metavar="BYTES_PER_S",
              help="Fetch models no faster than this.")  # fmt: skip
@_models("--https/--no-https", default=False, show_default=True, envvar="ARGOSY_EDGE_HTTPS",
              help="Fetch models by HTTPS where the server offers it.")  # fmt: skip
@_models("--disk-quota", type=click.IntRange(min=1), default=2 * 1024**3, metavar="BYTES",
              help="Room for models.  [default: 2 GiB]")  # fmt: skip
@_models("--bench/--no-bench", default=True, show_default=True, envvar="ARGOSY_EDGE_BENCH",
              help="Measure each variant once, in peace, after it became active.")  # fmt: skip
@_telemetry("--window", type=click.FloatRange(0.2, 3600), metavar="SECONDS",
              help="Tell what was inferred so often.  [default: every 5 s during an update and 15"
              " minutes after it, else every 60 s]")  # fmt: skip
@_telemetry("--samples", type=click.IntRange(0, 3600), default=0, show_default=True,
              envvar="ARGOSY_EDGE_SAMPLES", metavar="AN_HOUR",
              help="Send so many inputs an hour of each model to the operator, drawn at random, and"
              " as many of which it was unsure. Otherwise none leaves this device.")  # fmt: skip
@_source("--source", type=click.Path(path_type=Path, dir_okay=False),
              help="npz with x, or an array for each input, and perhaps y: samples to infer over"
              " and over.")  # fmt: skip
@_source("--source-model", metavar="MODEL",
              help="Feed them to this model alone, not to all that they fit.")  # fmt: skip
@_source("--rate", type=click.FloatRange(0.001, 10_000), default=10.0, show_default=True,
              help="Samples a second.")  # fmt: skip
@click.option("--watchdog", "hang_seconds", type=click.FloatRange(0.5, 86_400), default=60.0,
              show_default=True, envvar="ARGOSY_EDGE_WATCHDOG", metavar="SECONDS",
              help="End the agent when it, or an inference, hangs for so long.")  # fmt: skip
@click.option("--once", is_flag=True, help="End after one update: 0 if it succeeded, else 7.")
def run(home: Path, max_delay: float, **options: Any) -> None:
    """Serve the active models, and take updates, until SIGTERM or SIGINT.

    As in `argosy-edge run --serve 127.0.0.1:8000`: then programs on this machine send it requests.
    """
    from edge_client.lean import import_signers  # noqa: PLC0415 - a quick --help

    import_signers()
    from edge_client.agent import Agent  # noqa: PLC0415 - likewise
    from edge_client.lock import agent_lock  # noqa: PLC0415 - likewise
    from edge_client.settings import Home, RunSettings  # noqa: PLC0415 - likewise

    log_to_stderr()
    where = Home(home.expanduser())
    settings = RunSettings(max_delay=max_delay / 1000, **options)
    with agent_lock(where):
        agent = Agent(where, settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        code = agent.run()
    end(code)
