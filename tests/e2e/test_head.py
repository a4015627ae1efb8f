"""A model with a head on a live service: class probabilities, and how classes respond to factors drawn anew."""

import json
import os
import subprocess

import numpy as np
import pytest
from grpc import StatusCode
from iin_client import CallError, RawImage, Resample
from iin_service.edits import Purpose, draw_prior
from iin_service.sessions import Sessions

from tests.service.test_other_models import Served

from .conftest import BIN, serving

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


@pytest.fixture(scope="module")
def headed(tmp_path_factory):
    return Served("ONNX files", tmp_path_factory.mktemp("headed"))


@pytest.fixture(scope="module")
def service(headed, tmp_path_factory):
    with serving(headed.bundle.directory, tmp_path_factory.mktemp("service") / "log", "--name", "headed") as running:
        yield running


@pytest.fixture
def images(headed):
    return RawImage(headed.images[:3].numpy())


@pytest.fixture(scope="module")
def sessions(headed):
    return Sessions(headed.bundle, threads=1, gpu=False)


def test_interpretations_and_edits_have_the_heads_probabilities(client, images, sessions):
    found = client.interpret(images)
    (expected,) = sessions.run("head", found.latents)
    assert found.probabilities.shape == (3, 5)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    edited = client.edit(images, Resample("shape", seed=2), output="none", latents=True)
    (expected,) = sessions.run("head", edited.latents)
    np.testing.assert_allclose(edited.probabilities, expected, atol=1e-5)


def test_responses_are_what_the_graphs_give(client, images, headed, sessions):
    found, before = client.respond(images, draws=40, seed=3), client.interpret(images)
    layout = headed.bundle.manifest.layout
    np.testing.assert_allclose(found.probabilities, before.probabilities, atol=1e-5)
    assert list(found.factors) == list(layout.names)
    for factor, response in found.factors.items():
        assert response.mean_probabilities.shape == response.probability_deviations.shape == (3, 5)
        where = layout.slice(factor)
        values = draw_prior(3, range(40), layout.size, purpose=Purpose.RESPONSE)[:, where]
        for index in range(3):
            rows = np.tile(before.factors[index], (40, 1))
            rows[:, where] = values
            (drawn,) = sessions.run("head", sessions.run("inverse", rows)[0])
            classes = drawn.argmax(axis=1)
            np.testing.assert_allclose(response.mean_probabilities[index], drawn.mean(axis=0), atol=1e-4)
            np.testing.assert_allclose(response.probability_deviations[index], drawn.std(axis=0), atol=1e-4)
            changed = (classes != before.probabilities[index].argmax()).mean()
            # A draw may be on the edge.
            assert response.class_deviations[index] == pytest.approx(classes.std(), abs=0.2)
            assert response.class_changes[index] == pytest.approx(changed, abs=0.05)
    (alone,) = client.respond(images, ["shape"], draws=40, seed=3).factors.values()
    np.testing.assert_allclose(alone.mean_probabilities, found.factors["shape"].mean_probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "field", "told"),
    [
        ({"draws": 0}, "draws", "expected"),
        ({"factors": ["shape", "size"]}, "factors[1]", "expected one of residual, shape, got 'size'"),
    ],
)
def test_a_response_that_cannot_be_is_refused_with_its_field(client, images, given, field, told):
    with pytest.raises(CallError, match=told) as caught:
        client.respond(images, **given)
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in caught.value.violations] == [field]


def test_the_command_tells_responses(service, headed):
    picture = str(headed.bundle.directory / "samples" / "00-first.png")

    def iin(*words):
        environment = os.environ | {"IIN_ADDRESS": service.address}
        return subprocess.run(
            [BIN / "iin", *words], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    rows = [line.split("  ") for line in iin("respond", picture, "--draws", "20").splitlines()]
    (item,) = json.loads(iin("respond", picture, "--draws", "20", "--json"))["items"]
    assert list(item["factors"]) == ["residual", "shape"]
    assert [row[0] for row in rows] == ["image", picture, picture]
    for row, response in zip(rows[1:], item["factors"].values(), strict=True):
        told = [f"{response[name]:.2f}" for name in ("class_changes", "class_deviations")]
        assert [word.strip() for word in row if word][-2:] == told
