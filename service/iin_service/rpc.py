"""InterpretationService: each RPC converts, calls the engine and converts back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from iin_api.v1 import interpretation_pb2 as pb

from iin_service import responses
from iin_service.answering import Answering, CallContext, Fault
from iin_service.engine import Engine
from iin_service.errors import Idle, InvalidInput, Overloaded
from iin_service.items import Trace
from iin_service.requests import RequestReader
from iin_service.streams import answered_in_order

__all__ = ["InterpretationRpcs", "ListModels"]

IDLE_SECONDS = 300.0  # that a stream of requests stays open without a message either way
LISTED_SECONDS = 1.0  # that an answer to ListModels is kept: each asks Serve's controller, which has all else to do
ListModels = Callable[[], Awaitable[list[pb.ServedModel]]]
"""Finds the models that are served side by side."""


class InterpretationRpcs:
    """InterpretationService for one engine."""

    def __init__(self, engine: Engine, reader: RequestReader, answering: Answering, list_models: ListModels) -> None:
        """Answer with `engine`; `list_models` knows of the other models."""
        self._engine, self._read, self._answering, self._list_models = engine, reader, answering, list_models
        self._listed: asyncio.Task[list[pb.ServedModel]] | None = None

    async def interpret(self, request: pb.InterpretRequest, context: CallContext) -> pb.InterpretResponse:
        """Translate images or latents into factors."""
        return await self._answering.unary(
            "Interpret", request, lambda: self._interpreted(request, Trace()), context, pb.InterpretResponse()
        )

    async def _interpreted(self, request: pb.InterpretRequest, trace: Trace) -> pb.InterpretResponse:
        given = await self._read.items.inputs(request.inputs, "inputs", resize=request.resize, trace=trace)
        return responses.interpretation(await self._engine.interpret(given, trace), trace)

    async def edit(self, request: pb.EditRequest, context: CallContext) -> pb.EditResponse:
        """Change factors of the targets and decode the result."""
        return await self._answering.unary(
            "Edit", request, lambda: self._edited(request, Trace()), context, pb.EditResponse()
        )

    async def _edited(self, request: pb.EditRequest, trace: Trace) -> pb.EditResponse:
        read, resize = self._read, request.resize
        wanted = read.wanted(request)
        targets = await read.items.inputs(request.targets, "targets", resize=resize, trace=trace)
        count = sum(len(one.items) for one in targets)
        edits = await read.edits(request.edits, count, resize=resize, trace=trace)
        result = await self._engine.edit(targets, edits, wanted, trace)
        return await responses.edited(result, self._engine.manifest.image, request.format, trace)

    def sample(self, request: pb.SampleRequest, context: CallContext) -> AsyncGenerator[pb.SampleResponse]:
        """Draw from the prior and decode, several images to a message."""
        return self._answering.stream("Sample", request, self._samples(request), context)

    async def _samples(self, request: pb.SampleRequest) -> AsyncGenerator[pb.SampleResponse]:
        trace, wanted = Trace(), self._read.wanted(request)
        temperature, truncation, fixed = await self._read.sample(request, trace)
        parts = self._engine.sample(
            request.count,
            seed=request.seed,
            temperature=temperature,
            truncation=truncation,
            fixed=fixed,
            wanted=wanted,
            trace=trace,
        )
        async with aclosing(parts):
            async for first, result, spent in parts:
                yield await responses.samples(first, result, self._engine.manifest.image, request.format, spent)

    def traverse(self, request: pb.TraverseRequest, context: CallContext) -> AsyncGenerator[pb.TraverseResponse]:
        """Follow a path through factors, several frames to a message."""
        return self._answering.stream("Traverse", request, self._frames(request), context)

    async def _frames(self, request: pb.TraverseRequest) -> AsyncGenerator[pb.TraverseResponse]:
        trace, wanted = Trace(), self._read.wanted(request)
        start, path, destination = await self._read.traverse(request, trace)
        parts = self._engine.traverse(start, path, destination, request.frames, wanted, trace)
        async with aclosing(parts):
            async for first, result, spent in parts:
                yield await responses.frames(first, result, self._engine.manifest.image, request.format, spent)

    async def respond(self, request: pb.RespondRequest, context: CallContext) -> pb.RespondResponse:
        """Say what the head's classes do when factors are drawn anew."""

        async def answer() -> pb.RespondResponse:
            trace = Trace()
            given, factors, draws, temperature = await self._read.respond(request, trace)
            before, found = await self._engine.respond(
                given, factors, draws=draws, seed=request.seed, temperature=temperature, trace=trace
            )
            return responses.responses(before, found, trace)

        return await self._answering.unary("Respond", request, answer, context, pb.RespondResponse())

    def interpret_stream(
        self, requests: AsyncIterator[pb.InterpretStreamRequest], context: CallContext
    ) -> AsyncGenerator[pb.InterpretStreamResponse]:
        """Interpret each message of a stream."""
        return self._stream(
            "InterpretStream",
            requests,
            lambda request: request.inputs,
            self._interpreted,
            pb.InterpretStreamResponse,
            context,
        )

    def edit_stream(
        self, requests: AsyncIterator[pb.EditStreamRequest], context: CallContext
    ) -> AsyncGenerator[pb.EditStreamResponse]:
        """Edit each message of a stream."""
        return self._stream(
            "EditStream", requests, lambda request: request.targets, self._edited, pb.EditStreamResponse, context
        )

    # Any: the messages of the two streams have the same fields and no common type.
    async def _stream(
        self,
        rpc: str,
        requests: AsyncIterator[Any],
        answered_for: Callable[[Any], Sequence[pb.Input]],
        work: Callable[[Any, Trace], Awaitable[Any]],
        kind: Any,
        context: CallContext,
    ) -> AsyncGenerator[Any]:
        """The answer, of a `kind`, that `work` finds for each message; bulk work waits its turn when there is much.

        An answer has as many items as the `answered_for` of its request.
        """

        async def answer(read: tuple[Any, int]) -> tuple[Any, int]:
            """The answer and its bytes to a message and its own: counted once, which costs as much as sending does."""
            message, size = read
            items = self._read.items.most_items(answered_for(message.request))
            most = responses.most_bytes(self._engine.manifest, items) + len(message.item_id.encode())

            async def answered() -> Any:
                response = await work(message.request, Trace(patient=True))
                return kind(item_id=message.item_id, response=response)

            def failed(fault: Fault) -> Any:
                return kind(item_id=message.item_id, error=_item_error(fault))

            found = await self._answering.once(rpc, size, answered, failed, kept=kept, most=most)
            size = found.ByteSize()
            kept.answered(size, most)
            return found, size

        window = self._engine.limits.stream_window
        try:
            # Until the call ends, which for a caller that does not read is after it was given up.
            with self._answering.opened() as kept:
                messages = self._answering.messages(requests, kept)
                answers = answered_in_order(messages, answer, window, idle_seconds=IDLE_SECONDS, given_up=kept.dropped)
                async with aclosing(answers):
                    async for found, size in answers:
                        yield found
                        kept.taken(size)
        except (Idle, InvalidInput, Overloaded) as error:
            self._answering.ended(rpc, error, context)

    def description(self) -> pb.GetModelResponse:
        """The model and the limits."""
        return pb.GetModelResponse(
            model=responses.model(self._engine.manifest), limits=responses.limits(self._engine.limits)
        )

    async def get_model(self, request: pb.GetModelRequest, context: CallContext) -> pb.GetModelResponse:
        """Describe the model and the limits."""

        async def answer() -> pb.GetModelResponse:
            return self.description()

        return await self._answering.unary("GetModel", request, answer, context, pb.GetModelResponse())

    async def list_models(self, request: pb.ListModelsRequest, context: CallContext) -> pb.ListModelsResponse:
        """List the models that are served side by side."""

        async def answer() -> pb.ListModelsResponse:
            if self._listed is None:
                self._listed = asyncio.create_task(self._list_for_a_while())
            # One who leaves does not end the question of the others.
            return pb.ListModelsResponse(models=await asyncio.shield(self._listed))

        return await self._answering.unary("ListModels", request, answer, context, pb.ListModelsResponse())

    async def _list_for_a_while(self) -> list[pb.ServedModel]:
        def forget() -> None:
            self._listed = None

        try:
            return await self._list_models()
        finally:
            asyncio.get_running_loop().call_later(LISTED_SECONDS, forget)


def _item_error(fault: Fault) -> pb.ItemError:
    """A fault as the answer to one message."""
    violations = [pb.FieldViolation(field=fault.field, description=fault.description)] if fault.field else []
    return pb.ItemError(code=fault.code.value[0], message=fault.message, violations=violations)
