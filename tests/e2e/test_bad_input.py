"""A page of hostile requests: each is answered with its field, and the service goes on as before."""

import concurrent.futures
import io
import struct
import zlib

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from iin_api.v1 import interpretation_pb2 as pb
from PIL import Image

PNG = pb.IMAGE_FORMAT_PNG
GOOD = pb.Input(factors=pb.Tensor(shape=[32], data=bytes(128)))


def tensor(shape, values=0.0, length=None):
    data = np.full(abs(int(np.prod(shape))), values, "<f4").tobytes()
    return pb.Tensor(shape=shape, data=data if length is None else bytes(length))


def interpret(value):
    return "Interpret", pb.InterpretRequest(inputs=[value])


def edit(operation, targets=(GOOD,), image_format=PNG):
    return "Edit", pb.EditRequest(targets=targets, edits=[operation], format=image_format)


def edit_all(operations, targets):
    return "Edit", pb.EditRequest(targets=targets, edits=operations, format=PNG)


def sample(**fields):
    return "Sample", pb.SampleRequest(**{"count": 1, "format": PNG} | fields)


def replace_with(source=GOOD, **fields):
    return pb.EditOperation(factor="digit", replace=pb.Replace(source=source, **fields))


def saved(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def black(size, rows):
    """A grey PNG of `size` x `size` pixels that has so many black rows; 20,000 are a bomb in 400 kB."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + size) * rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def many_scans():
    """A progressive JPEG that repeats its last scan."""
    file = io.BytesIO()
    Image.new("L", (32, 32), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()[:-2]
    return data + data[data.rindex(b"\xff\xda") :] * 200 + b"\xff\xd9"


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
SHIFT = pb.Shift(direction=[1] * 7, distance=1)

# name: (request, field at fault, words of the message)
HOSTILE = {
    "no inputs": (("Interpret", pb.InterpretRequest()), "inputs", "at least one"),
    "an empty input": (interpret(pb.Input()), "inputs[0]", "got nothing"),
    "no image": (interpret(pb.Input(encoded_image=b"nonsense")), "inputs[0].encoded_image", "do not decode"),
    "no bytes": (interpret(pb.Input(encoded_image=b"")), "inputs[0].encoded_image", "0 bytes"),
    "truncated": (interpret(pb.Input(encoded_image=saved(NOISE)[:-99])), "inputs[0].encoded_image", "do not decode"),
    "bomb": (
        ("Interpret", pb.InterpretRequest(inputs=[pb.Input(encoded_image=black(20_000, 20_000))], resize=True)),
        "inputs[0].encoded_image",
        "pixels",
    ),
    "half a picture": (interpret(pb.Input(encoded_image=black(32, 16))), "inputs[0].encoded_image", "rows are missing"),
    "many scans": (interpret(pb.Input(encoded_image=many_scans())), "inputs[0].encoded_image", "at most 100 scans"),
    "bytes in place of the model's range": (
        interpret(pb.Input(image=pb.Tensor(shape=[3, 32, 32], data=np.full((3, 32, 32), 255, "<f4").tobytes()))),
        "inputs[0].image.data",
        "numbers in the model's range, -1 to 1, got 255 to 255",
    ),
    "wrong size": (
        interpret(pb.Input(encoded_image=saved(NOISE.resize((31, 32))))),
        "inputs[0].encoded_image",
        "32x32 pixels, got 31x32; set resize",
    ),
    "wrong format": (interpret(pb.Input(encoded_image=saved(NOISE, "GIF"))), "inputs[0].encoded_image", "PNG, JPEG"),
    "NaN": (interpret(pb.Input(image=tensor([3, 32, 32], np.nan))), "inputs[0].image.data", "finite"),
    "infinity": (interpret(pb.Input(latent=tensor([32], np.inf))), "inputs[0].latent.data", "finite"),
    "huge values": (interpret(pb.Input(latent=tensor([32], 3e38))), "inputs[0].latent", "overflow"),
    "short data": (interpret(pb.Input(latent=tensor([32], length=127))), "inputs[0].latent.data", "128 bytes"),
    "long data": (interpret(pb.Input(latent=tensor([32], length=132))), "inputs[0].latent.data", "128 bytes"),
    "no data": (interpret(pb.Input(latent=tensor([32], length=0))), "inputs[0].latent.data", "128 bytes"),
    "wrong shape": (interpret(pb.Input(image=tensor([32, 32, 3]))), "inputs[0].image.shape", "[3, 32, 32]"),
    "no rows": (interpret(pb.Input(latent=tensor([0, 32]))), "inputs[0].latent.shape", "N >= 1"),
    "no shape": (interpret(pb.Input(latent=pb.Tensor())), "inputs[0].latent.shape", "[32]"),
    "negative shape": (interpret(pb.Input(latent=tensor([-1, 32]))), "inputs[0].latent.shape", "N >= 1"),
    "overflowing shape": (
        interpret(pb.Input(latent=pb.Tensor(shape=[2**62, 32], data=b""))),
        "inputs[0].latent",
        "at most 256",
    ),
    "too many rows": (interpret(pb.Input(latent=tensor([257, 32]))), "inputs[0].latent", "at most 256"),
    "too many inputs": (("Interpret", pb.InterpretRequest(inputs=[GOOD] * 257)), "inputs", "at most 256 items"),
    "too many together": (
        ("Interpret", pb.InterpretRequest(inputs=[pb.Input(factors=tensor([200, 32]))] * 2)),
        "inputs",
        "got 400",
    ),
    "no targets": (edit(replace_with(), targets=[]), "targets", "at least one"),
    "no edits": (("Edit", pb.EditRequest(targets=[GOOD], format=PNG)), "edits", "at least one"),
    "too many edits": (
        ("Edit", pb.EditRequest(targets=[GOOD], edits=[replace_with()] * 65, format=PNG)),
        "edits",
        "at most 64",
    ),
    "no operation": (edit(pb.EditOperation(factor="digit")), "edits[0].operation", "replace, set"),
    "unknown factor": (
        edit(pb.EditOperation(factor="size", shift=SHIFT)),
        "edits[0].factor",
        "one of residual, digit, colour, got 'size'",
    ),
    "a very long name": (
        edit(pb.EditOperation(factor="x" * 100_000, shift=SHIFT)),
        "edits[0].factor",
        "one of residual, digit, colour, got 'xxx",
    ),
    "very many axes": (
        interpret(pb.Input(latent=pb.Tensor(shape=[1] * 100_000))),
        "inputs[0].latent.shape",
        "got [1, 1",
    ),
    "too many sources": (
        edit_all(
            [replace_with(pb.Input(factors=tensor([200, 32])))] * 2, targets=[pb.Input(factors=tensor([200, 32]))]
        ),
        "edits",
        "at most 256 items in a call, got 400",
    ),
    "strength above 1": (edit(replace_with(strength=1.5)), "edits[0].replace.strength", "[0, 1], got 1.5"),
    "strength a little above 1": (
        edit(replace_with(strength=1.0000001)),
        "edits[0].replace.strength",
        "[0, 1], got 1.0000001",
    ),
    "strength below 0": (edit(replace_with(strength=-0.1)), "edits[0].replace.strength", "[0, 1]"),
    "strength NaN": (edit(replace_with(strength=np.nan)), "edits[0].replace.strength", "got nan"),
    "no source": (edit(replace_with(pb.Input())), "edits[0].replace.source", "got nothing"),
    "sources that do not match": (
        edit(replace_with(pb.Input(factors=tensor([3, 32]))), targets=[pb.Input(factors=tensor([2, 32]))]),
        "edits[0].replace.source",
        "1 item or 2, one a target, got 3",
    ),
    "short values": (
        edit(pb.EditOperation(factor="digit", set=pb.SetValue(values=[1]))),
        "edits[0].set.values",
        "got 1",
    ),
    "NaN values": (
        edit(pb.EditOperation(factor="digit", shift=pb.Shift(direction=[np.nan] * 7))),
        "edits[0].shift.direction",
        "finite",
    ),
    "no direction": (
        edit(pb.EditOperation(factor="digit", shift=pb.Shift(direction=[0] * 7, distance=1))),
        "edits[0].shift.direction",
        "not all zero",
    ),
    "infinite distance": (
        edit(pb.EditOperation(factor="digit", shift=pb.Shift(direction=[1] * 7, distance=np.inf))),
        "edits[0].shift.distance",
        "finite",
    ),
    "negative temperature": (
        edit(pb.EditOperation(factor="digit", resample=pb.Resample(temperature=-1))),
        "edits[0].resample.temperature",
        "at least 0",
    ),
    "no format": (edit(replace_with(), image_format=0), "format", "IMAGE_FORMAT_PNG"),
    "unknown format": (edit(replace_with(), image_format=99), "format", "got 99"),
    "no samples": (sample(count=0), "count", "between 1 and"),
    "too many samples": (sample(count=2**32 - 1), "count", "between 1 and"),
    "sample without format": (sample(format=0), "format", "IMAGE_FORMAT_PNG"),
    "infinite temperature": (sample(temperature=np.inf), "temperature", "finite"),
    "extreme temperature": (sample(temperature=3e38), "temperature", "overflow"),
    "extreme temperature beside a fixed factor": (
        sample(temperature=1e38, fixed=[pb.FixedFactor(factor="digit", set=pb.SetValue(values=[0] * 7))]),
        "temperature",
        "overflow",
    ),
    "a huge source": (
        sample(
            fixed=[
                pb.FixedFactor(factor="digit", set=pb.SetValue(values=[0] * 7)),
                pb.FixedFactor(factor="residual", source=pb.Input(factors=tensor([32], 3e38))),
            ]
        ),
        "fixed[1].source.factors",
        "overflow",
    ),
    "nothing fixed": (sample(fixed=[pb.FixedFactor(factor="digit")]), "fixed[0].value", "a source or set"),
    "fixed twice": (
        sample(fixed=[pb.FixedFactor(factor="digit", source=GOOD)] * 2),
        "fixed[1].factor",
        "at most once",
    ),
    "two sources": (
        sample(fixed=[pb.FixedFactor(factor="digit", source=pb.Input(factors=tensor([2, 32])))]),
        "fixed[0].source",
        "1 item, got 2",
    ),
}


def call(stub, method, request):
    answer = getattr(stub, method)(request, timeout=60)
    return list(answer) if method == "Sample" else answer


@pytest.mark.parametrize(("request_", "field", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_request_is_answered_with_its_field(stub, request_, field, words):
    with pytest.raises(grpc.RpcError) as caught:
        call(stub, *request_)
    error = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    assert words in error.details()
    assert "Traceback" not in error.details()
    (packed,) = rpc_status.from_call(error).details
    detail = error_details_pb2.BadRequest()
    assert packed.Unpack(detail)
    assert [violation.field for violation in detail.field_violations] == [field]


def test_hostile_requests_among_good_ones_harm_none(stub, client, pictures):
    alone = client.interpret(pictures[0]).factors
    good = pb.InterpretRequest(inputs=[pb.Input(encoded_image=pictures[0].read_bytes())])
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers, refusals = [], []
        for request, _, _ in HOSTILE.values():
            answers.append(pool.submit(call, stub, "Interpret", good))
            refusals.append(pool.submit(call, stub, *request))
        for answer in answers:
            found = np.frombuffer(answer.result().factors.data, "<f4")
            np.testing.assert_allclose(found, alone[0], atol=1e-4)
        codes = {refusal.exception().code() for refusal in refusals}
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT}


def test_a_message_past_the_limit_is_refused_and_the_service_lives(stub, client):
    large = pb.InterpretRequest(inputs=[pb.Input(encoded_image=bytes(65 * 1024 * 1024))])
    with pytest.raises(grpc.RpcError) as caught:
        stub.Interpret(large, timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.get_model().name == "digits"


@pytest.mark.parametrize(
    ("method", "data"), [("Interpret", b"\xff\xff\xff"), ("Sample", b"\xff"), ("Edit", b"\x12\x03\x0a\x01\xff")]
)
def test_bytes_that_are_no_message_are_refused_and_the_service_lives(method, data, service, client):
    with grpc.insecure_channel(service.address) as channel:
        raw = channel.unary_unary(f"/iin_api.v1.InterpretationService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            raw(data, timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert client.get_model().name == "digits"
