"""InterpretationService: each RPC checks and converts the request, calls the engine and converts the result back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextvars import Context
from typing import TypeVar

from google.protobuf import message as protobuf
from iin_api.v1 import interpretation_pb2 as pb

from iin_service import responses
from iin_service.answering import Answering
from iin_service.engine import Engine
from iin_service.faults import CallContext
from iin_service.items import Decoded, Trace, Wanted
from iin_service.requests import RequestReader

__all__ = ["InterpretationRpcs", "ListModels"]

LISTED_SECONDS = 1.0  # for which an answer to ListModels is kept: Serve's controller, which is busy, is asked for each
ListModels = Callable[[], Awaitable[list[pb.ServedModel]]]
"""Finds the models that are served side by side."""
Message = TypeVar("Message", bound=protobuf.Message)


class InterpretationRpcs:
    """InterpretationService for one engine."""

    def __init__(self, engine: Engine, reader: RequestReader, answering: Answering, list_models: ListModels) -> None:
        """Answer with `engine`; `list_models` knows of the other models."""
        self._engine, self._read, self._answering, self._list_models = engine, reader, answering, list_models
        self._admitted = engine.compute.admitted
        self._sizes = responses.Sizes(engine.manifest)
        self._per_message = self._sizes.samples_per_message(engine.compute.limits)
        self._window = engine.compute.limits.stream_window
        self._listed: asyncio.Task[list[pb.ServedModel]] | None = None

    async def interpret(self, request: pb.InterpretRequest, context: CallContext) -> pb.InterpretResponse:
        """Translate images or latents into factors."""
        return await self._answering.unary(
            "Interpret", request, lambda: self._interpreted(request, Trace()), context, pb.InterpretResponse()
        )

    async def _interpreted(self, request: pb.InterpretRequest, trace: Trace) -> pb.InterpretResponse:
        responses.check_bytes(self._most_interpreted(request), "inputs")
        items = self._read.items.most_items(request.inputs)
        async with self._admitted(items, patient=trace.patient, turn=trace.turn):
            given = await self._read.items.inputs(request.inputs, "inputs", resize=request.resize, trace=trace)
            return responses.interpretation(await self._engine.interpret(given, trace), trace)

    def _most_interpreted(self, request: pb.InterpretRequest) -> int:
        """Bytes of the largest answer."""
        return self._sizes.most(self._read.items.most_items(request.inputs), images=False)

    async def edit(self, request: pb.EditRequest, context: CallContext) -> pb.EditResponse:
        """Change factors of the targets and decode the result."""
        return await self._answering.unary(
            "Edit", request, lambda: self._edited(request, Trace()), context, pb.EditResponse()
        )

    async def _edited(self, request: pb.EditRequest, trace: Trace) -> pb.EditResponse:
        read, resize = self._read, request.resize
        wanted = self._wanted(request, read.items.most_items(request.targets), "targets")
        async with self._admitted(read.most_items(request), patient=trace.patient, turn=trace.turn):
            targets = await read.items.inputs(request.targets, "targets", resize=resize, trace=trace)
            count = sum(len(one.items) for one in targets)
            edits = await read.edits(request.edits, count, resize=resize, trace=trace)
            result = await self._engine.edit(targets, edits, wanted, trace)
            return await self._decoded(pb.EditResponse, request.format, result, trace)

    def _most_edited(self, request: pb.EditRequest) -> int:
        """Bytes of the largest answer."""
        images = request.format != pb.IMAGE_FORMAT_NONE
        return self._sizes.most(
            self._read.items.most_items(request.targets), images=images, latents=request.return_latents
        )

    def _wanted(
        self, request: pb.EditRequest | pb.SampleRequest | pb.TraverseRequest, items: int, field: str
    ) -> Wanted:
        """What is wanted of so many items in one message; refused where the model or a message cannot hold it.

        Of files the size is known only once they are written, see `_decoded`.
        """
        wanted = self._read.wanted(request)
        self._engine.check(wanted)
        raw = request.format == pb.IMAGE_FORMAT_RAW
        responses.check_bytes(self._sizes.most(items, images=raw, latents=wanted.latents), field)
        return wanted

    async def _decoded(
        self, kind: Callable[..., Message], image_format: int, result: Decoded, trace: Trace, **more: int
    ) -> Message:
        """A message of a `kind` with the result, and `more` fields."""
        spec, in_thread = self._engine.manifest.image, self._engine.compute.encode
        fields = await responses.decoded(result, spec, image_format, trace, in_thread)
        message = kind(**more, **fields)
        if result.images is not None and image_format != pb.IMAGE_FORMAT_RAW:
            beside = self._sizes.most(len(result.factors), images=False, latents=result.latents is not None)
            # Counted only if it may be too large, because counting takes as long as sending.
            if sum(map(len, fields["images"].encoded)) + beside > responses.MAX_MESSAGE_BYTES:
                responses.check_bytes(message.ByteSize(), "format")
        return message

    def sample(self, request: pb.SampleRequest, context: CallContext) -> AsyncGenerator[pb.SampleResponse]:
        """Draw from the prior and decode, several images to a message."""
        return self._answering.stream("Sample", request, lambda: self._samples(request), context)

    async def _samples(self, request: pb.SampleRequest) -> Iterator[Callable[[], Awaitable[pb.SampleResponse]]]:
        trace, wanted = Trace(), self._wanted(request, 1, "format")
        async with self._admitted(self._read.most_items(request), patient=False):
            temperature, truncation, fixed = await self._read.sample(request, trace)
            held = await self._engine.held(fixed, trace)
        return self._engine.sample(
            request.count,
            size=self._per_message,
            seed=request.seed,
            temperature=temperature,
            truncation=truncation,
            held=held,
            wanted=wanted,
            trace=trace,
            write=lambda first, *found: self._decoded(pb.SampleResponse, request.format, *found, first_index=first),
        )

    def traverse(self, request: pb.TraverseRequest, context: CallContext) -> AsyncGenerator[pb.TraverseResponse]:
        """Follow a path through factors, several frames to a message."""
        return self._answering.stream("Traverse", request, lambda: self._frames(request), context)

    async def _frames(self, request: pb.TraverseRequest) -> Iterator[Callable[[], Awaitable[pb.TraverseResponse]]]:
        trace, wanted = Trace(), self._wanted(request, 1, "format")
        async with self._admitted(self._read.most_items(request), patient=False):
            start, path, destination = await self._read.traverse(request, trace)
            ends = await self._engine.factors([start] if destination is None else [start, destination], trace)
        return self._engine.traverse(
            ends,
            path,
            request.frames,
            size=self._per_message,
            wanted=wanted,
            trace=trace,
            write=lambda first, *found: self._decoded(pb.TraverseResponse, request.format, *found, first_index=first),
            field=start.field,
        )

    async def respond(self, request: pb.RespondRequest, context: CallContext) -> pb.RespondResponse:
        """Tell how the head's classes respond to factors drawn anew."""
        items = self._read.items.most_items(request.inputs)
        factors = min(len(request.factors), len(self._engine.layout.names)) or len(self._engine.layout.names)
        size = self._sizes.analysis(items, factors)

        async def answer() -> pb.RespondResponse:
            trace = Trace()
            responses.check_bytes(size, "inputs")
            # The sums, two arrays of float64, have twice the answer's bytes, their means as many, plus the answer.
            with self._answering.room.works(5 * size):
                async with self._admitted(items, patient=False):
                    given, names, draws, temperature = await self._read.respond(request, trace)
                    found, before = await self._engine.classified(given, trace)
                del given  # it counts no more
                told = await self._engine.respond(
                    found, before, names, draws=draws, seed=request.seed, temperature=temperature, trace=trace
                )
                return responses.analysis(before, told, trace)

        return await self._answering.unary("Respond", request, answer, context, pb.RespondResponse())

    def interpret_stream(
        self, requests: AsyncIterator[pb.InterpretStreamRequest], context: CallContext
    ) -> AsyncGenerator[pb.InterpretStreamResponse]:
        """Interpret each message of a stream."""
        how = self._interpreted, self._most_interpreted, pb.InterpretStreamResponse, self._window, context
        return self._answering.each("InterpretStream", requests, *how)

    def edit_stream(
        self, requests: AsyncIterator[pb.EditStreamRequest], context: CallContext
    ) -> AsyncGenerator[pb.EditStreamResponse]:
        """Edit each message of a stream."""
        how = self._edited, self._most_edited, pb.EditStreamResponse, self._window, context
        return self._answering.each("EditStream", requests, *how)

    def description(self) -> pb.GetModelResponse:
        """The model and the limits."""
        return pb.GetModelResponse(
            model=responses.model(self._engine.manifest),
            limits=responses.limits(self._engine.compute.limits, self._sizes),
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
                # In a context of its own: in that of this call, Serve would cancel it for all if this caller leaves.
                self._listed = asyncio.create_task(self._list_for_a_while(), context=Context())
            return pb.ListModelsResponse(models=await asyncio.shield(self._listed))

        return await self._answering.unary("ListModels", request, answer, context, pb.ListModelsResponse())

    async def _list_for_a_while(self) -> list[pb.ServedModel]:
        def forget() -> None:
            self._listed = None

        try:
            return await self._list_models()
        finally:
            asyncio.get_running_loop().call_later(LISTED_SECONDS, forget)
