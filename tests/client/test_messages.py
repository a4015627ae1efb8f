"""Requests hold what was asked for, and results what was answered."""

import io

import iin_client
import numpy as np
import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_client import (
    Factors,
    Interpolation,
    Latent,
    LinearWalk,
    RandomWalk,
    RawImage,
    Replace,
    Resample,
    SetValue,
    Shift,
    inputs,
    model,
    results,
)
from iin_client.request_messages import (
    edit_request,
    interpret_request,
    respond_request,
    sample_request,
    traverse_request,
)
from iin_client.result_messages import edited, interpretations, model_description, samples
from PIL import ExifTags, Image


def tensor(array):
    values = np.asarray(array, dtype="<f4")
    return pb.Tensor(shape=values.shape, data=values.tobytes())


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (2, 3), colour).save(file, format="PNG")
    return file.getvalue()


def test_the_package_offers_every_type_of_inputs_model_and_results():
    assert {*inputs.__all__, *model.__all__, *results.__all__} < set(iin_client.__all__)
    assert [name for name in iin_client.__all__ if not hasattr(iin_client, name)] == []


def test_a_path_a_string_and_bytes_send_the_same_file(tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(png("red"))
    request = interpret_request([path, str(path), png("red")], resize=True)
    assert [value.encoded_image for value in request.inputs] == [png("red")] * 3
    assert request.resize


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_a_pillow_image_is_sent_as_png_of_the_same_pixels(mode):
    picture = Image.new("RGB", (2, 3), "red").convert(mode)
    request = interpret_request(picture, resize=False)
    sent = Image.open(io.BytesIO(request.inputs[0].encoded_image))
    assert sent.format == "PNG"
    assert sent.convert("RGBA").tobytes() == picture.convert("RGBA").tobytes()


def test_a_pillow_image_is_turned_upright_as_its_file_would_be(tmp_path):
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright
    lying = Image.new("RGB", (2, 3), "red")
    lying.putpixel((0, 0), (0, 0, 255))
    lying.save(path, exif=exif)
    with Image.open(path) as opened:
        request = interpret_request(opened, resize=False)
        assert opened.size == (2, 3)  # the caller's own stays as it is
    sent = Image.open(io.BytesIO(request.inputs[0].encoded_image))
    assert sent.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert sent.size == (3, 2)
    assert sent.getpixel((2, 0)) == (0, 0, 255)


def test_odd_exif_of_a_pillow_image_does_no_harm():
    # A width that is text, and the camera was held upright.
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0\0\1\2\0\2\0\0\0a\0\0\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    file = io.BytesIO()
    Image.new("RGB", (2, 3)).save(file, "JPEG", exif=exif)
    request = interpret_request(Image.open(file), resize=False)
    assert Image.open(io.BytesIO(request.inputs[0].encoded_image)).size == (3, 2)


def test_a_pillow_image_that_would_lose_its_range_is_refused():
    with pytest.raises(ValueError, match=r"inputs\[0\]: expected a picture of mode .* got F; convert it first"):
        interpret_request(Image.new("F", (2, 2)), resize=False)


@pytest.mark.parametrize(
    ("value", "field", "shape"),
    [
        (RawImage(np.arange(12.0).reshape(3, 2, 2)), "image", [3, 2, 2]),
        (RawImage(np.zeros((5, 3, 2, 2))), "image", [5, 3, 2, 2]),
        (Latent([1.0, 2.0]), "latent", [2]),
        (Latent(np.zeros((2, 4, 1, 1), dtype=np.float64)), "latent", [2, 4, 1, 1]),
        (Factors(np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1]), "factors", [2, 3]),
    ],
)
def test_arrays_are_sent_as_little_endian_float32_in_row_major_order(value, field, shape):
    (sent,) = interpret_request(value, resize=False).inputs
    assert sent.WhichOneof("value") == field
    message = getattr(sent, field)
    assert list(message.shape) == shape
    assert message.data == np.asarray(value.array).astype("<f4").tobytes(order="C")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.zeros(3)], r"inputs\[0\]: expected a path, .* got ndarray; wrap an array"),
        (np.zeros(3), r"inputs\[0\]: expected a path, .* got ndarray; wrap an array"),
        (None, r"inputs\[0\]: expected a path, .* got NoneType"),
        ([Factors(["a"])], r"inputs\[0\]\.factors: expected an array of numbers, got list"),
        ([Factors(["0.5"])], r"inputs\[0\]\.factors: expected an array of numbers, got list"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_field_and_remedy(inputs, message):
    with pytest.raises(ValueError, match=message):
        interpret_request(inputs, resize=False)


def test_a_missing_file_is_an_os_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        interpret_request(tmp_path / "absent.png", resize=False)


def test_edits_keep_their_order_and_values():
    request = edit_request(
        Factors([0.0, 1.0]),
        [
            Shift("colour", direction=[3.0, 4.0], distance=-2.0),
            Replace("digit", Factors([[5.0, 6.0]]), strength=0.0),
            SetValue("colour", np.array([0.5, -0.5])),
            Resample("residual", seed=2**64 - 1, temperature=0.0),
        ],
        output="raw",
        resize=True,
    )
    shift, replace, fixed, resample = request.edits
    assert [edit.factor for edit in request.edits] == ["colour", "digit", "colour", "residual"]
    assert list(shift.shift.direction) == [3.0, 4.0]
    assert shift.shift.distance == -2.0
    assert replace.replace.source.factors == tensor([[5.0, 6.0]])
    assert list(fixed.set.values) == [0.5, -0.5]
    assert resample.resample.seed == 2**64 - 1
    # Zero means zero here, not "unset": both fields have a default of 1 in the service.
    assert replace.replace.HasField("strength")
    assert resample.resample.HasField("temperature")
    assert (replace.replace.strength, resample.resample.temperature) == (0.0, 0.0)
    assert request.format == pb.IMAGE_FORMAT_RAW
    assert request.resize


def test_the_part_of_one_item_gives_the_values_of_a_factor():
    part = np.array([[0.5, -0.5]], np.float32)
    edits = [SetValue("colour", part), Shift("colour", part, 1.0)]
    fixed, shift = edit_request(b"file", edits, output="png", resize=False).edits
    assert list(fixed.set.values) == list(shift.shift.direction) == [0.5, -0.5]


class NeedsGradients:
    """As a tensor of PyTorch."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda: edit_request(b"file", SetValue("a", ["b"]), output="png", resize=False), r"edits\[0\]\.set\.values"),
        (
            lambda: edit_request(b"file", Shift("a", "b", 1), output="png", resize=False),
            r"edits\[0\]\.shift\.direction",
        ),
        (lambda: traverse_request(b"file", LinearWalk("a", [{}], 1), 2, output="png", resize=False), "path.direction"),
        *(
            (
                lambda values=values: edit_request(b"file", SetValue("a", values), output="png", resize=False),
                r"edits\[0\]\.set\.values",
            )
            for values in (None, [None], "0.5", NeedsGradients())
        ),
    ],
)
def test_values_that_are_no_numbers_are_refused_with_their_field(ask, field):
    with pytest.raises(ValueError, match=rf"^{field}: expected numbers, one a dimension of the factor, got"):
        ask()


def test_one_edit_needs_no_list():
    one = Resample("digit", seed=3)
    alone = edit_request(b"file", one, output="png", resize=False)
    assert alone == edit_request([b"file"], [one], output="png", resize=False)


@pytest.mark.parametrize(("edits", "given"), [("digit", "str"), ([("digit", b"file")], "tuple")])
def test_what_is_no_edit_is_refused(edits, given):
    with pytest.raises(ValueError, match=rf"edits\[0\]: expected a Replace, .* or Shift, got {given}; give one"):
        edit_request(b"file", edits, output="png", resize=False)


@pytest.mark.parametrize("factors", ["digit", None, [1]])
def test_what_is_no_sequence_of_names_is_refused(factors):
    with pytest.raises(ValueError, match=r"factors: expected a sequence of names, got .*; write \['digit'\]"):
        respond_request(b"file", factors=factors, draws=2, seed=0, temperature=1.0, resize=False)


def test_a_name_in_place_of_those_on_a_path_is_refused():
    for path in (Interpolation(b"file", "digit"), RandomWalk("digit")):
        with pytest.raises(ValueError, match=r"path\.factors: expected a sequence of names"):
            traverse_request(b"file", path, 2, output="png", resize=False)


def test_an_edit_at_fault_is_named_by_its_place():
    edits = [Resample("digit"), Resample("digit", seed=-1)]
    with pytest.raises(ValueError, match=r"edits\[1\]\.resample\.seed: expected .* in \[0, 2\^64\), got -1"):
        edit_request(b"file", edits, output="png", resize=False)


def test_samples_can_hold_factors_at_a_source_or_at_values():
    request = sample_request(
        5,
        seed=7,
        temperature=0.0,
        fixed={"digit": b"file", "colour": (0.25, -1.0)},
        output="png",
        resize=False,
    )
    assert (request.count, request.seed, request.format) == (5, 7, pb.IMAGE_FORMAT_PNG)
    assert request.HasField("temperature")
    source, values = request.fixed
    assert (source.factor, source.source.encoded_image) == ("digit", b"file")
    assert (values.factor, list(values.set.values)) == ("colour", [0.25, -1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": -1}, r"count: expected a whole number in \[0, 2\^32\), got -1"),
        ({"count": 1.5}, r"count: expected a whole number in \[0, 2\^32\), got 1\.5"),
        ({"count": "4"}, r"count: expected a whole number in \[0, 2\^32\), got 4"),
        ({"seed": 2**64}, r"seed: expected a whole number in \[0, 2\^64\)"),
        ({"output": "gif"}, r"output: expected one of png, jpeg, webp, raw, none, got 'gif'"),
    ],
)
def test_sample_requests_that_cannot_be_sent_are_refused(change, message):
    asked = {"count": 1, "seed": 0, "temperature": 1.0, "fixed": {}, "output": "png", "resize": False}
    with pytest.raises(ValueError, match=message):
        sample_request(**{**asked, **change})


def test_interpretations_hold_the_arrays_of_the_response():
    response = pb.InterpretResponse(
        latents=tensor(np.arange(8).reshape(2, 4, 1, 1)),
        factors=tensor(np.arange(8).reshape(2, 4)),
        log_likelihoods=[-1.0, -2.0],
        log_likelihood_quantiles=[0.75, 0.25],
        timing=pb.Timing(total_ms=3, stages=[pb.StageTiming(stage="encoder", queue_ms=1, compute_ms=2, batch_size=4)]),
    )
    found = interpretations(response)
    np.testing.assert_array_equal(found.factors, np.arange(8).reshape(2, 4))
    assert found.factors.dtype == np.float32
    assert found.factors.flags.writeable
    assert found.latents.shape == (2, 4, 1, 1)
    np.testing.assert_array_equal(found.log_likelihoods, [-1.0, -2.0])
    np.testing.assert_array_equal(found.log_likelihood_quantiles, [0.75, 0.25])
    assert found.probabilities is None
    assert found.timing.total_ms == 3
    assert found.timing.stages[0].stage == "encoder"
    assert found.timing.stages[0].batch_size == 4


def test_a_model_with_a_head_gives_probabilities():
    response = pb.InterpretResponse(
        latents=tensor([[1.0]]), factors=tensor([[1.0]]), probabilities=tensor([[0.25, 0.75]])
    )
    np.testing.assert_array_equal(interpretations(response).probabilities, [[0.25, 0.75]])


def test_png_images_become_pictures_and_raw_ones_an_array():
    drawn = edited(pb.EditResponse(images=pb.Images(encoded=[png("red"), png("lime")]), factors=tensor([[0], [1]])))
    assert [picture.getpixel((0, 0)) for picture in drawn.images.pictures] == [(255, 0, 0), (0, 255, 0)]
    assert drawn.images.raw is None
    raw = samples(
        pb.SampleResponse(first_index=16, images=pb.Images(raw=tensor(np.ones((1, 1, 2, 2)))), factors=tensor([[0]]))
    )
    assert raw.first_index == 16
    np.testing.assert_array_equal(raw.images.raw, np.ones((1, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"expected image files, got raw images; call with output='png'"):
        raw.images.pictures  # noqa: B018


def test_the_model_is_described_in_full():
    response = pb.GetModelResponse(
        model=pb.Model(
            name="m",
            image=pb.ImageSpec(channels=1, height=2, width=3, minimum=-1, maximum=1),
            latent_shape=[4, 1, 1],
            factors=[pb.Factor(name="digit", size=3), pb.Factor(name="residual", start=3, size=1)],
            evaluation=[pb.Figure(name="a", value=1, floor=0), pb.Figure(name="b", value=2, ceiling=3)],
            log_likelihood_quantiles=[pb.Quantile(probability=0.5, value=-7)],
            graphs=[pb.Graph(role="encoder", sha256="00", bytes=9)],
        ),
        limits=pb.Limits(max_items=5),
    )
    model = model_description(response)
    assert (model.image.height, model.image.width, model.image.minimum) == (2, 3, -1)
    assert model.latent_shape == (4, 1, 1)
    # A floor of zero is stated, a missing one is not.
    assert [(f.ceiling, f.floor) for f in model.evaluation] == [(None, 0.0), (3.0, None)]
    assert model.log_likelihood_quantiles[0].value == -7
    assert model.graphs[0].bytes == 9
    assert model.limits.max_items == 5
    split = model.split(np.array([[1, 2, 3, 4]], dtype=np.float32))
    assert {name: values.tolist() for name, values in split.items()} == {
        "digit": [[1, 2, 3]],
        "residual": [[4]],
    }
