"""MLServer as a peer: a custom runtime with one `predict` for both graphs and MLServer's adaptive batching.

Runs in the virtual environment that `peers` makes for it, without anything of ours. Access log and metrics are off.
The graphs run in a thread of the server's own process; in a parallel worker, MLServer's default, 64 callers were
measured to be served as fast, for more CPU time, and fewer callers slower. The batcher does not know when the thread is
free, it waits for company up to a set time: the time chosen is the one that served 64 callers best. With 0.5 or 2 ms a
lone caller waits less, and 64 callers get about a third to 0.6 of the throughput.

    python -m tests.bench.mlserver_server ENCODER TRANSFORM     prints "ready: HOST:PORT"; SIGINT or SIGTERM stops it
"""

import asyncio
import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc.aio
import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.grpc.dataplane_pb2 import ModelReadyRequest
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

from tests.bench.peer_graphs import MAX_BATCH, MODEL, Graphs, free_ports

BATCH_SECONDS = 0.01  # that the first item of a batch waits for company


class Interpret(MLModel):
    """Encoder, then transform."""

    async def load(self) -> bool:
        self._graphs, self._thread = Graphs(**self.settings.parameters.extra), ThreadPoolExecutor(1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0])
        outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._graphs, images)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name, array) for name, array in outputs.items()]
        )


async def announce(address: str) -> None:
    """Print "ready: HOST:PORT" once the model answers."""
    async with grpc.aio.insecure_channel(address) as channel:
        ready, stub = False, GRPCInferenceServiceStub(channel)
        while not ready:
            with contextlib.suppress(grpc.aio.AioRpcError):  # the model is not known yet
                ready = (await stub.ModelReady(ModelReadyRequest(name=MODEL), wait_for_ready=True)).ready
            await asyncio.sleep(0.05)
    print(f"ready: {address}", flush=True)


async def main(encoder: str, transform: str) -> None:
    """Serve until a signal."""
    host, (grpc_port, http_port) = "127.0.0.1", free_ports(2)
    settings = Settings(
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_endpoint=None,
        debug=False,
        parallel_workers=0,
    )
    model = ModelSettings(
        name=MODEL,
        implementation=Interpret,
        max_batch_size=MAX_BATCH,
        max_batch_time=BATCH_SECONDS,
        parameters=ModelParameters(extra={"encoder": encoder, "transform": transform}),
    )
    announcing = asyncio.create_task(announce(f"{host}:{grpc_port}"))
    await MLServer(settings).start([model])  # also returns where the model does not load
    announcing.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.bench.mlserver_server ENCODER TRANSFORM")
    uvloop.run(main(*sys.argv[1:]))
