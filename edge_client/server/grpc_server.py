"""The gRPC half of the local server: ``inference.GRPCInferenceService``, in the same loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from edge_client.errors import EdgeError, ServeError
from edge_client.server.addresses import Address, TcpAddress, UnixAddress
from edge_client.server.desk import Desk
from edge_client.server.failures import kind_of, text_of
from edge_client.server.limits import Limits
from edge_client.server.listening import taken_path
from edge_client.server.served import Outcome, Served

try:
    import grpc  # type: ignore[import-untyped]

    from edge_client.server.grpc_codec import ask_of, response_of
    from edge_client.server.grpc_messages import MESSAGES, SERVICE
except ImportError as missing:
    _msg = f"gRPC needs the extra grpc: {missing}"
    raise ServeError(_msg, hint="pip install 'argosy[edge,grpc]'") from missing

_METADATA_BYTES = 16 * 1024

log = logging.getLogger(__name__)


class Service:
    """Answers calls, all in the loop's thread."""

    def __init__(self, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        self._desk, self._loop = desk, loop

    def live(self, _: Any) -> Any:
        """ServerLive."""
        return MESSAGES["ServerLiveResponse"](live=True)

    def ready(self, _: Any) -> Any:
        """ServerReady."""
        return MESSAGES["ServerReadyResponse"](ready=self._desk.ready())

    def model_ready(self, request: Any) -> Any:
        """ModelReady."""
        ready = self._desk.model_ready(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=ready)

    def server_metadata(self, _: Any) -> Any:
        """ServerMetadata."""
        about = self._desk.server()
        return MESSAGES["ServerMetadataResponse"](
            name=about.name, version=about.version, extensions=about.extensions
        )

    def model_metadata(self, request: Any) -> Any:
        """ModelMetadata."""
        about = self._desk.metadata(request.name, request.version)
        made = MESSAGES["ModelMetadataResponse"](
            name=about.name, versions=about.versions, platform=about.platform
        )
        for tensors, side in ((made.inputs, about.inputs), (made.outputs, about.outputs)):
            for one in side:
                tensors.add(name=one.name, datatype=one.datatype, shape=one.shape)
        return made

    def statistics(self, request: Any) -> Any:
        """ModelStatistics."""
        made = MESSAGES["ModelStatisticsResponse"]()
        for one in self._desk.figures(request.name, request.version):
            line = made.model_stats.add(
                name=one.name,
                version=one.version,
                last_inference=one.last_inference,
                inference_count=one.inference_count,
                execution_count=one.execution_count,
            )
            for name in one.inference_stats.__struct_fields__:
                figure = getattr(one.inference_stats, name)
                target = getattr(line.inference_stats, name)
                target.count, target.ns = figure.count, figure.ns
        return made

    def index(self, _: Any) -> Any:
        """RepositoryIndex."""
        made = MESSAGES["RepositoryIndexResponse"]()
        for one in self._desk.index():
            made.models.add(name=one.name, version=one.version, state=one.state, reason=one.reason)
        return made

    async def infer(self, request: Any) -> Any:
        """ModelInfer.

        Raises:
            EdgeError: there is no result.
        """
        ask = ask_of(request, time.perf_counter())
        later: asyncio.Future[Outcome] = self._loop.create_future()
        outcome = self._desk.infer(ask, partial(self._done, later))
        if outcome is None:
            # Shielded: a call that its client gave up still tells the desk how it ended.
            waiting = asyncio.ensure_future(self._heard(ask, later))
            outcome = await asyncio.shield(waiting)
        if not isinstance(outcome, Served):
            raise outcome
        start = time.perf_counter()
        response = response_of(ask, outcome)
        key = (outcome.slot.model, outcome.slot.version)
        written = time.perf_counter() - start
        self._desk.statistics.succeeded(key, outcome.n, outcome.times, written)
        return response

    async def _heard(self, ask: Any, later: asyncio.Future[Outcome]) -> Outcome:
        outcome = await later
        self._desk.heard(ask, outcome)
        return outcome

    def _done(self, later: asyncio.Future[Outcome], outcome: Outcome) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(later.set_result, outcome)
        except RuntimeError:
            log.debug("an inference ended after the local server")


@contextlib.asynccontextmanager
async def serving(
    desk: Desk, addresses: Sequence[Address], limits: Limits
) -> AsyncIterator[tuple[Address, ...]]:
    """A gRPC server on each address, until the end of the block.

    Raises:
        ServeError: an address cannot be taken.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.body),
            ("grpc.max_send_message_length", limits.held),
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=limits.connections,
    )
    service = Service(desk, asyncio.get_running_loop())
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, _methods(service)),)
    )
    with contextlib.ExitStack() as stack:
        bound = tuple(_bind(server, address, stack) for address in addresses)
        await server.start()
        try:
            yield bound
        finally:
            await server.stop(limits.drain_seconds)


def _bind(server: Any, address: Address, stack: contextlib.ExitStack) -> Address:
    if isinstance(address, UnixAddress):
        stack.enter_context(taken_path(address, lambda path: _listen(server, f"unix:{path}")))
        return address
    return TcpAddress(address.host, _listen(server, str(address)))


def _listen(server: Any, where: str) -> int:
    try:
        return int(server.add_insecure_port(where))
    except RuntimeError as error:
        # It says no more, and the reason to stderr by itself.
        msg = f"cannot listen on {where} for gRPC: it is taken, or may not be used"
        raise ServeError(msg, hint="choose another address") from error


def _methods(service: Service) -> dict[str, Any]:
    plain: dict[str, Callable[[Any], Any]] = {
        "ServerLive": service.live,
        "ServerReady": service.ready,
        "ModelReady": service.model_ready,
        "ServerMetadata": service.server_metadata,
        "ModelMetadata": service.model_metadata,
        "ModelStatistics": service.statistics,
        "RepositoryIndex": service.index,
    }
    methods = {name: _method(name, _answering(call)) for name, call in plain.items()}
    methods["ModelInfer"] = _method("ModelInfer", _telling(service.infer))
    return methods


def _method(name: str, behaviour: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=MESSAGES[f"{name}Request"].FromString,
        response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
    )


def _answering(call: Callable[[Any], Any]) -> Any:
    async def behaviour(request: Any) -> Any:
        return call(request)

    return _telling(behaviour)


def _telling(call: Callable[[Any], Awaitable[Any]]) -> Any:
    """Tell errors as gRPC does: a code and a line."""

    async def behaviour(request: Any, context: Any) -> Any:
        try:
            return await call(request)
        except EdgeError as error:
            code = getattr(grpc.StatusCode, kind_of(error).code)
            await context.abort(code, text_of(error)[:2000])
        except Exception:
            log.exception("a call to the local server failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log says why")

    return behaviour
