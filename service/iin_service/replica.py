"""One replica: all graphs of a bundle, answering gRPC calls itself."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from grpc import StatusCode
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import check_golden, read_bundle
from pydantic import BaseModel
from ray import serve
from ray.serve.exceptions import RayServeException

from iin_service.answering import Answering
from iin_service.engine import Engine
from iin_service.faults import CallContext, logger
from iin_service.graphs import Compute
from iin_service.health import Health
from iin_service.inference import InferenceRpcs
from iin_service.inputs import InputReader
from iin_service.items import Limits
from iin_service.metrics import Metrics
from iin_service.requests import RequestReader
from iin_service.rpc import InterpretationRpcs
from iin_service.sessions import Sessions

if TYPE_CHECKING:
    from ray.serve.grpc_util import RayServegRPCContext

__all__ = ["DEPLOYMENT", "DESCRIBE_SECONDS", "Replica"]

DEPLOYMENT = "Interpretation"
DESCRIBE_SECONDS = 5.0  # that another application may take to say what it serves
# Python's 5 ms would let a busy event loop keep the thread that runs the graphs waiting as long as a batch takes.
SWITCH_SECONDS = 0.0001
TIDY_SECONDS = 60.0
STATES: dict[str, Any] = {  # Any: enum values are typed otherwise than they run
    name.removeprefix("APPLICATION_STATE_"): value for name, value in pb.ApplicationState.items()
}


class UserConfig(BaseModel, extra="forbid", title="user_config"):
    """`user_config` of the deployment in a Serve configuration."""

    bundle: str
    """Path of the bundle's directory, as the replica sees it."""
    manifest_sha256: str | None = None
    """Differs where the bundle at the path was exchanged, so that Serve sees a change; not compared with the file."""


# Any: the messages of an RPC; typed where it is answered. Serve finds the parameter `grpc_context` by its name.
def _unary(method: "Callable[[Replica], Callable[[Any, CallContext], Awaitable[Any]]]") -> Callable[..., Any]:
    """An RPC with one answer: calls `method` of the bundle that is served when the call arrives."""

    async def answer(self: "Replica", request: Any, grpc_context: "RayServegRPCContext") -> Any:
        return await method(self)(request, grpc_context)

    return answer


def _stream(method: "Callable[[Replica], Callable[[Any, CallContext], AsyncGenerator[Any]]]") -> Callable[..., Any]:
    """An RPC with a stream of answers, as `_unary`; `request` may be a stream too."""

    async def answers(self: "Replica", request: Any, grpc_context: "RayServegRPCContext") -> AsyncIterator[Any]:
        async with aclosing(method(self)(request, grpc_context)) as responses:
            async for response in responses:
                yield response
                del response  # an idle stream holds nothing
        _raise_for_proxy(grpc_context)

    return answers


class Replica:
    """One replica: all graphs of a bundle, answering gRPC calls itself; Serve calls what bears the RPC's name."""

    def __init__(self, *, threads: int, gpu: bool, gpu_memory_bytes: int | None = None) -> None:
        """The bundle follows in `reconfigure`."""
        # Not sys.stderr, which is Serve's own: Ray shows this one in the terminal of iin-serve.
        logger.addHandler(logging.StreamHandler(sys.__stderr__))
        self._threads, self._gpu, self._gpu_memory_bytes = threads, gpu, gpu_memory_bytes
        gc.set_threshold(20_000, 20, 20)
        sys.setswitchinterval(SWITCH_SECONDS)
        # Shared by all bundles: the bounds of a replica hold for calls on the bundle before, too.
        self._health = Health()
        self._metrics = Metrics()
        self._gauges: asyncio.Task[None] | None = None
        self._answering = Answering(self._metrics)
        self._compute = Compute(Limits(), self._metrics, threads=threads)
        self._listed: set[str] = set()
        """Names of the applications that run this service."""
        self._loading = asyncio.Lock()
        """Held while a bundle is loaded: Ray may call `reconfigure` again before it has returned."""
        self._loaded: dict[str, Any] | None = None
        """The `user_config` of the bundle that is served."""
        self._verify: Callable[[], object]
        """Runs the golden inputs; raises where the graphs do not reproduce their outputs."""
        self._rpcs: InterpretationRpcs
        self._inference: InferenceRpcs

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load and verify the bundle named in `user_config`, then serve it in place of the one before.

        Calls under way end on the bundle that they began with. If the new one cannot be served, the one before stays:
        Serve would end a replica that raises here, and start others with the same fault. The log, a metric and
        GetModel show it.

        Raises:
            BundleError: if the first bundle cannot be served; ValueError if `user_config` itself is wrong.

        """
        if self._gauges is None:
            self._gauges = asyncio.create_task(self._metrics.keep_gauges())
        async with self._loading:
            if user_config == self._loaded:  # Ray also calls when only the replica's rank has changed
                self._metrics.bundle_refused(False)
                return
            try:
                loaded = await asyncio.to_thread(self._load, UserConfig.model_validate(user_config).bundle)
                self._verify, self._rpcs, self._inference = loaded
            except Exception as error:
                if self._loaded is None:
                    raise
                logger.error("bundle refused, the one before is still served: %s", error)
                self._metrics.bundle_refused(True)
                return
            self._loaded = user_config
            self._metrics.bundle_refused(False)
            _tidy()
            # Calls that began on the bundle before hold it for a while.
            asyncio.get_running_loop().call_later(TIDY_SECONDS, _tidy)

    async def check_health(self) -> None:
        """Serve calls this every few seconds, and replaces a replica that raises.

        After a graph has raised, the golden inputs are run again: a lost GPU fails them for good.
        """
        if self._loaded is None:  # without a `user_config` Serve never calls `reconfigure`
            raise ValueError("user_config: expected bundle, a path, got none")
        if self._metrics.doubtful:
            self._metrics.doubtful = False
            try:
                await asyncio.to_thread(self._verify)
            except Exception:
                self._metrics.doubtful = True
                raise

    def _load(self, path: str) -> tuple[Callable[[], object], InterpretationRpcs, InferenceRpcs]:
        bundle = read_bundle(path)
        sessions = Sessions(bundle, threads=self._threads, gpu=self._gpu, gpu_memory_bytes=self._gpu_memory_bytes)
        verify = partial(check_golden, bundle, sessions.run)
        verify()
        engine = Engine(bundle.manifest, sessions.run, self._compute)
        items = InputReader(bundle.manifest, self._compute)
        return (
            verify,
            InterpretationRpcs(engine, RequestReader(items), self._answering, partial(_list_models, self._listed)),
            InferenceRpcs(engine, items, self._answering),
        )

    async def describe(self) -> bytes:
        """The answer to GetModel, serialised; other applications ask for it."""
        return self._rpcs.description().SerializeToString()

    # By their names in interpretation.proto, grpc_service.proto and grpc/health/v1/health.proto.
    Interpret = _unary(lambda self: self._rpcs.interpret)
    Edit = _unary(lambda self: self._rpcs.edit)
    Sample = _stream(lambda self: self._rpcs.sample)
    Traverse = _stream(lambda self: self._rpcs.traverse)
    InterpretStream = _stream(lambda self: self._rpcs.interpret_stream)
    EditStream = _stream(lambda self: self._rpcs.edit_stream)
    Respond = _unary(lambda self: self._rpcs.respond)
    GetModel = _unary(lambda self: self._rpcs.get_model)
    ListModels = _unary(lambda self: self._rpcs.list_models)
    ServerLive = _unary(lambda self: self._inference.server_live)
    ServerReady = _unary(lambda self: self._inference.server_ready)
    ServerMetadata = _unary(lambda self: self._inference.server_metadata)
    ModelReady = _unary(lambda self: self._inference.model_ready)
    ModelMetadata = _unary(lambda self: self._inference.model_metadata)
    ModelInfer = _unary(lambda self: self._inference.model_infer)
    Check = _unary(lambda self: self._health.check)
    List = _unary(lambda self: self._health.list)
    Watch = _stream(lambda self: self._health.watch)


for _name, _rpc in vars(Replica).items():
    if _name[0].isupper():  # so Serve's log, tracebacks and profiles call it
        _rpc.__name__, _rpc.__qualname__ = _name, f"{Replica.__qualname__}.{_name}"


def _tidy() -> None:
    """Collect garbage, and keep what is left, which a replica holds for good, out of later collections."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _raise_for_proxy(context: "RayServegRPCContext") -> None:
    """Raise at the end of a stream that failed, if Serve's proxy in Python made the call.

    That proxy, which stands in for HAProxy while that finds no replica, takes a stream's status from an exception; its
    calls are Ray tasks. A call by HAProxy is none, and an exception would cost its status the details.
    """
    task = ray.get_runtime_context().get_task_name() or ""
    if context.code() not in (None, 0, StatusCode.OK) and ".handle_request" in task:
        raise RuntimeError(context.details())


async def _list_models(listed: set[str]) -> list[pb.ServedModel]:
    """Every application that runs this service, with its answer to GetModel; see `_applications`."""
    states = await asyncio.to_thread(_applications, listed)
    descriptions = await asyncio.gather(*map(_described, states))
    return [
        pb.ServedModel(
            application=name, state=STATES.get(state, pb.APPLICATION_STATE_UNSPECIFIED), description=description
        )
        for (name, state), description in zip(states.items(), descriptions, strict=True)
    ]


def _applications(listed: set[str]) -> dict[str, str]:
    """State of each application that runs this service, by name; blocks until Serve's controller answers.

    `listed` keeps the names between calls, because an application that is being deleted has no deployments any more.
    """
    applications = serve.status().applications
    listed.intersection_update(applications)
    listed.update(name for name, one in applications.items() if DEPLOYMENT in one.deployments)
    return {name: one.status.name for name, one in applications.items() if name in listed}


async def _described(name: str) -> pb.GetModelResponse | None:
    """What an application answers to GetModel; None where its state says why it does not answer."""
    try:
        handle = await asyncio.to_thread(serve.get_app_handle, name)
        return pb.GetModelResponse.FromString(await asyncio.wait_for(handle.describe.remote(), DESCRIBE_SECONDS))
    except (RayServeException, ray.exceptions.RayError, TimeoutError):
        return None
