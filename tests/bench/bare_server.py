"""The server to compare with: a bundle's graphs behind a bare grpc.aio server, as one would write it by hand.

No Ray and nothing of iin_service: one process, an event loop, one thread that runs onnxruntime, and a batcher a
graph that takes everything that waits whenever the thread is free. It answers single-image calls of Interpret,
Edit (`replace`, PNG out) and Sample (PNG out) and checks only what it must not get wrong.

    python -m tests.bench.bare_server BUNDLE     prints "ready: HOST:PORT"; SIGINT or SIGTERM stops it
"""

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import onnxruntime as ort
import uvloop
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1 import interpretation_pb2_grpc as pb_grpc
from iin_bundle import Bundle, read_bundle
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
MAX_BATCH, MAX_WAITING = 64, 4096  # items
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MESSAGE_SAMPLES = 32  # samples in one message of a stream


class Overloaded(Exception):
    """Too many items wait."""


class Batcher:
    """Runs one graph on batches of whatever waits when `lock`, which all graphs share, is free."""

    def __init__(self, path: Path, lock: asyncio.Lock, thread: ThreadPoolExecutor) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._lock, self._thread = lock, thread
        self._waiting: list[tuple[Array, asyncio.Future[list[Array]]]] = []
        self._task: asyncio.Task[None] | None = None

    def __call__(self, items: Array) -> "asyncio.Future[list[Array]]":
        """The graph's outputs for `items`, `(n, ...)`."""
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append((items, done))
        if self._task is None:
            self._task = loop.create_task(self._work(loop))
        return done

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            async with self._lock:
                count, size = 0, 0
                for items, _ in self._waiting:
                    if count and size + len(items) > MAX_BATCH:
                        break
                    count, size = count + 1, size + len(items)
                batch, self._waiting = self._waiting[:count], self._waiting[count:]
                items = batch[0][0] if count == 1 else np.concatenate([items for items, _ in batch])
                try:
                    outputs = await loop.run_in_executor(self._thread, self._run, items)
                except Exception as error:  # onnxruntime raises classes of its own
                    for _, done in batch:
                        if not done.cancelled():
                            done.set_exception(error)
                    continue
                position = 0
                for items, done in batch:
                    rows = slice(position, position := position + len(items))
                    if not done.cancelled():
                        done.set_result([output[rows] for output in outputs])
        self._task = None

    def _run(self, items: Array) -> list[Array]:
        outputs: list[Array] = self._session.run(None, {self._input: items})
        return outputs


class Bare(pb_grpc.InterpretationServiceServicer):
    """Interpret, Edit and Sample."""

    def __init__(self, bundle: Bundle) -> None:
        self._manifest, self._layout = bundle.manifest, bundle.manifest.layout
        image = self._manifest.image
        self._size, self._mode = (image.width, image.height), "RGB" if image.channels == 3 else "L"
        self._shape, self._minimum = image.shape, image.minimum
        self._step = (image.maximum - image.minimum) / 255
        self._constant = 0.5 * self._manifest.size * np.log(2 * np.pi)
        lock, thread = asyncio.Lock(), ThreadPoolExecutor(1)
        self._encoder, self._transform, self._inverse, self._decoder = (
            Batcher(bundle.graph_path(role), lock, thread) for role in ("encoder", "transform", "inverse", "decoder")
        )

    async def Interpret(self, request: pb.InterpretRequest, context: Any) -> pb.InterpretResponse:
        try:
            images = np.concatenate([self._image(one) for one in request.inputs])
            (latents,) = await self._encoder(images)
            factors, log_dets = await self._transform(latents)
        except (ValueError, OSError, Overloaded) as error:
            await _abort(error, context)
        likelihoods = log_dets - 0.5 * np.square(factors, dtype=np.float64).sum(axis=1) - self._constant
        return pb.InterpretResponse(
            latents=_tensor(latents),
            factors=_tensor(factors),
            log_likelihoods=likelihoods,
            log_likelihood_quantiles=self._manifest.log_likelihood_quantiles.quantile(likelihoods),
        )

    async def Edit(self, request: pb.EditRequest, context: Any) -> pb.EditResponse:
        try:
            sources = [edit.replace.source for edit in request.edits]
            images = np.concatenate([self._image(one) for one in (*request.targets, *sources)])
            (latents,) = await self._encoder(images)
            found, _ = await self._transform(latents)
            factors = found[: len(request.targets)].copy()
            for edit, source in zip(request.edits, found[len(factors) :], strict=True):
                where = self._layout.slice(edit.factor)
                factors[:, where] = source[where]
            (latents, _) = await self._inverse(factors)
            (decoded,) = await self._decoder(latents)
        except (KeyError, ValueError, OSError, Overloaded) as error:
            await _abort(error, context)
        return pb.EditResponse(images=self._files(decoded), factors=_tensor(factors))

    async def Sample(self, request: pb.SampleRequest, context: Any) -> AsyncIterator[pb.SampleResponse]:
        try:
            if not 1 <= request.count <= 10_000:
                raise ValueError("count: expected between 1 and 10000")
            generator = np.random.default_rng(request.seed)
            for first in range(0, request.count, MESSAGE_SAMPLES):
                shape = min(MESSAGE_SAMPLES, request.count - first), self._manifest.size
                factors = generator.standard_normal(shape, dtype=np.float32)
                (latents, _) = await self._inverse(factors)
                (decoded,) = await self._decoder(latents)
                yield pb.SampleResponse(first_index=first, images=self._files(decoded), factors=_tensor(factors))
        except (ValueError, Overloaded) as error:
            await _abort(error, context)

    def _image(self, given: pb.Input) -> Array:
        """An encoded or raw image as `(1, C, H, W)`."""
        if given.WhichOneof("value") == "image":
            return np.frombuffer(given.image.data, "<f4").reshape(1, *self._shape)
        picture = Image.open(io.BytesIO(given.encoded_image))
        if picture.size != self._size:
            raise ValueError(f"expected a picture of {self._size} pixels, got {picture.size}")
        pixels = np.asarray(picture.convert(self._mode), np.float32).reshape(*self._shape[1:], self._shape[0])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) * self._step + self._minimum, np.float32)[None]

    def _files(self, images: Array) -> pb.Images:
        """Images `(N, C, H, W)` as PNG files."""
        pixels = np.rint((images - self._minimum) * (1 / self._step)).clip(0, 255).astype(np.uint8)
        files = []
        for one in pixels.transpose(0, 2, 3, 1):
            file = io.BytesIO()
            picture = Image.fromarray(np.ascontiguousarray(one[:, :, 0] if self._mode == "L" else one))
            picture.save(file, "PNG", compress_level=1)
            files.append(file.getvalue())
        return pb.Images(encoded=files)


def _tensor(array: Array) -> pb.Tensor:
    return pb.Tensor(shape=array.shape, data=array.tobytes())


async def _abort(error: Exception, context: Any) -> None:
    overloaded = isinstance(error, Overloaded)
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if overloaded else grpc.StatusCode.INVALID_ARGUMENT
    await context.abort(code, str(error))


async def main(directory: str) -> None:
    """Serve the bundle in `directory` until a signal."""
    server = grpc.aio.server(
        options=[(f"grpc.max_{side}_message_length", MAX_MESSAGE_BYTES) for side in ("send", "receive")]
    )
    bare = Bare(read_bundle(directory))  # type: ignore[abstract]  # RPCs that are left out are UNIMPLEMENTED
    pb_grpc.add_InterpretationServiceServicer_to_server(bare, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    print(f"ready: 127.0.0.1:{port}", flush=True)
    await stopping.wait()
    await server.stop(1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.bench.bare_server BUNDLE")
    uvloop.run(main(sys.argv[1]))  # as Ray's replicas do
