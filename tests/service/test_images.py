"""Pictures in files: what is read, and what is refused with a reason."""

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from iin_bundle import ImageSpec
from iin_service.errors import InvalidInput
from iin_service.images import decode_picture, encode_picture, open_picture
from iin_training.data.picture_files import PictureShape, decode_levels
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("value", "level"), [(7, 255), (3e38, 255), (-3e38, 0)])
def test_values_out_of_range_are_clipped_on_writing(value, level):
    image = np.full((3, 24, 32), value, np.float32)
    assert (np.asarray(Image.open(io.BytesIO(encode_picture(image, SPEC, "PNG")))) == level).all()


def test_transparent_parts_are_black():
    clear = Image.new("RGBA", (32, 24), (255, 255, 255, 0))
    np.testing.assert_array_equal(read(saved(clear)), -1)


def test_half_transparent_parts_are_as_dark_as_they_are_clear():
    levels = np.indices((256, 256))
    pixels = np.stack([levels[0], 255 - levels[0], levels[1], levels[1]], axis=2).astype(np.uint8)
    spec = ImageSpec(layout="NCHW", channels=3, height=256, width=256, minimum=0.0, maximum=255.0)
    expected = np.rint(pixels[:, :, :3] * (levels[1][:, :, None] / 255))
    np.testing.assert_allclose(read(saved(Image.fromarray(pixels)), spec=spec).transpose(1, 2, 0), expected, atol=1e-4)


PEAK = """
import io, re
from iin_bundle import ImageSpec
from iin_service.images import decode_picture, open_picture
from PIL import Image

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

spec = ImageSpec(layout="NCHW", channels=3, height=32, width=32, minimum=0.0, maximum=1.0)
file = io.BytesIO()
Image.new("RGBA", (64, 64), (200, 0, 0, 100)).resize((3000, 3000), 0).save(file, "PNG", compress_level=1)
before, data = peak(), file.getvalue()
decode_picture(open_picture(data, spec, resize=True, field=""), spec, resize=True, field="")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, which tells what was resident at most")
def test_laying_a_large_picture_on_black_takes_one_more_of_it_and_not_three():
    told = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    assert float(told) < 50, "MiB: one, of 34, is there when the file is written"


FIRST_WEBP = """
import contextlib, sys
import numpy as np
from iin_bundle import ImageSpec
from iin_service.errors import InvalidInput
from iin_service.images import decode_picture, encode_picture, open_picture

spec = ImageSpec(layout="NCHW", channels=3, height=32, width=32, minimum=0.0, maximum=1.0)
data = encode_picture(np.zeros((3, 32, 32), np.float32), spec, "WEBP")
decode_picture(open_picture(data, spec, resize=False, field=""), spec, resize=False, field="")
with contextlib.suppress(InvalidInput):
    open_picture(b"no picture", spec, resize=False, field="")
print("PIL.TgaImagePlugin" in sys.modules)
"""


def test_the_first_webp_does_not_load_the_plugins_of_all_formats():
    told = subprocess.run([sys.executable, "-c", FIRST_WEBP], capture_output=True, text=True, check=True).stdout
    assert told == "False\n"


ODD_EXIF = """
import sys
from iin_bundle import ImageSpec
from iin_service.images import decode_picture, open_picture

spec = ImageSpec(layout="NCHW", channels=3, height=24, width=32, minimum=0.0, maximum=1.0)
decode_picture(open_picture(sys.stdin.buffer.read(), spec, resize=False, field=""), spec, resize=False, field="")
"""


def test_nothing_is_printed_of_a_callers_odd_file():
    data = png((32, 24), 8, 2, BLACK, ODD["EXIF that ends"])
    told = subprocess.run([sys.executable, "-c", ODD_EXIF], input=data, capture_output=True, check=True)
    assert told.stderr == b""


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"kind": "WEBP", "lossless": True}])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_exif_rotation_is_applied(orientation, options):
    image = picture(size=(24, 32) if 5 <= orientation <= 8 else (32, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(upright, np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(read(data), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 48), (7, 5), (1, 1), (24, 32)])
def test_another_size_is_resized_only_on_request(size):
    data = saved(picture(size=size))
    assert read(data, resize=True).shape == (3, 24, 32)
    with pytest.raises(InvalidInput, match=f"32x24 pixels, got {size[0]}x{size[1]}; set resize"):
        read(data)


@pytest.mark.parametrize("size", [(80, 24), (32, 90), (64, 48), (31, 25)])
def test_another_size_is_resized_and_cropped_as_in_training(size):
    data = saved(picture(size=size))
    levels = np.rint((read(data, resize=True) + 1) * 127.5)
    np.testing.assert_array_equal(levels, decode_levels(data, PictureShape(3, 24, 32)))


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size, depth, colour, rows=b"", more=b"", interlaced=0):
    """A PNG of `rows`, whatever its header says, with `more` chunks in front of them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def deep_png(colour, channels):
    """A PNG of 16 bits a channel."""
    return png((32, 24), 16, colour, bytes(1 + 32 * channels * 2) * 24)


BLACK = bytes(1 + 32 * 3) * 24
GREY = ImageSpec(layout="NCHW", channels=1, height=24, width=32, minimum=0.0, maximum=255.0)


@pytest.mark.parametrize(("depth", "colour", "bits"), [(8, 2, 24), (8, 6, 32), (8, 0, 8), (4, 0, 4), (1, 0, 1)])
@pytest.mark.parametrize("size", [(32, 24), (13, 7), (1, 9), (9, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_is_read_with_all_rows_and_refused_without_one(depth, colour, bits, size, interlaced):
    width, height = size
    passes = [(range(height), range(width))]
    if interlaced:  # as the standard has it: rows and columns of each pass
        passes = [
            (range(0, height, 8), range(0, width, 8)),
            (range(0, height, 8), range(4, width, 8)),
            (range(4, height, 8), range(0, width, 4)),
            (range(0, height, 4), range(2, width, 4)),
            (range(2, height, 4), range(0, width, 2)),
            (range(0, height, 2), range(1, width, 2)),
            (range(1, height, 2), range(width)),
        ]
    rows = [bytes(1 + -(len(columns) * bits // -8)) for lines, columns in passes if columns for _ in lines]
    whole, cut = (png(size, depth, colour, b"".join(part), interlaced=interlaced) for part in (rows, rows[:-1]))
    assert read(whole, resize=True, spec=GREY).max() == 0
    with pytest.raises(InvalidInput, match=r"a whole PNG, .* that do not decode"):
        read(cut, resize=True, spec=GREY)


ODD = {
    "EXIF": chunk(b"eXIf", b"garbage!!"),
    "EXIF that ends": chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
    "long text": chunk(b"tEXt", b"a\0" + b"x" * 1_500_000),
    "large profile": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000))),
    "something new": chunk(b"fuTr", b"?") + chunk(b"fuTR", b"?"),
}


@pytest.mark.parametrize("more", ODD.values(), ids=ODD)
def test_what_is_odd_beside_the_pixels_does_no_harm(more):
    assert (read(png((32, 24), 8, 2, BLACK, more)) == -1).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_odd_exif_does_no_harm(kind):
    odd = saved(picture(), kind, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read(odd), read(saved(picture(), kind)))


def jpeg_of_scans(count, size=(32, 24)):
    """A progressive JPEG that repeats its last scan."""
    data = saved(Image.new("L", size, 128), "JPEG", progressive=True)
    first, *others = re.split(rb"(?=\xff\xda)", data[:-2])
    return first + b"".join(others) + others[-1] * (count - len(others)) + b"\xff\xd9"


def test_a_jpeg_of_some_scans_is_read():
    assert len(re.findall(rb"\xff\xda", jpeg_of_scans(100))) == 100
    np.testing.assert_array_equal(read(jpeg_of_scans(100)), read(jpeg_of_scans(6)))


def test_what_looks_like_scans_beside_those_of_a_jpeg_is_none():
    data, film = saved(picture(), "JPEG"), b"\xff\xda\0\x02" * 200
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(film)) + film
    np.testing.assert_array_equal(read(data[:2] + comment + data[2:] + film * 100), read(data))


EXIF = b"\xff\xe1\0\x0aExif\0\0\0\0"  # a segment of it that says nothing


@pytest.mark.parametrize("more", [b"\xff\xfe\0\x02" * 900, EXIF * 16], ids=["comments", "EXIF"])
def test_a_jpeg_of_some_segments_is_read(more):
    data = saved(picture(), "JPEG")
    np.testing.assert_array_equal(read(data[:2] + more + data[2:]), read(data))


COSTLY = {
    "scans": (jpeg_of_scans(101), "at most 100 scans in a JPEG, got more; save it anew"),
    "scans behind a restart": (
        jpeg_of_scans(6)[:-2] + (b"\xff\xd0\xff\x01\xff\x02\0\xff" + jpeg_of_scans(6)[-35:-2]) * 101 + b"\xff\xd9",
        "at most 100 scans",
    ),
    "EXIF": (b"\xff\xd8" + EXIF * 17 + jpeg_of_scans(6)[2:], "at most 16 segments of EXIF in a JPEG, got more"),
    "EXIF behind another start": (b"\xff\xd8" * 2 + EXIF * 17 + jpeg_of_scans(6)[2:], "segments of EXIF"),
    "EXIF behind an end": (b"\xff\xd8\xff\xd9" + EXIF * 17 + jpeg_of_scans(6)[2:], "segments of EXIF"),
    "EXIF behind an extension": (b"\xff\xd8\xff\xf0" + EXIF * 17 + jpeg_of_scans(6)[2:], "segments of EXIF"),
    "segments": (b"\xff\xd8" + b"\xff\xfe\0\x02" * 1001 + jpeg_of_scans(6)[2:], "at most 1000 segments in a JPEG"),
    "chunks": (png((32, 24), 8, 2, BLACK, chunk(b"fuTr") * 16_384), "at most 16384 chunks in a PNG, got more"),
    "pieces": (png((32, 24), 8, 2, BLACK, chunk(b"IDAT") * 16_384), "at most 16384 chunks in a PNG, got more"),
}


@pytest.mark.parametrize(("data", "words"), COSTLY.values(), ids=COSTLY)
def test_a_small_file_that_takes_long_to_decode_is_refused_unopened(data, words, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(PngImagePlugin, "PngImageFile", None)
    with pytest.raises(InvalidInput, match=words) as caught:
        read(data, resize=True)
    assert caught.value.field == "inputs[0].encoded_image"


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
    "16 bits of grey": (saved(Image.new("I;16", (32, 24))), "expected 8 bits a channel, got 16; convert it to 8 bits"),
    "16 bits of grey and alpha": (deep_png(4, 2), "expected 8 bits a channel, got 16"),
    "16 bits of colour": (deep_png(2, 3), "expected 8 bits a channel, got 16"),
    "16 bits of colour and alpha": (deep_png(6, 4), "expected 8 bits a channel, got 16"),
    "animation": (animation(), "a still picture, got 2 frames"),
    "one row of 24": (png((32, 24), 8, 2, BLACK[:97]), "rows are missing"),
    "half of the last row": (png((32, 24), 8, 2, BLACK[:-40]), "do not decode"),
    "no palette": (png((32, 24), 8, 3, bytes(33 * 24)), r"do not decode \(\w"),
    "bomb": (png((30_000, 30_000), 8, 2), "pixels"),
    "long": (png((65_536, 1), 8, 0), "at most 65535 pixels a side, got 65536x1; cut it into pieces"),
    "tall": (png((1, 65_536), 8, 0), "at most 65535 pixels a side, got 1x65536"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("resize", [False, True])
def test_what_is_no_usable_picture_is_refused_with_its_field(data, words, resize):
    with pytest.raises(InvalidInput, match=words) as caught:
        read(data, resize)
    assert caught.value.field == "inputs[0].encoded_image"


def test_no_png_with_a_flipped_bit_is_another_picture():
    """Pillow skips the checksum of the pixels and of what stands behind them, and takes some of these."""
    data = saved(Image.linear_gradient("L").resize((32, 24)).rotate(30).convert("RGB"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    data = data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    whole = read(data)
    for place in range(8, len(data)):
        flipped = bytearray(data)
        for bit in range(8):
            flipped[place] = data[place] ^ 1 << bit
            try:
                found = read(bytes(flipped), resize=True)
            except InvalidInput:
                continue
            np.testing.assert_array_equal(found, whole, str(place))
