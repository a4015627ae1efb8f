"""Paths through factors, formats and truncation on a live service."""

import io

import numpy as np
import pytest
from iin_client import CallError, Factors, Interpolation, Latent, LinearWalk, RandomWalk, Replace
from PIL import Image


def frames_of(client, *arguments, **how):
    parts = list(client.traverse(*arguments, **how))
    assert [part.first_index for part in parts] == list(np.cumsum([0, *(len(part.factors) for part in parts[:-1])]))
    return np.concatenate([part.factors for part in parts])


def test_an_interpolation_goes_from_one_item_to_the_other(client, pictures):
    start, end = client.interpret(pictures[:2]).factors
    found = frames_of(client, Factors(start), Interpolation(Factors(end)), 40, output="none")
    weights = np.arange(40)[:, None] / 39
    np.testing.assert_allclose(found, (1 - weights) * start + weights * end, atol=1e-5)
    np.testing.assert_array_equal(found[[0, -1]], [start, end])


def test_one_factor_moves_and_the_others_stay(client, pictures):
    model, paths = client.get_model(), (Interpolation(pictures[1], ["digit"]), RandomWalk(["digit"], seed=3))
    for path in paths:
        split = model.split(frames_of(client, pictures[0], path, 5, output="none"))
        for name in ("residual", "colour"):
            np.testing.assert_array_equal(split[name], np.tile(split[name][:1], (5, 1)))
        assert (np.abs(np.diff(split["digit"], axis=0)).max(axis=1) > 0).all()


def test_a_line_goes_its_distance(client, pictures):
    model, start = client.get_model(), client.interpret(pictures[0]).factors[0]
    size = next(part.size for part in model.factors if part.name == "colour")
    found = frames_of(client, Factors(start), LinearWalk("colour", np.eye(size)[0], -3.0), 4, output="none")
    np.testing.assert_allclose(model.split(found - start)["colour"][:, 0], [0, -1, -2, -3], atol=1e-5)


def test_a_random_walk_keeps_to_the_prior_and_repeats(client):
    walk = RandomWalk(seed=11, step=1.0)
    found = frames_of(client, Factors(np.zeros(32)), walk, 400, output="none")
    np.testing.assert_array_equal(frames_of(client, Factors(np.zeros(32)), walk, 9, output="none"), found[:9])
    settled = found[20:]
    assert abs(settled.std() - 1) < 0.05
    kept = np.corrcoef(settled[:-1].ravel(), settled[1:].ravel())[0, 1]
    assert abs(kept - np.exp(-1)) < 0.05


def test_frames_have_images_latents_and_times(client, pictures):
    (part,) = client.traverse(pictures[0], Interpolation(pictures[1]), 6, latents=True)
    assert (len(part.images.pictures), part.latents.shape) == (6, (6, 32))
    assert [stage.stage for stage in part.timing.stages][-2:] == ["inverse", "decoder"]


@pytest.mark.parametrize(
    ("path", "frames", "message"),
    [
        (Interpolation(Factors(np.zeros(32))), 1, "frames: expected between 2 and"),
        (Interpolation(Factors(np.zeros((2, 32)))), 4, "interpolation.destination: expected 1 item, got 2"),
        (Interpolation(Factors(np.zeros(32)), ["size"]), 4, r"interpolation.factors\[0\]: expected one of"),
        (RandomWalk(["digit", "digit"]), 4, r"random.factors\[1\]: expected every factor at most once"),
        (RandomWalk(step=0.0), 4, "random.step: expected a finite number above 0"),
        (RandomWalk(step=float("nan")), 4, "random.step: expected a finite number above 0"),
        (LinearWalk("digit", [0.0], 1.0), 4, "linear.direction: expected"),
        (LinearWalk("colour", [1.0] * 7, float("inf")), 4, "linear.di"),
    ],
)
def test_paths_at_fault_are_refused(client, path, frames, message):
    with pytest.raises(CallError, match=message):
        list(client.traverse(Factors(np.zeros(32)), path, frames))


def test_a_walk_past_all_numbers_names_its_field(client):
    model = client.get_model()
    size = next(part.size for part in model.factors if part.name == "colour")
    start, path = Factors(np.full(32, 3e38)), LinearWalk("colour", [1.0] * size, 3e38)
    with pytest.raises(CallError, match=r"linear\.distance"):
        list(client.traverse(start, path, 3, output="none"))


@pytest.mark.parametrize(("output", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_every_format_holds_the_same_picture(client, pictures, output, name):
    raw = client.edit(pictures[0], Replace("digit", pictures[1]), output="raw").images.raw[0]
    found = client.edit(pictures[0], Replace("digit", pictures[1]), output=output)
    picture = Image.open(io.BytesIO(found.images.files[0]))
    assert picture.format == name
    difference = np.abs(np.asarray(picture, np.float32) - (raw.transpose(1, 2, 0) + 1) * 127.5)
    assert (difference.mean() < 4) if output == "jpeg" else (difference.max() < 0.51)


def test_no_images_on_request(client, pictures):
    found = client.edit(pictures[0], Replace("digit", pictures[1]), output="none")
    assert (found.images.files, found.images.raw, found.latents) == ((), None, None)
    assert [stage.stage for stage in found.timing.stages] == ["encoder", "transform"]


def test_truncation_bounds_what_is_drawn_before_the_temperature(client):
    plain = next(client.sample(20, seed=5, output="none")).factors
    found = next(client.sample(20, seed=5, truncation=0.5, output="none")).factors
    assert np.abs(found).max() <= 0.5
    inside = np.abs(plain) <= 0.5
    np.testing.assert_array_equal(found[inside], plain[inside])
    warm = next(client.sample(20, seed=5, truncation=0.5, temperature=2.0, output="none")).factors
    np.testing.assert_allclose(warm, 2 * found, rtol=1e-6)
    for refused in (0.05, float("nan"), -1.0):
        with pytest.raises(CallError, match=r"truncation: expected a finite number of at least 0\.1"):
            next(client.sample(1, truncation=refused))


def test_what_overflows_is_refused_without_a_graph_too(client):
    with pytest.raises(CallError, match="temperature: expected factors that stay finite"):
        list(client.sample(64, temperature=3e38, output="none"))
    with pytest.raises(CallError, match=r"random\.temperature: expected factors that stay finite"):
        list(client.traverse(Factors(np.zeros(32)), RandomWalk(step=2.0, temperature=3e38), 40, output="none"))
    far = Factors(np.full(32, 3e38))  # the line between two extremes is finite
    assert np.isfinite(frames_of(client, far, Interpolation(Factors(np.full(32, -3e38))), 5, output="none")).all()


def test_sampled_latents_have_the_sampled_factors(client):
    part = next(client.sample(4, seed=1, latents=True, output="none"))
    np.testing.assert_allclose(client.interpret(Latent(part.latents)).factors, part.factors, atol=1e-3)


def test_a_model_without_a_head_cannot_respond(client, pictures):
    with pytest.raises(CallError, match="has no head"):
        client.respond(pictures[0])
