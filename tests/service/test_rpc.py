"""What callers are told: codes and details for their mistakes, an identifier for ours."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import read_bundle
from iin_service.answering import Answering
from iin_service.engine import Engine
from iin_service.errors import Overloaded
from iin_service.inputs import InputReader
from iin_service.items import Limits
from iin_service.recording import Silent
from iin_service.requests import RequestReader
from iin_service.rpc import InterpretationRpcs
from iin_service.sessions import Sessions


class Context:
    """Keeps what a call sets on its context."""

    code = details = None
    metadata = ()

    def set_code(self, code):
        self.code = code

    def set_details(self, details):
        self.details = details

    def set_trailing_metadata(self, metadata):
        self.metadata = metadata


@pytest.fixture(scope="module")
def bundle(digits_bundle):
    return read_bundle(digits_bundle)


def rpcs_of(bundle, runner):
    reader = RequestReader(InputReader(bundle.manifest, Limits()))
    return InterpretationRpcs(Engine(bundle.manifest, runner, Limits()), reader, Answering(Silent()), no_models)


async def no_models():
    return []


def latent_request(bundle):
    shape = bundle.manifest.latent_shape
    return pb.InterpretRequest(inputs=[pb.Input(latent=pb.Tensor(shape=shape, data=bytes(4 * bundle.manifest.size)))])


def raising(error):
    def run(items):
        raise error

    return lambda role: run


def test_a_mistake_names_its_field_in_message_and_details(bundle):
    context = Context()
    rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).runner)
    asyncio.run(rpcs.interpret(pb.InterpretRequest(), context))
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.details == "inputs: expected at least one item, got none"
    status = status_pb2.Status.FromString(dict(context.metadata)["grpc-status-details-bin"])
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [(one.field, one.description) for one in detail.field_violations] == [
        ("inputs", "expected at least one item, got none")
    ]


def test_an_internal_error_tells_an_identifier_that_the_log_has(bundle, caplog):
    context = Context()
    rpcs = rpcs_of(bundle, raising(ZeroDivisionError("secret")))
    asyncio.run(rpcs.interpret(latent_request(bundle), context))
    assert context.code is grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    identifier = context.details.split()[2].rstrip(";")
    (record,) = [record for record in caplog.records if identifier in record.getMessage()]
    assert "secret" in str(record.exc_info[1])


def test_overload_is_resource_exhausted(bundle):
    context = Context()
    asyncio.run(rpcs_of(bundle, raising(Overloaded("full"))).interpret(latent_request(bundle), context))
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert context.details == "full"


def test_a_stream_that_fails_ends_with_its_status(bundle):
    async def collect(context):
        request = pb.SampleRequest(count=3, format=pb.IMAGE_FORMAT_PNG)
        return [response async for response in rpcs_of(bundle, raising(ValueError())).sample(request, context)]

    context = Context()
    assert asyncio.run(collect(context)) == []
    assert context.code is grpc.StatusCode.INTERNAL
