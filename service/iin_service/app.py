"""Bringing Ray and Serve applications up and down."""

import contextlib
import io
import logging
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import ray
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import read_bundle
from iin_bundle.manifest import MANIFEST_NAME
from iin_bundle.version import __version__
from iin_bundle.writing import file_digest
from pydantic import BaseModel, Field, model_validator
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions
from ray.serve.exceptions import RayServeException

from iin_service import responses
from iin_service.configuration import shipped_configuration
from iin_service.replica import DEPLOYMENT, DESCRIBE_SECONDS, Replica

__all__ = ["BuildArguments", "build", "deploy", "join_ray", "start_ray", "start_serve", "stop"]

OBJECT_STORE_BYTES = 80 * 1024 * 1024  # nothing passes through Ray's object store; this is its least
WATCH_SECONDS = 2.0  # between two looks at a deployment that is waited for


class BuildArguments(BaseModel, extra="forbid"):
    """Arguments of `build` in a Serve configuration."""

    cpus: int = Field(1, ge=1)
    """Cores of a replica; its graphs use as many threads."""
    gpus: float = Field(0.0, ge=0)
    """GPUs of a replica; above 0 its graphs run on CUDA."""
    gpu_memory_bytes: int | None = Field(None, ge=1)
    """GPU memory that one bundle's graphs may take, see `Sessions`; None: what there is."""

    @model_validator(mode="after")
    def _cap_needs_a_gpu(self) -> Self:
        if self.gpu_memory_bytes is not None and not self.gpus:
            raise ValueError(
                f"gpu_memory_bytes: expected none with gpus 0, got {self.gpu_memory_bytes}; leave it out, or raise gpus"
            )
        return self


def build(arguments: BuildArguments) -> serve.Application:
    """The application of one bundle, which `user_config` of the deployment names: for a Serve configuration."""
    return _deployment(arguments.cpus, arguments.gpus).bind(
        threads=arguments.cpus, gpu=arguments.gpus > 0, gpu_memory_bytes=arguments.gpu_memory_bytes
    )


def _deployment(cpus: int, gpus: float, **options: Any) -> serve.Deployment:
    """With Serve's `options`. In a cluster none are given: its configuration has them, and Ray would prefer these."""
    actor = {"num_cpus": cpus, "num_gpus": gpus}
    deployment: serve.Deployment = serve.deployment(name=DEPLOYMENT, ray_actor_options=actor, **options)(Replica)
    return deployment


def start_ray(folder: Path, *, replicas: int, cpus: int, gpus: float) -> None:
    """Start a Ray of our own with its files in `folder` and room for replicas of so many `cpus` and `gpus` each.

    `gpus` is a whole number where it is above 1.
    """
    whole_gpus = int(replicas * gpus) or None
    if 0 < gpus < 1:  # a replica takes its part of one GPU: parts left on several GPUs do not add up
        whole_gpus = math.ceil(replicas / int(1 / gpus))
    with _starting("Ray"):
        ray.init(
            address="local",
            _temp_dir=str(folder / "ray"),
            num_cpus=replicas * cpus,
            num_gpus=whole_gpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.ERROR,
            namespace="serve",
        )


@contextlib.contextmanager
def _starting(what: str) -> Iterator[None]:
    """Raise RuntimeError if `what` does not start: Ray raises nearly anything, for example on a busy machine."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"{what} did not start: {error}") from error


def join_ray(address: str, settings: dict[str, str]) -> str:
    """Join a running Ray; `settings` are passed on to the Serve processes started from here.

    Returns:
        The address of the cluster's head, where Serve's ports are.

    """
    context = ray.init(
        address=address, runtime_env={"env_vars": settings}, logging_level=logging.ERROR, namespace="serve"
    )
    return str(context.address_info["gcs_address"]).rsplit(":", 1)[0]


def start_serve(*, host: str, port: int, http_port: int) -> None:
    """Start Serve with its gRPC port, unless it runs already."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    configuration = shipped_configuration()
    with _starting("Serve"):
        serve.start(
            proxy_location=ProxyLocation.EveryNode,
            http_options=HTTPOptions(host=host, port=http_port),
            grpc_options=gRPCOptions(**configuration.grpc_options | {"port": port}),
            logging_config=configuration.logging_config,
        )


def deploy(application: str, bundle: Path, *, replicas: int, cpus: int, gpus: float, update: bool) -> None:
    """Run an application and wait until its replicas, of so many `cpus` and `gpus` each, serve the bundle.

    With `update` an application that runs gets the bundle in place of its own, replica by replica, without losing
    a call.

    Raises:
        RuntimeError: where the replicas do not start; the message holds the cause.

    """
    runs = application in serve.status().applications
    if runs and not update:
        raise RuntimeError(
            f"--name: expected a name that no application has, but {application} runs; choose another, or "
            "give it the new bundle with --update"
        )
    if update and not runs:
        raise RuntimeError(f"--update: expected an application {application} that runs, found none")
    deployment = _deployment(cpus, gpus, **shipped_configuration().deployment).options(
        num_replicas=replicas,
        # The digest makes another bundle at the same path a change.
        user_config={"bundle": str(bundle), "manifest_sha256": file_digest(bundle / MANIFEST_NAME)},
        # Without a version Serve takes every run for new code, and replaces the replicas.
        version=__version__,
        _internal=True,
    )
    try:
        with _delays_told(application):
            serve.run(deployment.bind(threads=cpus, gpu=gpus > 0), name=application, route_prefix=f"/{application}")
    except (RayServeException, RuntimeError) as error:
        raise RuntimeError(_said_of(application) or str(error)) from error
    if update:
        _check_served(application, bundle, replicas)


@contextlib.contextmanager
def _delays_told(application: str) -> Iterator[None]:
    """Print what Serve says of replicas that are slow to start: it waits for missing cores without end."""
    done = threading.Event()

    def watch() -> None:
        told = ""
        while not done.wait(WATCH_SECONDS):
            with contextlib.suppress(Exception):  # a busy or ending Serve: `serve.run` says what is wrong
                said = _said_of(application).partition("\n")[0]  # a traceback follows where a replica failed
                if said not in ("", told) and not done.is_set():
                    told = said
                    print(f"iin-serve: waiting: {said}", file=sys.stderr, flush=True)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _said_of(application: str) -> str:
    """What Serve says of the application's deployments; empty where nothing is wrong."""
    status = serve.status().applications.get(application)
    return "\n".join(one.message for one in status.deployments.values() if one.message) if status else ""


def _check_served(application: str, bundle: Path, replicas: int) -> None:
    """Ask the replicas what they serve: one that refused the bundle goes on with the one before."""
    wanted = responses.model(read_bundle(bundle).manifest)
    handle = serve.get_app_handle(application)
    for _ in range(4 * replicas):
        try:
            found = pb.GetModelResponse.FromString(handle.describe.remote().result(timeout_s=DESCRIBE_SECONDS))
        except (RayServeException, ray.exceptions.RayError, TimeoutError) as error:
            raise RuntimeError(
                f"--update: expected {application} to say what it serves, got {error}; ask it by iin describe"
            ) from error
        if found.model != wanted:
            raise RuntimeError(
                f"--update: {bundle} was refused, and the bundle before it is still served; the replicas' log says why"
            )


def stop(applications: Sequence[str], *, private: bool) -> None:
    """End the applications after their calls, and with them a Ray of our own."""
    if not ray.is_initialized():
        return
    # Ray prints that its controller was stopped.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(RayServeException):  # Serve itself may not have started
            for application in applications:
                serve.delete(application)  # lets calls under way end; a bare shutdown would cut them
            if private:
                serve.shutdown()
        ray.shutdown()
