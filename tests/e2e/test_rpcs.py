"""Every RPC of a live service, through the client that callers use."""

import asyncio
import io

import numpy as np
import pytest
from iin_bundle import read_bundle
from iin_client import AsyncClient, Factors, Latent, RawImage, Replace, Resample, SetValue, Shift
from iin_service.sessions import Sessions
from PIL import Image


@pytest.fixture(scope="module")
def sessions(digits_bundle):
    return Sessions(read_bundle(digits_bundle), threads=1, gpu=False)


def as_values(picture):
    return np.asarray(Image.open(picture), np.float32).transpose(2, 0, 1) / 127.5 - 1


def test_the_model_describes_itself(client, digits_bundle):
    manifest, model = read_bundle(digits_bundle).manifest, client.get_model()
    assert (model.name, model.version, model.family) == (manifest.name, manifest.version, "iin")
    assert [(f.name, f.start, f.size) for f in model.factors] == [(f.name, f.start, f.size) for f in manifest.factors]
    assert {figure.name for figure in model.evaluation} == set(manifest.evaluation)
    assert model.limits.max_items > 0


def test_interpret_gives_what_the_graphs_give(client, pictures, sessions):
    found = client.interpret(pictures)
    latents = sessions.run("encoder", np.stack([as_values(picture) for picture in pictures]))[0]
    factors, log_dets = sessions.run("transform", latents)
    np.testing.assert_allclose(found.latents, latents, atol=1e-4)
    np.testing.assert_allclose(found.factors, factors, atol=1e-4)
    expected = -0.5 * (np.square(factors) + np.log(2 * np.pi)).sum(axis=1) + log_dets
    np.testing.assert_allclose(found.log_likelihoods, expected, atol=1e-2)


def test_every_kind_of_input_is_the_same_item(client, pictures):
    (values, picture) = as_values(pictures[0]), Image.open(pictures[0])
    whole = client.interpret(pictures[0])
    jpeg = io.BytesIO()
    picture.save(jpeg, "WEBP", lossless=True)
    for given in (picture, pictures[0].read_bytes(), jpeg.getvalue(), RawImage(values), RawImage(values[None])):
        np.testing.assert_allclose(client.interpret(given).factors, whole.factors, atol=1e-4)
    for given in (Latent(whole.latents), Latent(whole.latents[0]), Factors(whole.factors)):
        np.testing.assert_allclose(client.interpret(given).factors, whole.factors, atol=1e-3)


def test_a_resized_picture_is_interpreted_on_request(client, pictures):
    large = Image.open(pictures[0]).resize((100, 80))
    assert np.isfinite(client.interpret(large, resize=True).factors).all()


def test_every_edit_changes_its_factor_only(client, pictures):
    model, before = client.get_model(), client.interpret(pictures[:3]).factors
    size = next(factor.size for factor in model.factors if factor.name == "digit")
    edits = [
        Replace("digit", pictures[3], 0.5),
        SetValue("digit", np.ones(size)),
        Resample("digit", seed=3),
        Shift("digit", np.ones(size), 2.0),
    ]
    for edit in edits:
        after = client.edit(Factors(before), edit).factors
        changed, kept = model.split(after), model.split(before)
        assert not np.allclose(changed["digit"], kept["digit"])
        for name in ("residual", "colour"):
            np.testing.assert_array_equal(changed[name], kept[name])


def test_interpreting_once_and_editing_often_equals_editing_pictures(client, pictures):
    factors = client.interpret(pictures[:2]).factors
    swap = client.edit(pictures[0], Replace("colour", pictures[1]), output="raw").images.raw
    again = client.edit(Factors(factors[0]), Replace("colour", Factors(factors[1])), output="raw").images.raw
    np.testing.assert_allclose(swap, again, atol=1e-3)


def test_several_edits_apply_in_order(client, pictures):
    model = client.get_model()
    size = next(factor.size for factor in model.factors if factor.name == "digit")
    edits = [SetValue("digit", np.zeros(size)), Shift("digit", np.ones(size), 1.0), Replace("colour", pictures[1])]
    after = model.split(client.edit(pictures[:2], edits).factors)
    np.testing.assert_allclose(after["digit"], 1 / np.sqrt(size), atol=1e-6)
    np.testing.assert_allclose(after["colour"][0], after["colour"][1], atol=1e-4)


def test_samples_arrive_in_order_and_do_not_depend_on_their_number(client):
    many = list(client.sample(70, seed=7, output="raw"))
    few = list(client.sample(5, seed=7, output="raw"))
    assert [part.first_index for part in many] == sorted(part.first_index for part in many)
    factors = np.concatenate([part.factors for part in many])
    assert len(factors) == 70
    np.testing.assert_array_equal(few[0].factors, factors[:5])
    np.testing.assert_allclose(few[0].images.raw, many[0].images.raw[:5], atol=1e-4)


def test_a_fixed_factor_is_held_in_every_sample(client, pictures):
    model, source = client.get_model(), client.interpret(pictures[0])
    (part,) = client.sample(6, fixed={"colour": pictures[0]})
    colour = model.split(part.factors)["colour"]
    np.testing.assert_allclose(colour, np.tile(model.split(source.factors)["colour"], (6, 1)), atol=1e-4)


def test_many_callers_get_what_one_gets_and_share_batches(service, client, pictures):
    async def crowd():
        async with AsyncClient(service.address, timeout=60) as many:
            return await asyncio.gather(*(many.interpret(pictures[i % len(pictures)]) for i in range(128)))

    alone = client.interpret(pictures).factors
    answers = asyncio.run(crowd())
    for index, found in enumerate(answers):
        np.testing.assert_allclose(found.factors[0], alone[index % len(pictures)], atol=1e-4)
    assert max(stage.batch_size for found in answers for stage in found.timing.stages) > 1


def test_every_answer_says_where_its_time_went(client, pictures):
    timing = client.edit(pictures[0], Replace("digit", pictures[1])).timing
    assert [stage.stage for stage in timing.stages][-2:] == ["inverse", "decoder"]
    assert timing.queue_ms == pytest.approx(sum(stage.queue_ms for stage in timing.stages))
    assert timing.total_ms >= timing.codec_ms > 0
    assert all(stage.compute_ms > 0 and stage.batch_size >= 1 for stage in timing.stages)
