"""Reading requests: what a call may hold together, whatever its parts."""

import asyncio
import contextlib
import dataclasses
import io
import threading
import time
import tracemalloc

import numpy as np
import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_service import inputs as reading
from iin_service.errors import InvalidInput
from iin_service.graphs import CODECS, Compute
from iin_service.images import MAX_PIXELS
from iin_service.inputs import InputReader
from iin_service.items import Trace
from iin_service.requests import RequestReader
from PIL import Image, PngImagePlugin

from .fakes import picture, quick_graphs, rpcs_of


@pytest.fixture(scope="module")
def reader(bundle):
    return InputReader(bundle.manifest, Compute())


def read(reader, inputs):
    return asyncio.run(reader.inputs(inputs, "inputs", resize=True, trace=Trace()))


def test_items_of_one_kind_are_joined(reader):
    (given,) = read(reader, [picture(32)] * 3)
    assert (given.kind, given.items.shape) == ("image", (3, 3, 32, 32))


def test_numbers_of_an_image_are_near_the_range_of_the_model(reader):
    """Which is [-1, 1]."""

    def checked(kind, *numbers):
        return reader.checked(kind, np.array(numbers, np.float32), "inputs[0].data")

    assert checked("image", -2, 0, 2).tolist() == [-2, 0, 2]
    for beyond in (-2.01, 2.01):
        with pytest.raises(InvalidInput, match="numbers in the model's range, -1 to 1, got"):
            checked("image", 0, beyond)
    for kind in ("image", "latent", "factors"):
        for odd in (np.nan, np.inf):
            with pytest.raises(InvalidInput, match="finite values"):
                checked(kind, 0, odd)
    assert checked("latent", 1e6).tolist() == checked("factors", 1e6).tolist() == [1e6]


def test_pictures_of_one_call_share_a_budget_of_pixels(reader):
    large = picture(int((MAX_PIXELS / 2) ** 0.5) + 1)
    assert read(reader, [large])[0].items.shape == (1, 3, 32, 32)
    with pytest.raises(InvalidInput, match=f"at most {MAX_PIXELS} pixels in a call") as caught:
        read(reader, [large, large])
    assert caught.value.field == "inputs[1].encoded_image"


def with_texts(count):
    """A small file whose texts inflate to a megabyte each."""
    texts = PngImagePlugin.PngInfo()
    for index in range(count):
        texts.add_text(f"text {index}", "a" * 1_000_000, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG", pnginfo=texts, icc_profile=bytes(2_000_000))
    return pb.Input(encoded_image=file.getvalue())


def test_texts_and_profiles_are_not_inflated(reader):
    given = with_texts(40)
    assert len(given.encoded_image) < reading.BYTES_DECODED_AT_ONCE
    tracemalloc.start()
    try:
        (found,) = read(reader, [given])
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found.items, read(reader, [picture(32)])[0].items)


def test_a_shape_of_a_million_axes_does_not_become_numbers_of_pythons_own(reader):
    given = pb.Input(latent=pb.Tensor(shape=[1] * 1_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"got \[1, 1, .*\.\.\.$") as caught:
            read(reader, [given])
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert caught.value.field == "inputs[0].latent.shape"


def test_of_a_long_name_a_part_is_told(reader):
    given = [pb.EditOperation(factor="\0" * 1_000_000)]  # which Python writes as four characters each
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"got '(\\x00)*\.\.\.$") as caught:
            asyncio.run(RequestReader(reader).edits(given, 1, resize=False, trace=Trace()))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.field == "edits[0].factor"


@pytest.mark.parametrize(("targets", "told"), [(1, "expected 1 item, got 3"), (2, "1 item or 2, one a target")])
def test_a_source_of_another_number_of_items_than_the_targets_is_refused(targets, told, reader):
    size = reader.manifest.size
    edit = pb.EditOperation(factor="digit")
    edit.replace.source.factors.CopyFrom(pb.Tensor(shape=[3, size], data=bytes(12 * size)))
    with pytest.raises(InvalidInput, match=told) as caught:
        asyncio.run(RequestReader(reader).edits([edit], targets, resize=False, trace=Trace()))
    assert caught.value.field == "edits[0].replace.source"


def test_large_files_are_not_opened_in_the_event_loop(reader, monkeypatch):
    seen, open_picture = [], reading.open_picture

    def opening(*arguments, **options):
        seen.append(threading.current_thread() is threading.main_thread())
        return open_picture(*arguments, **options)

    monkeypatch.setattr(reading, "open_picture", opening)
    large = pb.Input(encoded_image=picture(32).encoded_image + bytes(reading.BYTES_DECODED_AT_ONCE // 2))
    read(reader, [large, large, large])
    assert seen == [True, False, False], "together more bytes than one call may have decoded at once"


def test_small_pictures_that_become_large_are_not_decoded_in_the_event_loop(bundle, monkeypatch):
    seen, decode_picture = [], reading.decode_picture

    def decoding(*arguments, **options):
        seen.append(threading.current_thread() is threading.main_thread())
        return decode_picture(*arguments, **options)

    monkeypatch.setattr(reading, "decode_picture", decoding)
    image = dataclasses.replace(bundle.manifest.image, height=256, width=256)
    (given,) = read(
        InputReader(dataclasses.replace(bundle.manifest, image=image), Compute()), [picture(1), picture(1), picture(1)]
    )
    assert given.items.shape == (3, 3, 256, 256)
    assert seen == [True, False, False], "together more pixels than one call may have decoded at once"


def test_large_arrays_are_not_joined_in_the_event_loop(bundle, reader, monkeypatch):
    seen, concatenate = [], np.concatenate

    def watched(arrays, *how):
        if np.ndim(arrays[0]) == 4:  # pictures
            seen.append(threading.current_thread() is threading.main_thread())
        return concatenate(arrays, *how)

    monkeypatch.setattr(np, "concatenate", watched)
    few, many = read(reader, [picture()] * 3), read(reader, [picture()] * 100)
    assert [len(one.items) for one in (*few, *many)] == [3, 100]
    assert seen == [True, False]

    async def factors():
        return await rpcs_of(bundle, quick_graphs(bundle))._engine.factors([*many, *few], Trace())

    assert asyncio.run(factors()).shape == (103, bundle.manifest.size)
    assert seen == [True, False, False]


def test_calls_that_are_given_up_do_not_free_a_decoder_that_still_works(reader, monkeypatch):
    under_way, most, decode_picture = [], [], reading.decode_picture

    def decoding(*arguments, **options):
        under_way.append(None)
        most.append(len(under_way))
        time.sleep(0.02)
        under_way.pop()
        return decode_picture(*arguments, **options)

    monkeypatch.setattr(reading, "decode_picture", decoding)
    large = picture(300)

    async def run():
        for _ in range(12):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.inputs([large], "inputs", resize=True, trace=Trace()), 0.005)
        return await reader.inputs([large], "inputs", resize=True, trace=Trace())

    (given,) = asyncio.run(run())
    assert given.items.shape == (1, 3, 32, 32)
    assert max(most) <= CODECS
