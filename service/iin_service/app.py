"""Ray: the only module that knows it. The deployment, and bringing it up and down."""

import asyncio
import contextlib
import gc
import io
import logging
import math
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from iin_api.inference import grpc_service_pb2 as inference_pb
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import check_golden, read_bundle
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions
from ray.serve.exceptions import RayServeException

from iin_service.answering import Answering
from iin_service.engine import Engine
from iin_service.health import Health
from iin_service.inference import InferenceRpcs
from iin_service.inputs import InputReader
from iin_service.items import Limits
from iin_service.metrics import Metrics
from iin_service.requests import RequestReader
from iin_service.rpc import InterpretationRpcs
from iin_service.sessions import Sessions

if TYPE_CHECKING:
    from grpc_health.v1 import health_pb2
    from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

__all__ = ["Replica", "ServeOptions", "deploy", "join_ray", "start_ray", "stop"]

SERVICER_FUNCTIONS = [
    "iin_api.v1.interpretation_pb2_grpc.add_InterpretationServiceServicer_to_server",
    "iin_api.inference.grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
]
# Calls in a replica at once: past the queues' own bounds, so that those give the clearer answer.
MAX_ONGOING_REQUESTS = 2048
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # nothing passes through Ray's object store; this is its least
# Python's 5 ms would let a busy event loop keep the thread that runs the graphs waiting as long as a batch takes.
SWITCH_SECONDS = 0.0001
DEPLOYMENT = "Interpretation"
DESCRIBE_SECONDS = 5.0  # that another application may take to say what it serves
LOGGING = {"log_level": "WARNING", "enable_access_log": False}
logger = logging.getLogger("iin_service")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How an application is deployed."""

    application: str
    """Name of the Serve application; callers choose it with the metadata key `application`."""
    bundle: Path
    """Bundle directory, as the replicas see it."""
    replicas: int = 1
    """Number of replicas."""
    cpus: int = 1
    """Cores of a replica; its graphs use as many threads."""
    gpus: float = 0.0
    """GPUs of a replica; above 0 its graphs run on CUDA."""


class Replica:
    """One replica: all graphs of a bundle, answering gRPC calls itself.

    Serve calls the method that bears the RPC's name; the parameter `grpc_context` is found by name.
    """

    def __init__(self, *, threads: int, gpu: bool) -> None:
        """The bundle follows in `reconfigure`."""
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logger.setLevel(logging.INFO)
        self._threads, self._gpu = threads, gpu
        self._health = Health()
        self._metrics = Metrics()
        self._answering = Answering(self._metrics)
        self._rpcs: InterpretationRpcs
        self._inference: InferenceRpcs

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load and verify the bundle named in `user_config`, then serve it in place of the one before.

        Calls under way end on the bundle that they began with.
        """
        self._rpcs, self._inference = await asyncio.to_thread(self._load, user_config["bundle"])

    def _load(self, path: str) -> tuple[InterpretationRpcs, InferenceRpcs]:
        gc.unfreeze()
        bundle = read_bundle(path)
        sessions = Sessions(bundle, threads=self._threads, gpu=self._gpu)
        check_golden(bundle, sessions.run)
        gc.collect()
        gc.freeze()  # what a replica holds for good is not looked through again
        gc.set_threshold(20_000, 20, 20)
        sys.setswitchinterval(SWITCH_SECONDS)
        limits = Limits()
        engine = Engine(bundle.manifest, sessions.runner, limits, self._metrics)
        items = InputReader(bundle.manifest, limits, self._metrics)
        return (
            InterpretationRpcs(engine, RequestReader(items), self._answering, _list_models),
            InferenceRpcs(engine, items, self._answering),
        )

    async def describe(self) -> bytes:
        """The answer to GetModel, serialised; other applications ask for it."""
        return self._rpcs.description().SerializeToString()

    async def Interpret(
        self, request: pb.InterpretRequest, grpc_context: "RayServegRPCContext"
    ) -> pb.InterpretResponse:
        """See interpretation.proto."""
        return await self._rpcs.interpret(request, grpc_context)

    async def Edit(self, request: pb.EditRequest, grpc_context: "RayServegRPCContext") -> pb.EditResponse:
        """See interpretation.proto."""
        return await self._rpcs.edit(request, grpc_context)

    async def Sample(
        self, request: pb.SampleRequest, grpc_context: "RayServegRPCContext"
    ) -> AsyncIterator[pb.SampleResponse]:
        """See interpretation.proto."""
        async for response in self._rpcs.sample(request, grpc_context):
            yield response

    async def Traverse(
        self, request: pb.TraverseRequest, grpc_context: "RayServegRPCContext"
    ) -> AsyncIterator[pb.TraverseResponse]:
        """See interpretation.proto."""
        async for response in self._rpcs.traverse(request, grpc_context):
            yield response

    async def InterpretStream(
        self, requests: "gRPCInputStream[pb.InterpretStreamRequest]"
    ) -> AsyncIterator[pb.InterpretStreamResponse]:
        """See interpretation.proto."""
        async for response in self._rpcs.interpret_stream(requests):
            yield response

    async def EditStream(
        self, requests: "gRPCInputStream[pb.EditStreamRequest]"
    ) -> AsyncIterator[pb.EditStreamResponse]:
        """See interpretation.proto."""
        async for response in self._rpcs.edit_stream(requests):
            yield response

    async def Respond(self, request: pb.RespondRequest, grpc_context: "RayServegRPCContext") -> pb.RespondResponse:
        """See interpretation.proto."""
        return await self._rpcs.respond(request, grpc_context)

    async def GetModel(self, request: pb.GetModelRequest, grpc_context: "RayServegRPCContext") -> pb.GetModelResponse:
        """See interpretation.proto."""
        return await self._rpcs.get_model(request, grpc_context)

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: "RayServegRPCContext"
    ) -> pb.ListModelsResponse:
        """See interpretation.proto."""
        return await self._rpcs.list_models(request, grpc_context)

    async def ServerLive(self, request: inference_pb.ServerLiveRequest) -> inference_pb.ServerLiveResponse:
        """See grpc_service.proto."""
        return inference_pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: inference_pb.ServerReadyRequest) -> inference_pb.ServerReadyResponse:
        """See grpc_service.proto."""
        return inference_pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: inference_pb.ServerMetadataRequest) -> inference_pb.ServerMetadataResponse:
        """See grpc_service.proto."""
        return await self._inference.server_metadata()

    async def ModelReady(self, request: inference_pb.ModelReadyRequest) -> inference_pb.ModelReadyResponse:
        """See grpc_service.proto."""
        return await self._inference.model_ready(request)

    async def ModelMetadata(
        self, request: inference_pb.ModelMetadataRequest, grpc_context: "RayServegRPCContext"
    ) -> inference_pb.ModelMetadataResponse:
        """See grpc_service.proto."""
        return await self._inference.model_metadata(request, grpc_context)

    async def ModelInfer(
        self, request: inference_pb.ModelInferRequest, grpc_context: "RayServegRPCContext"
    ) -> inference_pb.ModelInferResponse:
        """See grpc_service.proto."""
        return await self._inference.model_infer(request, grpc_context)

    async def Check(
        self, request: "health_pb2.HealthCheckRequest", grpc_context: "RayServegRPCContext"
    ) -> "health_pb2.HealthCheckResponse":
        """See grpc/health/v1/health.proto."""
        return await self._health.check(request, grpc_context)

    async def Watch(
        self, request: "health_pb2.HealthCheckRequest", grpc_context: "RayServegRPCContext"
    ) -> "AsyncIterator[health_pb2.HealthCheckResponse]":
        """See grpc/health/v1/health.proto."""
        async for response in self._health.watch(request, grpc_context):
            yield response


async def _list_models() -> list[pb.ServedModel]:
    """Every application of this service's kind, asked for its model."""
    status = await asyncio.to_thread(serve.status)
    names = [name for name, one in status.applications.items() if DEPLOYMENT in one.deployments]
    found = await asyncio.gather(*(_described(name) for name in names))
    return [
        pb.ServedModel(application=name, status=status.applications[name].status.name, description=description)
        for name, description in zip(names, found, strict=True)
    ]


async def _described(application: str) -> pb.GetModelResponse | None:
    try:
        handle = serve.get_app_handle(application)
        return pb.GetModelResponse.FromString(await asyncio.wait_for(handle.describe.remote(), DESCRIBE_SECONDS))
    except (RayServeException, ray.exceptions.RayError, TimeoutError):
        return None  # its status says what is wrong


def start_ray(folder: Path, *, cpus: int, gpus: float) -> None:
    """Start a Ray of our own with its files in `folder`."""
    ray.init(
        address="local",
        _temp_dir=str(folder / "ray"),
        num_cpus=cpus,
        num_gpus=math.ceil(gpus) or None,  # Ray counts whole GPUs, replicas take fractions
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        namespace="serve",
    )


def join_ray(address: str, settings: dict[str, str]) -> str:
    """Join a running Ray; `settings` are passed on to the Serve processes started from here.

    Returns:
        The address of the cluster's head, where Serve's ports are.

    """
    context = ray.init(
        address=address, runtime_env={"env_vars": settings}, logging_level=logging.ERROR, namespace="serve"
    )
    return str(context.address_info["gcs_address"]).rsplit(":", 1)[0]


def deploy(options: ServeOptions, *, host: str, port: int, http_port: int) -> None:
    """Start Serve with its gRPC port, unless it runs already, and wait until the application runs.

    Raises:
        RuntimeError: where the replicas do not start; the message holds the cause.

    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location=ProxyLocation.EveryNode,
        http_options=HTTPOptions(host=host, port=http_port),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=SERVICER_FUNCTIONS),
        logging_config=LOGGING,
    )
    if options.application in serve.status().applications:
        raise RuntimeError(
            f"--name: expected a name that no application has, but {options.application} runs; choose another"
        )
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=options.replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_queued_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        user_config={"bundle": str(options.bundle)},
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=10,
        logging_config=LOGGING,
    )(Replica)
    application = deployment.bind(threads=options.cpus, gpu=options.gpus > 0)
    try:
        serve.run(application, name=options.application, route_prefix=f"/{options.application}")
    except (RayServeException, RuntimeError) as error:
        status = serve.status().applications[options.application]
        causes = [one.message for one in status.deployments.values() if one.message]
        raise RuntimeError("\n".join(causes) or str(error)) from error


def stop(application: str | None, *, private: bool) -> None:
    """End the application, if it was deployed, after its calls, and with it a Ray of our own."""
    if not ray.is_initialized():
        return
    # Ray prints on a stop that its own controller was stopped.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(RayServeException):  # Serve itself may not have come up
            if application is not None:
                serve.delete(application)  # lets calls under way end; a bare shutdown would cut them
            if private:
                serve.shutdown()
        ray.shutdown()
