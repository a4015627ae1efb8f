"""Pictures in files: what is read, and what is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from iin_bundle import ImageSpec
from iin_service.errors import InvalidInput
from iin_service.images import decode_picture, encode_picture, open_picture
from PIL import Image

SPEC = ImageSpec(layout="NCHW", channels=3, height=24, width=32, minimum=-1.0, maximum=1.0)


def picture(mode="RGB", size=(32, 24)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data, resize=False, spec=SPEC):
    image = open_picture(data, spec, resize=resize, field="inputs[0].encoded_image")
    return decode_picture(image, spec, resize=resize, field="inputs[0].encoded_image")


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"kind": "WEBP", "lossless": True}])
def test_lossless_files_give_their_pixels_in_the_models_range(options):
    image = picture()
    expected = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(read(saved(image, **options)), expected, atol=1e-6)


def test_a_jpeg_is_read():
    smooth = Image.linear_gradient("L").resize((32, 24)).convert("RGB")
    expected = np.asarray(smooth, np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(read(saved(smooth, "JPEG", quality=98)), expected, atol=0.1)


def test_a_jpeg_with_a_preview_behind_it_is_its_first_picture():
    smooth = Image.linear_gradient("L").resize((32, 24)).convert("RGB")
    data = saved(smooth, "MPO", quality=98, save_all=True, append_images=[picture(size=(8, 6))])
    assert data.startswith(b"\xff\xd8\xff")
    expected = np.asarray(smooth, np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(read(data), expected, atol=0.1)


def test_a_picture_survives_writing_and_reading():
    values = read(saved(picture()))
    np.testing.assert_array_equal(read(encode_picture(values, SPEC, "PNG")), values)


def test_grey_models_take_and_give_grey():
    spec = ImageSpec(layout="NCHW", channels=1, height=24, width=32, minimum=0.0, maximum=1.0)
    values = read(saved(picture("L")), spec=spec)
    assert values.shape == (1, 24, 32)
    np.testing.assert_array_equal(read(encode_picture(values, spec, "PNG"), spec=spec), values)


def test_values_out_of_range_are_clipped_on_writing():
    bright = np.full((3, 24, 32), 7, np.float32)
    assert np.asarray(Image.open(io.BytesIO(encode_picture(bright, SPEC, "PNG")))).min() == 255


def test_transparent_parts_are_black():
    clear = Image.new("RGBA", (32, 24), (255, 255, 255, 0))
    np.testing.assert_array_equal(read(saved(clear)), -1)


def test_exif_rotation_is_applied():
    image = picture(size=(24, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    expected = np.asarray(image.rotate(-90, expand=True), np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(read(saved(image, exif=exif)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 48), (7, 5), (1, 1), (24, 32)])
def test_another_size_is_resized_only_on_request(size):
    data = saved(picture(size=size))
    assert read(data, resize=True).shape == (3, 24, 32)
    with pytest.raises(InvalidInput, match=f"32x24 pixels, got {size[0]}x{size[1]}; set resize"):
        read(data)


def huge_png():
    """A PNG of a few bytes that declares 30,000 x 30,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animation():
    return saved(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)], duration=100)


REFUSED = {
    "nothing": (b"", "got 0 bytes"),
    "no picture": (b"hello, world", "12 bytes that do not decode"),
    "truncated PNG": (saved(picture())[:-400], "do not decode"),
    "truncated JPEG": (saved(picture(), "JPEG")[:-300], "do not decode"),
    "truncated WebP": (saved(picture(), "WEBP")[:-100], "do not decode"),
    "damaged PNG": (saved(picture())[:200] + b"\xff" * 50 + saved(picture())[250:], "do not decode"),
    "another format": (saved(picture(), "BMP"), "PNG, JPEG or WebP"),
    "16 bits a channel": (saved(Image.new("I;16", (32, 24))), "8 bits a channel"),
    "animation": (animation(), "a still picture, got 2 frames"),
    "bomb": (huge_png(), "pixels"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("resize", [False, True])
def test_what_is_no_usable_picture_is_refused_with_its_field(data, words, resize):
    with pytest.raises(InvalidInput, match=words) as caught:
        read(data, resize)
    assert caught.value.field == "inputs[0].encoded_image"
