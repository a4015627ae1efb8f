"""Reading requests: what a call may hold together, whatever its parts."""

import asyncio
import io

import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import read_bundle
from iin_service.errors import InvalidInput
from iin_service.images import MAX_PIXELS
from iin_service.inputs import InputReader
from iin_service.items import Limits, Trace
from PIL import Image


@pytest.fixture(scope="module")
def reader(digits_bundle):
    return InputReader(read_bundle(digits_bundle).manifest, Limits())


def picture(side):
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return pb.Input(encoded_image=file.getvalue())


def read(reader, inputs):
    return asyncio.run(reader.inputs(inputs, "inputs", resize=True, trace=Trace()))


def test_neighbours_of_one_kind_are_joined(reader):
    (given,) = read(reader, [picture(32)] * 3)
    assert (given.kind, given.items.shape) == ("image", (3, 3, 32, 32))


def test_pictures_of_one_call_share_a_budget_of_pixels(reader):
    large = picture(int((MAX_PIXELS / 2) ** 0.5) + 1)
    assert read(reader, [large])[0].items.shape == (1, 3, 32, 32)
    with pytest.raises(InvalidInput, match=f"at most {MAX_PIXELS} pixels in a call") as caught:
        read(reader, [large, large])
    assert caught.value.field == "inputs[1].encoded_image"
