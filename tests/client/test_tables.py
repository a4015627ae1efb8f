"""Tables for people hold the model's facts and every item's factors."""

from dataclasses import replace

import numpy as np
import pytest
from iin_client import (
    FactorResponse,
    FactorSlice,
    Figure,
    Graph,
    ImageSpec,
    Interpretations,
    Limits,
    Model,
    Quantile,
    Responses,
    ServedModel,
    Timing,
)
from iin_client.tables import describe_interpretations, describe_model, describe_models, describe_responses


@pytest.fixture
def model():
    return Model(
        name="colours",
        version="3",
        family="iin",
        image=ImageSpec(channels=3, height=28, width=32, minimum=-1, maximum=1),
        latent_shape=(5,),
        factors=(FactorSlice(name="colour", start=0, size=2), FactorSlice(name="residual", start=2, size=3)),
        log_likelihood_quantiles=(Quantile(probability=0.5, value=-70.126),),
        evaluation=(
            Figure(name="kept", value=0.91234, ceiling=0.97, floor=0.1, meaning="share of swaps"),
            Figure(name="error", value=0.5, ceiling=None, floor=None, meaning="mean"),
        ),
        round_trip_error=1.7e-6,
        graphs=(Graph(role="encoder", sha256="ab" * 32, bytes=123),),
        recipe="color_mnist",
        data_set="ColorMNIST",
        created="2030-01-01T00:00:00Z",
        limits=Limits(
            max_items=32,
            max_samples=1000,
            max_edits=8,
            max_image_pixels=4096,
            max_message_bytes=67108864,
            max_batch_size=64,
            max_queued_items=512,
            stream_window=16,
            samples_per_message=32,
        ),
    )


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_a_description_states_factors_figures_and_limits(model):
    found = rows(describe_model(model))
    assert ["model", "colours", "3", "(iin)"] in found
    assert ["images", "3", "x", "28", "x", "32,", "from", "-1", "to", "1"] in found
    assert ["residual", "2", "3"] in found
    assert ["kept", "0.9123", "0.97", "0.1", "share", "of", "swaps"] in found
    assert ["error", "0.5", "-", "-", "mean"] in found
    assert ["0.5", "-70.13"] in found
    assert ["max", "queued", "items", "512"] in found


def test_columns_are_aligned(model):
    lines = describe_model(model).splitlines()
    header = next(line for line in lines if line.startswith("figure"))
    row = next(line for line in lines if line.startswith("kept"))
    assert header.index("meaning") == row.index("share")


@pytest.mark.parametrize("name", ["colour", "colour_of_the_background"])
def test_interpretations_state_likelihood_norm_and_values(name, model):
    model = replace(model, factors=(replace(model.factors[0], name=name), *model.factors[1:]))
    found = Interpretations(
        latents=np.zeros((2, 5), dtype=np.float32),
        factors=np.array([[3, -4, 0, 0, 1], [0, 0, 0, 0, 2]], dtype=np.float32),
        log_likelihoods=np.array([-80.126, -60.0]),
        log_likelihood_quantiles=np.array([0.25, 1.0]),
        probabilities=np.array([[0.125, 0.875], [1, 0]], dtype=np.float32),
        timing=Timing(total_ms=1, queue_ms=0, codec_ms=0, stages=()),
    )
    text = rows(describe_interpretations(["a.png", "b.png"], model, found))
    assert ["a.png", "-80.13", "0.250"] in text
    assert ["b.png", "-60.00", "1.000"] in text
    first, second = (index for index, row in enumerate(text) if row in (["a.png"], ["b.png"]))
    assert text[first + 1 : first + 4] == [
        [name, "|5.00|", "3.00", "-4.00"],
        ["residual", "|1.00|", "0.00", "0.00", "1.00"],
        ["probabilities", "0.12", "0.88"],
    ]
    assert text[second + 2] == ["residual", "|2.00|", "0.00", "0.00", "2.00"]


def test_models_are_listed_with_those_that_do_not_answer(model):
    served = [
        ServedModel(application="one", state="RUNNING", model=model),
        ServedModel(application="two", state="UNHEALTHY", model=None),
    ]
    header, one, two = rows(describe_models(served))
    assert header == ["application", "state", "model", "recipe", "factors"]
    assert one[:4] == ["one", "RUNNING", "colours", "3"]
    assert one[-2:] == ["colour:2", "residual:3"]
    assert two == ["two", "UNHEALTHY", "-", "-", "-"]


def test_responses_state_what_changes_the_class():
    some = np.zeros((1, 2), dtype=np.float32)
    digit = FactorResponse(
        mean_probabilities=some,
        probability_deviations=some,
        class_deviations=np.array([2.74]),
        class_changes=np.array([0.9]),
    )
    found = Responses(
        probabilities=np.array([[0.25, 0.75]], dtype=np.float32),
        factors={"digit": digit},
        timing=Timing(total_ms=1, queue_ms=0, codec_ms=0, stages=()),
    )
    assert rows(describe_responses(["a.png"], found))[1] == ["a.png", "1", "0.75", "digit", "0.90", "2.74"]
