"""A client that blocks."""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
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

__all__ = ["Client"]

Result = TypeVar("Result")


class Client(BaseClient):
    """Calls the service and waits for its answers; safe to share between threads.

    UNAVAILABLE is retried up to three times within the deadline. Every call raises CallError where the service refuses
    it or fails, ValueError for what cannot be sent and OSError for unreadable files.

    Args:
        address: `host:port`, or a gRPC target such as `dns:///iin.svc:9000`; with `tls` the port may be left out: 443.
        timeout: deadline of a call in seconds; streams of requests have none.
        application: the model to use where several are served, or models with the share of the calls that each
            gets, such as `{"digits": 0.95, "digits-canary": 0.05}`.
        tls: how to encrypt; plaintext if None.
        token: for a gateway in front, one line of printable ASCII, sent as `authorization: Bearer`; needs `tls`.

    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and what still runs on it."""
        self._channel.close()

    def interpret(self, inputs: Inputs, *, resize: bool = False) -> Interpretations:
        """Translates N items into latents (see `Interpretations`) and factors `(N, D)`, with their likelihood.

        With `resize`, pictures of another size are cropped around the centre and resized (bicubic); else the service
        rejects them.
        """
        request = request_messages.interpret_request(inputs, resize=resize)
        return self._answer(self._stub.Interpret, request, result_messages.interpretations)

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
        request = request_messages.edit_request(targets, edits, output=output, resize=resize, latents=latents)
        return self._answer(self._stub.Edit, request, result_messages.edited)

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
    ) -> Generator[Samples, None, None]:
        """Draws `count` images from the prior; they arrive in order, several at a time.

        `seed` in [0, 2^64) repeats the same images; `temperature` >= 0 is the standard deviation of the
        drawn factors; `truncation` >= 0.1 draws every value beyond it again, for more typical images;
        `fixed` holds factors at a source's or at given values; `latents` gives those too. The call begins
        when the first answer is asked for. The deadline is that of the whole stream. Closing or deleting the
        generator cancels the call.
        """
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
    ) -> Generator[Frames, None, None]:
        """Follows `path` from `start` (1 item) in 2 to `Limits.max_samples` frames; the first has the start's factors.

        They arrive in order, several at a time; beginning, deadline and end as in `sample`.
        """
        request = request_messages.traverse_request(start, path, frames, output=output, resize=resize, latents=latents)
        return self._answers(self._stub.Traverse, request, result_messages.frames)

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

        Network response analysis with `draws` >= 2 draws an item and factor, all of them together at most
        `Limits.max_samples`; needs a model with a head. `seed` in [0, 2^64) repeats the draws, the same for every
        item; `temperature` >= 0 is their standard deviation.
        """
        request = request_messages.respond_request(
            inputs, factors=factors, draws=draws, seed=seed, temperature=temperature, resize=resize
        )
        return self._answer(self._stub.Respond, request, result_messages.responses)

    def interpret_stream(
        self, items: Iterable[tuple[str, Inputs]], *, resize: bool = False
    ) -> Generator[Answer[Interpretations], None, None]:
        """Interprets (id, inputs) pairs as fast as the service takes them; answers arrive in the same order.

        The call begins, and the first item is read, when the first answer is asked for. At most 64 items are
        sent ahead of the answers that were taken; a thread reads those that come meanwhile. What is wrong with
        one item is its answer's `error` and ends nothing; one that cannot be sent (OSError, ValueError) ends the
        stream after the answers before it. After a broken connection (CallError) go on with the item after the
        last one answered.
        """
        message = partial(request_messages.interpret_stream_request, resize=resize)
        return self._streamed(self._stub.InterpretStream, items, message, result_messages.interpretations)

    def edit_stream(
        self,
        items: Iterable[tuple[str, Inputs]],
        edits: Edit | Sequence[Edit],
        *,
        output: Output = "png",
        resize: bool = False,
        latents: bool = False,
    ) -> Generator[Answer[Edited], None, None]:
        """Applies `edits` to the targets of (id, targets) pairs; otherwise as `interpret_stream`.

        The sources of `edits` are read once, before this returns.
        """
        request = request_messages.edit_request([], edits, output=output, resize=resize, latents=latents)
        message = partial(request_messages.edit_stream_request, edits=request)
        return self._streamed(self._stub.EditStream, items, message, result_messages.edited)

    def list_models(self) -> tuple[ServedModel, ...]:
        """Lists the models that are served side by side, none where nothing is deployed."""
        options, end = self._options(), time.monotonic() + self._timeout
        with self._errors():
            try:
                return result_messages.served_models(self._stub.ListModels(pb.ListModelsRequest(), **options))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND or self._applications:
                    raise
                # Any of the models lists them all. Ray tells their names, unless a gateway refuses calls to it.
                try:
                    remaining = self._remaining(options, end)
                    names = result_messages.application_names(self._list_applications(b"", **remaining))
                except grpc.RpcError as refused:
                    raise error if refused.code() in REFUSED_BY_GATEWAY else refused from None
            if not names:
                return ()
            options["metadata"] += (("application", names[0]),)
            remaining = self._remaining(options, end)
            return result_messages.served_models(self._stub.ListModels(pb.ListModelsRequest(), **remaining))

    def get_model(self) -> Model:
        """Describes the model and the service's limits."""
        return self._answer(self._stub.GetModel, pb.GetModelRequest(), result_messages.model_description)

    def wait_until_ready(self, timeout: float = 60.0) -> Model:
        """Waits up to `timeout` seconds until the model is served; CallError after that."""
        end = time.monotonic() + timeout
        while True:
            try:
                with self._errors(timeout):
                    options = self._attempt(end - time.monotonic())
                    return result_messages.model_description(self._stub.GetModel(pb.GetModelRequest(), **options))
            except CallError as error:
                if error.code not in NOT_READY or time.monotonic() + PAUSE_S >= end:
                    raise
            time.sleep(PAUSE_S)

    def _answer(self, call: Any, request: Any, read: Callable[[Any], Result]) -> Result:
        """The answer to a request, converted by `read`."""
        with self._errors():
            return read(call(request, **self._options()))

    def _answers(self, call: Any, request: Any, read: Callable[[Any], Result]) -> Generator[Result, None, None]:
        """The answers to a request, each converted by `read`."""
        received = call(request, **self._options())
        try:
            with self._errors():
                yield from map(read, received)
        finally:
            received.cancel()

    def _streamed(
        self,
        call: Any,
        items: Iterable[tuple[str, Inputs]],
        message: Callable[[str, Inputs], Any],
        read: Callable[[Any], Result],
    ) -> Generator[Answer[Result], None, None]:
        """The answers to a stream of requests that `message` makes of items; raises the error of an item at the end."""
        sending = streaming.Sending(threading.Semaphore(streaming.AHEAD))
        received = call(streaming.messages(items, message, sending), metadata=self._metadata())
        try:
            with self._errors():
                for response in streaming.as_they_come(received):
                    sending.room.release()
                    yield streaming.answer(response, read)
        finally:
            received.cancel()
            sending.end()
        sending.check()
