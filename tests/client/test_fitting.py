"""Commands keep to the pixels, bytes and items that one call may hold."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from iin_client import (
    Edited,
    FactorSlice,
    Graph,
    Images,
    ImageSpec,
    Interpretations,
    Limits,
    Model,
    Replace,
    Samples,
    Timing,
)
from iin_client import cli as command_line
from iin_client.arguments import Picture
from iin_client.fitting import _calls, as_seen, fitted, interpreted
from iin_client.gallery import draw_gallery
from iin_service.images import decode_picture, open_picture
from PIL import ExifTags, Image, ImageOps

LIMITS = Limits(
    max_items=4,
    max_samples=4,
    max_edits=8,
    max_image_pixels=10_000,
    max_message_bytes=100_000,
    max_batch_size=64,
    max_queued_items=512,
    stream_window=16,
    samples_per_message=32,
)
TIMING = Timing(total_ms=0, queue_ms=0, codec_ms=0, stages=())


def model(channels=3):
    return Model(
        name="colours",
        version="1",
        family="iin",
        image=ImageSpec(channels=channels, height=8, width=12, minimum=-1, maximum=1),
        latent_shape=(3,),
        factors=(FactorSlice(name="colour", start=0, size=3),),
        log_likelihood_quantiles=(),
        evaluation=(),
        round_trip_error=0,
        graphs=(Graph(role="decoder", sha256="", bytes=0),),
        recipe="",
        data_set="",
        created="",
        limits=LIMITS,
    )


def photo(width=80, height=70, *, mode="RGB", format="PNG", orientation=1):
    """80 x 70 are 5,600 of the 10,000 pixels that a call may have."""
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(file, format=format, exif=exif)
    return file.getvalue()


class Fake:
    """A client whose service refuses what is above its limits."""

    def __init__(self):
        self.calls = []
        self.asked = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def get_model(self):
        self.asked += 1
        return model()

    def interpret(self, files, *, resize):
        self._arrive(files, resize)
        zeros = np.zeros((len(files), 3), np.float32)
        some = [0.0] * len(files)
        return Interpretations(
            latents=zeros,
            factors=zeros,
            log_likelihoods=np.array(some),
            log_likelihood_quantiles=np.array(some),
            probabilities=None,
            timing=TIMING,
        )

    def edit(self, targets, edits, *, resize=False):
        if isinstance(targets, list):
            self._arrive([*targets, *(edit.source for edit in edits if isinstance(edit, Replace))], resize)
            count = len(targets)
        else:
            count = len(targets.array)
        return Edited(
            images=Images(files=(photo(12, 8),) * count),
            factors=np.zeros((count, 3), np.float32),
            latents=None,
            probabilities=None,
            timing=TIMING,
        )

    def sample(self, count, *, seed, temperature=1.0, fixed=None, resize=False, truncation=None):
        self._arrive(list((fixed or {}).values()), resize)
        zeros = np.zeros((count, 3), np.float32)
        images = Images(files=(photo(12, 8),) * count)
        yield Samples(first_index=0, images=images, factors=zeros, latents=None, probabilities=None, timing=TIMING)

    def traverse(self, start, path, frames, *, resize=False):
        if isinstance(start, bytes):
            self._arrive([start, path.destination], resize)
        return self.sample(frames, seed=0)

    def respond(self, files, *, draws, seed, resize):
        self._arrive(files, resize)
        raise ValueError("that is all")

    def _arrive(self, files, resize):
        sizes = [Image.open(io.BytesIO(file)).size for file in files]
        assert resize or set(sizes) <= {(12, 8)}
        assert sum(width * height for width, height in sizes) <= LIMITS.max_image_pixels
        assert sum(map(len, files)) <= LIMITS.max_message_bytes
        assert len(files) <= 2 * LIMITS.max_items
        self.calls.append(sizes)


@pytest.fixture
def client(monkeypatch):
    fake = Fake()
    monkeypatch.setattr(command_line, "Client", lambda *arguments, **options: fake)
    return fake


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / f"{index}.png" for index in range(3)]
    for path in found:
        path.write_bytes(photo())
    return [str(path) for path in found]


@pytest.mark.parametrize(("most_pixels", "lengths"), [(10_000, [4, 4, 1]), (2 * 8 * 12, [2, 2, 2, 2, 1])])
def test_pictures_are_split_over_calls_that_keep_to_items_and_pixels(most_pixels, lengths):
    small = replace(model(), limits=replace(LIMITS, max_image_pixels=most_pixels))
    pictures = [Picture(str(index), photo(12, 8)) for index in range(9)]
    found = list(interpreted(Fake(), small, pictures, resize=False))
    assert [len(names) for names, _ in found] == [len(result.factors) for _, result in found] == lengths
    assert [name for names, _ in found for name in names] == [picture.path for picture in pictures]


def test_pictures_are_split_over_calls_that_keep_to_bytes():
    files = [bytes(50_000), bytes(30_000), bytes(30_000), bytes(200_000), bytes(1), bytes(1)]
    small = replace(model(), limits=replace(LIMITS, max_message_bytes=100_000))
    parts = list(_calls([Picture(str(index), file) for index, file in enumerate(files)], small))
    assert [[len(picture.data) for picture in part] for part in parts] == [
        [50_000, 30_000],
        [30_000],
        [200_000],
        [1, 1],
    ]


def test_files_that_fit_stay_as_they_are():
    assert fitted([photo()], model(), resize=True) == [photo()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "file",
    [
        photo(),
        photo(mode="L"),
        photo(mode="LA"),
        photo(mode="P"),
        photo(mode="RGBA"),
        photo(format="JPEG", orientation=6),
        photo(mode="CMYK", format="JPEG"),
        photo(mode="RGBA", format="WEBP", orientation=3),
        photo(12, 8),
    ],
)
def test_the_model_sees_the_same_of_a_file_that_was_shrunk_here(file, channels):
    def seen(data):
        spec = model(channels).image
        return decode_picture(open_picture(data, spec, resize=True, field="a"), spec, resize=True, field="a")

    small, *_ = fitted([file, photo(), photo()], model(channels), resize=True)
    assert Image.open(io.BytesIO(small)).size == (12, 8)
    np.testing.assert_array_equal(seen(small), seen(file))


def test_what_the_service_refuses_at_any_size_is_left_to_it():
    deep, film = io.BytesIO(), io.BytesIO()
    Image.new("I;16", (200, 200)).save(deep, format="PNG")
    first = Image.new("RGB", (200, 200))
    first.save(film, format="WEBP", save_all=True, append_images=[Image.new("RGB", (200, 200), "red")])
    whole = photo(200, 200)
    cut, mixed = whole[: len(whole) // 2], bytearray(whole)
    mixed[whole.rindex(b"IDAT") + 1] = 0xFF  # a part of a kind that there is not, which Pillow calls bad syntax
    files = [deep.getvalue(), film.getvalue(), cut, bytes(mixed)]
    assert fitted(files, model(), resize=True) == files


def test_the_gallery_shows_a_photo_upright():
    plain = Image.open(io.BytesIO(photo(format="JPEG")))
    turned = ImageOps.fit(plain.rotate(-90, expand=True), (12, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(as_seen(photo(format="JPEG", orientation=6), model()), turned)


def test_odd_exif_does_no_harm():
    # A width that is text, and the camera was held upright.
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0\0\1\2\0\2\0\0\0a\0\0\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    plain, odd = io.BytesIO(), io.BytesIO()
    picture = Image.open(io.BytesIO(photo(8, 12)))
    picture.rotate(-90, expand=True).save(plain, "WEBP", lossless=True)
    picture.save(odd, "WEBP", lossless=True, exif=exif)
    np.testing.assert_array_equal(as_seen(odd.getvalue(), model()), as_seen(plain.getvalue(), model()))


def test_interpret_shrinks_photos_that_are_too_large_together(client, paths, capsys):
    assert command_line.main(["interpret", *paths, *paths, "--resize", "--json"]) == 0
    assert client.calls == [[(12, 8)] * 4, [(12, 8)] * 2]
    assert [item["image"] for item in json.loads(capsys.readouterr().out)["items"]] == paths * 2


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["edit", "0", "--replace", "colour=1", "--set", "colour=1,2,3", "-o", "OUT"], 2),
        (["edit", "0", "1", "2", "--replace", "colour=0", "--replace", "colour=1", "-o", "OUT"], 5),
        (["sample", "-n", "2", "--fix", "colour=0", "--fix", "other=1", "-o", "OUT"], 2),
        (["traverse", "0", "--to", "1", "-n", "2", "-o", "OUT"], 2),
        (["respond", "0", "1"], 2),
    ],
)
def test_one_call_with_photos_that_are_too_large_together_has_them_shrunk(client, paths, tmp_path, words, count):
    names = {"0": paths[0], "1": paths[1], "2": paths[2], "OUT": str(tmp_path / "out.png")}
    for name in "01":
        names |= {f"{factor}={name}": f"{factor}={names[name]}" for factor in ("colour", "other")}
    words = [names.get(word, word) if words[index - 1] != "-n" else word for index, word in enumerate(words)]
    assert command_line.main([*words, "--resize"]) == (2 if words[0] == "respond" else 0)
    assert client.calls[0] == [(12, 8)] * count
    assert client.asked == 1


def test_the_gallery_asks_for_the_model_once(client, paths, tmp_path):
    assert command_line.main(["gallery", *paths, "--resize", "-o", str(tmp_path / "out.png")]) == 0
    assert client.asked == 1


def test_the_gallery_shrinks_its_photos():
    client = Fake()
    photos = [Picture(str(index), file) for index, file in enumerate((photo(), photo(), photo(200, 100)))]
    draw_gallery(client, model(), photos, resize=True)
    assert client.calls[0] == [(12, 8)] * 3
