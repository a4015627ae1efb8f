"""grpc.health.v1.Health of a replica: one that answers is serving."""

import asyncio
from collections.abc import AsyncGenerator

from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse
from iin_api.inference import grpc_service_pb2 as inference_pb
from iin_api.v1 import interpretation_pb2 as pb

from iin_service.errors import short
from iin_service.faults import CallContext

__all__ = ["Health"]

SERVICES = (
    "",
    pb.DESCRIPTOR.services_by_name["InterpretationService"].full_name,
    inference_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)
MAX_WATCHERS = 256  # an open Watch takes one of the replica's `max_ongoing_requests`


class Health:
    """The standard health service; see grpc/health/v1/health.proto."""

    def __init__(self) -> None:
        """Nobody watches yet."""
        self._watchers = 0

    async def check(self, request: HealthCheckRequest, context: CallContext) -> HealthCheckResponse:
        """SERVING for the whole server and for its services, NOT_FOUND for others."""
        if request.service not in SERVICES:
            context.set_code(StatusCode.NOT_FOUND)
            context.set_details(f"service: expected {' or '.join(map(repr, SERVICES))}, got {short(request.service)!r}")
            return HealthCheckResponse()
        return HealthCheckResponse(status=HealthCheckResponse.SERVING)

    async def list(self, request: HealthListRequest, context: CallContext) -> HealthListResponse:
        """SERVING for each that `check` knows."""
        serving = HealthCheckResponse(status=HealthCheckResponse.SERVING)
        return HealthListResponse(statuses=dict.fromkeys(SERVICES, serving))

    async def watch(self, request: HealthCheckRequest, context: CallContext) -> AsyncGenerator[HealthCheckResponse]:
        """Send the status once, then keep the stream open until the caller or the replica ends it."""
        if self._watchers >= MAX_WATCHERS:
            context.set_code(StatusCode.RESOURCE_EXHAUSTED)
            context.set_details(f"{MAX_WATCHERS} callers watch already; use Check")
            return
        self._watchers += 1
        try:
            known = request.service in SERVICES
            yield HealthCheckResponse(
                status=HealthCheckResponse.SERVING if known else HealthCheckResponse.SERVICE_UNKNOWN
            )
            await asyncio.Event().wait()
        finally:
            self._watchers -= 1
