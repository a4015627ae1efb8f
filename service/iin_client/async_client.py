"""A client for asyncio: the calls of `Client`."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

import grpc
from iin_api.v1 import interpretation_pb2 as pb

from iin_client import request_messages, result_messages, streaming
from iin_client.base import NOT_READY, PAUSE_S, REFUSED_BY_GATEWAY, BaseClient
from iin_client.errors import CallError
from iin_client.inputs import Edit, Fixed, Input, Inputs, Output, Walk
from iin_client.model import Model, ServedModel
from iin_client.results import Answer, Edited, Frames, Interpretations, Responses, Samples

__all__ = ["AsyncClient"]

Result = TypeVar("Result")
# grpc.aio reports this, and loses the status, where a stream ends while the client sends on it.
_STATUS_LOST = (grpc.StatusCode.INTERNAL, "Internal error from Core (INTERNAL)")


class AsyncClient(BaseClient):
    """Client for asyncio: the same arguments, calls and errors. Create it inside the event loop."""

    _grpc = grpc.aio

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and what still runs on it."""
        await self._channel.close()

    async def interpret(self, inputs: Inputs, *, resize: bool = False) -> Interpretations:
        """See `Client.interpret`."""
        request = request_messages.interpret_request(inputs, resize=resize)
        return await self._answer(self._stub.Interpret, request, result_messages.interpretations)

    async def edit(
        self,
        targets: Inputs,
        edits: Edit | Sequence[Edit],
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> Edited:
        """See `Client.edit`."""
        request = request_messages.edit_request(targets, edits, output=output, resize=resize, latents=latents)
        return await self._answer(self._stub.Edit, request, result_messages.edited)

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        fixed: Fixed | None = None,
        output: Output = "png",
        resize: bool = False,
        truncation: float | None = None,
        latents: bool = False,
    ) -> AsyncGenerator[Samples, None]:
        """See `Client.sample`; iterate with `async for`."""
        request = request_messages.sample_request(
            count,
            seed=seed,
            temperature=temperature,
            fixed=fixed or {},
            output=output,
            resize=resize,
            truncation=truncation,
            latents=latents,
        )
        return self._answers(self._stub.Sample, request, result_messages.samples)

    def traverse(
        self,
        start: Input,
        path: Walk,
        frames: int,
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> AsyncGenerator[Frames, None]:
        """See `Client.traverse`; iterate with `async for`."""
        request = request_messages.traverse_request(start, path, frames, output=output, resize=resize, latents=latents)
        return self._answers(self._stub.Traverse, request, result_messages.frames)

    async def respond(
        self,
        inputs: Inputs,
        factors: Sequence[str] = (),
        *,
        draws: int = 100,
        seed: int = 0,
        temperature: float = 1.0,
        resize: bool = False,
    ) -> Responses:
        """See `Client.respond`."""
        request = request_messages.respond_request(
            inputs, factors=factors, draws=draws, seed=seed, temperature=temperature, resize=resize
        )
        return await self._answer(self._stub.Respond, request, result_messages.responses)

    def interpret_stream(
        self, items: AsyncIterable[tuple[str, Inputs]], *, resize: bool = False
    ) -> AsyncGenerator[Answer[Interpretations], None]:
        """See `Client.interpret_stream`; `items` is asynchronous too."""
        message = partial(request_messages.interpret_stream_request, resize=resize)
        return self._streamed(self._stub.InterpretStream, items, message, result_messages.interpretations)

    def edit_stream(
        self,
        items: AsyncIterable[tuple[str, Inputs]],
        edits: Edit | Sequence[Edit],
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> AsyncGenerator[Answer[Edited], None]:
        """See `Client.edit_stream`; `items` is asynchronous too."""
        request = request_messages.edit_request([], edits, output=output, resize=resize, latents=latents)
        message = partial(request_messages.edit_stream_request, edits=request)
        return self._streamed(self._stub.EditStream, items, message, result_messages.edited)

    async def list_models(self) -> tuple[ServedModel, ...]:
        """See `Client.list_models`."""
        options, end = self._options(), time.monotonic() + self._timeout
        with self._errors():
            try:
                return result_messages.served_models(await self._stub.ListModels(pb.ListModelsRequest(), **options))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND or self._applications:
                    raise
                try:
                    remaining = self._remaining(options, end)
                    names = result_messages.application_names(await self._list_applications(b"", **remaining))
                except grpc.RpcError as refused:
                    raise error if refused.code() in REFUSED_BY_GATEWAY else refused from None
            if not names:
                return ()
            options["metadata"] += (("application", names[0]),)
            remaining = self._remaining(options, end)
            return result_messages.served_models(await self._stub.ListModels(pb.ListModelsRequest(), **remaining))

    async def get_model(self) -> Model:
        """See `Client.get_model`."""
        return await self._answer(self._stub.GetModel, pb.GetModelRequest(), result_messages.model_description)

    async def wait_until_ready(self, timeout: float = 60.0) -> Model:
        """See `Client.wait_until_ready`."""
        end = time.monotonic() + timeout
        while True:
            try:
                with self._errors(timeout):
                    options = self._attempt(end - time.monotonic())
                    return result_messages.model_description(await self._stub.GetModel(pb.GetModelRequest(), **options))
            except CallError as error:
                if error.code not in NOT_READY or time.monotonic() + PAUSE_S >= end:
                    raise
            await asyncio.sleep(PAUSE_S)

    @contextmanager
    def _errors(self, timeout: float | None = None) -> Iterator[None]:
        """As in `BaseClient`; also for a closed client, whose calls gRPC ends as if their tasks were cancelled."""
        try:
            with super()._errors(timeout):
                yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise CallError(grpc.StatusCode.CANCELLED, f"the client of {self._address} was closed") from error
        except grpc.aio.UsageError as error:
            raise ValueError(f"client: expected an open one, got one that is closed; make another ({error})") from error

    async def _answer(self, call: Any, request: Any, read: Callable[[Any], Result]) -> Result:
        """See `Client._answer`."""
        with self._errors():
            return read(await call(request, **self._options()))

    async def _answers(self, call: Any, request: Any, read: Callable[[Any], Result]) -> AsyncGenerator[Result, None]:
        """See `Client._answers`."""
        with self._errors():
            received = call(request, **self._options())
            try:
                async for response in received:
                    yield read(response)
            finally:
                received.cancel()

    async def _streamed(
        self,
        call: Any,
        items: AsyncIterable[tuple[str, Inputs]],
        message: Callable[[str, Inputs], Any],
        read: Callable[[Any], Result],
    ) -> AsyncGenerator[Answer[Result], None]:
        """See `Client._streamed`."""
        sending = streaming.Sending(asyncio.Semaphore(streaming.AHEAD))
        with self._errors():
            received = call(streaming.messages_async(items, message, sending), metadata=self._metadata())
        try:
            with self._errors():
                async for response in streaming.as_they_come_async(received):
                    sending.room.release()
                    yield streaming.answer(response, read)
        except CallError as error:
            if (error.code, error.message) != _STATUS_LOST:
                raise
            raise CallError(
                grpc.StatusCode.UNAVAILABLE,
                f"{self._address} refused the stream, or broke it off, while this client was sending, and its "
                "status is lost; try again, and if it persists use Client, which tells the status",
            ) from error
        finally:
            received.cancel()
            sending.end()
        sending.check()
