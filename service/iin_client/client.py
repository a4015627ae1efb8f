"""Clients of the service: one that blocks, one for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1.interpretation_pb2_grpc import InterpretationServiceStub

from iin_client.channel import Tls, open_async_channel, open_channel
from iin_client.edits import Edit
from iin_client.errors import CallError, call_error
from iin_client.inputs import Inputs
from iin_client.messages import (
    Fixed,
    Output,
    edit_request,
    edited,
    interpret_request,
    interpretations,
    sample_request,
    samples,
)
from iin_client.model import Model
from iin_client.model_message import model_description
from iin_client.results import Edited, Interpretations, Samples

__all__ = ["AsyncClient", "Client"]

# A starting service refuses with the first and, until it knows its applications, with the second.
_NOT_READY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
_PAUSE_S = 0.25


class _Settings:
    """What every call of a client has in common."""

    def __init__(self, address: str, timeout: float, application: str | None) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout: expected seconds above 0, got {timeout:g}; 30 suits most calls")
        self._address = address
        self._timeout = timeout
        self._metadata = (("application", application),) if application is not None else ()

    def _options(self) -> dict[str, Any]:
        return {"timeout": self._timeout, "metadata": self._metadata}

    @contextmanager
    def _errors(self, timeout: float | None = None) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise call_error(error, address=self._address, timeout=timeout or self._timeout) from error


class Client(_Settings):
    """Calls the service and waits for its answers; safe to share between threads.

    `address` is `host:port` or a gRPC target such as `dns:///iin.svc:9000`, `timeout` the deadline of a
    call in seconds, `application` the model to use where several are served, `tls` how to encrypt
    (plaintext if None). UNAVAILABLE is retried up to three times within the deadline.

    Every call raises CallError when the service refuses or fails, ValueError for what cannot be sent and
    OSError for unreadable files.
    """

    def __init__(
        self, address: str, *, timeout: float = 30.0, application: str | None = None, tls: Tls | None = None
    ) -> None:
        super().__init__(address, timeout, application)
        self._channel = open_channel(address, tls)
        self._stub = InterpretationServiceStub(self._channel)

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
        self, targets: Inputs, edits: Edit | Sequence[Edit], *, output: Output = "png", resize: bool = False
    ) -> Edited:
        """Applies `edits` in order to each of N targets; gives N images and factor vectors `(N, D)`.

        `resize` holds for targets and sources, as in `interpret`.
        """
        request = edit_request(targets, edits, output=output, resize=resize)
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
    ) -> Iterator[Samples]:
        """Draws `count` images from the prior; they arrive in order, several at a time.

        `seed` in [0, 2^64) repeats the same images; `temperature` >= 0 is the standard deviation of the
        drawn factors; `fixed` holds factors at a source's or at given values. The deadline is that of the
        whole stream; leaving the iterator early cancels the call.
        """
        request = sample_request(
            count, seed=seed, temperature=temperature, fixed=fixed or {}, output=output, resize=resize
        )
        return self._samples(request)

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

    def _samples(self, request: pb.SampleRequest) -> Iterator[Samples]:
        call = self._stub.Sample(request, **self._options())
        try:
            with self._errors():
                for response in call:
                    yield samples(response)
        finally:
            call.cancel()


class AsyncClient(_Settings):
    """Client for asyncio: the same arguments, calls and errors. Create it inside the event loop."""

    def __init__(
        self, address: str, *, timeout: float = 30.0, application: str | None = None, tls: Tls | None = None
    ) -> None:
        super().__init__(address, timeout, application)
        self._channel = open_async_channel(address, tls)
        self._stub = InterpretationServiceStub(self._channel)

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
        self, targets: Inputs, edits: Edit | Sequence[Edit], *, output: Output = "png", resize: bool = False
    ) -> Edited:
        """See `Client.edit`."""
        request = edit_request(targets, edits, output=output, resize=resize)
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
    ) -> AsyncIterator[Samples]:
        """See `Client.sample`; iterate with `async for`."""
        request = sample_request(
            count, seed=seed, temperature=temperature, fixed=fixed or {}, output=output, resize=resize
        )
        return self._samples(request)

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

    async def _samples(self, request: pb.SampleRequest) -> AsyncIterator[Samples]:
        call = self._stub.Sample(request, **self._options())
        try:
            with self._errors():
                async for response in call:
                    yield samples(response)
        finally:
            call.cancel()
