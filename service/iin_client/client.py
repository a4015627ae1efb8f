"""Clients of the service: one that blocks, one for asyncio."""

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import grpc
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1.interpretation_pb2_grpc import InterpretationServiceStub

from iin_client.applications import LIST_APPLICATIONS, first_application
from iin_client.channel import Tls, open_async_channel, open_channel
from iin_client.edits import Edit
from iin_client.errors import CallError, call_error
from iin_client.inputs import Input, Inputs
from iin_client.model import Model, ServedModel
from iin_client.model_message import model_description, served_models
from iin_client.request_messages import (
    Fixed,
    Output,
    edit_request,
    interpret_request,
    respond_request,
    sample_request,
    traverse_request,
)
from iin_client.result_messages import edited, interpretations, responses, samples
from iin_client.result_messages import frames as frames_of
from iin_client.results import Answer, Edited, Frames, Interpretations, Responses, Samples
from iin_client.streaming import (
    Fault,
    edit_answer,
    edit_messages,
    edit_messages_async,
    interpret_answer,
    interpret_messages,
    interpret_messages_async,
)
from iin_client.walks import Walk

__all__ = ["Application", "AsyncClient", "Client"]

# A starting service refuses with the first and, until it knows its applications, with the second.
_NOT_READY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
_PAUSE_S = 0.25

Result = TypeVar("Result")
Application: TypeAlias = str | Mapping[str, float] | None
"""Name of the model to use, or names with the share of the calls that each gets; None where one alone is served."""


class _Settings:
    """What every call of a client has in common."""

    def __init__(self, address: str, timeout: float, application: Application) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout: expected seconds above 0, got {timeout:g}; 30 suits most calls")
        self._address = address
        self._timeout = timeout
        shares = application if isinstance(application, Mapping) else {application: 1.0} if application else {}
        if shares and not (min(shares.values()) >= 0 and sum(shares.values()) > 0):
            raise ValueError(f"application: expected shares of at least 0, not all 0, got {dict(shares)}")
        self._applications, self._shares = list(shares), list(shares.values())

    def _options(self) -> dict[str, Any]:
        return {"timeout": self._timeout, "metadata": self._metadata()}

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Of one call."""
        if not self._applications:
            return ()
        return (("application", random.choices(self._applications, self._shares)[0]),)

    @contextmanager
    def _errors(self, timeout: float | None = None) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise call_error(error, address=self._address, timeout=timeout or self._timeout) from error


class Client(_Settings):
    """Calls the service and waits for its answers; safe to share between threads.

    `address` is `host:port` or a gRPC target such as `dns:///iin.svc:9000`, `timeout` the deadline of a
    call in seconds (streams of requests have none), `application` the model to use where several are served,
    or several with the share of the calls that each gets, such as `{"digits": 0.95, "digits-canary": 0.05}`,
    `tls` how to encrypt (plaintext if None). UNAVAILABLE is retried up to three times within the deadline.

    Every call raises CallError when the service refuses or fails, ValueError for what cannot be sent and
    OSError for unreadable files.
    """

    def __init__(
        self, address: str, *, timeout: float = 30.0, application: Application = None, tls: Tls | None = None
    ) -> None:
        super().__init__(address, timeout, application)
        self._channel = open_channel(address, tls)
        self._stub = InterpretationServiceStub(self._channel)
        self._list_applications: Any = self._channel.unary_unary(LIST_APPLICATIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and what still runs on it."""
        self._channel.close()

    def interpret(self, inputs: Inputs, *, resize: bool = False) -> Interpretations:
        """Translates N items into latents and factors `(N, D)`, with their likelihood.

        With `resize`, pictures of another size are resized (bicubic); else the service rejects them.
        """
        request = interpret_request(inputs, resize=resize)
        with self._errors():
            return interpretations(self._stub.Interpret(request, **self._options()))

    def edit(
        self,
        targets: Inputs,
        edits: Edit | Sequence[Edit],
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> Edited:
        """Applies `edits` in order to each of N targets; gives N images and factor vectors `(N, D)`.

        `resize` holds for targets and sources, as in `interpret`; `latents` gives those of the result too.
        """
        request = edit_request(targets, edits, output=output, resize=resize, latents=latents)
        with self._errors():
            return edited(self._stub.Edit(request, **self._options()))

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
    ) -> Iterator[Samples]:
        """Draws `count` images from the prior; they arrive in order, several at a time.

        `seed` in [0, 2^64) repeats the same images; `temperature` >= 0 is the standard deviation of the
        drawn factors; `truncation` >= 0.1 draws every value beyond it again, for more typical images;
        `fixed` holds factors at a source's or at given values; `latents` gives those too. The deadline is
        that of the whole stream; leaving the iterator early cancels the call.
        """
        request = sample_request(
            count,
            seed=seed,
            temperature=temperature,
            fixed=fixed or {},
            output=output,
            resize=resize,
            truncation=truncation,
            latents=latents,
        )
        return self._received(self._stub.Sample(request, **self._options()), samples)

    def traverse(
        self,
        start: Input,
        path: Walk,
        frames: int,
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> Iterator[Frames]:
        """Follows `path` from `start` (1 item) in `frames` >= 2 steps; the first frame is the start itself.

        The frames arrive in order, several at a time; deadline and leaving early as in `sample`.
        """
        request = traverse_request(start, path, frames, output=output, resize=resize, latents=latents)
        return self._received(self._stub.Traverse(request, **self._options()), frames_of)

    def respond(
        self,
        inputs: Inputs,
        factors: Sequence[str] = (),
        *,
        draws: int = 100,
        seed: int = 0,
        temperature: float = 1.0,
        resize: bool = False,
    ) -> Responses:
        """What the head's classes of N items do when each of `factors` (none given: all) is drawn anew.

        Network response analysis with `draws` >= 2 draws an item and factor; needs a model with a head.
        """
        request = respond_request(
            inputs, factors=factors, draws=draws, seed=seed, temperature=temperature, resize=resize
        )
        with self._errors():
            return responses(self._stub.Respond(request, **self._options()))

    def interpret_stream(
        self, items: Iterable[tuple[str, Inputs]], *, resize: bool = False
    ) -> Iterator[Answer[Interpretations]]:
        """Interprets (id, inputs) pairs as fast as the service takes them; answers arrive in the same order.

        What is wrong with one item is its answer's `error` and ends nothing. After a broken connection
        (CallError) go on with the item after the last one answered.
        """
        fault = Fault()
        messages = interpret_messages(items, fault, resize=resize)
        call = self._stub.InterpretStream(messages, metadata=self._metadata())
        return self._received(call, interpret_answer, fault)

    def edit_stream(
        self,
        items: Iterable[tuple[str, Inputs]],
        edits: Edit | Sequence[Edit],
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> Iterator[Answer[Edited]]:
        """Applies `edits` to the targets of (id, targets) pairs; otherwise as `interpret_stream`."""
        fault = Fault()
        messages = edit_messages(items, edits, fault, output=output, resize=resize, latents=latents)
        call = self._stub.EditStream(messages, metadata=self._metadata())
        return self._received(call, edit_answer, fault)

    def list_models(self) -> tuple[ServedModel, ...]:
        """Lists the models that are served side by side."""
        with self._errors():
            try:
                response = self._stub.ListModels(pb.ListModelsRequest(), **self._options())
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND or self._applications:
                    raise
                some = first_application(self._list_applications(b"", timeout=self._timeout))
                options = self._options() | {"metadata": (("application", some),)}
                response = self._stub.ListModels(pb.ListModelsRequest(), **options)
        return served_models(response)

    def get_model(self) -> Model:
        """Describes the model and the service's limits."""
        with self._errors():
            return model_description(self._stub.GetModel(pb.GetModelRequest(), **self._options()))

    def wait_until_ready(self, timeout: float = 60.0) -> Model:
        """Waits up to `timeout` seconds for the model to be served; CallError past that."""
        end = time.monotonic() + timeout
        while True:
            try:
                return self._get_model_when_connected(max(end - time.monotonic(), 0.0), timeout)
            except CallError as error:
                if error.code not in _NOT_READY or time.monotonic() + _PAUSE_S >= end:
                    raise
            time.sleep(_PAUSE_S)

    def _get_model_when_connected(self, remaining: float, timeout: float) -> Model:
        options = {**self._options(), "timeout": remaining, "wait_for_ready": True}
        with self._errors(timeout):
            return model_description(self._stub.GetModel(pb.GetModelRequest(), **options))

    def _received(self, call: Any, read: Callable[[Any], Result], fault: Fault | None = None) -> Iterator[Result]:
        """What `read` makes of each message of a stream; ends with the `fault` of the messages sent, if any."""
        try:
            with self._errors():
                for response in call:
                    yield read(response)
        finally:
            call.cancel()
        if fault is not None:
            fault.check()


class AsyncClient(_Settings):
    """Client for asyncio: the same arguments, calls and errors. Create it inside the event loop."""

    def __init__(
        self, address: str, *, timeout: float = 30.0, application: Application = None, tls: Tls | None = None
    ) -> None:
        super().__init__(address, timeout, application)
        self._channel = open_async_channel(address, tls)
        self._stub = InterpretationServiceStub(self._channel)
        self._list_applications: Any = self._channel.unary_unary(LIST_APPLICATIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and what still runs on it."""
        await self._channel.close()

    async def interpret(self, inputs: Inputs, *, resize: bool = False) -> Interpretations:
        """See `Client.interpret`."""
        request = interpret_request(inputs, resize=resize)
        with self._errors():
            return interpretations(await self._stub.Interpret(request, **self._options()))

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
        request = edit_request(targets, edits, output=output, resize=resize, latents=latents)
        with self._errors():
            return edited(await self._stub.Edit(request, **self._options()))

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
    ) -> AsyncIterator[Samples]:
        """See `Client.sample`; iterate with `async for`."""
        request = sample_request(
            count,
            seed=seed,
            temperature=temperature,
            fixed=fixed or {},
            output=output,
            resize=resize,
            truncation=truncation,
            latents=latents,
        )
        return self._received(self._stub.Sample(request, **self._options()), samples)

    def traverse(
        self,
        start: Input,
        path: Walk,
        frames: int,
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> AsyncIterator[Frames]:
        """See `Client.traverse`; iterate with `async for`."""
        request = traverse_request(start, path, frames, output=output, resize=resize, latents=latents)
        return self._received(self._stub.Traverse(request, **self._options()), frames_of)

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
        request = respond_request(
            inputs, factors=factors, draws=draws, seed=seed, temperature=temperature, resize=resize
        )
        with self._errors():
            return responses(await self._stub.Respond(request, **self._options()))

    def interpret_stream(
        self, items: AsyncIterable[tuple[str, Inputs]], *, resize: bool = False
    ) -> AsyncIterator[Answer[Interpretations]]:
        """See `Client.interpret_stream`; `items` is asynchronous too."""
        fault = Fault()
        messages = interpret_messages_async(items, fault, resize=resize)
        call = self._stub.InterpretStream(messages, metadata=self._metadata())
        return self._received(call, interpret_answer, fault)

    def edit_stream(
        self,
        items: AsyncIterable[tuple[str, Inputs]],
        edits: Edit | Sequence[Edit],
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> AsyncIterator[Answer[Edited]]:
        """See `Client.edit_stream`; `items` is asynchronous too."""
        fault = Fault()
        messages = edit_messages_async(items, edits, fault, output=output, resize=resize, latents=latents)
        call = self._stub.EditStream(messages, metadata=self._metadata())
        return self._received(call, edit_answer, fault)

    async def list_models(self) -> tuple[ServedModel, ...]:
        """See `Client.list_models`."""
        with self._errors():
            try:
                response = await self._stub.ListModels(pb.ListModelsRequest(), **self._options())
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND or self._applications:
                    raise
                some = first_application(await self._list_applications(b"", timeout=self._timeout))
                options = self._options() | {"metadata": (("application", some),)}
                response = await self._stub.ListModels(pb.ListModelsRequest(), **options)
        return served_models(response)

    async def get_model(self) -> Model:
        """See `Client.get_model`."""
        with self._errors():
            return model_description(await self._stub.GetModel(pb.GetModelRequest(), **self._options()))

    async def wait_until_ready(self, timeout: float = 60.0) -> Model:
        """See `Client.wait_until_ready`."""
        end = time.monotonic() + timeout
        while True:
            try:
                return await self._get_model_when_connected(max(end - time.monotonic(), 0.0), timeout)
            except CallError as error:
                if error.code not in _NOT_READY or time.monotonic() + _PAUSE_S >= end:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _get_model_when_connected(self, remaining: float, timeout: float) -> Model:
        options = {**self._options(), "timeout": remaining, "wait_for_ready": True}
        with self._errors(timeout):
            return model_description(await self._stub.GetModel(pb.GetModelRequest(), **options))

    async def _received(
        self, call: Any, read: Callable[[Any], Result], fault: Fault | None = None
    ) -> AsyncIterator[Result]:
        """See `Client._received`."""
        try:
            with self._errors():
                async for response in call:
                    yield read(response)
        finally:
            call.cancel()
        if fault is not None:
            fault.check()
