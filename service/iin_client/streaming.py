"""Messages of request streams from (id, inputs) pairs, and answers from the messages that come back."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc
from iin_api.v1 import interpretation_pb2 as pb

from iin_client.errors import CallError, Violation
from iin_client.inputs import Inputs
from iin_client.request_messages import input_messages, interpret_request
from iin_client.result_messages import edited, interpretations
from iin_client.results import Answer, Edited, Interpretations

__all__ = [
    "Fault",
    "edit_answer",
    "edit_message",
    "interpret_answer",
    "interpret_message",
    "messages",
    "messages_async",
]

Message = TypeVar("Message")
Result = TypeVar("Result")

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Fault:
    """What went wrong in the caller's own items; gRPC would hide it behind a status."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def check(self) -> None:
        """Raises it, if there is one."""
        if self.error is not None:
            raise self.error


def messages(
    items: Iterable[tuple[str, Inputs]], message: Callable[[str, Inputs], Message], fault: Fault
) -> Iterator[Message]:
    """A message for each item; ends early, with `fault`, at one that cannot be sent."""
    try:
        for item_id, inputs in items:
            yield message(item_id, inputs)
    except Exception as error:
        fault.error = error


async def messages_async(
    items: AsyncIterable[tuple[str, Inputs]], message: Callable[[str, Inputs], Message], fault: Fault
) -> AsyncIterator[Message]:
    """The same for asyncio."""
    try:
        async for item_id, inputs in items:
            yield message(item_id, inputs)
    except Exception as error:
        fault.error = error


def interpret_message(*, resize: bool) -> Callable[[str, Inputs], pb.InterpretStreamRequest]:
    """Makes the messages of `Client.interpret_stream`."""

    def message(item_id: str, inputs: Inputs) -> pb.InterpretStreamRequest:
        return pb.InterpretStreamRequest(item_id=item_id, request=interpret_request(inputs, resize=resize))

    return message


def edit_message(edits: pb.EditRequest) -> Callable[[str, Inputs], pb.EditStreamRequest]:
    """Makes the messages of `Client.edit_stream`: `edits`, whose sources are read once, with the targets of each."""

    def message(item_id: str, targets: Inputs) -> pb.EditStreamRequest:
        found = pb.EditStreamRequest(item_id=item_id, request=edits)
        found.request.targets.extend(input_messages(targets, "targets"))
        return found

    return message


def interpret_answer(response: pb.InterpretStreamResponse) -> Answer[Interpretations]:
    """One answer of `Client.interpret_stream`."""
    return _answer(response, interpretations)


def edit_answer(response: pb.EditStreamResponse) -> Answer[Edited]:
    """One answer of `Client.edit_stream`."""
    return _answer(response, edited)


# Any: the responses of the two streams have the same fields and no common type.
def _answer(response: Any, read: Callable[[Any], Result]) -> Answer[Result]:
    if response.HasField("error"):
        return Answer(item_id=response.item_id, result=None, error=_error(response.error))
    return Answer(item_id=response.item_id, result=read(response.response), error=None)


def _error(error: pb.ItemError) -> CallError:
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    violations = tuple(Violation(one.field, one.description) for one in error.violations)
    return CallError(code, f"{error.message} ({code.name})", violations)
