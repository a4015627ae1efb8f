"""Messages of request streams from (id, inputs) pairs, and answers from the messages that come back."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import grpc
from iin_api.v1 import interpretation_pb2 as pb

from iin_client.edits import Edit
from iin_client.errors import CallError, Violation
from iin_client.inputs import Inputs
from iin_client.request_messages import edit_request, interpret_request
from iin_client.result_messages import edited, interpretations
from iin_client.results import Answer, Edited, Interpretations

__all__ = [
    "Fault",
    "edit_answer",
    "edit_messages",
    "edit_messages_async",
    "interpret_answer",
    "interpret_messages",
    "interpret_messages_async",
]

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Fault:
    """What went wrong in the caller's own items; gRPC would hide it behind a status."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def check(self) -> None:
        """Raises it, if there is one."""
        if self.error is not None:
            raise self.error


def interpret_messages(
    items: Iterable[tuple[str, Inputs]], fault: Fault, *, resize: bool
) -> Iterator[pb.InterpretStreamRequest]:
    """A message for each item; ends early, with `fault`, at one that cannot be sent."""
    try:
        for item_id, inputs in items:
            yield _interpret_message(item_id, inputs, resize)
    except Exception as error:
        fault.error = error


async def interpret_messages_async(
    items: AsyncIterable[tuple[str, Inputs]], fault: Fault, *, resize: bool
) -> AsyncIterator[pb.InterpretStreamRequest]:
    """The same for asyncio."""
    try:
        async for item_id, inputs in items:
            yield _interpret_message(item_id, inputs, resize)
    except Exception as error:
        fault.error = error


def edit_messages(
    items: Iterable[tuple[str, Inputs]], edits: Edit | Sequence[Edit], fault: Fault, **how: Any
) -> Iterator[pb.EditStreamRequest]:
    """As `interpret_messages`; `how` is that of `edit_request`."""
    try:
        for item_id, targets in items:
            yield pb.EditStreamRequest(item_id=item_id, request=edit_request(targets, edits, **how))
    except Exception as error:
        fault.error = error


async def edit_messages_async(
    items: AsyncIterable[tuple[str, Inputs]], edits: Edit | Sequence[Edit], fault: Fault, **how: Any
) -> AsyncIterator[pb.EditStreamRequest]:
    """The same for asyncio."""
    try:
        async for item_id, targets in items:
            yield pb.EditStreamRequest(item_id=item_id, request=edit_request(targets, edits, **how))
    except Exception as error:
        fault.error = error


def interpret_answer(response: pb.InterpretStreamResponse) -> Answer[Interpretations]:
    """One answer of `Client.interpret_stream`."""
    failed = response.HasField("error")
    return Answer(
        item_id=response.item_id,
        result=None if failed else interpretations(response.response),
        error=_error(response.error) if failed else None,
    )


def edit_answer(response: pb.EditStreamResponse) -> Answer[Edited]:
    """One answer of `Client.edit_stream`."""
    failed = response.HasField("error")
    return Answer(
        item_id=response.item_id,
        result=None if failed else edited(response.response),
        error=_error(response.error) if failed else None,
    )


def _interpret_message(item_id: str, inputs: Inputs, resize: bool) -> pb.InterpretStreamRequest:
    return pb.InterpretStreamRequest(item_id=item_id, request=interpret_request(inputs, resize=resize))


def _error(error: pb.ItemError) -> CallError:
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    violations = tuple(Violation(one.field, one.description) for one in error.violations)
    return CallError(code, f"{error.message} ({code.name})", violations)
